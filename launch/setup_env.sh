# shellcheck shell=bash
# Sourced by the other scripts: makes .venv in the project's root and installs into it what is missing.
# usage: . launch/setup_env.sh REQUIREMENTS_FILE
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
    exit 2
}
if [ ! -x .venv/bin/python ]; then
    echo "== making .venv with $("$PYTHON" --version)"
    "$PYTHON" -m venv .venv
fi
stamp=.venv/installed-$(basename "$1")
if ! cat requirements*.txt | cmp -s - "$stamp"; then
    echo "== installing $1"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$1"
    cat requirements*.txt > "$stamp"
fi
# Large temporaries on the CPU: huge pages take away most page faults. Python's own allocator would not use them:
# on virtual machines where a page fault is dear, importing jax took 2.5 s of CPU time with it and 1.2 s without.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1} PYTHONMALLOC=${PYTHONMALLOC:-malloc}
