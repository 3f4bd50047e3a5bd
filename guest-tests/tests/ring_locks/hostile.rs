//! Locks that no Linux guest asks for.

use guest_tests::ring::fuse::ops;

use super::*;

on_both_kinds_of_volume! {
    locks_that_cannot_be,
    locks_without_end,
    locks_that_were_not_agreed_on,
    a_released_handle_ends_its_waits,
    owners_that_lie,
    locks_of_a_nameless_file,
}

fn locks_that_cannot_be(volume: &Volume) {
    let mut two = Two::new(volume);
    for (lock, errno) in [
        (range(1, WRITE, 10, 9), Errno::INVAL),
        (range(1, WRITE, 0, END + 1), Errno::INVAL),
        (range(1, WRITE, u64::MAX, u64::MAX), Errno::INVAL),
        (range(1, 3, 0, 9), Errno::INVAL),
        (range(1, -1, 0, 9), Errno::INVAL),
    ] {
        assert_eq!(two.left(lock).unwrap_err(), errno);
    }
    // The bytes of the daemons' own locks are no guest's.
    let own = two.left(range(1, WRITE, END - 1, END));
    match volume.is_striped() {
        true => assert_eq!(own.unwrap_err(), Errno::OVERFLOW),
        false => held(own),
    }
    held(two.left(range(1, UNLOCK, END - 1, END)));
    let (handle, fs) = (two.on_left, two.left.fs());
    for question in [flock(1, WRITE), range(1, UNLOCK, 0, 9)] {
        assert_eq!(fs.getlk(handle, &question).unwrap_err(), Errno::INVAL);
    }
    let other = fs.create(ROOT_ID, "g", 0o600, RDWR).unwrap().1;
    let dir = fs.opendir(ROOT_ID).unwrap();
    for wrong in [
        Handle {
            nodeid: other.nodeid,
            ..handle
        },
        Handle {
            fh: 1 << 40,
            ..handle
        },
        Handle {
            fh: dir.fh,
            ..handle
        },
        dir,
    ] {
        let lock = range(1, WRITE, 0, 9);
        assert_eq!(fs.setlk(wrong, &lock).unwrap_err(), Errno::BADF);
        assert_eq!(fs.setlkw(wrong, &lock).unwrap_err(), Errno::BADF);
        assert_eq!(fs.getlk(wrong, &lock).unwrap_err(), Errno::BADF);
    }
}

/// Owners, ranges and descriptors of the daemon are bounded, and the guest can go on.
fn locks_without_end(volume: &Volume) {
    let mut two = Two::new(volume);
    let before = two.left.open_fds();
    let mut refused = 0;
    for number in 0..10_000u64 {
        let lock = range(number % 500, WRITE, 2 * number, 2 * number);
        match two.left(lock) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, Errno::NOLCK);
                refused += 1;
            }
        }
    }
    // A lock may make two ranges more, and is refused where that would be too many.
    assert_eq!(refused, 10_000 - 8191);
    assert!(two.left.open_fds() <= before + 500);
    let handle = two.on_left;
    two.left.fs().release(handle).unwrap();
    two.on_left = open(two.left.fs(), "f");
    held(two.left(range(1, WRITE, 0, END)));
    held(two.left(range(1, UNLOCK, 0, END)));
    held(two.right(range(1, WRITE, 0, END)));
}

fn locks_that_were_not_agreed_on(volume: &Volume) {
    let daemon = volume.daemon_with(&["--no-flock"]);
    let mut mount = Mount::start(daemon, &SessionConfig::default());
    mount.fs().write_file("/f", b"x").unwrap();
    let handle = open(mount.fs(), "f");
    held(mount.fs().setlk(handle, &range(1, WRITE, 0, 9)));
    let error = mount.fs().setlk(handle, &flock(1, WRITE)).unwrap_err();
    assert_eq!(error, Errno::NOSYS);
    let legacy = volume.daemon_with(&["-o", "no_posix_lock,flock"]);
    let mut mount = Mount::start(legacy, &SessionConfig::default());
    let handle = open(mount.fs(), "f");
    held(mount.fs().setlk(handle, &flock(1, WRITE)));
    for error in [
        mount
            .fs()
            .setlk(handle, &range(1, WRITE, 0, 9))
            .unwrap_err(),
        mount
            .fs()
            .getlk(handle, &range(1, WRITE, 0, 9))
            .unwrap_err(),
    ] {
        assert_eq!(error, Errno::NOSYS);
    }
}

fn a_released_handle_ends_its_waits(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    let fs = two.right.fs();
    let ticket = fs
        .submit(&ops::setlkw(right, &range(1, WRITE, 0, 9)), 0)
        .unwrap();
    still_waits(fs, ticket);
    fs.release(right).unwrap();
    assert_eq!(fs.wait(ticket).unwrap_err(), Errno::INTR);
    held(two.left(range(1, UNLOCK, 0, 9)));
}

/// An owner is a number that the guest gives: it reaches its own locks, and nobody else's.
fn owners_that_lie(volume: &Volume) {
    let mut two = Two::new(volume);
    for owner in [0, 1, 1 << 63, u64::MAX] {
        held(two.left(range(owner, READ, 0, 9)));
        let right = two.on_right;
        let fs = two.right.fs();
        held(fs.setlk(right, &range(owner, UNLOCK, 0, END)));
        held(fs.setlk(right, &flock(owner, UNLOCK)));
        fs.flush(right, owner).unwrap();
        fs.call(&ops::release_flock(right, owner)).unwrap();
        two.on_right = open(two.right.fs(), "f");
        kept_out(two.right(range(owner, WRITE, 0, 9)));
    }
    // A handle that was never given out drops nothing.
    let left = two.on_left;
    let fs = two.left.fs();
    for fh in [0, 1 << 40, u64::MAX] {
        let no = Handle { fh, ..left };
        assert_eq!(fs.flush(no, 1).unwrap_err(), Errno::BADF);
        assert_eq!(
            fs.call(&ops::release_flock(no, 1)).unwrap_err(),
            Errno::BADF
        );
    }
    kept_out(two.right(range(7, WRITE, 0, 9)));
}

/// Nobody else can have it open; its locks work, and hold nothing back at its end.
fn locks_of_a_nameless_file(volume: &Volume) {
    let mut mount = volume.mount();
    let before = mount.open_fds();
    let fs = mount.fs();
    let (entry, file) = fs.tmpfile(ROOT_ID, 0o600, RDWR).unwrap();
    fs.write(file, 100_000, b"x").unwrap();
    held(fs.setlk(file, &range(1, WRITE, 0, 9)));
    held(fs.setlk(file, &flock(1, WRITE)));
    kept_out(fs.setlk(file, &range(2, READ, 9, 9)));
    kept_out(fs.setlk(file, &flock(2, READ)));
    let found = fs.getlk(file, &range(2, READ, 0, END)).unwrap();
    assert_eq!((found.end, found.pid), (9, 1001));
    let lock = range(2, READ, 0, 9);
    let ticket = fs.submit(&ops::setlkw(file, &lock), 0).unwrap();
    still_waits(fs, ticket);
    held(fs.setlk(file, &range(1, UNLOCK, 0, END)));
    fs.wait(ticket).unwrap();
    // Closed without an unlock, as no Linux guest would.
    fs.release(file).unwrap();
    fs.forget(entry.nodeid, 1).unwrap();
    fs.drain_hiprio().unwrap();
    assert_eq!(mount.open_fds(), before);
    if volume.is_striped() {
        assert_eq!(volume.objects().concat().len(), 0, "nothing is left of it");
    }
}
