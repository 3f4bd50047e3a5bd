//! pjdfstest of crates.io: what POSIX says of names, modes, owners, times and errors.

use std::path::Path;
use std::process::Command;

use guest_tests::fixture::Volume;
use guest_tests::suites;

use crate::support::{tools, Bridge};

/// Users that every Debian has.
const USERS: &str = "\
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";
/// Of version 0.2.2. FUSE has no limit of links that the C library could know; the other 13 want
/// a read-only mount.
const WRITABLE: &str = "Summary: 0 failed, 14 skipped, 384 passed";
const READ_ONLY: &str = "Summary: 0 failed, 0 skipped, 13 passed";

#[test]
fn conforms_striped() {
    conforms(&Volume::striped());
}

#[test]
fn conforms_mapped() {
    conforms(&Volume::mapped());
}

#[test]
fn conforms_posix() {
    conforms(&Volume::posix());
}

fn conforms(volume: &Volume) {
    let Some(tools) = tools() else { return };
    let config = format!("{}{USERS}", suites::PJDFSTEST);
    let remount = config.replace("0.01\n", "0.01\nallow_remount = true\n");
    // A mount for each, because tests leave files open, and then none can become read-only.
    let parts = [(&*config, "", WRITABLE), (&*remount, "erofs", READ_ONLY)];
    for (config, tests, expected) in parts {
        let Some(bridge) = Bridge::mount(volume, &[]) else {
            return;
        };
        run(&tools.pjdfstest, &bridge, config, tests, expected);
        bridge.end();
    }
}

fn run(program: &Path, bridge: &Bridge, config: &str, tests: &str, expected: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pjdfstest.toml");
    std::fs::write(&file, config).unwrap();
    let command = &mut Command::new(program);
    command.arg("-p").arg(bridge.path()).arg("-c").arg(file);
    command.arg("-s").arg(scratch.path()).arg("--").arg(tests);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(expected), "{said}");
}
