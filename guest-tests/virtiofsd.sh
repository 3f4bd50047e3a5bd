#!/bin/bash
# Builds virtiofsd, the peer that the benchmark compares with, once, and keeps it in the cache
# folder. Uses this machine's own cargo configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=../qemu-scripts/lib.sh
. ../qemu-scripts/lib.sh

usage() {
    cat <<'USAGE'
usage: virtiofsd.sh

Prints, as a NAME=VALUE line on stdout, where virtiofsd is: VIRTIOFSD.

Exit code 69 and a reason on stderr when it cannot be had on this machine.
Environment: PFS_CACHE_DIR (default ~/.cache/pfs-virtiofsd).
USAGE
}

readonly CRATE=virtiofsd@1.13.3

case ${1:-} in
'') ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; die "unknown option $1" ;;
esac

CACHE=$(pfs_cache_dir)
PEER=$CACHE/${CRATE/@/-}
mkdir -p "$CACHE"
# One builder at a time; the others wait and find the result.
exec 9>"$CACHE/virtiofsd.lock"
flock -w 900 9 || die "another build holds $CACHE/virtiofsd.lock for 15 minutes"

if [ ! -d "$PEER" ]; then
    command -v cargo >/dev/null || unavailable "no cargo in PATH to build $CRATE with"
    need_packages build-essential libcap-ng-dev libseccomp-dev
    scratch=$(mktemp -d "$CACHE/building.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    say "building $CRATE (once; about a minute)"
    # A folder of its own for the build: this may run inside `cargo test`.
    cargo install --quiet --locked --root "$scratch/peer" --target-dir "$scratch/target" \
        "$CRATE" >&2 2>"$scratch/log" ||
        { cat "$scratch/log" >&2; unavailable "cargo cannot build $CRATE; see above"; }
    mv -T "$scratch/peer" "$PEER"
fi

printf '%s\n' "VIRTIOFSD=$PEER/bin/virtiofsd"
