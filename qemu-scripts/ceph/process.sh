# Processes of a cluster: each writes who it is to DIR/run/NAME.pid before it becomes the program, so
# that none is ever forgotten and none is taken for another that got its id later. To be sourced.
# shellcheck shell=bash

# Names that this run has started.
LAUNCHED=()

# process_identity PID: when it was started, in which boot; nothing if there is no such process.
process_identity() {
    local stat
    local -a fields
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in brackets can contain anything. After it: the state, and 19 fields on the start.
    read -ra fields <<<"${stat##*) }"
    # A zombie is gone: only its parent has not looked.
    [ "${fields[0]}" != Z ] || return 1
    printf '%s\n' "${fields[19]}.$(cat /proc/sys/kernel/random/boot_id)"
}

# find_process NAME: whether it runs; PROCESS_PID is then its id.
find_process() {
    local identity
    PROCESS_PID=''
    read -r PROCESS_PID identity 2>/dev/null <"$DIR/run/$1.pid" || return 1
    [ "$(process_identity "$PROCESS_PID")" = "$identity" ]
}

# Whether the process that was found was stopped by a signal.
process_is_stopped() { grep -q '^State:.T' "/proc/$PROCESS_PID/status" 2>/dev/null; }

# launch NAME COMMAND...: starts it in the background, in a session of its own.
launch() {
    local name=$1 log=$DIR/log/$1.out
    shift
    LAUNCHED+=("$name")
    (
        trap - EXIT INT TERM HUP
        cd /
        self=$BASHPID
        printf '%s %s\n' "$self" "$(process_identity "$self")" >"$DIR/run/$name.new"
        mv "$DIR/run/$name.new" "$DIR/run/$name.pid"
        # A child of a script leads no group, so setsid stays the same process.
        exec setsid "$@"
    ) </dev/null >>"$log" 2>&1 8<&- &
    local pid=$! recorded=''
    # Bash has nothing to say about its end.
    disown "$pid"
    until [ "$recorded" = "$pid" ]; do
        kill -0 "$pid" 2>/dev/null || die "cannot start $name; see $log"
        read -r recorded _ 2>/dev/null <"$DIR/run/$name.pid" || sleep 0.01
    done
}

# process_ended NAME: for wait_for.
process_ended() { ! find_process "$1"; }

# end_process NAME SIGNAL SECONDS: a signal, a wait of no more than SECONDS, then SIGKILL.
end_process() {
    local name=$1
    signal_process "$name" "$2"
    wait_for "$3" "$name" process_ended "$name" 2>/dev/null || signal_process "$name" KILL
    wait_for 60 "$name to end" process_ended "$name" || die "$name does not end"
    rm -f "$DIR/run/$name.pid" "$DIR/run/$name.asok"
}

# signal_process NAME SIGNAL. One that hangs by SIGSTOP goes on, to take the signal.
signal_process() {
    find_process "$1" || return 0
    kill -"$2" "$PROCESS_PID" 2>/dev/null || true
    kill -CONT "$PROCESS_PID" 2>/dev/null || true
}

# recorded_names PATTERN: of processes in DIR/run, whether they run or not.
recorded_names() {
    local file
    # shellcheck disable=SC2231 # A pattern.
    for file in "$DIR"/run/$1.pid; do
        [ -e "$file" ] || continue
        file=${file##*/}
        printf '%s\n' "${file%.pid}"
    done
}
