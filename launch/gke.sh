#!/usr/bin/env bash
# A run on a TPU in Google Kubernetes Engine, by launch/gke_jobset.yaml. What comes after -- are flags of amd_jax.main.
#
#   bash launch/gke.sh apply|log|delete --name=NAME [OPTIONS] [-- --config=... --workdir=gs://... ...]
#
#   apply    starts the run; log follows what process 0 says; delete ends it, after it has saved
#
#   --image=IMAGE        made by launch/Dockerfile with DEVICE=tpu, and pushed to where the cluster finds it
#   --accelerator=NAME   as tpu-v5-lite-podslice (default), tpu-v6e-slice, tpu-v5p-slice
#   --topology=AxB       of the TPU's node pool (default 4x4)
#   --chips=N            of a host (default 4)
#   --spot               on a node pool of spot machines
#   --account=NAME       the service account that may read and write the bucket (default: default)
#   --restarts=N         at most N starts after a host is gone or a preemption (default 100)
#   --dry_run            prints what would run
set -euo pipefail
. "$(dirname "$0")/lib.sh"

command='' name='' image='' accelerator=tpu-v5-lite-podslice topology=4x4 chips=4 spot='' account=default restarts=100
while [ $# -gt 0 ]; do
    case $1 in
    apply | log | delete) command=$1 ;;
    --name=*) name=$(value "$1") ;;
    --image=*) image=$(value "$1") ;;
    --accelerator=*) accelerator=$(value "$1") ;;
    --topology=*) topology=$(value "$1") ;;
    --chips=*) chips=$(number "$1") ;;
    --spot) spot=yes ;;
    --account=*) account=$(value "$1") ;;
    --restarts=*) restarts=$(number "$1") ;;
    --dry_run) dry_run=yes ;;
    --help) help ;;
    --) shift && break ;;
    *) fail "$1: not understood; commands are apply, log and delete; see --help" ;;
    esac
    shift
done
[ -n "$command" ] || fail "no command: apply, log or delete; see --help"
[[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] || fail "--name=$name: give small letters, digits and hyphens"

# A word as YAML, and JSON, have it.
# shellcheck disable=SC2001 # shells differ in what \\ and & mean in ${1//…}
string() { printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<<"$1")"; }

# Puts VALUE where `text` has $NAME, which it has once or more.
put() {
    local before='' rest=$text
    while [ "$rest" != "${rest#*"\$$1"}" ]; do
        before="$before${rest%%"\$$1"*}$2" rest=${rest#*"\$$1"}
    done
    text=$before$rest
}

# Sets `text` to the manifest for the run's flags.
manifest() {
    [ $# -gt 0 ] || fail "no flags of a run; they come after --"
    [ -n "$image" ] || fail "--image=IMAGE is missing; launch/Dockerfile says how to make one"
    [[ $topology =~ ^[0-9]+x[0-9]+(x[0-9]+)?$ ]] || fail "--topology=$topology: give chips as 4x4 or 2x2x4"
    local all=$((${topology//x/ * })) word arguments=''
    [ "$chips" -ge 1 ] && [ $((all % chips)) = 0 ] ||
        fail "--topology=$topology --chips=$chips: $all chips are not a whole number of hosts"
    for word in --distributed "$@"; do
        arguments="$arguments${arguments:+, }$(string "$word")"
    done
    text=$(grep -v '^#' launch/gke_jobset.yaml)
    [ -n "$spot" ] || text=$(grep -v 'cloud.google.com/gke-spot' <<<"$text")
    put NAME "$name"
    put RESTARTS "$restarts"
    put HOSTS $((all / chips))
    put ACCOUNT "$(string "$account")"
    put ACCELERATOR "$accelerator"
    put TOPOLOGY "$topology"
    put IMAGE "$(string "$image")"
    put CHIPS "$chips"
    put LIBTPU_INIT_ARGS "$(string "$libtpu_init_args")"
    put ARGS "[$arguments]"
}

case $command in
apply)
    manifest "$@"
    run_with "$text" kubectl apply -f -
    ;;
log)
    label=batch.kubernetes.io/job-completion-index=0
    become kubectl logs --follow --tail=100 "--selector=jobset.sigs.k8s.io/jobset-name=$name,$label"
    ;;
delete) run kubectl delete jobset "$name" ;;
esac
