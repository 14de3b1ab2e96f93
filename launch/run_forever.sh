#!/usr/bin/env bash
# Starts a command again each time it ends because of a signal with its state saved (exit code 75), or because another
# process of the run is gone (76). Any other exit code is passed on.
#
#   bash launch/run_forever.sh [OPTIONS] -- COMMAND ARGUMENTS...
#
#   --restarts=N       at most N times in a row without a new checkpoint in the command's --workdir (default 10)
#   --pause=SECONDS    before it starts again; doubles each time that there is no new checkpoint (default 5)
#   --longest=SECONDS  no pause is longer (default 300)
#   --background=FILE  returns at once; output is added to FILE, the number of this loop's process is in FILE.pid.
#                      Refused while that process is there
#   --stop=FILE        stops what --background=FILE started, and shows FILE until it has ended; takes no command
#   --dry_run          prints what would run
#
# SIGTERM and SIGINT to this loop go on to the command, and then it is not started again. Send them to the loop alone
# (kill PID; in systemd KillMode=mixed): at its second signal the command ends without saving.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

restarts=10 pause=5 longest=300 background='' stop=''
while [ $# -gt 0 ]; do
    case $1 in
    --restarts=*) restarts=$(number "$1") ;;
    --pause=*) pause=$(number "$1") ;;
    --longest=*) longest=$(number "$1") ;;
    --background=*) background=$(value "$1") ;;
    --stop=*) stop=$(value "$1") ;;
    --dry_run) dry_run=yes ;;
    --help) help ;;
    --) shift && break ;;
    *) fail "$1: not understood; the command comes after --" ;;
    esac
    shift
done

if [ -n "$stop" ]; then
    pid=$(cat "$stop.pid" 2>/dev/null) || fail "$stop.pid is not there: nothing was started with --background=$stop"
    if [ -z "$dry_run" ] && ! kill -0 "$pid" 2>/dev/null; then
        echo "process $pid has ended already"
        exit 0
    fi
    told=$(wc -c <"$stop") # what it says from now on is shown, also what it says before `tail` looks
    run kill "$pid"
    become tail -c "+$((told + 1))" -f "$stop" "--pid=$pid"
fi
[ $# -gt 0 ] || fail "no command; it comes after --"
if [ -n "$background" ]; then
    loop=(setsid nohup bash launch/run_forever.sh "--restarts=$restarts" "--pause=$pause" "--longest=$longest" -- "$@")
    if [ -n "$dry_run" ]; then
        echo "$(quoted "${loop[@]}") >> $(quoted "$background") 2>&1 < /dev/null & echo \$! > $(quoted "$background.pid")"
        exit 0
    fi
    if [ -e "$background.pid" ] && kill -0 "$(cat "$background.pid")" 2>/dev/null; then
        fail "process $(cat "$background.pid") writes to $background; stop it first: kill $(cat "$background.pid")"
    fi
    mkdir -p "$(dirname "$background")"
    "${loop[@]}" >>"$background" 2>&1 </dev/null &
    echo $! >"$background.pid"
    echo "process $!, which writes to $background"
    exit 0
fi
if [ -n "$dry_run" ]; then
    run "$@"
    exit 0
fi

workdir=
for word; do
    case $word in
    --workdir=*) workdir=${word#*=} ;;
    esac
done

# The number of the newest checkpoint; nothing where there is none. In a bucket an unfinished one is listed too: it
# counts as progress once.
newest() {
    case $workdir in
    '') ;;
    *://*) "$PYTHON" -c 'import sys
try:
    import fsspec
    system, path = fsspec.core.url_to_fs(sys.argv[1] + "/checkpoints")
    print(*(name.rstrip("/").rsplit("/", 1)[-1] for name in system.ls(path, detail=False)), sep="\n")
except FileNotFoundError:
    pass
except Exception as error:
    sys.exit(f"warning: checkpoints cannot be listed ({error})")' "$workdir" ;;
    *) ls "$workdir/checkpoints" 2>/dev/null ;;
    esac | grep -x '[0-9]*' | sort -n | tail -1 || true
}

# Sets `code` to the exit code of the command. With job control the command has a process group of its own: Ctrl-C in
# a terminal reaches it through this loop alone, and SIGINT is not ignored as in other background processes.
start() {
    local before
    set -m
    "$@" </dev/null &
    child=$!
    set +m
    [ -z "$signals" ] || kill -s "${signals##* }" "$child" 2>/dev/null || true # it came before there was a child
    while :; do
        before=$signals code=0
        wait "$child" || code=$?
        [ "$before" != "$signals" ] || break # it was not a signal to this loop that ended the waiting
    done
    child=
}

# A signal to this loop: noted, and passed on.
signals='' child='' sleeper=''
# shellcheck disable=SC2329 # the traps call it
pass_on() {
    signals="$signals $1"
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
    [ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null || true
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

without=0 next=$pause code=143 checkpoint=$(newest)
while [ -z "$signals" ]; do
    start "$@"
    [ "$code" = 75 ] || [ "$code" = 76 ] || exit "$code"
    [ -z "$signals" ] || exit "$code"
    last=$checkpoint checkpoint=$(newest)
    if [ "$checkpoint" != "$last" ]; then
        without=0 next=$pause
    fi
    without=$((without + 1))
    if [ "$without" -gt "$restarts" ]; then
        echo "error: started $restarts times more without a new checkpoint${workdir:+ in $workdir}" >&2
        exit "$code"
    fi
    echo "exit code $code; going on in $next s from checkpoint ${checkpoint:-none}" >&2
    if [ "$next" -gt 0 ]; then
        sleep "$next" &
        sleeper=$!
        [ -z "$signals" ] || kill "$sleeper" 2>/dev/null || true
        wait "$sleeper" || true
        sleeper=
    fi
    next=$((next * 2 < longest ? next * 2 : longest))
done
exit "$code"
