#!/bin/bash
# A real Ceph cluster with a CephFS on loopback, in a folder of its own: for development and tests.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib.sh
. "$HERE/lib.sh"
# shellcheck source=ceph/process.sh
. "$HERE/ceph/process.sh"
# shellcheck source=ceph/folder.sh
. "$HERE/ceph/folder.sh"
# shellcheck source=ceph/create.sh
. "$HERE/ceph/create.sh"
# shellcheck source=ceph/health.sh
. "$HERE/ceph/health.sh"
# shellcheck source=ceph/client.sh
. "$HERE/ceph/client.sh"

usage() {
    cat <<'USAGE'
usage: ceph-dev.sh COMMAND [--dir DIR] ...

The cluster:
  up [--store memstore|bluestore] [--osds N] [--fs NAME] [--until-pid PID]
                           starts it, with 1 MON, 1 MGR, N OSDs (default 3) and 1 MDS; prints CONF=,
                           KEYRING= and FS=. Does nothing if it runs. --until-pid: when that process
                           has ended, so does the cluster, and its folder is removed
  status                   what runs, and Ceph's own health; exit code 0 if everything runs and the
                           file system is active
  wait [SECONDS]           until that is so and each object has all its copies (default 120 s)
  down [--purge]           ends it; --purge also removes its folder

Single daemons: mon.a, mgr.a, mds.a, osd.0, osd.1, ...
  kill NAME                SIGKILL
  stop NAME, cont NAME     SIGSTOP, SIGCONT: a daemon that hangs
  start NAME               again, after kill

Clients:
  mount MOUNTPOINT [--path PATH] [--as NAME] [-o OPTIONS] [-- CEPH-FUSE-OPTION...]
                           mounts PATH with ceph-fuse, by the key of "client NAME" or the administrator
  umount MOUNTPOINT [--force]
                           --force: also if it is in use or hangs
  mkdir PATH [MODE]        a directory, with its parents; MODE is octal (default 755)
  rm PATH                  a directory and all in it
  client NAME PATH         a key for what is below PATH; prints CLIENT=, KEYRING= and PATH=
  subvolume NAME [--size BYTES]
                           a subvolume with a RADOS namespace and a key of its own; prints the same

  --dir DIR  where its data, logs and sockets are (default: pfs-ceph-UID in the folder for temporary
             files). Clusters in different folders run side by side.

Stores: "memstore" keeps data in memory: an OSD comes back empty after "kill" and copies from the
others, the cluster loses all by "down". "bluestore" keeps data in sparse files.

Then "ceph -c DIR/ceph.conf ..." works. Needs Debian 12; "up" installs Ceph by apt if it is missing.
Exit code 69 and a reason on stderr if it cannot be had on this machine.
USAGE
}

cmd_up() {
    check_options
    install_ceph
    claim_folder
    watch_process
    apply_settings
    trap abandon_start EXIT
    if has_data; then
        start_missing
    else
        end_cluster
        create_cluster
    fi
    wait_until_ready 120 || die "the cluster does not become ready; its logs are in $DIR/log"
    trap - EXIT
    printf '%s\n' "CONF=$DIR/ceph.conf" "KEYRING=$DIR/keyring" "FS=$FS"
}

# What the cluster in the folder is like already holds, unless it has no data.
apply_settings() {
    [ -f "$DIR/settings" ] || return 0
    local store=$STORE osds=$OSDS fs=$FS
    read_settings
    if has_data; then
        matches store "$store" "$STORE"
        matches osds "$osds" "$OSDS"
        matches fs "$fs" "$FS"
    else
        STORE=${store:-$STORE} OSDS=${osds:-$OSDS} FS=${fs:-$FS}
    fi
}

# matches WHAT WANTED HAS
matches() {
    [ -z "$2" ] || [ "$2" = "$3" ] || die "$DIR is a cluster with --$1 $3; first: down --purge"
}

# Whether there is something to start again: what was in memory went with its process.
has_data() { [ -f "$DIR/made" ] && { [ "$STORE" != memstore ] || any_osd_runs; }; }

# What this "up" has started goes, if it fails.
abandon_start() {
    local name
    note "see $DIR/log; it ends:"
    tail -q -n 3 "$DIR"/log/*.out >&2 2>/dev/null || true
    for name in "${LAUNCHED[@]}"; do end_process "$name" KILL 0; done
}

cmd_down() {
    if ! find_folder; then
        say "there is no cluster in $DIR"
        return
    fi
    end_cluster
    end_watch
    [ "$PURGE" = no ] || remove_folder
    say "$DIR: down"
}

cmd_status() {
    open_cluster
    print_status
}

cmd_wait() {
    open_cluster
    wait_until_clean "${1:-120}"
}

# The daemons that a test may hurt.
cmd_daemon() {
    local action=$1 name=$2
    open_cluster
    grep -qx -- "$name" < <(daemon_names) || die "no daemon $name here; there are: $(daemon_names | paste -sd' ')"
    lock_folder
    if [ "$action" = start ]; then
        launch_daemon "$name"
        return
    fi
    find_process "$name" || die "$name does not run"
    case $action in
    kill) end_process "$name" KILL 0 ;;
    stop) kill -STOP "$PROCESS_PID" ;;
    cont) kill -CONT "$PROCESS_PID" ;;
    esac
}

# Internal: "up --until-pid" leaves it behind.
cmd_watch() {
    local pid=$1 identity=$2
    while [ "$(process_identity "$pid")" = "$identity" ]; do sleep 0.5; done
    PURGE=yes
    cmd_down
}

COMMAND=${1:-}
case $COMMAND in
-h | --help) usage; exit 0 ;;
'') usage >&2; exit 2 ;;
esac
shift

DIR=${TMPDIR:-/tmp}/pfs-ceph-$(id -u)
STORE='' OSDS='' FS='' UNTIL_PID='' PURGE=no
SUBTREE=/ CLIENT=admin FORCE=no SIZE='' MOUNT_OPTIONS=() ARGS=()
while [ $# -gt 0 ]; do
    case $1 in
    --dir) DIR=${2:?--dir needs a folder}; shift ;;
    --store) STORE=${2:?--store needs memstore or bluestore}; shift ;;
    --osds) OSDS=${2:?--osds needs a number}; shift ;;
    --fs) FS=${2:?--fs needs a name}; shift ;;
    --until-pid) UNTIL_PID=${2:?--until-pid needs a process id}; shift ;;
    --purge) PURGE=yes ;;
    --path) SUBTREE=${2:?--path needs a path in the file system}; shift ;;
    --as) CLIENT=${2:?--as needs the name of a client}; shift ;;
    --force) FORCE=yes ;;
    --size) SIZE=${2:?--size needs bytes}; shift ;;
    -o) MOUNT_OPTIONS+=(-o "${2:?-o needs mount options}"); shift ;;
    -h | --help) usage; exit 0 ;;
    --) shift; MOUNT_OPTIONS+=("$@"); break ;;
    -*) usage >&2; die "unknown option $1" ;;
    *) ARGS+=("$1") ;;
    esac
    shift
done
# What a caller's environment says is not about this cluster.
unset CEPH_ARGS CEPH_CONF CEPH_KEYRING
umask 077
trap 'exit 130' INT
trap 'exit 143' TERM HUP
set_folder

# arguments LEAST MOST: how many there must be.
arguments() {
    if [ ${#ARGS[@]} -lt "$1" ] || [ ${#ARGS[@]} -gt "$2" ]; then
        usage >&2
        die "$COMMAND: wrong number of arguments"
    fi
}
case $COMMAND in
up | down | status) arguments 0 0; "cmd_$COMMAND" ;;
wait) arguments 0 1; cmd_wait "${ARGS[@]}" ;;
kill | stop | cont | start) arguments 1 1; cmd_daemon "$COMMAND" "${ARGS[0]}" ;;
mount | umount | rm) arguments 1 1; "cmd_$COMMAND" "${ARGS[0]}" ;;
mkdir) arguments 1 2; cmd_mkdir "${ARGS[@]}" ;;
client) arguments 2 2; cmd_client "${ARGS[@]}" ;;
subvolume) arguments 1 1; cmd_subvolume "${ARGS[0]}" ;;
watch) arguments 2 2; cmd_watch "${ARGS[@]}" ;;
*) usage >&2; die "unknown command $COMMAND" ;;
esac
