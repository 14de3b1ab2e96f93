#!/usr/bin/env bash
# A run on a Cloud TPU of one host or many. Does the COMMANDs in the order given; what comes after -- are flags of
# amd_jax.main.
#
#   bash launch/tpu_pod.sh COMMAND... --name=NAME --zone=ZONE [OPTIONS] [-- --config=... --workdir=gs://... ...]
#
#   create     makes the TPU; does nothing where it is there, and makes one that was preempted anew
#   install    copies the commit that is checked out here to all hosts, and installs what it needs
#   start      starts the run on all hosts in the background; a host starts it again as launch/run_forever.sh says
#   log        shows what process 0 says until the run ends; Ctrl-C ends only the showing
#   stop       the run saves and ends, on all hosts
#   delete     gives the TPU back; what is on its disks is lost
#
#   --type=TYPE        as v5litepod-16 (default), v6e-8, v5p-32, v4-32
#   --version=VERSION  software of the hosts (default: what goes with the type)
#   --queued           asks for the TPU by a queued resource, and waits for it
#   --spot             a TPU that may be taken away, at a lower price
#   --project=PROJECT  default: gcloud's
#   --worker=N         whose log (default 0)
#   --poll=SECONDS     between questions for a queued TPU (default 30)
#   --dry_run          prints what would run, for a TPU that is not there yet
set -euo pipefail
. "$(dirname "$0")/lib.sh"

name='' type=v5litepod-16 version='' queued='' spot='' worker=0 poll=30 place=() commands=()
while [ $# -gt 0 ]; do
    case $1 in
    create | install | start | log | stop | delete) commands+=("$1") ;;
    --name=*) name=$(value "$1") ;;
    --zone=* | --project=*) value "$1" >/dev/null && place+=("$1") ;;
    --type=*) type=$(value "$1") ;;
    --version=*) version=$(value "$1") ;;
    --queued) queued=yes ;;
    --spot) spot=yes ;;
    --worker=*) worker=$(number "$1") ;;
    --poll=*) poll=$(number "$1") ;;
    --dry_run) dry_run=yes ;;
    --help) help ;;
    --) shift && break ;;
    *) fail "$1: not understood; commands are create, install, start, log, stop, delete; see --help" ;;
    esac
    shift
done
[ ${#commands[@]} -gt 0 ] || fail "no command: create, install, start, log, stop or delete; see --help"
[ -n "$name" ] || fail "--name=NAME is missing"
case " ${place[*]-} " in *' --zone='*) ;; *) fail "--zone=ZONE is missing" ;; esac
case " ${commands[*]} " in *' start '*) [ $# -gt 0 ] || fail "start: no flags of a run; they come after --" ;; esac
if [ -z "$version" ]; then
    case $type in
    v6e-*) version=v2-alpha-tpuv6e ;;
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v[234]-*) version=tpu-ubuntu2204-base ;;
    *) fail "--type=$type: which software goes with it is not known here; give --version" ;;
    esac
fi
vm=(gcloud compute tpus tpu-vm) queue=(gcloud compute tpus queued-resources)

# A shell command on the hosts of a TPU: WORKERS COMMAND.
on() { run "${vm[@]}" ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"; }

# Sets `state`; empty where there is no such TPU.
ask() {
    state=
    if [ -n "$dry_run" ]; then
        run "$@"
    else
        state=$("$@" 2>/dev/null) || state=
    fi
}

create() {
    local options=("--accelerator-type=$type")
    [ -z "$spot" ] || options+=(--spot)
    if [ -n "$queued" ]; then
        create_queued "${options[@]}"
        return
    fi
    ask "${vm[@]}" describe "$name" "${place[@]}" '--format=value(state)'
    case $state in
    READY) echo "$name is there" && return ;;
    PREEMPTED | TERMINATED) delete ;;
    '') ;;
    *) fail "$name is $state; wait, or delete it" ;;
    esac
    run "${vm[@]}" create "$name" "${place[@]}" "--version=$version" "${options[@]}"
}

create_queued() {
    local describe=("${queue[@]}" describe "$name" "${place[@]}" '--format=value(state.state)')
    ask "${describe[@]}"
    case $state in
    SUSPENDING | SUSPENDED | FAILED) delete && state= ;;
    esac
    if [ -z "$state" ]; then
        run "${queue[@]}" create "$name" "--node-id=$name" "${place[@]}" "--runtime-version=$version" "$@"
        ask "${describe[@]}"
    fi
    while [ -z "$dry_run" ] && [ "$state" != ACTIVE ]; do
        case $state in
        SUSPENDING | SUSPENDED | FAILED) fail "$name is $state; gcloud compute tpus queued-resources describe says why" ;;
        esac
        echo "$name: ${state:-not known yet}"
        sleep "$poll"
        ask "${describe[@]}"
    done
}

install() {
    local archive=${TMPDIR:-/tmp}/amd_jax-$name.tar.gz
    [ -n "$dry_run" ] || [ -z "$(git status --porcelain)" ] || echo "warning: what is not committed stays here" >&2
    run git archive "--output=$archive" HEAD
    run "${vm[@]}" scp "$archive" "$name:amd_jax.tar.gz" "${place[@]}" --worker=all
    on all "mkdir -p amd_jax && cd amd_jax && rm -rf amd_jax configs launch && tar -xzf ../amd_jax.tar.gz && bash launch/tpu_host.sh"
}

start() {
    local main=(.venv/bin/python -m amd_jax.main --distributed "$@")
    local loop=(env "LIBTPU_INIT_ARGS=$libtpu_init_args" bash launch/run_forever.sh --background=run.log -- "${main[@]}")
    on all "cd amd_jax && $(quoted "${loop[@]}")"
}

# shellcheck disable=SC2016 # the host knows the number
log() { on "$worker" 'cd amd_jax && tail -n 100 -F run.log --pid="$(cat run.log.pid)"'; }

stop() { on all 'cd amd_jax && bash launch/run_forever.sh --stop=run.log'; }

delete() {
    if [ -n "$queued" ]; then
        run "${queue[@]}" delete "$name" "${place[@]}" --force --quiet
    else
        run "${vm[@]}" delete "$name" "${place[@]}" --quiet
    fi
}

for command in "${commands[@]}"; do
    "$command" "$@"
done
