//! What ends a wait before its lock is free, and what does not; and how many may wait.

use std::fs;
use std::path::PathBuf;

use guest_tests::ring::fuse::ops;

use super::*;

on_both_kinds_of_volume! {
    a_session_that_ends_ends_its_waits,
    a_vm_that_goes_leaves_no_waiter,
    a_wait_outlives_closes_of_its_owner,
    waiters_of_a_vm_are_bounded,
}

/// Threads of the daemon that wait for locks.
fn waiters(mount: &Mount) -> usize {
    let tasks = PathBuf::from(format!("/proc/{}/task", mount.daemon.pid()));
    let names = fs::read_dir(tasks)
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name == "lock-wait\n").count()
}

/// Threads come and go a moment later than requests.
#[track_caller]
fn until_waiters(mount: &Mount, count: usize) {
    let end = Instant::now() + Duration::from_secs(10);
    while waiters(mount) != count {
        assert!(Instant::now() < end, "{} wait", waiters(mount));
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// DESTROY, and an INIT that comes without one, while requests of the same queue wait.
fn a_session_that_ends_ends_its_waits(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    held(two.left(flock(1, WRITE)));
    let init = SessionConfig::with_queues(2).init;
    for destroys in [true, false] {
        let right = two.on_right;
        let fs = two.right.fs();
        let whole = fs.submit(&ops::setlkw(right, &flock(1, READ)), 0).unwrap();
        let lock = range(1, WRITE, 0, 9);
        let part = fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
        still_waits(fs, part);
        until_waiters(&two.right, 2);
        if destroys {
            two.right.fs().destroy().unwrap();
        }
        two.right.session.send_init(init).unwrap();
        let fs = two.right.fs();
        assert_eq!(fs.wait(part).unwrap_err(), Errno::INTR);
        assert_eq!(fs.wait(whole).unwrap_err(), Errno::INTR);
        until_waiters(&two.right, 0);
        // Its handles are gone as well.
        let lock = range(1, WRITE, 50, 59);
        assert_eq!(two.right(lock).unwrap_err(), Errno::BADF);
        two.on_right = open(two.right.fs(), "f");
        held(two.right(lock));
        held(two.right(range(1, UNLOCK, 0, END)));
    }
    held(two.left(range(1, UNLOCK, 0, END)));
    held(two.left(flock(1, UNLOCK)));
    held(two.right(range(2, WRITE, 0, END)));
    held(two.right(flock(2, WRITE)));
}

fn a_vm_that_goes_leaves_no_waiter(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    held(two.left(flock(1, WRITE)));
    let right = two.on_right;
    for owner in 1..=20 {
        let fs = two.right.fs();
        let lock = range(owner, WRITE, 0, 9);
        fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
        let lock = flock(owner, READ);
        fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
    }
    two.right.fs().statfs(ROOT_ID).unwrap();
    let before = Instant::now();
    two.right.session.device.disconnect();
    let status = two.right.daemon.wait().unwrap();
    assert!(status.success(), "{}", two.right.daemon.log());
    assert!(before.elapsed() < Duration::from_secs(5));
    for kind in [UNLOCK, WRITE] {
        held(two.left(range(1, kind, 0, END)));
        held(two.left(flock(1, kind)));
    }
}

/// As on Linux, where only a signal ends it: what a hostile guest closes or forgets meanwhile is
/// no matter. What it waited for goes with the handle.
fn a_wait_outlives_closes_of_its_owner(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    let fs = two.right.fs();
    let other = fs.open(right.nodeid, RDWR).unwrap();
    let lock = range(1, WRITE, 0, 9);
    let ticket = fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
    still_waits(fs, ticket);
    fs.flush(right, 1).unwrap();
    fs.flush(other, 1).unwrap();
    fs.release(other).unwrap();
    fs.setlk(right, &range(1, UNLOCK, 0, END)).unwrap();
    fs.forget(right.nodeid, 1 << 40).unwrap();
    fs.drain_hiprio().unwrap();
    still_waits(fs, ticket);
    held(two.left(range(1, UNLOCK, 0, 9)));
    two.right.fs().wait(ticket).unwrap();
    kept_out(two.left(range(1, WRITE, 0, 9)));
    two.right.fs().release(right).unwrap();
    held(two.left(range(1, WRITE, 0, 9)));
}

/// However many queues it has, and whatever their size.
fn waiters_of_a_vm_are_bounded(volume: &Volume) {
    let mut config = SessionConfig::with_queues(3);
    config.device.queue_size = 1024;
    config.depth = 380;
    config.device.memory[1].len = 256 << 20;
    let mut two = Two::with(volume, &config);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for number in 0..1110 {
        let fs = &mut two.right.session.clients[number % 3];
        // One owner or many: it makes no difference.
        let lock = range(number as u64 / 2, READ, 0, 9);
        let ticket = fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
        fs.statfs(ROOT_ID).unwrap();
        match fs.is_done(ticket).unwrap() {
            false => waiting.push((number % 3, ticket)),
            true => {
                assert_eq!(fs.wait(ticket).unwrap_err(), Errno::NOLCK);
                refused += 1;
            }
        }
    }
    assert_eq!((waiting.len(), refused), (1024, 86));
    until_waiters(&two.right, 1024);
    // Those who need not wait go on.
    held(two.right(range(9999, WRITE, 100, 109)));
    held(two.left(range(1, UNLOCK, 0, 9)));
    for (queue, ticket) in waiting {
        two.right.session.clients[queue].wait(ticket).unwrap();
    }
    until_waiters(&two.right, 0);
    kept_out(two.left(range(1, WRITE, 0, 0)));
    two.right.fs().release(right).unwrap();
    held(two.left(range(1, WRITE, 0, END)));
}
