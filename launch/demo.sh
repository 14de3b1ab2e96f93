#!/usr/bin/env bash
# Trains a small MAE teacher on the embedded images, teaches a smaller student with AMD (and trains the same
# student with plain MAE for comparison), and prints their linear-probe and kNN accuracy. Under ten minutes on
# two cores after installing. Run again, it goes on where it stopped.
set -euo pipefail
. "$(dirname "$0")/setup_env.sh" requirements.txt
out=${1:-runs/demo}
train() { .venv/bin/python -m amd_jax.main "$@"; }

echo "== 1/4 the teacher: MAE"
train --config=configs/demo.py:teacher --workdir="$out/teacher"
echo "== 2/4 the student without a teacher: MAE"
train --config=configs/demo.py:mae --workdir="$out/mae"
echo "== 3/4 the student with the teacher: AMD"
train --config=configs/demo.py:amd --workdir="$out/amd" --config.teacher.weights="$out/teacher"
echo "== 4/4 linear probe and kNN of the frozen encoders"
.venv/bin/python -m amd_jax.probe --untrained "$out/mae" "$out/amd" "$out/teacher"
