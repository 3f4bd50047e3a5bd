# How a cluster fares. The daemons are asked over their own sockets: they answer at once, also where
# the monitor is dead, and know more about themselves than its map, which is late. To be sourced.
# shellcheck shell=bash

# The processes, whatever they do.
all_run() {
    local name
    for name in $(daemon_names); do find_process "$name" || return 1; done
}

# "NAME STATE" for each daemon, in lines.
daemon_states() {
    local name
    local -a running=()
    for name in $(daemon_names); do
        if ! find_process "$name"; then
            printf '%s\n' "$name down"
        elif process_is_stopped; then
            printf '%s\n' "$name stopped by a signal"
        else
            running+=("$name")
        fi
    done
    ask_states "${running[@]}"
}

# ask_states NAME...: of processes that run, who may not answer.
ask_states() { "$PYTHON" "$HERE/ceph/states.py" "$DIR/run" "$@"; }

# Reads what daemon_states prints: whether each is at work.
are_ready() { ! grep -vE '^(mon\.a leader|mgr\.a active|osd\.[0-9]+ active|mds\.a up:active)$' >/dev/null; }

print_status() {
    local states name state ready=no health
    states=$(daemon_states)
    ! are_ready <<<"$states" || ready=yes
    while read -r name state; do
        PROCESS_PID=''
        find_process "$name" || PROCESS_PID='-'
        printf '%-8s %-8s %s\n' "$name" "$PROCESS_PID" "$state"
    done < <(sort <<<"$states")
    for name in $(recorded_names 'fuse.*'); do
        ! find_process "$name" || printf '%-8s %-8s %s\n' mount "$PROCESS_PID" "$(cat "$DIR/run/$name.mount")"
    done
    health='unknown, since mon.a does not answer'
    ! grep -qx 'mon.a leader' <<<"$states" || health=$(ask health 2>/dev/null) || true
    printf '%-8s %s\n' health "$health"
    [ "$ready" = yes ]
}

# ask COMMAND...: of the monitor, for no longer than 10 s.
ask() { timeout 10 ceph -c "$DIR/ceph.conf" "$@"; }

wait_until_ready() {
    local deadline=$((SECONDS + $1))
    wait_for "$1" "the daemons" daemons_are_ready && wait_for $((deadline - SECONDS)) mgr.a mgr_takes_commands
}

daemons_are_ready() {
    local name
    # A daemon that has ended will not become ready.
    for name in "${LAUNCHED[@]}"; do
        find_process "$name" || die "$name has ended; see $DIR/log/$name.out"
    done
    daemon_states | are_ready
}

mgr_takes_commands() { ask mgr stat 2>/dev/null | grep -q '"available": true'; }

# The manager hears from each OSD once a second: what it says is believed when that has passed.
wait_until_clean() {
    local deadline=$((SECONDS + $1))
    until wait_until_ready $((deadline - SECONDS)) && pgs_are_clean && sleep 2 && pgs_are_clean &&
        daemon_states | are_ready; do
        [ "$SECONDS" -lt "$deadline" ] || die "not all is up and copied after $1 s; see: ceph -c $DIR/ceph.conf -s"
        sleep 0.2
    done
}

# "48 pgs: 47 active+clean, 1 active+clean+scrubbing; ...": no state is another.
pgs_are_clean() {
    local said
    said=$(ask pg stat 2>/dev/null) || return 1
    [[ $said =~ ^[0-9]+\ pgs:\ ([^;]*)\; ]] || return 1
    ! tr ',' '\n' <<<"${BASH_REMATCH[1]}" | grep -qv 'active+clean'
}
