#!/usr/bin/env bash
# Everything that a CPU cannot show, on one GPU, in under ten minutes: see amd_jax/gpu_check/__main__.py. Installs
# nothing, since the machine may reach no package index: Python needs jax with CUDA, flax, optax, ml-collections and
# safetensors. Without a GPU, or with --cpu, the sizes are small. All arguments are passed on.
#   PYTHON=python3.12 bash launch/gpu_check.sh --json=gpu.json
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
for module in jax flax optax ml_collections safetensors; do
    if ! "$PYTHON" -c "import sys, importlib.util as i; sys.exit(i.find_spec('$module') is None)"; then
        echo "error: $module is not installed; $PYTHON -m pip install 'jax[cuda13]' flax optax ml-collections safetensors" >&2
        exit 2
    fi
done
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} PYTHONMALLOC=${PYTHONMALLOC:-malloc}
exec "$PYTHON" -m amd_jax.gpu_check "$@"
