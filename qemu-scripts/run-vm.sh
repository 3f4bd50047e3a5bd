#!/bin/bash
# Boots a QEMU guest with virtiofs devices and runs a command in it, or gives a shell.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib.sh
. "$HERE/lib.sh"

usage() {
    cat <<'USAGE'
usage: run-vm.sh [OPTIONS] --share SOCKET[,tag=TAG][,queues=N] ... [-- COMMAND]
       run-vm.sh [OPTIONS] --share SOCKET... --shell [-- COMMAND]

Boots a guest, runs COMMAND (bash, as root) and exits with its exit code; its output is
stdout. With --shell, COMMAND runs first and then a shell has the terminal; the guest ends
with the shell (or by Ctrl-A X).

  --share SOCKET   a vhost-user-fs daemon's socket; tag "pfs" and one queue by default
  --mount DIR      mount the first share there before COMMAND
  --vcpus N        default 2
  --memory MIB     default 512
  --kernel-6.12    kernel 6.12 under QEMU 10: uses all queues
  --log FILE       where the kernel's messages go when there is no --shell
  --timeout S      longest time for boot and COMMAND without --shell, default 600
  --print          print the QEMU command for a shell instead of running it
USAGE
}

SHARES=() MOUNT='' VCPUS=2 MEMORY_MIB=512 KERNEL_LOG=/dev/null TIMEOUT_S=600
SHELL_MODE=no PRINT=no COMMAND='' IMAGE_ARGS=()
while [ $# -gt 0 ]; do
    case $1 in
    --share) SHARES+=("${2:?--share needs a socket}"); shift ;;
    --mount) MOUNT=${2:?--mount needs a directory}; shift ;;
    --vcpus) VCPUS=${2:?--vcpus needs a number}; shift ;;
    --memory) MEMORY_MIB=${2:?--memory needs MiB}; shift ;;
    --log) KERNEL_LOG=${2:?--log needs a file}; shift ;;
    --timeout) TIMEOUT_S=${2:?--timeout needs seconds}; shift ;;
    --kernel-6.12) IMAGE_ARGS=(--kernel-6.12 --qemu-10) ;;
    --shell) SHELL_MODE=yes ;;
    --print) PRINT=yes SHELL_MODE=yes ;;
    -h | --help) usage; exit 0 ;;
    --) shift; COMMAND="$*"; break ;;
    *) usage >&2; die "unknown option $1" ;;
    esac
    shift
done

image=$("$HERE/guest-image.sh" "${IMAGE_ARGS[@]}")
# part NAME: a path that guest-image.sh printed.
part() { sed -n "s/^$1=//p" <<<"$image"; }

WORK=$(mktemp -d "${TMPDIR:-/tmp}/pfs-vm.XXXXXX")
QEMU_PID='' CAT_PID=''
cleanup() {
    [ -z "$QEMU_PID" ] || stop_process "$QEMU_PID"
    [ -z "$CAT_PID" ] || kill "$CAT_PID" 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

FIRST_TAG=pfs
share_args() {
    local number=0 share field tag queues
    local -a fields
    for share in "${SHARES[@]}"; do
        IFS=, read -ra fields <<<"$share"
        tag=pfs queues=1
        for field in "${fields[@]:1}"; do
            case $field in
            tag=*) tag=${field#tag=} ;;
            queues=*) queues=${field#queues=} ;;
            *) die "--share takes tag= and queues=, not $field" ;;
            esac
        done
        [ "$number" -gt 0 ] || FIRST_TAG=$tag
        # queue-size: with QEMU's default of 128, requests end at 496 KiB.
        QEMU_ARGS+=(-chardev "socket,id=fs$number,path=${fields[0]}"
            -device "vhost-user-fs-pci,chardev=fs$number,tag=$tag,num-request-queues=$queues,queue-size=1024")
        number=$((number + 1))
    done
}

QEMU_ARGS=()
IFS=: read -ra firmware <<<"$(part QEMU_DATA)"
for dir in "${firmware[@]}"; do QEMU_ARGS+=(-L "$dir"); done
mapfile -t accel < <(qemu_accel_args)
# Shared memory, because the daemon reads and writes the guest's memory directly.
QEMU_ARGS+=(
    -machine 'q35,memory-backend=ram' "${accel[@]}" -smp "$VCPUS" -m "${MEMORY_MIB}M"
    -object "memory-backend-memfd,id=ram,size=${MEMORY_MIB}M,share=on"
    -nodefaults -no-user-config -no-reboot -display none
)
share_args
for disk in "$(part ROOT)" "$(part MODULES)"; do
    QEMU_ARGS+=(-drive "file=$disk,if=virtio,format=raw,readonly=on,file.locking=off")
done

if [ -n "$MOUNT" ]; then
    COMMAND="mkdir -p '$MOUNT' && mount -t virtiofs '$FIRST_TAG' '$MOUNT' && cd '$MOUNT' || exit
$COMMAND"
fi
printf '%s\n' "$COMMAND" >"$WORK/command"
[ -n "$COMMAND" ] || [ "$SHELL_MODE" = yes ] || die "nothing to do: give -- COMMAND or --shell"
if [ "$SHELL_MODE" = yes ]; then
    kernel_args="console=ttyS0 loglevel=4 panic=-1 pfs.mode=shell"
    QEMU_ARGS+=(-serial mon:stdio)
else
    kernel_args="console=ttyS0 panic=-1 pfs.mode=command"
    QEMU_ARGS+=(-serial "file:$KERNEL_LOG" -device virtio-serial-pci
        -chardev "file,id=output,path=$WORK/output" -device 'virtserialport,chardev=output,name=output'
        -chardev "file,id=status,path=$WORK/status" -device 'virtserialport,chardev=status,name=status')
fi
QEMU_ARGS+=(-kernel "$(part KERNEL)" -initrd "$(part INITRD)" -append "$kernel_args")
[ -z "$COMMAND" ] || QEMU_ARGS+=(-fw_cfg "name=opt/pfs/command,file=$WORK/command")

if [ "$PRINT" = yes ]; then
    printf '%s' "$(part QEMU)"
    for arg in "${QEMU_ARGS[@]}"; do
        case $arg in
        -*) printf ' \\\n    %s' "$arg" ;;
        *[!A-Za-z0-9_=:,./-]*) printf " '%s'" "$arg" ;;
        *) printf ' %s' "$arg" ;;
        esac
    done
    printf '\n'
    exit 0
fi

if [ "$SHELL_MODE" = yes ]; then
    "$(part QEMU)" "${QEMU_ARGS[@]}"
    exit
fi
# A pipe, so that output is seen as it comes.
mkfifo "$WORK/output"
cat "$WORK/output" &
CAT_PID=$!
# --pdeathsig: also when this script is killed, no QEMU stays behind.
setpriv --pdeathsig KILL "$(part QEMU)" "${QEMU_ARGS[@]}" </dev/null &
QEMU_PID=$!
deadline=$((SECONDS + TIMEOUT_S))
while kill -0 "$QEMU_PID" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || die "the guest still runs after $TIMEOUT_S s; its kernel log is $KERNEL_LOG"
    sleep 0.1
done
wait "$QEMU_PID" || die "QEMU failed; the guest's kernel log is $KERNEL_LOG"
QEMU_PID=
wait "$CAT_PID"
status=$(cat "$WORK/status" 2>/dev/null || true)
[ -n "$status" ] || die "the guest ended before its command did; its kernel log is $KERNEL_LOG"
exit "$status"
