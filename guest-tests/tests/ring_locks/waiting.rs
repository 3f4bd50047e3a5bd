//! Locks that are waited for.

use guest_tests::ring::fuse::ops;

use super::*;

on_both_kinds_of_volume! {
    granted_when_the_holder_unlocks,
    granted_when_the_holder_dies,
    an_interrupt_ends_the_wait,
    an_interrupt_may_overtake,
    waiters_leave_the_ring_room,
    a_circle_in_one_guest_is_refused,
    a_stopped_queue_keeps_its_waiters,
    a_guest_that_reboots_leaves_no_waiter,
}

fn granted_when_the_holder_unlocks(volume: &Volume) {
    let mut two = Two::new(volume);
    for (hold, drop_it, want) in [
        (
            range(1, WRITE, 0, 99),
            range(1, UNLOCK, 50, 50),
            range(1, WRITE, 50, 50),
        ),
        (flock(1, READ), flock(1, UNLOCK), flock(1, WRITE)),
    ] {
        held(two.left(hold));
        let request = ops::setlkw(two.on_right, &want);
        let ticket = two.right.fs().submit(&request, 0).unwrap();
        still_waits(two.right.fs(), ticket);
        held(two.left(drop_it));
        two.right.fs().wait(ticket).unwrap();
        kept_out(two.left(hold));
        // What need not wait is answered at once.
        let handle = two.on_right;
        two.right.fs().setlkw(handle, &want).unwrap();
    }
}

fn granted_when_the_holder_dies(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, END)));
    held(two.left(flock(1, WRITE)));
    let right = two.on_right;
    let fs = two.right.fs();
    let range = fs.submit(&ops::setlkw(right, &range(1, READ, 7, 7)), 0);
    let whole = fs.submit(&ops::setlkw(right, &flock(1, READ)), 0);
    let (range, whole) = (range.unwrap(), whole.unwrap());
    still_waits(fs, range);
    still_waits(fs, whole);
    two.left.daemon.kill().unwrap();
    two.right.fs().wait(range).unwrap();
    two.right.fs().wait(whole).unwrap();
}

fn an_interrupt_ends_the_wait(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    held(two.left(flock(1, WRITE)));
    let right = two.on_right;
    for round in 0..40 {
        let lock = match round % 2 {
            0 => range(1, WRITE, 5, 20),
            _ => flock(1, READ),
        };
        let fs = two.right.fs();
        let ticket = fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
        std::thread::sleep(Duration::from_micros(100 * round));
        fs.interrupt(ticket.unique()).unwrap();
        assert_eq!(fs.wait(ticket).unwrap_err(), Errno::INTR);
    }
    // No lock is left of any of them.
    held(two.left(range(2, WRITE, 10, 20)));
    // Interrupts of what is done, of what never was, and from the first queue.
    let fs = two.right.fs();
    for unique in [2, 4, u64::MAX - 1] {
        fs.interrupt(unique).unwrap();
    }
    fs.drain_hiprio().unwrap();
    let ticket = fs
        .submit(&ops::setlkw(right, &range(1, WRITE, 5, 5)), 0)
        .unwrap();
    still_waits(fs, ticket);
    held(two.left(range(1, UNLOCK, 0, 9)));
    two.right.fs().wait(ticket).unwrap();
}

fn an_interrupt_may_overtake(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    let fs = two.right.fs();
    let lock = range(1, READ, 0, 0);
    let overtakes = (0..100).any(|_| {
        // On the ring, but without a kick the daemon does not look; unless it is still about.
        std::thread::sleep(Duration::from_millis(5));
        let ticket = fs.enqueue(&ops::setlkw(right, &lock), 0).unwrap();
        fs.interrupt(ticket.unique()).unwrap();
        fs.drain_hiprio().unwrap();
        let overtakes = !fs.is_done(ticket).unwrap();
        fs.kick().unwrap();
        assert_eq!(fs.wait(ticket).unwrap_err(), Errno::INTR);
        overtakes
    });
    assert!(overtakes, "the test tests nothing");
}

/// However many wait, the one who unlocks finds room on the queue.
fn waiters_leave_the_ring_room(volume: &Volume) {
    for indirect in [true, false] {
        let mut config = SessionConfig::with_queues(1);
        config.device.queue_size = 64;
        config.device.indirect = indirect;
        config.depth = 64;
        let mut two = Two::with(volume, &config);
        held(two.left(range(1, WRITE, 0, 9)));
        let right = two.on_right;
        let fs = two.right.fs();
        let (mut waiting, mut refused) = (Vec::new(), 0);
        for owner in 0..48 {
            let lock = range(100 + owner, READ, 0, 9);
            let ticket = fs.submit(&ops::setlkw(right, &lock), 0).unwrap();
            fs.statfs(ROOT_ID).unwrap();
            if !fs.is_done(ticket).unwrap() {
                waiting.push(ticket);
                continue;
            }
            assert_eq!(fs.wait(ticket).unwrap_err(), Errno::NOLCK);
            refused += 1;
        }
        let room = if indirect { 32 } else { 8 };
        assert_eq!((waiting.len(), refused), (room, 48 - room));
        // The queue is as good as ever.
        held(fs.setlk(right, &range(1, WRITE, 100, 109)));
        held(two.left(range(1, UNLOCK, 0, 9)));
        for ticket in waiting {
            two.right.fs().wait(ticket).unwrap();
        }
        kept_out(two.left(range(1, WRITE, 0, 0)));
    }
}

fn a_circle_in_one_guest_is_refused(volume: &Volume) {
    let mut two = Two::new(volume);
    let left = two.on_left;
    held(two.left(range(1, WRITE, 0, 0)));
    held(two.left(range(2, WRITE, 1, 1)));
    let fs = two.left.fs();
    let ticket = fs
        .submit(&ops::setlkw(left, &range(1, WRITE, 1, 1)), 0)
        .unwrap();
    still_waits(fs, ticket);
    let circle = fs.setlkw(left, &range(2, READ, 0, 0));
    assert_eq!(circle.unwrap_err(), Errno::DEADLK);
    held(fs.setlk(left, &range(2, UNLOCK, 0, END)));
    fs.wait(ticket).unwrap();
}

/// As when a VM is paused and goes on: nobody in it may notice.
fn a_stopped_queue_keeps_its_waiters(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    let fs = two.right.fs();
    let first = fs
        .submit(&ops::setlkw(right, &range(1, READ, 0, 0)), 0)
        .unwrap();
    let second = fs
        .submit(&ops::setlkw(right, &range(2, READ, 1, 1)), 0)
        .unwrap();
    still_waits(fs, first);
    for _ in 0..3 {
        let before = Instant::now();
        let base = two.right.session.device.stop_queue(1).unwrap();
        assert!(
            before.elapsed() < Duration::from_secs(5),
            "it waits for no lock"
        );
        two.right.session.device.start_queue(1, base).unwrap();
        still_waits(two.right.fs(), first);
        still_waits(two.right.fs(), second);
    }
    let base = two.right.session.device.stop_queue(1).unwrap();
    held(two.left(range(1, UNLOCK, 0, 0)));
    held(two.left(range(2, WRITE, 0, 0)));
    held(two.left(range(2, UNLOCK, 0, 0)));
    two.right.session.device.start_queue(1, base).unwrap();
    two.right.fs().wait(first).unwrap();
    still_waits(two.right.fs(), second);
    // Those that wait again can still be interrupted.
    two.right.fs().interrupt(second.unique()).unwrap();
    assert_eq!(two.right.fs().wait(second).unwrap_err(), Errno::INTR);
}

fn a_guest_that_reboots_leaves_no_waiter(volume: &Volume) {
    let mut two = Two::new(volume);
    let config = SessionConfig::with_queues(2);
    held(two.left(range(1, WRITE, 0, 9)));
    let right = two.on_right;
    // On the second queue it is the first request ever.
    for queue in [0, 1] {
        let fs = &mut two.right.session.clients[queue];
        let request = ops::setlkw(right, &range(1, WRITE, 0, 9));
        let ticket = fs.submit(&request, 0).unwrap();
        assert!(!fs.is_done(ticket).unwrap());
    }
    std::thread::sleep(Duration::from_millis(20));
    let before = Instant::now();
    two.right.session.reboot(&config).unwrap();
    assert!(before.elapsed() < Duration::from_secs(5));
    for client in &mut two.right.session.clients {
        for _ in 0..10 {
            client.statfs(ROOT_ID).unwrap();
        }
    }
    held(two.left(range(1, UNLOCK, 0, 9)));
    std::thread::sleep(Duration::from_millis(50));
    held(two.left(range(1, WRITE, 0, 9)));
}
