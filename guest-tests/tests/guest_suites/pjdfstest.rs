//! pjdfstest of crates.io: what POSIX says of names, modes, owners, times and errors.

use crate::support::{put, tools, Bench, Config, MINUTES_5, SECONDS_30};
use guest_tests::suites;
use guest_tests::vm::{tools, Engine, Guest, Kernel};
use std::collections::BTreeMap;

on_every_volume! {
    conforms,
}

#[test]
fn on_kernel_6_12() {
    let config = Config {
        kernel: Kernel::V6_12,
        request_queues: 4,
        ..Config::new(Engine::Striped)
    };
    run(&config);
}

/// Tests of version 0.2.2, so that none goes missing.
const TESTS: usize = 398;
/// FUSE has no limit of links that the guest's C library could know, so virtiofsd skips it too.
const SKIPPED: [&str; 1] = ["link::link_count_max"];

fn conforms(engine: Engine) {
    run(&Config::new(engine));
}

fn run(config: &Config) {
    let Some(tools) = tools() else { return };
    let Some(bench) = Bench::start(config) else {
        return;
    };
    let guest = &bench.guest;
    bench.steps.step("prepare", || {
        tools::install(guest, &tools.pjdfstest, "/usr/local/bin/pjdfstest")?;
        guest.check("useradd --user-group tests", SECONDS_30)?;
        put(guest, "/tmp/all.toml", suites::PJDFSTEST)?;
        let remount = format!("{}allow_remount = true\n", suites::PJDFSTEST);
        put(guest, "/tmp/erofs.toml", &remount)
    });
    let mut outcomes = BTreeMap::new();
    bench.steps.step("pjdfstest", || {
        outcomes.extend(pjdfstest(guest, "-p /mnt -s /tmp -c /tmp/all.toml"));
        Ok(())
    });
    // Apart, because other tests leave files open, and then nothing can be mounted read-only.
    bench.steps.step("pjdfstest on a read-only mount", || {
        outcomes.extend(pjdfstest(
            guest,
            "-p /mnt -s /tmp -c /tmp/erofs.toml -- erofs",
        ));
        Ok(())
    });
    let with = |wanted: &str| -> Vec<&String> {
        let found = outcomes.iter().filter(|(_, outcome)| *outcome == wanted);
        found.map(|(name, _)| name).collect()
    };
    eprintln!("      {} ok of {}", with("ok").len(), outcomes.len());
    assert_eq!(with("FAILED"), Vec::<&String>::new(), "see the log above");
    assert_eq!(with("skipped"), SKIPPED);
    assert_eq!(with("ok").len(), TESTS - SKIPPED.len());
    bench.finish();
}

/// Each test's name and what came of it; prints what is said of those that fail.
fn pjdfstest(guest: &Guest, args: &str) -> Vec<(String, String)> {
    let command = format!("pjdfstest {args}");
    let output = guest.run(&command, MINUTES_5).expect("pjdfstest ends");
    let text = output.text();
    let mut outcomes = Vec::new();
    let mut failed = false;
    for line in text.lines() {
        if let Some((name, outcome)) = outcome(line) {
            failed = outcome == "FAILED";
            outcomes.push((name.to_owned(), outcome.to_owned()));
        }
        if failed {
            eprintln!("      {line}");
        }
    }
    // Exit code 1 is for tests that failed; the summary comes with both.
    assert!(
        matches!(output.code, 0 | 1) && text.contains("Summary"),
        "{output}"
    );
    outcomes
}

fn outcome(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split_whitespace();
    let (name, outcome) = (words.next()?, words.next()?);
    let is_one = name.contains("::") && ["ok", "FAILED", "skipped"].contains(&outcome);
    (is_one && words.next().is_none()).then_some((name, outcome))
}
