#!/usr/bin/env bash
# Trains on the GPUs of this machine. What comes after -- are flags of amd_jax.main.
#
#   bash launch/gpu_node.sh [OPTIONS] -- --config=configs/vitb_in1k.py --workdir=runs/vitb ...
#
#   --gpus=N     the first N GPUs, 1 to 8 (default: all that CUDA_VISIBLE_DEVICES or nvidia-smi names)
#   --each       a process for each GPU, which read and decode data side by side; otherwise one process for all
#   --port=PORT  where the processes of --each meet (default 29411)
#   --dry_run    prints what would run, a process a line
#
# SIGTERM and Ctrl-C go on to the processes, which save and end with exit code 75; the same command goes on. With --each
# the exit code is that of the process that ended first other than with 0, since the others only miss it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

gpus='' each='' port=29411
while [ $# -gt 0 ]; do
    case $1 in
    --gpus=*) gpus=$(number "$1") ;;
    --each) each=yes ;;
    --port=*) port=$(number "$1") ;;
    --dry_run) dry_run=yes ;;
    --help) help ;;
    --) shift && break ;;
    *) fail "$1: not understood; the run's own flags come after --" ;;
    esac
    shift
done
[ $# -gt 0 ] || fail "no flags of a run; they come after --, as in -- --config=configs/vitb_in1k.py --workdir=runs/vitb"

devices=${CUDA_VISIBLE_DEVICES:-}
if [ -z "$devices" ] && [ -z "$gpus" ]; then
    devices=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, -) || true
    [ -n "$devices" ] || fail "nvidia-smi names no GPU; say how many there are: --gpus=N"
fi
[ -n "$devices" ] || devices=0,1,2,3,4,5,6,7
IFS=, read -r -a devices <<<"$devices"
gpus=${gpus:-${#devices[@]}}
[ "$gpus" -ge 1 ] && [ "$gpus" -le 8 ] || fail "--gpus=$gpus: give a number from 1 to 8"
[ "$gpus" -le ${#devices[@]} ] || fail "--gpus=$gpus: CUDA_VISIBLE_DEVICES has only ${#devices[@]}"
devices=("${devices[@]:0:$gpus}")

gpu_environment
main=("$PYTHON" -m amd_jax.main "$@")
if [ -z "$each" ] || [ "$gpus" = 1 ]; then
    # A process with several GPUs can hang where one of its threads frees memory while a collective is being started
    # on another GPU; NCCL then has to start them as one group.
    gpu_environment+=("NCCL_LAUNCH_MODE=${NCCL_LAUNCH_MODE:-GROUP}")
    visible=$(IFS=, && echo "${devices[*]}")
    become env "CUDA_VISIBLE_DEVICES=$visible" "${gpu_environment[@]}" "${main[@]}"
fi

signals='' children=()
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    signals="$signals $1"
    kill -s "$1" "${children[@]}" 2>/dev/null || true
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

place=(--distributed "--coordinator=127.0.0.1:$port" "--processes=$gpus")
set -m # process groups of their own, so that Ctrl-C reaches the processes once
for ((i = 0; i < gpus; i++)); do
    process=(env "CUDA_VISIBLE_DEVICES=${devices[i]}" "${gpu_environment[@]}" "${main[@]}" "${place[@]}" "--process=$i")
    if [ -n "$dry_run" ]; then
        echo "$(quoted "${process[@]}") &"
    else
        "${process[@]}" </dev/null &
        children+=($!)
    fi
done
set +m
if [ -n "$dry_run" ]; then
    echo wait
    exit 0
fi

first=0
while :; do
    before=$signals code=0
    wait -n || code=$?
    [ "$before" = "$signals" ] || continue # a signal to this script ended the waiting
    [ "$first" != 0 ] || first=$code
    [ -n "$(jobs -pr)" ] || break
done
exit "$first"
