//! What ends a lock besides its unlock.

use guest_tests::ring::fuse::ops;

use super::*;

on_both_kinds_of_volume! {
    a_flush_drops_the_ranges_of_its_owner,
    a_release_drops_what_was_taken_through_it,
    a_daemon_that_dies_loses_its_locks,
    a_session_that_ends_loses_its_locks,
    locks_of_a_removed_file,
    descriptors_go_with_the_locks,
}

fn a_flush_drops_the_ranges_of_its_owner(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    held(two.left(range(1, READ, 20, 29)));
    held(two.left(range(2, WRITE, 40, 49)));
    held(two.left(flock(1, WRITE)));
    // Any descriptor of the file: POSIX has it so.
    let fs = two.left.fs();
    let other = fs.open(two.on_left.nodeid, libc::O_RDONLY).unwrap();
    fs.flush(other, 3).unwrap();
    kept_out(two.right(range(9, WRITE, 0, 0)));
    two.left.fs().flush(other, 1).unwrap();
    held(two.right(range(9, WRITE, 0, 39)));
    kept_out(two.right(range(9, WRITE, 40, 40)));
    kept_out(two.right(flock(9, WRITE)));
}

fn a_release_drops_what_was_taken_through_it(volume: &Volume) {
    let mut two = Two::new(volume);
    let node = two.on_left.nodeid;
    let fs = two.left.fs();
    let [ofd, shared, other] = [0; 3].map(|_| fs.open(node, RDWR).unwrap());
    // Owners of a guest's OFD locks close without a FLUSH that names them.
    held(fs.setlk(ofd, &range(11, WRITE, 0, 9)));
    held(fs.setlk(shared, &flock(12, READ)));
    held(fs.setlk(other, &range(13, WRITE, 20, 29)));
    fs.release(ofd).unwrap();
    held(two.right(range(9, WRITE, 0, 9)));
    kept_out(two.right(range(9, WRITE, 20, 20)));
    kept_out(two.right(flock(9, WRITE)));
    let fs = two.left.fs();
    fs.call(&ops::release_flock(shared, 12)).unwrap();
    held(two.right(flock(9, WRITE)));
    kept_out(two.right(range(9, WRITE, 20, 20)));
    two.left.fs().release(other).unwrap();
    held(two.right(range(9, WRITE, 20, 20)));
}

fn a_daemon_that_dies_loses_its_locks(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, END)));
    held(two.left(flock(1, WRITE)));
    kept_out(two.right(range(1, READ, 5, 5)));
    two.left.daemon.kill().unwrap();
    soon(|| two.right(range(1, WRITE, 0, END)));
    soon(|| two.right(flock(1, WRITE)));
}

fn a_session_that_ends_loses_its_locks(volume: &Volume) {
    let mut two = Two::new(volume);
    let lock_all = |two: &mut Two| {
        held(two.left(range(1, WRITE, 0, END)));
        held(two.left(flock(1, WRITE)));
        kept_out(two.right(range(1, WRITE, 0, 0)));
    };
    let free = |two: &mut Two| {
        held(two.right(range(1, WRITE, 0, END)));
        held(two.right(flock(1, WRITE)));
        held(two.right(range(1, UNLOCK, 0, END)));
        held(two.right(flock(1, UNLOCK)));
    };
    lock_all(&mut two);
    // A guest that reboots without a word.
    let config = SessionConfig::with_queues(2);
    two.left.session.reboot(&config).unwrap();
    free(&mut two);
    two.on_left = open(two.left.fs(), "f");
    lock_all(&mut two);
    two.left.fs().destroy().unwrap();
    free(&mut two);
    two.left.session.send_init(config.init).unwrap();
    two.on_left = open(two.left.fs(), "f");
    lock_all(&mut two);
    two.left.session.device.disconnect();
    two.left.daemon.wait().unwrap();
    free(&mut two);
}

fn locks_of_a_removed_file(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    two.right.fs().unlink(ROOT_ID, "f").unwrap();
    kept_out(two.right(range(1, WRITE, 0, 9)));
    held(two.right(range(1, WRITE, 10, 19)));
    let (l, r) = (two.on_left, two.on_right);
    two.left.fs().release(l).unwrap();
    held(two.right(range(1, WRITE, 0, 9)));
    two.right.fs().release(r).unwrap();
    if volume.is_striped() {
        assert_eq!(volume.objects().concat().len(), 0, "nothing is left of it");
    }
}

fn descriptors_go_with_the_locks(volume: &Volume) {
    let mut two = Two::new(volume);
    two.left(range(1, UNLOCK, 0, 9)).unwrap();
    let before = two.left.open_fds();
    for owner in 1..=100 {
        held(two.left(range(owner, WRITE, owner * 10, owner * 10)));
        held(two.left(flock(owner, READ)));
    }
    assert_eq!(two.left.open_fds(), before + 200);
    for owner in 1..=100 {
        held(two.left(range(owner, UNLOCK, 0, END)));
    }
    assert_eq!(two.left.open_fds(), before + 100);
    let handle = two.on_left;
    two.left.fs().release(handle).unwrap();
    assert!(two.left.open_fds() < before);
}
