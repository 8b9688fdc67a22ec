# PYTHON=python3.12, NUMPY=1.26.4 and VENV=.venv-other choose another environment.
VENV ?= .venv
RUN = $(VENV)/bin/python
export VENV

.PHONY: setup quickstart test test-slow lint lock

setup:
	@bash requirements/setup.sh

quickstart: setup
	$(RUN) tools/train_net.py --config-file configs/quickstart.yaml

PYTEST = $(RUN) -m pytest -q -n auto --dist loadfile

test: setup lint
	$(PYTEST) -m "not slow"

# What trains for more than a few steps or starts processes.
test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m mypy

lock:
	$(VENV)/bin/uv pip compile -q pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header -c requirements/constraints.txt -o requirements/lock.txt
