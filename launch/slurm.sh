#!/usr/bin/env bash
# Submits a run to SLURM: a process for each GPU, on one node or several. What comes after -- are flags of amd_jax.main.
#
#   bash launch/slurm.sh [OPTIONS] -- --config=configs/vitb_in1k.py --workdir=/shared/runs/vitb ...
#
#   --nodes=N        nodes (default 1)
#   --gpus=N         GPUs of each node, and processes (default 8)
#   --cpus=N         CPUs of each process (default 8)
#   --time=TIME      time limit of one allocation, as 24:00:00 (default: the partition's)
#   --warning=S      seconds before that limit at which the run is told to save (default 180)
#   --restarts=N     an allocation is queued again at most N times (default 100)
#   --name=NAME      name of the job; its output is added to NAME-JOB.out (default amd_jax)
#   --sbatch=OPTION  any other option of sbatch, as --sbatch=--partition=gpu; may be repeated
#   --dry_run        prints what would run
#
# The job is queued again, and goes on, when its time is up, when it is preempted, and when a node is gone. `scancel`
# ends it for good, after it has saved. The workdir and this folder have to be seen by all nodes.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

nodes=1 gpus=8 cpus=8 time='' warning=180 restarts=100 name=amd_jax more=()
while [ $# -gt 0 ]; do
    case $1 in
    --nodes=*) nodes=$(number "$1") ;;
    --gpus=*) gpus=$(number "$1") ;;
    --cpus=*) cpus=$(number "$1") ;;
    --time=*) time=$(value "$1") ;;
    --warning=*) warning=$(number "$1") ;;
    --restarts=*) restarts=$(number "$1") ;;
    --name=*) name=$(value "$1") ;;
    --sbatch=*)
        option=$(value "$1")
        more+=("$option")
        ;;
    --dry_run) dry_run=yes ;;
    --help) help ;;
    --) shift && break ;;
    *) fail "$1: not understood; the run's own flags come after --" ;;
    esac
    shift
done
[ $# -gt 0 ] || fail "no flags of a run; they come after --, as in -- --config=configs/vitb_in1k.py --workdir=runs/vitb"
[ "$nodes" -ge 1 ] && [ "$gpus" -ge 1 ] || fail "--nodes=$nodes --gpus=$gpus: give numbers from 1"

gpu_environment
# jax learns from SLURM who else is there, and takes of the node's GPUs that of its SLURM_LOCALID. So every process has
# to see all of them: with --gpus-per-task it would see one.
main=(srun "--cpus-per-task=$cpus" "$PYTHON" -m amd_jax.main --distributed "$@")
# SLURM sends its warning to the processes alone; their 75 says that they saved. What ends the whole job, as scancel and
# preemption do, also reaches this shell: then SLURM itself knows whether the job shall come back.
script="#!/usr/bin/env bash
trap ended=yes TERM
$(quoted env "${gpu_environment[@]}" "${main[@]}")
code=\$?
case \$code in 75 | 76)
    [ -n \"\${ended:-}\" ] || [ \"\${SLURM_RESTART_COUNT:-0}\" -ge $restarts ] || scontrol requeue \"\$SLURM_JOB_ID\" ;;
esac
exit \$code"

job=("--job-name=$name" "--output=$name-%j.out" --open-mode=append --requeue "--signal=TERM@$warning")
job+=("--nodes=$nodes" "--ntasks-per-node=$gpus" "--gres=gpu:$gpus" "--cpus-per-task=$cpus")
[ -z "$time" ] || job+=("--time=$time")
run_with "$script" sbatch "${job[@]}" ${more[@]+"${more[@]}"}
