# shellcheck shell=bash disable=SC2034
# Sourced by the launchers: bad arguments, dry runs, and what XLA is told on each kind of device.
# usage: . "$(dirname "$0")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
dry_run=

# One line and exit code 2, as everywhere.
fail() {
    echo "error: $*" >&2
    exit 2
}

# --help: the comment at the head of the script.
help() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "launch/$(basename "$0")"
    exit 0
}

# The value of --NAME=VALUE; an empty one is a mistake.
value() {
    [ -n "${1#*=}" ] || fail "${1%%=*}: give it a value, as in ${1%%=*}=VALUE"
    printf '%s' "${1#*=}"
}

# The value of --NAME=NUMBER.
number() {
    case ${1#*=} in
    '' | *[!0-9]*) fail "$1: give a whole number" ;;
    esac
    printf '%s' $((10#${1#*=})) # 08 is eight
}

# A command as a shell would have to read it. Only words that need quotes have them.
quoted() {
    local word line=''
    for word; do
        # shellcheck disable=SC2001 # shells differ in what \ means in ${word//…}
        case $word in
        *$'\n'*) printf -v word %q "$word" ;;
        '' | *[!A-Za-z0-9_@%+=:,./-]*) word="'$(sed "s/'/'\\\\''/g" <<<"$word")'" ;;
        esac
        line="$line $word"
    done
    printf '%s' "${line# }"
}

# Does what it is given; with --dry_run prints it instead, a command a line.
run() {
    if [ -n "$dry_run" ]; then
        quoted "$@"
        echo
    else
        "$@"
    fi
}

# Becomes the command, as the last thing that a launcher does: signals then are the command's.
become() {
    [ -n "$dry_run" ] || exec "$@"
    run "$@"
    exit 0
}

# The same with a text as the command's input.
run_with() {
    if [ -n "$dry_run" ]; then
        echo "$(quoted "${@:2}") <<'END'"
        echo "$1"
        echo END
    else
        echo "$1" | "${@:2}"
    fi
}

# XLA's flags, and what else the devices' libraries read. Of XLA_FLAGS and LIBTPU_INIT_ARGS what the environment has
# comes last, and XLA goes by the last: a flag is taken back with XLA_FLAGS=--that_flag=false. The others are replaced.

# GPUs: collectives run beside computation instead of stopping it.
gpu_flags=(
    # Orders a program so that collectives start as early and are waited for as late as possible.
    --xla_gpu_enable_latency_hiding_scheduler=true
    # Layers are a loop: the sums of one layer's gradients, and with mesh.fsdp the gathering of its parameters, may
    # go on in the turn for the next layer.
    --xla_gpu_enable_pipelined_all_reduce=true
    --xla_gpu_enable_pipelined_all_gather=true
    --xla_gpu_enable_pipelined_reduce_scatter=true
)

# Sets `gpu_environment` to NAME=VALUE... for `env`.
gpu_environment() {
    gpu_environment=(
        "XLA_FLAGS=${gpu_flags[*]}${XLA_FLAGS:+ $XLA_FLAGS}"
        # jax takes three quarters of a GPU's memory if it is not told otherwise; NCCL and cuDNN need the rest.
        "XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"
        # NCCL says why a connection failed; nothing otherwise.
        "NCCL_DEBUG=${NCCL_DEBUG:-WARN}"
    )
}

# TPUs: what their compiler is told, so that chips add gradients up while they go on, belongs to the step and stands in
# amd_jax/hardware.py. LIBTPU_INIT_ARGS is handed on, and a flag in it wins.
libtpu_init_args="${LIBTPU_INIT_ARGS:-}"
