//! fsx of crates.io: one file is read, written, mapped, cut and copied at random, and every byte
//! read is compared with what it should be.

use std::process::Command;

use guest_tests::fixture::Volume;
use guest_tests::suites;

use crate::support::{tools, Bridge};

#[test]
fn operations_2_000_striped() {
    run(&Volume::striped(), 2_000, &[]);
}

#[test]
fn operations_2_000_striped_uncached() {
    run(&Volume::striped(), 2_000, &["--", "--cache", "never"]);
}

#[test]
fn operations_2_000_mapped() {
    run(&Volume::mapped(), 2_000, &[]);
}

#[test]
fn operations_2_000_posix() {
    run(&Volume::posix(), 2_000, &[]);
}

#[test]
#[ignore = "takes minutes"]
fn nightly_operations_100_000_striped() {
    run(&Volume::striped(), 100_000, &[]);
}

#[test]
#[ignore = "takes minutes"]
fn nightly_operations_100_000_mapped() {
    run(&Volume::mapped(), 100_000, &[]);
}

#[test]
#[ignore = "takes minutes"]
fn nightly_operations_100_000_posix() {
    run(&Volume::posix(), 100_000, &[]);
}

fn run(volume: &Volume, operations: u64, args: &[&str]) {
    let Some(tools) = tools() else { return };
    let Some(bridge) = Bridge::mount(volume, args) else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let config = scratch.path().join("fsx.toml");
    std::fs::write(&config, suites::FSX).unwrap();
    // It picks a seed and prints it; when it fails, it prints the last operations too.
    let output = Command::new(tools.fsx)
        .arg("-f")
        .arg(config)
        .arg("-N")
        .arg(operations.to_string())
        .arg("-P")
        .arg(scratch.path())
        .arg(bridge.join("file"))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("All operations completed"), "{said}");
    bridge.end();
}
