#!/usr/bin/env bash
# Sets up one host of a TPU; launch/tpu_pod.sh runs it on all of them. Run again, it installs only what is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# Sets PYTHON to one that works; false where there is none.
find_python() {
    for PYTHON in .venv/bin/python python3.13 python3.12 python3.11; do
        ! "$PYTHON" -c 'import ensurepip' 2>/dev/null || return 0
    done
    return 1
}

if ! find_python; then
    # Ubuntu 22.04, which images of TPUs are made of, has 3.10. A fresh host is still updating itself.
    apt=(sudo apt-get -o DPkg::Lock::Timeout=600 --quiet --yes)
    "${apt[@]}" update
    "${apt[@]}" install python3.11 python3.11-venv
    PYTHON=python3.11
fi
. launch/setup_env.sh requirements-tpu.txt
. launch/setup_env.sh requirements-gcs.txt
# The TPU runtime of v5e and later starts and stops sooner with huge pages; jax warns where they are off.
pages=/sys/kernel/mm/transparent_hugepage/enabled
grep -q '\[always\]' $pages || echo always | sudo tee $pages >/dev/null || true
