#!/bin/bash
# From nothing to a QEMU guest that reads and writes a volume over virtiofs.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib.sh
. "$HERE/lib.sh"

usage() {
    cat <<'USAGE'
usage: quickstart.sh [--shell] [--engine striped|cephfs] [--targets N] [--size MIB] [--dir DIR]

Installs what is missing by apt, builds pfs-virtiofsd, creates a volume, boots a guest on it, and writes and verifies a file from there. Needs Debian 12 and cargo.

  --shell      then stay in a guest with the volume mounted on /mnt ("exit" ends it)
  --engine E   striped: over local directories, the default; cephfs: a CephFS, on a small Ceph
               cluster that runs here until the end
  --targets N  storage targets of a striped volume, default 4
  --size MIB   size of the file, default 128
  --dir DIR    where volume, socket and logs go (default: pfs-quickstart-UID in the
               folder for temporary files). They stay there; the next run replaces them.
USAGE
}

SHELL_MODE=no ENGINE=striped TARGETS=4 SIZE_MIB=128 DIR=${TMPDIR:-/tmp}/pfs-quickstart-$(id -u)
while [ $# -gt 0 ]; do
    case $1 in
    --shell) SHELL_MODE=yes ;;
    --engine) ENGINE=${2:?--engine needs striped or cephfs}; shift ;;
    --targets) TARGETS=${2:?--targets needs a number}; shift ;;
    --size) SIZE_MIB=${2:?--size needs MiB}; shift ;;
    --dir) DIR=${2:?--dir needs a folder}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
    esac
    shift
done
case $ENGINE in
striped | cephfs) ;;
*) die "there is no engine $ENGINE here; use striped or cephfs" ;;
esac

DAEMON_PID=''
VM_PID=''
cleanup() {
    local code=$?
    [ -z "$VM_PID" ] || stop_process "$VM_PID" 10
    [ -z "$DAEMON_PID" ] || stop_process "$DAEMON_PID"
    if [ "$code" -ne 0 ] && [ -s "$DIR/daemon.log" ]; then
        note "the daemon's log ends:"
        tail -n 20 "$DIR/daemon.log" >&2
    fi
    [ ! -d "$DIR/ceph" ] || "$HERE/ceph-dev.sh" down --purge --dir "$DIR/ceph" >/dev/null
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The folder is emptied, so it must be new or one that this script made; and nobody's at work.
MARK=$DIR/.pfs-quickstart
if [ ! -e "$DIR" ]; then
    mkdir -p "$DIR"
    chmod 700 "$DIR"
    touch "$MARK"
elif [ ! -O "$DIR" ] || [ ! -f "$MARK" ]; then
    die "$DIR is not a folder of quickstart.sh; give another --dir"
fi
exec 8<"$MARK"
flock -n 8 || die "another quickstart.sh is at work in $DIR; give another --dir"
find "$DIR" -mindepth 1 ! -path "$MARK" -delete
DIR=$(cd "$DIR" && pwd)
VOLUME=$DIR/volume SOCKET=$DIR/daemon.sock TAG=pfs

need_packages build-essential qemu-system-x86
command -v cargo >/dev/null || die "no cargo in PATH; install Rust with rustup"

say "building pfs-virtiofsd"
cargo build --release --package pfs-virtiofsd --manifest-path "$HERE/../Cargo.toml"
BIN=$(cargo metadata --no-deps --format-version 1 --manifest-path "$HERE/../Cargo.toml" |
    sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release

say "preparing the guest image"
"$HERE/guest-image.sh" >/dev/null

case $ENGINE in
striped)
    say "creating a volume of $TARGETS targets"
    CREATE=(--targets "$TARGETS")
    ;;
cephfs)
    say "starting a Ceph cluster: 1 MON, 1 MGR, 3 OSDs, 1 MDS"
    "$HERE/ceph-dev.sh" up --dir "$DIR/ceph" >/dev/null
    # A tenant's key reaches its subvolume, and nothing else of the cluster.
    TENANT=$("$HERE/ceph-dev.sh" subvolume quickstart --dir "$DIR/ceph")
    say "creating a volume of a CephFS subvolume"
    CREATE=(--engine cephfs --conf "$DIR/ceph/ceph.conf" --user "$(sed -n 's/^CLIENT=//p' <<<"$TENANT")"
        --keyring "$(sed -n 's/^KEYRING=//p' <<<"$TENANT")" --fs-path "$(sed -n 's/^PATH=//p' <<<"$TENANT")")
    ;;
esac
"$BIN/pfsctl" volume create "$VOLUME" "${CREATE[@]}" >&2

# The daemon serves one guest and ends with it.
start_daemon() {
    # --pdeathsig: also when this script is killed, no daemon stays behind.
    setpriv --pdeathsig TERM "$BIN/pfs-virtiofsd" --socket-path "$SOCKET" --shared-dir "$VOLUME" \
        </dev/null >>"$DIR/daemon.log" 2>&1 8<&- &
    DAEMON_PID=$!
    wait_for 10 "the daemon's socket $SOCKET" daemon_listens || die "the daemon did not come up"
}
daemon_listens() {
    kill -0 "$DAEMON_PID" 2>/dev/null || die "the daemon ended at once"
    grep -q " $SOCKET\$" /proc/net/unix
}
end_daemon() {
    stop_process "$DAEMON_PID"
    DAEMON_PID=''
}

# Written with O_DIRECT, then read back with cold caches; every block carries a checksum.
read -r -d '' GUEST_COMMAND <<'GUEST' || true
set -e
job="--name=quickstart --filename=/mnt/quickstart.dat --size=SIZEm --bs=1m --direct=1 --verify=crc32c --aux-path=/tmp"
terse="--output-format=terse --terse-version=3"
echo "guest: kernel $(uname -r), $(nproc) CPUs, $(df -h --output=size /mnt | tail -1 | tr -d ' ') on /mnt"
echo "guest: writing SIZE MiB"
fio $job $terse --rw=write --do_verify=0 --end_fsync=1 > /tmp/write
echo 3 > /proc/sys/vm/drop_caches
echo "guest: reading them back, verifying every block"
fio $job $terse --rw=read > /tmp/read
echo "result: $(grep '^3;' /tmp/write | cut -d';' -f48) $(grep '^3;' /tmp/read | cut -d';' -f7)"
GUEST
say "booting a guest"
start_daemon
# Before the guest starts, so that there is something to follow.
: >"$DIR/guest-output"
"$HERE/run-vm.sh" --share "$SOCKET,tag=$TAG" --mount /mnt --timeout 300 --log "$DIR/guest-kernel.log" \
    -- "${GUEST_COMMAND//SIZE/$SIZE_MIB}" >"$DIR/guest-output" 2>"$DIR/vm.log" &
VM_PID=$!
tail -n +1 -f --pid="$VM_PID" -s 0.2 "$DIR/guest-output" 2>/dev/null | sed -u '/^result: /d; s/^/    /' >&2
wait "$VM_PID" || { cat "$DIR/vm.log" >&2; die "the guest failed; its kernel log is $DIR/guest-kernel.log"; }
VM_PID=''
end_daemon
read -r write_kib_s read_kib_s < <(sed -n 's/^result: //p' "$DIR/guest-output")
[ -n "$read_kib_s" ] || die "the guest gave no result; see $DIR/guest-output"

print_results() {
    local -a accel
    mapfile -t accel < <(qemu_accel_args)
    printf '\n'
    printf '%-22s %s\n' \
        "verified file" "$SIZE_MIB MiB, every block checked" \
        "write, O_DIRECT" "$((write_kib_s / 1024)) MiB/s" \
        "read, O_DIRECT" "$((read_kib_s / 1024)) MiB/s, checksums included" \
        "guest" "${accel[1]%%,*}$([ "${accel[1]}" = kvm ] || echo " (emulated: these numbers measure the emulator)")" \
        "volume" "$VOLUME" \
        "socket" "$SOCKET" \
        "daemon's log" "$DIR/daemon.log" \
        "guest's kernel log" "$DIR/guest-kernel.log"
    printf '\n'
    "$BIN/pfsctl" volume show "$VOLUME"
    if [ "$ENGINE" = cephfs ]; then
        printf '\nThe cluster ends with this script, and the volume with it. One that stays:\n'
        printf '  %s up\n' "$HERE/ceph-dev.sh"
    fi
    cat <<BY_HAND

By hand. The daemon, once for each guest:
  $BIN/pfs-virtiofsd --socket-path $SOCKET --shared-dir $VOLUME

QEMU, this guest ("run-vm.sh --share $SOCKET,tag=$TAG --shell" does the same):
$("$HERE/run-vm.sh" --share "$SOCKET,tag=$TAG" --print | sed 's/^/  /')

In a VM of your own it takes shared memory and one device:
  -object memory-backend-memfd,id=ram,size=4G,share=on -machine memory-backend=ram
  -chardev socket,id=fs0,path=$SOCKET
  -device vhost-user-fs-pci,chardev=fs0,tag=$TAG,queue-size=1024

In the guest:
  mount -t virtiofs $TAG /mnt

On the host, without a guest:
  $BIN/pfsctl ls $VOLUME /
BY_HAND
}
print_results

if [ "$SHELL_MODE" = yes ]; then
    say "a guest with the volume on /mnt; \"exit\" or Ctrl-A X ends it"
    start_daemon
    "$HERE/run-vm.sh" --share "$SOCKET,tag=$TAG" --mount /mnt --shell -- 'df -h /mnt; ls -l'
    end_daemon
fi
