#!/bin/bash
# Builds the test programs of crates.io that run in guests, once, and keeps them in the cache
# folder. Uses this machine's own cargo configuration.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=../qemu-scripts/lib.sh
. ../qemu-scripts/lib.sh

usage() {
    cat <<'USAGE'
usage: tools.sh

Prints, as NAME=VALUE lines on stdout, where the programs are: PJDFSTEST, FSX.

Exit code 69 and a reason on stderr when one cannot be had on this machine.
Environment: PFS_CACHE_DIR (default ~/.cache/pfs-virtiofsd).
USAGE
}

readonly CRATES=(pjdfstest@0.2.2 fsx@0.3.2)

case ${1:-} in
'') ;;
-h | --help) usage; exit 0 ;;
*) usage >&2; die "unknown option $1" ;;
esac

CACHE=$(pfs_cache_dir)
TOOLS=$CACHE/tools-$(printf '%s\n' "${CRATES[@]}" | sha256sum | cut -c1-12)
crates_once "$TOOLS" "$CACHE/tools.lock" "${CRATES[@]}"

printf '%s\n' "PJDFSTEST=$TOOLS/bin/pjdfstest" "FSX=$TOOLS/bin/fsx"
