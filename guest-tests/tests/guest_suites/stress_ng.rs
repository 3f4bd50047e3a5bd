//! stress-ng's filesystem class: each of its stressors in turn, with its own checks on.

use crate::support::{Bench, Config, MINUTES_40, SECONDS_30};
use guest_tests::vm::Engine;

on_every_volume! {
    #[ignore = "takes minutes"]
    filesystem_class,
    #[ignore = "takes minutes"]
    locks_within_a_guest,
}

/// The whole class, but for binderfs, which is a file system of its own, and for the locks.
const FILE_SYSTEM: &str =
    "--class filesystem --sequential 2 --exclude binderfs,flock,locka,lockf,lockofd";
/// These hold a lock, kill a process that waits for it, and wait for its end: it does not come in
/// a virtiofs guest whose locks reach further than the guest; `docs/locks.md`, "Waiting".
const LOCKS: &str = "--flock 1 --locka 1 --lockf 1 --lockofd 1";

fn filesystem_class(engine: Engine) {
    run(&Config::with_programs(engine), FILE_SYSTEM);
}

fn locks_within_a_guest(engine: Engine) {
    let config = Config {
        daemon_args: &["--no-posix-lock", "--no-flock"],
        ..Config::with_programs(engine)
    };
    run(&config, LOCKS);
}

fn run(config: &Config, stressors: &str) {
    let Some(bench) = Bench::start(config) else {
        return;
    };
    // Exit code 4 is for a stressor that has nothing to do on this kernel, 2 for one that failed,
    // 3 for one that lacked resources.
    let command = format!(
        "cd /tmp && stress-ng {stressors} --timeout 4 --verify --metrics-brief --temp-path /mnt \\
            --hdd-bytes 16m --iomix-bytes 16m --no-rand-seed --log-file stress.log >/dev/null 2>&1
        code=$?
        cat stress.log
        test $code = 0 || test $code = 4"
    );
    let log = bench.run(stressors, &command, MINUTES_40);
    for line in log.lines().filter(|line| line.contains("skip")) {
        eprintln!("      {line}");
    }
    assert!(log.contains("successful run completed"), "{log}");
    assert!(!log.contains(" fail: "), "{log}");
    bench.run("nothing is left", "test -z \"$(ls -A /mnt)\"", SECONDS_30);
    bench.finish();
}
