# PYTHON=python3.12, NUMPY=1.26.4 and VENV=.venv-other choose another environment.
VENV ?= .venv
RUN = $(VENV)/bin/python
PYTEST = $(RUN) -m pytest -q -n auto --dist loadfile
COMPILE = $(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header
export VENV

.PHONY: setup setup-all quickstart test test-fast test-slow lint docs lock

# What training, prediction, export and their tests need.
setup:
	@bash requirements/setup.sh

# And what builds the documentation.
setup-all:
	@bash requirements/setup.sh all

quickstart: setup
	$(RUN) tools/train_net.py --config-file configs/quickstart.yaml

test: setup lint
	$(PYTEST) -m "not slow"

# While working: the parts whose tests are quickest, those of the method itself among them, without building each preset.
FAST = weighting test_losses.py golden config utils frameworks
test-fast: setup
	$(PYTEST) -m "not slow" --ignore tests/config/test_presets.py $(FAST:%=tests/%)

# What trains for more than a few steps or starts processes; and the documentation, whose links must hold.
test-slow: setup docs
	$(PYTEST) -m slow

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m mypy

# The site, in site/.
docs: setup-all
	$(RUN) -m wpl_d2.config > docs/reference/config.md
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

lock:
	$(COMPILE) pyproject.toml --extra detectron2 --extra quickstart --extra weights --extra clip --extra onnx --extra tiff --extra geo --extra s3 --extra ray --extra dev -c requirements/constraints.txt -o requirements/lock.txt
	$(COMPILE) --group docs -c requirements/lock.txt -o requirements/lock-docs.txt
