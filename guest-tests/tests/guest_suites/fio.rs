//! fio: every block carries a checksum, at sizes and offsets that fit no page and no stripe, with
//! many requests at once.

use crate::support::{put, Bench, Config, MINUTES_15, SECONDS_30};
use guest_tests::vm::Engine;

on_every_volume! {
    verifies_odd_sizes,
    #[ignore = "takes minutes"]
    verifies_at_length,
}

/// Written and verified by each job: the engine, its depth, and how sizes are drawn.
const JOBS: &str = "\
[global]
directory=/mnt
verify=crc32c
verify_fatal=1
verify_dump=0
group_reporting
randseed=1

[odd-sizes]
stonewall
rw=randwrite
bsrange=512-200k
bs_unaligned=1
filesize=5000003

[odd-sizes-mapped]
stonewall
ioengine=mmap
rw=randwrite
bs=12345
filesize=3000001

[direct-deep]
stonewall
ioengine=libaio
direct=1
iodepth=32
rw=randwrite
bsrange=4k-272k
blockalign=4k
filesize=12m

[direct-io-uring]
stonewall
ioengine=io_uring
direct=1
iodepth=7
rw=write
bs=68k
filesize=9996k

[several-files]
stonewall
numjobs=4
nrfiles=5
rw=randrw
bssplit=777/20:4097/20:65535/20:65537/20:131073/20
bs_unaligned=1
filesize=700001
";

fn verifies_odd_sizes(engine: Engine) {
    run(engine, 1);
}

fn verifies_at_length(engine: Engine) {
    run(engine, 20);
}

fn run(engine: Engine, loops: u32) {
    let Some(bench) = Bench::start(&Config::new(engine)) else {
        return;
    };
    let jobs = JOBS.replace("randseed=1\n", &format!("randseed=1\nloops={loops}\n"));
    bench
        .steps
        .step("prepare", || put(&bench.guest, "/tmp/jobs.fio", &jobs));
    let fio = |args: &str| format!("cd /tmp && fio --output-format=terse {args} jobs.fio");
    bench.run("write and verify", &fio(""), MINUTES_15);
    bench.run(
        "remount",
        "umount /mnt && mount -t virtiofs data /mnt",
        SECONDS_30,
    );
    // What the guest's page cache may have answered before.
    bench.run("verify again", &fio("--verify_only"), MINUTES_15);
    bench.finish();
}
