#!/usr/bin/env bash
# Everything that a CPU cannot show, on one GPU, in under ten minutes: see amd_jax/gpu_check/__main__.py. Installs
# nothing, since the machine may reach no package index: Python needs jax with CUDA, flax, optax, ml-collections and
# safetensors. Without a GPU, or with --cpu, the sizes are small. All arguments are passed on.
#   PYTHON=python3.12 bash launch/gpu_check.sh --json=gpu.json
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
for module in jax flax optax ml_collections safetensors; do
    "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is None)" || {
        echo "error: $module is not installed; $PYTHON -m pip install 'jax[cuda13]' flax optax ml-collections safetensors" >&2
        exit 2
    }
done
exec "$PYTHON" -m amd_jax.gpu_check "$@"
