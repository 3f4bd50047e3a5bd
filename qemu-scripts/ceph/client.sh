# Clients of a cluster: keys, directories, mounts. To be sourced.
# shellcheck shell=bash

# Debian's own, for which Ceph's modules are; they come with the command "ceph".
readonly PYTHON=/usr/bin/python3

# check_client_name NAME: it becomes part of a file's name.
check_client_name() {
    [[ $1 =~ ^[A-Za-z0-9_-]+$ ]] || die "a client's name is letters, digits, _ and -, not \"$1\""
}

check_absolute() { [[ $1 = /* ]] || die "a path in the file system begins with /, not \"$1\""; }

client_keyring() {
    case $1 in
    admin) printf '%s\n' "$DIR/keyring" ;;
    *) printf '%s\n' "$DIR/client.$1.keyring" ;;
    esac
}

cmd_mount() {
    local mountpoint keyring name=fuse.$$
    check_client_name "$CLIENT"
    check_absolute "$SUBTREE"
    open_cluster
    mountpoint=$(realpath -e -- "$1") || die "$1 is not there"
    [ -d "$mountpoint" ] || die "$mountpoint is not a directory"
    ! is_mounted "$mountpoint" || die "$mountpoint has a file system on it already"
    keyring=$(client_keyring "$CLIENT")
    [ -r "$keyring" ] || die "no client $CLIENT here; make it with: ceph-dev.sh client $CLIENT PATH"
    # By which an ordinary user mounts.
    [ "$(id -u)" -eq 0 ] || command -v fusermount >/dev/null || need_packages fuse3
    lock_folder
    printf '%s\n' "$mountpoint" >"$DIR/run/$name.mount"
    launch "$name" ceph-fuse -f -c "$DIR/ceph.conf" -n "client.$CLIENT" -k "$keyring" --client_fs="$FS" \
        --admin-socket="$DIR/run/$name.asok" --log-file="$DIR/log/$name.log" \
        -r "$SUBTREE" "$mountpoint" "${MOUNT_OPTIONS[@]}"
    # Not while it waits for a cluster that may need a "start".
    unlock_folder
    trap 'end_mount fuse.$$ yes' EXIT
    wait_for 60 "$mountpoint" is_mounted_or_failed "$name" "$mountpoint" || true
    if ! is_mounted "$mountpoint"; then
        tail -n 5 "$DIR/log/$name.out" >&2
        die "cannot mount $SUBTREE on $mountpoint; see $DIR/log/$name.out"
    fi
    trap - EXIT
}

is_mounted_or_failed() { process_ended "$1" || is_mounted "$2"; }

# Asked of the system: the file system itself might not answer.
is_mounted() {
    local place=${1//\\/\\134}
    place=${place// /\\040}
    cut -d' ' -f5 /proc/self/mountinfo | grep -qxF -- "$place"
}

cmd_umount() {
    local mountpoint name
    open_cluster
    # Its last part is not looked at: that would ask the file system.
    mountpoint=$(realpath -m -- "$(dirname -- "$1")")/$(basename -- "$1")
    for name in $(recorded_names 'fuse.*'); do
        if [ "$(cat "$DIR/run/$name.mount")" = "$mountpoint" ]; then
            end_mount "$name" "$FORCE" || die "$mountpoint is in use or does not answer; see --force"
            return
        fi
    done
    die "$mountpoint is no mount of the cluster in $DIR"
}

# end_mount NAME FORCE: unmounts, and waits for the end of its process.
end_mount() {
    local name=$1 force=$2 mountpoint seconds=30
    mountpoint=$(cat "$DIR/run/$name.mount" 2>/dev/null) || mountpoint=''
    [ "$force" = no ] || seconds=5
    if find_process "$name" && is_mounted "$mountpoint"; then
        if unmount "$seconds" "$mountpoint"; then
            # It ends by itself, once it has given its session back to the MDS.
            wait_for "$seconds" "$name" process_ended "$name" 2>/dev/null || true
        elif [ "$force" = no ]; then
            return 1
        fi
    fi
    # In use, it does the same on SIGTERM: one that dies with its session holds up others for a minute.
    end_process "$name" TERM 5
    # A dead one leaves a mountpoint where nothing answers.
    ! is_mounted "$mountpoint" || unmount 5 -l "$mountpoint" || note "$mountpoint stays mounted"
    rm -f "$DIR/run/$name.mount"
}

# unmount SECONDS [-l] MOUNTPOINT
unmount() {
    local seconds=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then
        timeout -k 1 "$seconds" umount -c "$@"
    else
        timeout -k 1 "$seconds" fusermount -u "${@/#-l/-z}"
    fi 2>/dev/null
}

# tree COMMAND...: as the administrator, without a mount.
tree() { timeout 60 "$PYTHON" "$HERE/ceph/tree.py" "$DIR/ceph.conf" "$FS" "$@"; }

cmd_mkdir() {
    check_absolute "$1"
    open_cluster
    tree mkdir "$1" "${2:-755}"
}

cmd_rm() {
    check_absolute "$1"
    open_cluster
    tree rm "$1"
}

cmd_client() {
    local name=$1 path=$2
    check_client_name "$name"
    check_absolute "$path"
    [ "$name" != admin ] || die "the administrator's key is $DIR/keyring"
    open_cluster
    tree mkdir "$path" 755
    ask fs authorize "$FS" "client.$name" "$path" rwps >/dev/null
    write_keyring "$name"
    print_client "$name" "$path"
}

cmd_subvolume() {
    local name=$1 path
    check_client_name "$name"
    [[ $SIZE =~ ^[0-9]*$ ]] || die "--size is bytes, not $SIZE"
    open_cluster
    ask fs subvolume create "$FS" "$name" ${SIZE:+--size "$SIZE"} --namespace-isolated >&2
    ask fs subvolume authorize "$FS" "$name" "$name" --access_level=rw >/dev/null
    path=$(ask fs subvolume getpath "$FS" "$name")
    write_keyring "$name"
    print_client "$name" "$path"
}

# The umask makes it the owner's.
write_keyring() {
    ask auth get "client.$1" >"$DIR/client.$1.new" 2>/dev/null || die "client.$1 has no key"
    mv "$DIR/client.$1.new" "$(client_keyring "$1")"
}

print_client() { printf '%s\n' "CLIENT=$1" "KEYRING=$(client_keyring "$1")" "PATH=$2"; }
