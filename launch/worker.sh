#!/usr/bin/env bash
# What `research.launch` has every worker (VM) of a TPU slice do.
#
#   worker.sh install             make the environment, unless it is there already
#   worker.sh exec COMMAND...     the command in that environment, from the code's folder
#   worker.sh start ID COMMAND... the same, detached; once per ID, however often asked
#   worker.sh follow OFFSET S     the log from a byte on, until the run ends or S seconds
#   worker.sh status              one line: salign-worker HOST ID STATE CODE BYTES
#   worker.sh log N               the last N lines of the log
#   worker.sh stop S              SIGTERM, S seconds to save, then SIGKILL
#
# STATE: idle, running, exited, stopped (by `stop`) or lost (gone without a code).
# Everything is in ~/salign (or $SALIGN_ROOT): code, venv, run (id, command, log, pid,
# code). No exit code here is 255: gcloud takes that for a broken connection.
set -euo pipefail

root=${SALIGN_ROOT:-$HOME/salign}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/venv
run=$root/run

install() {
    cd "$here"
    local wanted
    wanted=$(cat requirements.txt requirements-tpu.txt constraints.txt | sha256sum)
    if [ -f "$venv/installed" ] && [ "$(cat "$venv/installed")" = "$wanted" ]; then
        return
    fi
    rm -rf "$venv"
    mkdir -p "$root"
    # TPU images have Python 3.10 (Ubuntu 22.04) or no venv module: then uv brings one.
    if ! { python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' &&
        python3 -m venv "$venv"; }; then
        export PATH="$HOME/.local/bin:$PATH"
        command -v uv >/dev/null || python3 -m pip install --user --quiet uv
        rm -rf "$venv"
        uv venv --quiet --seed --python 3.12 "$venv"
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -r requirements.txt -r requirements-tpu.txt -c constraints.txt
    echo "$wanted" >"$venv/installed"
}

enter() {
    cd "$here"
    export PATH="$venv/bin:$PATH" PYTHONUNBUFFERED=1
}

boot() { cat /proc/sys/kernel/random/boot_id; }

alive() { # a process id means nothing after a reboot
    [ -f "$run/pid" ] && [ ! -f "$run/code" ] && [ "$(cat "$run/boot")" = "$(boot)" ] &&
        kill -0 "$(cat "$run/pid")" 2>/dev/null
}

start() {
    local id=$1
    shift
    if alive; then
        [ "$(cat "$run/id")" = "$id" ] && return # asked twice, e.g. by a retry of gcloud
        echo "another run is going on: $(cat "$run/command")" >&2
        exit 3
    fi
    if [ -d "$run" ]; then # its log is kept
        mv "$run" "$(mktemp -d "$root/earlier.XXXXXX")/"
    fi
    mkdir -p "$run"
    boot >"$run/boot"
    printf '%q ' "$@" >"$run/command"
    : >"$run/log"
    # Its own session: it outlives the connection, and a signal to the group reaches it.
    setsid nohup bash "$here/launch/worker.sh" supervise "$@" \
        >>"$run/log" 2>&1 </dev/null &
    echo $! >"$run/pid"
    echo "$id" >"$run/id"
}

supervise() {
    trap : TERM INT # the command gets the signal; this shell stays to note its code
    enter
    local code=0
    "$@" || code=$?
    echo "$code" >"$run/code.new"
    mv "$run/code.new" "$run/code"
}

follow() {
    if [ -f "$run/log" ]; then
        timeout "$2" tail --bytes="+$(($1 + 1))" --follow --sleep-interval=0.1 \
            --pid="$(cat "$run/pid")" "$run/log" || true
    fi
}

status() {
    local id=- state=idle code=- bytes=0
    if [ -f "$run/id" ]; then
        id=$(cat "$run/id")
        bytes=$(stat -c %s "$run/log")
        if alive; then
            state=running
        elif [ -f "$run/stopped" ]; then
            state=stopped
        elif [ -f "$run/code" ]; then
            state=exited
        else
            state=lost
        fi
        if [ -f "$run/code" ]; then code=$(cat "$run/code"); fi
    fi
    echo "salign-worker $HOSTNAME $id $state $code $bytes"
}

stop() {
    if ! alive; then return; fi
    local pid
    pid=$(cat "$run/pid")
    if [ ! -f "$run/stopped" ]; then # a second signal would cut the saving short
        touch "$run/stopped"
        kill -TERM -- "-$pid"
    fi
    for ((i = 0; i < 5 * $1; i++)); do
        if ! alive; then return; fi
        sleep 0.2
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    echo 137 >"$run/code"
}

verb=${1:?expected install, exec, start, follow, status, log or stop}
shift
case $verb in
exec)
    enter
    exec "$@"
    ;;
log) tail -n "$1" "$run/log" ;;
install | start | supervise | follow | status | stop) "$verb" "$@" ;;
*)
    echo "worker.sh: unknown verb $verb" >&2
    exit 2
    ;;
esac
