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
[ -d "$PEER" ] || need_packages build-essential libcap-ng-dev libseccomp-dev
crates_once "$PEER" "$CACHE/virtiofsd.lock" "$CRATE"

printf '%s\n' "VIRTIOFSD=$PEER/bin/virtiofsd"
