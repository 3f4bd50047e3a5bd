//! Daemon processes, played by a shell.

use std::time::{Duration, Instant};

use guest_tests::ring::process::{self, DaemonCommand};

#[test]
fn a_daemon_that_does_not_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let started = Instant::now();
    let error = DaemonCommand::new("/bin/sh", &socket)
        .args(["-c", "echo no such luck >&2; exit 3"])
        .spawn()
        .unwrap_err();
    assert!(matches!(&error, process::Error::Ended { status, .. } if status.code() == Some(3)));
    assert!(error.to_string().contains("no such luck"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_dropped_daemon_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = DaemonCommand::new("/bin/sh", dir.path().join("socket"))
        .args(["-c", "sleep 1000 & echo $! >&2; wait"])
        .spawn_without_waiting()
        .unwrap();
    while !daemon.log().ends_with('\n') {
        std::thread::sleep(Duration::from_millis(1));
    }
    let child: i32 = daemon.log().trim().parse().unwrap();
    drop(daemon);
    let child = rustix::process::Pid::from_raw(child).unwrap();
    let start = Instant::now();
    while rustix::process::test_kill_process(child).is_ok() {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.as_raw_nonzero()));
        if stat.is_ok_and(|stat| stat.contains(") Z ")) {
            // Dead, and nobody's to reap but init's.
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(5), "it still runs");
    }
}

#[test]
fn environment_and_user_are_set() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a daemon as another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = DaemonCommand::new("/bin/sh", dir.path().join("socket"))
        .args(["-c", "echo $WORD $(id -u) $(id -g) >&2"])
        .env("WORD", "xyzzy")
        .user(1234, 5678)
        .spawn_without_waiting()
        .unwrap();
    assert!(daemon.wait().unwrap().success());
    assert_eq!(daemon.log(), "xyzzy 1234 5678\n");
}
