#!/bin/bash
# Builds what QEMU guests boot from, once, and keeps it in the cache folder:
# a read-only Debian root (squashfs) shared by all guests, a kernel with its modules,
# an initrd; on request also a newer kernel and a newer QEMU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=lib.sh
. ./lib.sh

usage() {
    cat <<'USAGE'
usage: guest-image.sh [--suites] [--kernel-6.12] [--qemu-10]

Prints, as NAME=VALUE lines on stdout, where the parts are:
  ROOT, KERNEL, INITRD, MODULES  the guest's disks, kernel and initrd
  QEMU, QEMU_DATA                the QEMU binary and its firmware folders (':' between
                                 them; empty: QEMU's own defaults)

  --suites       a root that also has what the test suites need: git, databases, a compiler
  --kernel-6.12  kernel 6.12 of Debian backports instead of 6.1
  --qemu-10      QEMU 10 of Debian backports instead of the installed one

Exit code 69 and a reason on stderr when a part cannot be fetched on this machine.
Environment: PFS_CACHE_DIR (default ~/.cache/pfs-virtiofsd).
USAGE
}

readonly SUITE=bookworm
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly HOST_PACKAGES=(mmdebstrap squashfs-tools busybox-static cpio kmod xz-utils qemu-system-x86 debian-archive-keyring)
# What tests run in the guest. fio brings python3, which the agent uses.
readonly GUEST_PACKAGES=(fio attr acl busybox kmod)
# What only guest-tests/tests/guest_suites runs. gcc is also the linker of Rust in the guest.
readonly SUITE_PACKAGES=(dbench gcc git libc6-dev make postgresql-15 sqlite3 stress-ng)
# What boot needs; all others are on the module disk.
readonly BOOT_MODULES=(virtio_pci virtio_blk virtio_console squashfs overlay fuse virtiofs)

KERNEL_VERSION=6.1 WANT_QEMU_10=no WANT_SUITES=no
while [ $# -gt 0 ]; do
    case $1 in
    --suites) WANT_SUITES=yes ;;
    --kernel-6.12) KERNEL_VERSION=6.12 ;;
    --qemu-10) WANT_QEMU_10=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
    esac
    shift
done

CACHE=$(pfs_cache_dir)
SCRATCH=

hash_of() { cat "$@" | sha256sum | cut -c1-12; }

# The Debian mirrors of this machine's own apt configuration, as "URI RELEASE" lines.
system_mirrors() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk '$3 == "main" && ($4 == "Debian" || $4 == "") { print $1, $2 }' | sort -u
}

# sources_for SUITE...: a sources.list for these suites; *-security has a mirror of its own.
sources_for() {
    local suite uri
    for suite in "$@"; do
        case $suite in
        *-security) uri=$(system_mirrors | awk '$2 ~ /-security$/ && !found++ { print $1 }') ;;
        *) uri=$(system_mirrors | awk '$2 !~ /-/ && !found++ { print $1 }') ;;
        esac
        if [ -n "$uri" ]; then
            echo "deb [signed-by=$KEYRING] $uri $suite main"
        elif [ "$suite" = "$SUITE" ]; then
            unavailable "no Debian mirror in this machine's apt configuration (apt-get indextargets shows none)"
        fi
    done
}

# private_apt SOURCES_FILE COMMAND...: apt with folders of its own; the system's are not touched.
private_apt() {
    local sources=$1 tool=$2
    shift 2
    mkdir -p "$SCRATCH"/apt/{lists/partial,cache/archives/partial}
    "$tool" -qq -o Dir::Etc::sourcelist="$sources" -o Dir::Etc::sourceparts=- \
        -o Dir::State::Lists="$SCRATCH/apt/lists" -o Dir::Cache="$SCRATCH/apt/cache" \
        -o APT::Sandbox::User="$(id -un)" -o APT::Update::Error-Mode=any -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@"
}

# fetch_packages DIR SUITES PKG...: downloads and unpacks packages into DIR, dependencies not followed.
fetch_packages() {
    local into=$1 suites=$2 sources=$SCRATCH/sources.list
    shift 2
    # shellcheck disable=SC2086 # a list of suites
    sources_for $suites >"$sources"
    [ -d "$SCRATCH/apt" ] || private_apt "$sources" apt-get update >&2 ||
        unavailable "cannot read the package lists of $suites"
    mkdir -p "$SCRATCH/debs" "$into"
    (cd "$SCRATCH/debs" && private_apt "$sources" apt-get download "$@" >&2) ||
        unavailable "cannot download $* from $suites"
    local deb
    for deb in "$SCRATCH"/debs/*.deb; do dpkg -x "$deb" "$into"; done
    rm -rf "$SCRATCH/debs"
}

# build_root OUT PKG...: the guest's root, Debian minbase and packages, without a kernel.
build_root() {
    local out=$1 proxy='' packages=("${@:2}")
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    say "building the guest root image with ${packages[*]} (once; about a minute)"
    sources_for "$SUITE" "$SUITE-security" >"$SCRATCH/sources.list"
    mmdebstrap --quiet --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
        --aptopt='Apt::Install-Recommends "false"' ${proxy:+--aptopt="Acquire::http::Proxy \"$proxy\""} \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/fio/*' \
        "$SUITE" - "$SCRATCH/sources.list" </dev/null >"$SCRATCH/root.tar" ||
        unavailable "mmdebstrap could not build the guest root"
    note "packing it as squashfs"
    # It remarks on the archive's entry for the root folder itself; that is no fault.
    mksquashfs - "$out" -tar -quiet -no-progress -comp zstd -Xcompression-level 6 \
        <"$SCRATCH/root.tar" 2> >(grep -v '^Empty tar filename' >&2) >&2
}

# build_kernel OUT_DIR SUITES: vmlinuz, the modules as a squashfs, and those of boot in load order.
build_kernel() {
    local out=$1 suites=$2 tree=$SCRATCH/kernel image version module
    say "fetching kernel $KERNEL_VERSION"
    # shellcheck disable=SC2086 # a list of suites
    sources_for $suites >"$SCRATCH/sources.list"
    private_apt "$SCRATCH/sources.list" apt-get update >&2 || unavailable "cannot read the package lists of $suites"
    image=$(private_apt "$SCRATCH/sources.list" apt-cache depends linux-image-cloud-amd64 |
        sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p') || image=
    case $image in
    linux-image-"$KERNEL_VERSION".*) ;;
    *) unavailable "$suites offers ${image:-no cloud kernel}, not kernel $KERNEL_VERSION" ;;
    esac
    fetch_packages "$tree" "$suites" "$image"
    version=${image#linux-image-}
    mkdir -p "$out/boot-modules"
    cp "$tree/boot/vmlinuz-$version" "$out/vmlinuz"
    depmod -b "$tree" "$version"
    local number=100
    for module in "${BOOT_MODULES[@]}"; do
        # "builtin NAME" or "insmod PATH"; a module that another needed is not taken twice.
        modprobe -d "$tree" -S "$version" --show-depends "$module" || die "kernel $version has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
        number=$((number + 1))
        case $path in
        *.xz) xz -dc "$path" >"$out/boot-modules/$number-$(basename "$path" .xz)" ;;
        *) cp "$path" "$out/boot-modules/$number-$(basename "$path")" ;;
        esac
    done
    mksquashfs "$tree/lib/modules/$version" "$out/modules.squashfs" -quiet -no-progress -all-root \
        -comp zstd -Xcompression-level 3 >&2
}

# build_initrd KERNEL_DIR OUT: busybox, the boot modules, and what runs in the guest.
build_initrd() {
    local kernel=$1 out=$2 tree=$SCRATCH/initrd
    mkdir -p "$tree"/{bin,dev,proc,sys,image,overlay,root,pfs,modules}
    cp /bin/busybox "$tree/bin/"
    cp "$kernel"/boot-modules/*.ko "$tree/modules/"
    install -m 755 guest/init "$tree/init"
    install -m 755 guest/start guest/agent.py "$tree/pfs/"
    (cd "$tree" && find . | sort | cpio --quiet --create --format=newc --owner=0:0) >"$out"
}

# fetch_qemu_10 OUT_DIR: unpacked beside the installed QEMU, whose libraries it uses.
fetch_qemu_10() {
    local out=$1 missing
    say "fetching QEMU 10"
    fetch_packages "$out" "$SUITE-backports" qemu-system-x86 qemu-system-common qemu-system-data seabios
    rm -rf "$out/usr/share/doc" "$out/usr/share/man" "$out/usr/share/icons"
    missing=$(ldd "$out/usr/bin/qemu-system-x86_64" | awk '/not found/ { print $1 }' | tr '\n' ' ')
    [ -z "$missing" ] || unavailable "QEMU 10 needs libraries that are not installed: $missing"
    "$out/usr/bin/qemu-system-x86_64" --version | grep -q 'version 10\.' ||
        unavailable "$SUITE-backports has another QEMU: $("$out/usr/bin/qemu-system-x86_64" --version | head -1)"
}

# cached NAME BUILD_FUNCTION ARGS...: builds into a temporary name and renames, so that nothing
# half-made is ever found; sets REPLY to the path. BUILD_FUNCTION gets the path first.
cached() {
    local name=$1 build=$2
    shift 2
    REPLY=$CACHE/$name
    if [ ! -e "$REPLY" ]; then
        SCRATCH=$(mktemp -d "$CACHE/building.XXXXXX")
        "$build" "$SCRATCH/result" "$@"
        mv -T "$SCRATCH/result" "$CACHE/$name"
        rm -rf "$SCRATCH"
        SCRATCH=
    fi
    touch -c "$REPLY"
}
initrd_of() { build_initrd "$2" "$1"; }

need_packages "${HOST_PACKAGES[@]}"
mkdir -p "$CACHE"
trap '[ -z "$SCRATCH" ] || rm -rf "$SCRATCH"' EXIT
# One builder at a time; the others wait and find the result.
exec 9>"$CACHE/lock"
flock -w 900 9 || die "another build holds $CACHE/lock for 15 minutes"

# A changed script makes new parts; what nobody used for a month goes.
find "$CACHE" -mindepth 1 -maxdepth 1 ! -name "*lock" -mtime +30 -exec rm -rf {} +
BUILD_KEY=$(hash_of guest-image.sh)
BOOT_KEY=$(hash_of guest-image.sh guest/*)

if [ "$WANT_SUITES" = yes ]; then
    cached "root-suites-$BUILD_KEY.squashfs" build_root "${GUEST_PACKAGES[@]}" "${SUITE_PACKAGES[@]}"
else
    cached "root-$BUILD_KEY.squashfs" build_root "${GUEST_PACKAGES[@]}"
fi
ROOT=$REPLY
case $KERNEL_VERSION in
6.1) suites="$SUITE $SUITE-security" ;;
*) suites="$SUITE-backports" ;;
esac
cached "kernel-$KERNEL_VERSION-$BUILD_KEY" build_kernel "$suites"
KERNEL_DIR=$REPLY
cached "initrd-$KERNEL_VERSION-$BOOT_KEY" initrd_of "$KERNEL_DIR"
INITRD=$REPLY
QEMU=$(command -v qemu-system-x86_64) QEMU_DATA=
if [ "$WANT_QEMU_10" = yes ]; then
    cached "qemu-10-$BUILD_KEY" fetch_qemu_10
    QEMU=$REPLY/usr/bin/qemu-system-x86_64 QEMU_DATA=$REPLY/usr/share/qemu:$REPLY/usr/share/seabios
fi

printf '%s\n' "ROOT=$ROOT" "KERNEL=$KERNEL_DIR/vmlinuz" "INITRD=$INITRD" \
    "MODULES=$KERNEL_DIR/modules.squashfs" "QEMU=$QEMU" "QEMU_DATA=$QEMU_DATA"
