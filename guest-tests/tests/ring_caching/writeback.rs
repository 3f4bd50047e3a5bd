//! `--writeback`: the guest writes when it sees fit.

use guest_tests::ring::fuse::abi::{FsOptions, SetattrIn, SetattrValid};
use guest_tests::ring::fuse::{ops, Errno};

use super::*;

const WRITEBACK: &[&str] = &["--cache=auto", "--writeback"];

/// `FATTR_CTIME`.
const CTIME: u32 = 1 << 10;

fn takes_writeback(mount: &Mount) -> bool {
    mount.session.flags() & FsOptions::WRITEBACK_CACHE.bits() != 0
}

#[test]
fn is_taken_when_asked_for() {
    let volume = Volume::posix();
    assert!(!takes_writeback(&vm(&volume, &["--cache=always"])));
    assert!(takes_writeback(&vm(&volume, WRITEBACK)));
    let always = ["--cache=always", "--writeback"];
    assert!(takes_writeback(&vm(&volume, &always)));
}

/// The guest's kernel reads the rest of a page through the handle that writes a part of it, and
/// says itself where an append goes.
#[test]
fn handles_that_write_also_read() {
    for volume in volumes() {
        let mut a = vm(&volume, WRITEBACK);
        let fs = a.fs();
        let (entry, made) = fs.create(ROOT_ID, "f", 0o644, WRONLY).unwrap();
        fs.write_all(made, 0, b"0123456789").unwrap();
        assert_eq!(fs.read(made, 2, 3).unwrap(), b"234");
        let handle = fs.open(entry.nodeid, WRONLY | libc::O_APPEND).unwrap();
        assert_eq!(fs.read(handle, 0, 100).unwrap(), b"0123456789");
        // Pages that were there before, written late.
        fs.write_all(handle, 4, b"xx").unwrap();
        assert_eq!(fs.read(handle, 0, 100).unwrap(), b"0123xx6789");
        let (_, temp) = fs.call(&ops::tmpfile(ROOT_ID, 0o600, WRONLY, 0)).unwrap();
        let temp = Handle::new(0, &temp);
        assert!(temp.fh != 0);
    }
}

/// Without it, a handle does what it was opened for.
#[test]
fn others_do_not() {
    let volume = Volume::posix();
    let mut a = vm(&volume, &["--cache=auto"]);
    let (_, handle) = a.fs().create(ROOT_ID, "f", 0o644, WRONLY).unwrap();
    let read = a.fs().read(handle, 0, 1);
    assert!(read.is_err_and(|error| error == Errno::BADF));
}

/// The guest owns the times of what it wrote and tells them late.
#[test]
fn times_come_with_a_change_time() {
    for volume in volumes() {
        let mut a = vm(&volume, WRITEBACK);
        let (entry, handle) = a.fs().create(ROOT_ID, "f", 0o644, WRONLY).unwrap();
        a.fs().write_all(handle, 0, b"data").unwrap();
        let set = SetattrIn {
            valid: SetattrValid::MTIME.bits() | CTIME,
            mtime: 1_000_000,
            mtimensec: 5,
            ctime: 1_000_001,
            ..SetattrIn::default()
        };
        let attr = a.fs().setattr(entry.nodeid, &set).unwrap().attr;
        assert_eq!((attr.mtime, attr.mtimensec), (1_000_000, 5));
        assert!(attr.ctime > 1_000_001, "a change time is the volume's own");
    }
}

/// What was written and closed is there for a second VM.
#[test]
fn a_second_vm_sees_what_was_flushed() {
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, WRITEBACK), vm(&volume, &["--cache=auto"]));
        rewrite(a.fs(), "f", b"flushed");
        let (handle, size) = open(b.fs(), "f", RDONLY);
        assert_eq!(size, 7);
        assert_eq!(b.fs().read_to_end(handle).unwrap(), b"flushed");
    }
}
