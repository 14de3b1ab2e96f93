#!/usr/bin/env bash
# Lint, types and the whole test suite. Arguments go to pytest, as in: bash launch/test.sh -k masking
set -euo pipefail
. "$(dirname "$0")/setup_env.sh" requirements-test.txt
echo "== ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "== mypy"
.venv/bin/mypy
echo "== pytest"
.venv/bin/python -m pytest "$@"
