//! fsx of crates.io: one file is read, written, mapped, cut and copied at random, and every byte
//! read is compared with what it should be.

use crate::support::{put, tools, Bench, Config, SECONDS_30};
use guest_tests::suites;
use guest_tests::vm::{tools, Engine};
use std::time::Duration;

on_every_volume! {
    operations_5_000,
    #[ignore = "takes minutes"]
    operations_100_000,
}

fn operations_5_000(engine: Engine) {
    run(&Config::new(engine), 5_000);
}

fn operations_100_000(engine: Engine) {
    run(&Config::new(engine), 100_000);
}

fn run(config: &Config, operations: u64) {
    let Some(tools) = tools() else { return };
    let Some(bench) = Bench::start(config) else {
        return;
    };
    bench.steps.step("prepare", || {
        tools::install(&bench.guest, &tools.fsx, "/usr/local/bin/fsx")?;
        put(&bench.guest, "/tmp/fsx.toml", suites::FSX)
    });
    // It picks a seed and prints it; when it fails, it prints the last operations too.
    let command = format!("cd /tmp && fsx -f /tmp/fsx.toml -N {operations} -P /tmp /mnt/file 2>&1");
    // 3 ms an operation under TCG on an idle machine.
    let timeout = Duration::from_secs(120) + Duration::from_millis(20) * operations as u32;
    let log = bench.run(&format!("{operations} operations"), &command, timeout);
    assert!(log.contains("All operations completed"), "{log}");
    bench.run("the file goes", "rm /mnt/file", SECONDS_30);
    bench.finish();
}
