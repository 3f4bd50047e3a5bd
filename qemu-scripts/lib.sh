# Shared by the scripts in this folder and by guest-tests/run.sh: progress lines,
# packages, the cache folder, the choice of KVM or TCG. To be sourced, not run.
# shellcheck shell=bash

# Everything said to the user goes to stderr: stdout belongs to the results.
say()  { printf '%s\n' "==> $*" >&2; }
note() { printf '%s\n' "    $*" >&2; }
die()  { printf '%s\n' "error: $*" >&2; exit 1; }

# Exit code for "cannot be had on this machine": tests skip with the printed reason.
readonly EXIT_UNAVAILABLE=69
unavailable() { printf '%s\n' "unavailable: $*" >&2; exit "$EXIT_UNAVAILABLE"; }

# Guest images, kernels and QEMU builds are kept here between runs.
pfs_cache_dir() {
    printf '%s\n' "${PFS_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/pfs-virtiofsd}"
}

# missing_packages PKG...: prints those that are not installed.
missing_packages() {
    local package
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || printf '%s\n' "$package"
    done
}

# need_packages PKG...: installs what is missing, as root or through sudo; touches nothing otherwise.
need_packages() {
    local missing=() as_root=()
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "please install as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get -qq update >&2 || note "apt-get update failed; trying with the package lists as they are"
    local log
    log=$("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "${missing[@]}" </dev/null 2>&1) ||
        { printf '%s\n' "$log" >&2; die "apt could not install: ${missing[*]}"; }
}

# crates_once FOLDER LOCK CRATE...: builds programs of crates.io into FOLDER, once, with this machine's
# own cargo configuration. FOLDER and LOCK are in the cache folder.
crates_once() {
    local folder=$1 lock=$2 cache
    shift 2
    cache=$(dirname "$folder")
    mkdir -p "$cache"
    # One builder at a time; the others wait and find the result.
    exec 9>"$lock"
    flock -w 900 9 || die "another build holds $lock for 15 minutes"
    if [ ! -d "$folder" ]; then
        command -v cargo >/dev/null || unavailable "no cargo in PATH to build $* with"
        # Not local: the trap runs at the script's end.
        scratch=$(mktemp -d "$cache/building.XXXXXX")
        trap 'rm -rf "$scratch"' EXIT
        say "building $* (once; about a minute)"
        # A folder of its own for the build: this may run inside `cargo test`.
        cargo install --quiet --locked --root "$scratch/built" --target-dir "$scratch/target" \
            "$@" >&2 2>"$scratch/log" ||
            { cat "$scratch/log" >&2; unavailable "cargo cannot build $*; see above"; }
        mv -T "$scratch/built" "$folder"
    fi
    # What nobody used for a month is removed by guest-image.sh.
    touch -c "$folder"
}

# The accelerator for this machine. /dev/kvm alone proves nothing: inside some VMs it
# opens and a guest then hangs, so the CPU must offer virtualization too.
qemu_accel_args() {
    if grep -qwE 'vmx|svm' /proc/cpuinfo && { : <>/dev/kvm; } 2>/dev/null; then
        printf '%s\n' -accel kvm -cpu host
    else
        printf '%s\n' -accel tcg,thread=multi -cpu max
    fi
}

# wait_for SECONDS WHAT COMMAND...: polls until COMMAND succeeds; bounded.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { printf '%s\n' "error: timed out waiting for $what" >&2; return 1; }
        sleep 0.05
    done
}

# stop_process PID [SECONDS]: ends a child of this shell: TERM, a bounded wait, then KILL.
stop_process() {
    local pid=$1 deadline=$((SECONDS + ${2:-5}))
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.05; done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}
