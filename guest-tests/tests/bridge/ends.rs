//! How a bridge ends: nothing stays mounted, and nobody hangs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use guest_tests::fixture::Volume;
use rustix::mount::{unmount, UnmountFlags};
use rustix::process::{kill_process, Signal};

use crate::support::{eventually, is_alive, is_stopped, sleeps_in, Bridge};

/// What programs get whose file system has gone.
const CUT_OFF: [Option<i32>; 3] = [
    Some(libc::ENOTCONN),
    Some(libc::ECONNABORTED),
    Some(libc::EIO),
];

#[test]
fn sigterm_unmounts_and_ends_the_daemon() {
    let volume = Volume::striped();
    let Some(mut bridge) = Bridge::mount(&volume, &["--", "--writeback"]) else {
        return;
    };
    let daemon = bridge.daemon();
    // Dirty in this kernel's cache until the unmount.
    fs::write(bridge.join("file"), vec![7; 300_000]).unwrap();
    bridge.signal(Signal::TERM);
    assert!(bridge.wait().success(), "{}", bridge.log());
    assert!(!bridge.is_mounted());
    assert!(!is_alive(daemon));
    assert!(
        volume.get("file") == [7; 300_000],
        "what was written is not there"
    );
}

#[test]
fn umount_ends_it() {
    let volume = Volume::striped();
    let Some(mut bridge) = Bridge::mount(&volume, &["--queues", "2"]) else {
        return;
    };
    let daemon = bridge.daemon();
    fs::write(bridge.join("file"), "bytes").unwrap();
    unmount(bridge.path(), UnmountFlags::empty()).unwrap();
    assert!(bridge.wait().success(), "{}", bridge.log());
    assert!(!is_alive(daemon));
    assert_eq!(volume.get("file"), b"bytes");
}

#[test]
fn open_files_are_served_until_a_second_signal() {
    let volume = Volume::striped();
    let Some(mut bridge) = Bridge::mount(&volume, &["--", "--cache", "never"]) else {
        return;
    };
    let mut file = File::create_new(bridge.join("file")).unwrap();
    bridge.signal(Signal::TERM);
    eventually("it is unmounted", || !bridge.is_mounted());
    file.write_all(b"bytes").unwrap();
    bridge.signal(Signal::INT);
    assert!(bridge.wait().success(), "{}", bridge.log());
    let error = file.write_all(b"more").unwrap_err();
    assert!(CUT_OFF.contains(&error.raw_os_error()), "{error}");
    assert_eq!(volume.get("file"), b"bytes");
}

#[test]
fn a_daemon_that_dies_leaves_no_mount_and_nobody_waiting() {
    let volume = Volume::striped();
    let options = ["--queues", "2", "--", "--cache", "never"];
    let Some(mut bridge) = Bridge::mount(&volume, &options) else {
        return;
    };
    let daemon = bridge.daemon();
    fs::write(bridge.join("file"), "bytes").unwrap();
    let file = File::open(bridge.join("file")).unwrap();
    // It stands still, so that the read is in flight when it dies.
    kill_process(daemon, Signal::STOP).unwrap();
    eventually("it stands still", || is_stopped(daemon));
    let (tell, told) = mpsc::channel();
    let reader = thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        file.read_at(&mut [0; 5], 0)
    });
    let reader_id = told.recv().unwrap();
    eventually("it reads", || sleeps_in(reader_id, libc::SYS_pread64));
    kill_process(daemon, Signal::KILL).unwrap();
    let error = reader.join().unwrap().unwrap_err();
    assert!(CUT_OFF.contains(&error.raw_os_error()), "{error}");
    assert!(!bridge.wait().success());
    assert!(
        bridge.log().contains("the daemon hung up"),
        "{}",
        bridge.log()
    );
    assert!(!bridge.is_mounted());
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bridge"))
            .args(args)
            .output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let volume = Volume::posix();
    let folder = volume.path().to_str().unwrap();
    let socket = format!("{folder}/none.sock");
    let Some(bridge) = Bridge::mount(&volume, &[]) else {
        return;
    };
    let said = run(&["--socket", &socket, folder]);
    assert!(said.contains("none.sock: is a daemon listening?"), "{said}");
    let said = run(&["--volume", "/no/such", folder]);
    assert!(said.contains("/no/such"), "{said}");
    let file = format!("{folder}/file");
    fs::write(&file, "").unwrap();
    let said = run(&["--volume", folder, &file, "--", "--sandbox", "none"]);
    assert!(said.contains("is no directory to mount on"), "{said}");
    bridge.end();
}
