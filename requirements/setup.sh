#!/usr/bin/env bash
# Make VENV (default .venv) with the locked requirements, Detectron2 and this project. Does nothing when it is up to date.
#   `setup.sh all` adds what builds the documentation.
#   PYTHON=python3.12 takes another interpreter, NUMPY=1.26.4 another numpy than the lock's.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}; python=${PYTHON:-python3}; stamp=$venv/.setup-stamp
want=$(cat requirements/*.txt requirements/setup.sh pyproject.toml | sha256sum; "$python" -V; echo "numpy ${NUMPY:-locked}")
done_before() { [ "$(cat "$1" 2>/dev/null)" = "$want" ]; }
uv() { "$venv/bin/uv" pip install -q --python "$venv/bin/python" "$@"; }

if ! done_before "$stamp"; then
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check uv==0.13.9
    uv --require-hashes --compile-bytecode -r requirements/lock.txt
    # Detectron2 is published only as a wheel tagged cp310, for the sake of a compiled extension that nothing here calls
    # and that would not load; its Python files are the official ones at commit a59f0563 and run on any version.
    site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$venv/bin/uv" pip install -q --no-deps --require-hashes --only-binary :all: --python-version 3.10 --target "$site" \
        -r requirements/detectron2.txt
    rm -rf "$site"/detectron2/_C.cpython-310-*.so "$site"/tools
    # What is compiled against numpy must follow it.
    [ -z "${NUMPY:-}" ] || uv "numpy==$NUMPY" scipy scikit-learn matplotlib
    uv --no-deps --no-build-isolation -e .
    "$venv/bin/python" -W ignore -c 'import torchvision, detectron2.model_zoo'
    echo "$want" > "$stamp"
fi
if [ "${1:-}" = all ] && ! done_before "$stamp-all"; then
    uv --require-hashes -r requirements/lock-docs.txt
    echo "$want" > "$stamp-all"
fi
