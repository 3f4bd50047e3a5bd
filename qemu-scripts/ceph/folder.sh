# The folder of a cluster: whose it is, who is at work in it, what the cluster in it is like. To be
# sourced.
# shellcheck shell=bash

# Sockets in DIR/run must fit into the 108 bytes of a socket's address.
readonly DIR_LEN_MAX=80

# DIR becomes absolute. Ceph reads it in a configuration file, where other characters mean something.
set_folder() {
    DIR=$(realpath -m -- "$DIR")
    MARK=$DIR/.pfs-ceph-dev
    case $DIR in
    *[!A-Za-z0-9._/+-]*) die "--dir $DIR: only letters, digits and ._/+- can be in it" ;;
    esac
    [ ${#DIR} -le $DIR_LEN_MAX ] || die "--dir $DIR is longer than $DIR_LEN_MAX bytes"
}

# Whether the folder is there; it must be one that this script made.
folder_exists() {
    [ -e "$DIR" ] || return 1
    [ -O "$DIR" ] && [ -f "$MARK" ] || die "$DIR is not a folder of ceph-dev.sh; give another --dir"
}

# Locks the folder for this run; fails if it was removed meanwhile.
try_lock_folder() {
    { exec 8<"$MARK"; } 2>/dev/null || return 1
    flock -w 300 8 || die "another ceph-dev.sh is at work in $DIR for 5 minutes"
    [ "$MARK" -ef /dev/fd/8 ]
}

lock_folder() { try_lock_folder || die "$DIR was removed meanwhile"; }

unlock_folder() { exec 8<&-; }

# Makes the folder, or takes one that is empty or a cluster's; then locks it.
claim_folder() {
    local content
    until [ -f "$MARK" ] && folder_exists && try_lock_folder; do
        mkdir -p "$DIR"
        content=$(find "$DIR" -mindepth 1 -maxdepth 1 ! -path "$MARK" -print -quit)
        [ -O "$DIR" ] && { [ -f "$MARK" ] || [ -z "$content" ]; } ||
            die "$DIR is not a folder of ceph-dev.sh; give another --dir"
        chmod 700 "$DIR"
        : >>"$MARK"
    done
    mkdir -p "$DIR/run" "$DIR/log"
}

# Locks the folder if there is one.
find_folder() { folder_exists && try_lock_folder; }

# For commands that need a cluster: its settings. Not locked.
open_cluster() {
    folder_exists && [ -f "$DIR/settings" ] || die "there is no cluster in $DIR; start one with: ceph-dev.sh up --dir $DIR"
    read_settings
}

write_settings() { printf '%s\n' "STORE=$STORE" "OSDS=$OSDS" "FS=$FS" >"$DIR/settings"; }

read_settings() {
    local key value
    while IFS='=' read -r key value; do
        case $key in
        STORE | OSDS | FS) printf -v "$key" '%s' "$value" ;;
        esac
    done <"$DIR/settings"
}

# Everything but the mark goes; never what is mounted below it.
empty_folder() { find "$DIR" -xdev -mindepth 1 ! -path "$MARK" -delete; }

remove_folder() {
    empty_folder
    rm -f "$MARK"
    rmdir "$DIR"
}

# With "up --until-pid": a process that outlives this script and looks after the other's.
watch_process() {
    [ -n "$UNTIL_PID" ] || return 0
    local identity
    identity=$(process_identity "$UNTIL_PID") || die "--until-pid: no process $UNTIL_PID"
    end_watch
    launch watch "$HERE/ceph-dev.sh" watch --dir "$DIR" "$UNTIL_PID" "$identity"
}

# The one before ends; not the one that this is.
end_watch() {
    if find_process watch && [ "$PROCESS_PID" != $$ ]; then end_process watch TERM 2; fi
}
