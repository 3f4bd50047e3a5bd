# Making, starting and ending the daemons of a cluster. To be sourced.
# shellcheck shell=bash

readonly CEPH_PACKAGES=(ceph-mon ceph-mgr ceph-mgr-modules-core ceph-osd ceph-mds ceph-fuse ceph-common)
# What the manager loads in any case; with more it takes seconds longer to start, and twice the memory.
readonly MGR_MODULES=(balancer crash devicehealth orchestrator pg_autoscaler progress rbd_support status
    telemetry volumes)
readonly MGR_MODULES_DIR=/usr/share/ceph/mgr

install_ceph() {
    (need_packages "${CEPH_PACKAGES[@]}") || unavailable "the Ceph packages cannot be installed; see above"
}

check_options() {
    case $STORE in
    '' | memstore | bluestore) ;;
    *) die "--store is memstore or bluestore, not $STORE" ;;
    esac
    [[ $OSDS =~ ^([2-9]|1[0-6])?$ ]] || die "--osds is a number from 2 (each object is kept twice) to 16"
    [[ $FS =~ ^[A-Za-z0-9_-]*$ ]] || die "--fs is letters, digits, _ and -"
}

daemon_names() {
    printf '%s\n' mon.a mgr.a
    osd_names
    printf '%s\n' mds.a
}

osd_names() { seq -f 'osd.%g' 0 $((OSDS - 1)); }

any_osd_runs() {
    local name
    for name in $(osd_names); do
        ! find_process "$name" || return 0
    done
    return 1
}

# launch_daemon NAME: unless it runs.
launch_daemon() {
    ! find_process "$1" || return 0
    rm -f "$DIR/run/$1.asok"
    launch "$1" "ceph-${1%%.*}" -f -c "$DIR/ceph.conf" -i "${1#*.}"
}

start_missing() {
    local name
    if all_run; then say "the cluster in $DIR runs already"; else say "starting the cluster in $DIR"; fi
    launch_daemon mon.a
    mon_comes_up || die "mon.a does not start; see $DIR/log/mon.a.out"
    for name in $(daemon_names); do launch_daemon "$name"; done
}

create_cluster() {
    STORE=${STORE:-memstore} OSDS=${OSDS:-3} FS=${FS:-cephfs}
    say "making a cluster in $DIR: $OSDS OSDs, $STORE"
    rm -f "$DIR"/log/*
    mkdir "$DIR/crash" "$DIR/mgr.a" "$DIR/mds.a"
    [ "$STORE" = memstore ] || check_direct_io
    write_settings
    FSID=$(cat /proc/sys/kernel/random/uuid)
    make_keys
    link_mgr_modules
    start_first_mon
    launch_daemon mgr.a
    make_osds
    run_commands
    local name
    for name in $(daemon_names); do launch_daemon "$name"; done
    : >"$DIR/made"
}

# Bluestore opens its file with O_DIRECT, and says little where that fails.
check_direct_io() {
    dd if=/dev/zero of="$DIR/probe" bs=4096 count=1 oflag=direct status=none 2>/dev/null ||
        die "bluestore needs O_DIRECT, which $(stat -f -c %T "$DIR") in $DIR does not have; give another --dir"
    rm "$DIR/probe"
}

# The administrator's key is alone in a file, which clients read.
make_keys() {
    local all=(--cap mon 'allow *' --cap osd 'allow *' --cap mds 'allow *' --cap mgr 'allow *') name
    ceph-authtool -C "$DIR/keyring" --gen-key -n client.admin "${all[@]}"
    ceph-authtool -C "$DIR/daemons.keyring" --gen-key -n mon. --cap mon 'allow *'
    add_key mgr.a --cap mon 'allow profile mgr' --cap osd 'allow *' --cap mds 'allow *'
    add_key mds.a --cap mon 'allow profile mds' --cap osd 'allow rwx' --cap mds allow --cap mgr 'allow profile mds'
    for name in $(osd_names); do
        add_key "$name" --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd'
    done
    cat "$DIR/daemons.keyring" "$DIR/keyring" >"$DIR/first.keyring"
} >/dev/null

add_key() {
    local name=$1
    shift
    ceph-authtool "$DIR/daemons.keyring" --gen-key -n "$name" "$@"
}

link_mgr_modules() {
    mkdir "$DIR/mgr-modules"
    local module
    for module in "$MGR_MODULES_DIR"/*.py "${MGR_MODULES[@]/#/$MGR_MODULES_DIR/}"; do
        ln -s "$module" "$DIR/mgr-modules/"
    done
}

# Its ports are chosen; if another process takes one first, others are.
start_first_mon() {
    local attempt port_v2 port_v1
    for attempt in 1 2 3 4 5; do
        free_ports
        MON_HOST="[v2:127.0.0.1:$port_v2,v1:127.0.0.1:$port_v1]"
        write_conf
        rm -rf "$DIR/mon.a" "$DIR/log/mon.a.out"
        monmaptool --create --clobber --fsid "$FSID" --addv a "$MON_HOST" "$DIR/monmap" >/dev/null
        ceph-mon --mkfs -c "$DIR/ceph.conf" -i a --monmap "$DIR/monmap" --keyring "$DIR/first.keyring" >&2
        launch_daemon mon.a
        ! mon_comes_up || break
        grep -q 'Address already in use' "$DIR/log/mon.a.out" && [ "$attempt" -lt 5 ] ||
            die "mon.a does not start; see $DIR/log/mon.a.out"
    done
    rm "$DIR/first.keyring" "$DIR/monmap"
}

# free_ports: two on which nobody listens, below those that connections get, above Ceph's own.
free_ports() {
    local end used
    read -r end _ </proc/sys/net/ipv4/ip_local_port_range
    [ "$end" -gt 11000 ] || end=32768
    used=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | sed -n 's/^ *[0-9]*: [0-9A-F]*:\([0-9A-F]*\) .*/\1/p')
    local -a found
    mapfile -t found < <(shuf -i "10000-$((end - 1))" -n 100 | while read -r port; do
        grep -qx "$(printf '%04X' "$port")" <<<"$used" || printf '%s\n' "$port"
    done)
    port_v2=${found[0]} port_v1=${found[1]}
}

mon_comes_up() { wait_for 30 mon.a mon_is_decided && find_process mon.a; }

# It leads once it has bound its ports.
mon_is_decided() { process_ended mon.a || grep -q leader < <(ask_states mon.a); }

make_osds() {
    local name pids=() pid
    for name in $(osd_names); do
        mkdir "$DIR/$name"
        cat /proc/sys/kernel/random/uuid >"$DIR/$name.uuid"
        ceph-osd --mkfs -c "$DIR/ceph.conf" -i "${name#osd.}" --osd-uuid "$(<"$DIR/$name.uuid")" \
            >>"$DIR/log/$name.out" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || die "an OSD's store cannot be made; see $DIR/log/osd.*.out"; done
}

# One process of "ceph" runs all commands: each start of it costs more than they do. It has no exit
# code for them, so what it says is looked at.
run_commands() {
    {
        # A pool of its own that nobody needs. The option is the manager's, who is not there yet.
        printf '%s\n' 'config set mgr mgr/devicehealth/enable_monitoring false --force'
        local name
        for name in $(osd_names); do printf '%s\n' "osd new $(<"$DIR/$name.uuid") ${name#osd.}"; done
        printf '%s\n' "osd pool create ${FS}_metadata 16 16" "osd pool create ${FS}_data 32 32" \
            "fs new $FS ${FS}_metadata ${FS}_data"
    } >"$DIR/log/commands"
    timeout 60 ceph -c "$DIR/ceph.conf" <"$DIR/log/commands" >"$DIR/log/commands.out" 2>&1 ||
        die "the monitor does not answer; see $DIR/log"
    ! grep Error "$DIR/log/commands.out" >&2 || die "the monitor refused a command; see $DIR/log/commands.out"
}

# Ends everything; and its data, if it was in memory or never complete.
end_cluster() {
    local name signal=TERM
    for name in $(recorded_names 'fuse.*'); do end_mount "$name" yes; done
    # On SIGTERM, a store in memory writes all it has to disk.
    [ -f "$DIR/made" ] && ! grep -qx STORE=memstore "$DIR/settings" || signal=KILL
    for name in $(recorded_names '[mo]*.*'); do signal_process "$name" "$signal"; done
    for name in $(recorded_names '[mo]*.*'); do end_process "$name" "$signal" 20; done
    [ "$signal" = TERM ] || forget_data
}

# The logs stay, to say why it failed; and what it was like, for the next.
forget_data() {
    local entry
    rm -f "$DIR/made"
    for entry in "$DIR"/*; do
        case ${entry##*/} in
        log | run | settings) ;;
        *) rm -rf --one-file-system "$entry" ;;
        esac
    done
}

write_conf() {
    cat >"$DIR/ceph.conf" <<CONF
[global]
fsid = $FSID
mon_host = $MON_HOST
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = $DIR/keyring
run_dir = $DIR/run
crash_dir = $DIR/crash
log_file = $DIR/log/\$name.log
auth_allow_insecure_global_id_reclaim = false
# One host has all the copies.
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 2
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
mgr_stats_period = 1

[mon]
mon_data = $DIR/mon.\$id
keyring = $DIR/daemons.keyring
admin_socket = $DIR/run/\$name.asok
mon_cluster_log_file = $DIR/log/cluster.log
mon_allow_pool_delete = true
# For a port that is not free.
ms_bind_retry_delay = 1
mon_data_avail_warn = 2
mon_data_avail_crit = 1
# One OSD on the same host says that another is down.
mon_osd_reporter_subtree_level = osd
mon_osd_min_down_reporters = 1
mon_osd_adjust_heartbeat_grace = false
# Changes of maps are not gathered for a second each.
paxos_propose_interval = 0.1

[mgr]
mgr_data = $DIR/mgr.\$id
keyring = $DIR/daemons.keyring
admin_socket = $DIR/run/\$name.asok
mgr_module_path = $DIR/mgr-modules
mgr_initial_modules =

[osd]
osd_data = $DIR/osd.\$id
keyring = $DIR/daemons.keyring
admin_socket = $DIR/run/\$name.asok
osd_objectstore = $STORE
memstore_device_bytes = 4294967296
bluestore_block_size = 10737418240
bluestore_cache_autotune = false
bluestore_cache_size = 67108864
# Heartbeats also tell of new maps, without which nothing goes on after a failure. One that hangs is
# still noticed after osd_heartbeat_grace, 20 s.
osd_heartbeat_interval = 1
# Copies are not made slowly to spare a disk.
osd_recovery_sleep_hdd = 0
osd_recovery_sleep_ssd = 0
osd_recovery_max_active = 16
osd_max_backfills = 8

[mds]
mds_data = $DIR/mds.\$id
keyring = $DIR/daemons.keyring
admin_socket = $DIR/run/\$name.asok
mds_cache_memory_limit = 536870912
CONF
}
