#!/bin/bash
# Installs what the tests need and runs all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../qemu-scripts/lib.sh
. qemu-scripts/lib.sh

usage() {
    cat <<'USAGE'
usage: guest-tests/run.sh [--full] [FILTER...]

Unit tests, ring tests, tests on a Ceph cluster and in QEMU guests. FILTERs select tests by name.

  --full  also the long ones: suites at length in guests (fsx, fio, stress-ng, PostgreSQL, ...),
          20 boots in a row, 1 GiB of data (see below), a million random operations against a
          model, 200 kills under load

Environment:
  PFS_GUEST_DATA_MIB  random data that a guest writes and checks (default 256, full 1024)
  PFS_SUITES          "required": a test suite or cluster that cannot be had fails instead of being
                      skipped
  PFS_CEPH            folder of a running cluster of qemu-scripts/ceph-dev.sh to test on; by default
                      one is started for the tests
  PFS_CACHE_DIR       guest image, kernels and QEMU builds (default ~/.cache/pfs-virtiofsd)
USAGE
}

FULL=no
while [ $# -gt 0 ]; do
    case $1 in
    --full) FULL=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "unknown option $1" ;;
    *) break ;;
    esac
    shift
done

command -v cargo >/dev/null || die "no cargo in PATH; install Rust with rustup"
# The toolchain's linker; the guest image's own needs are guest-image.sh's business.
need_packages build-essential qemu-system-x86

say "guest image"
qemu-scripts/guest-image.sh >/dev/null
code=0
qemu-scripts/guest-image.sh --kernel-6.12 --qemu-10 >/dev/null || code=$?
case $code in
0) ;;
"$EXIT_UNAVAILABLE") note "tests with kernel 6.12 and QEMU 10 will be skipped" ;;
*) die "qemu-scripts/guest-image.sh failed" ;;
esac

code=0
{ qemu-scripts/guest-image.sh --suites && guest-tests/tools.sh; } >/dev/null || code=$?
case $code in
0) ;;
"$EXIT_UNAVAILABLE")
    [ "${PFS_SUITES:-}" != required ] || die "PFS_SUITES=required, but test suites cannot be had"
    note "test suites in guests that need it will be skipped"
    ;;
*) die "guest-image.sh --suites or guest-tests/tools.sh failed" ;;
esac

# A cluster for all tests that only use one. It ends with this script, however that ends.
if [ -z "${PFS_CEPH:-}" ]; then
    say "Ceph cluster"
    ceph_dir=$(mktemp -d "${TMPDIR:-/tmp}/pfs-ceph.XXXXXX")
    code=0
    qemu-scripts/ceph-dev.sh up --dir "$ceph_dir" --until-pid $$ >/dev/null || code=$?
    case $code in
    0)
        trap 'qemu-scripts/ceph-dev.sh down --dir "$ceph_dir" --purge' EXIT
        export PFS_CEPH=$ceph_dir
        # Its header is what the declarations of libcephfs are compared with.
        need_packages libcephfs-dev
        ;;
    "$EXIT_UNAVAILABLE")
        rmdir "$ceph_dir"
        [ "${PFS_SUITES:-}" != required ] || die "PFS_SUITES=required, but there can be no Ceph cluster"
        note "tests on a Ceph cluster will be skipped"
        ;;
    *) die "qemu-scripts/ceph-dev.sh failed; its logs are in $ceph_dir/log" ;;
    esac
fi

say "build"
cargo build --workspace --all-targets

say "tests"
runner_args=(--workspace)
if [ "$FULL" = yes ]; then
    export PFS_GUEST_DATA_MIB=${PFS_GUEST_DATA_MIB:-1024}
fi
if cargo nextest --version >/dev/null 2>&1; then
    # nextest leaves out the examples in the documentation. They go first, so that the end is
    # its summary; if one fails, the rest still runs.
    examples=passed
    [ $# -gt 0 ] || cargo test --workspace --doc --quiet || examples=failed
    [ "$FULL" = no ] || runner_args+=(--run-ignored all)
    cargo nextest run "${runner_args[@]}" "$@"
    [ "$examples" = passed ] || die "examples in the documentation failed; see above the summary"
else
    note "cargo-nextest is not installed; using cargo test"
    harness_args=()
    [ "$FULL" = no ] || harness_args+=(--include-ignored)
    cargo test "${runner_args[@]}" --no-fail-fast -- "${harness_args[@]}" "$@"
fi
