//! Locks go on in the next daemon.

use guest_tests::fixture::Heritage;
use guest_tests::ring::fuse::ops;

use super::*;

on_both_kinds_of_volume! {
    the_next_daemon_holds_them,
    the_next_daemon_waits_on,
    what_another_took_in_between_is_lost,
    locks_of_a_removed_file,
}

/// Guests of which the left one's daemon can be followed by another.
fn heirs(volume: &Volume) -> (Two, Heritage) {
    let heritage = Heritage::new();
    let mut two = Two::new(volume);
    let config = SessionConfig::with_queues(2);
    two.left = Mount::start(heritage.pass_to(volume.daemon()), &config);
    two.on_left = open(two.left.fs(), "f");
    (two, heritage)
}

fn end(mount: &mut Mount, kill: bool) {
    if kill {
        mount.daemon.kill().unwrap();
        return;
    }
    let before = Instant::now();
    let status = mount.daemon.terminate().unwrap();
    assert_eq!(status.code(), Some(0), "{}", mount.daemon.log());
    assert!(
        before.elapsed() < Duration::from_secs(8),
        "{}",
        mount.daemon.log()
    );
}

fn the_next_daemon_holds_them(volume: &Volume) {
    for kill in [true, false] {
        let (mut two, heritage) = heirs(volume);
        held(two.left(range(1, WRITE, 0, 99)));
        held(two.left(range(1, READ, 40, 49)));
        held(two.left(range(2, WRITE, 200, END)));
        held(two.left(range(1, UNLOCK, 60, 60)));
        held(two.left(flock(1, WRITE)));
        for _ in 0..2 {
            end(&mut two.left, kill);
            two.left.resume_with(heritage.pass_to(volume.daemon()));
            kept_out(two.right(range(9, READ, 39, 39)));
            held(two.right(range(9, READ, 40, 49)));
            kept_out(two.right(range(9, WRITE, 49, 49)));
            held(two.right(range(9, WRITE, 60, 60)));
            kept_out(two.right(range(9, WRITE, END - 50, END)));
            kept_out(two.right(flock(9, READ)));
            held(two.right(range(9, UNLOCK, 0, END)));
        }
        let found = two.left.fs().getlk(two.on_left, &range(3, READ, 150, END));
        assert_eq!(found.unwrap().pid, 1002);
        // They end as they would have.
        let left = two.on_left;
        two.left.fs().flush(left, 1).unwrap();
        held(two.right(range(9, WRITE, 0, 199)));
        kept_out(two.right(range(9, WRITE, 200, 200)));
        two.left.fs().release(left).unwrap();
        held(two.right(range(9, WRITE, 200, 200)));
        held(two.right(flock(9, WRITE)));
        end(&mut two.left, kill);
        two.left.resume_with(heritage.pass_to(volume.daemon()));
        held(two.right(range(9, WRITE, 0, END)));
        // The next round is another guest's.
        held(two.right(range(9, UNLOCK, 0, END)));
        held(two.right(flock(9, UNLOCK)));
    }
}

fn the_next_daemon_waits_on(volume: &Volume) {
    for kill in [true, false] {
        let (mut two, heritage) = heirs(volume);
        held(two.right(range(1, WRITE, 0, 9)));
        held(two.right(flock(1, WRITE)));
        let left = two.on_left;
        let fs = two.left.fs();
        let ranges = fs.submit(&ops::setlkw(left, &range(1, WRITE, 0, 99)), 0);
        let whole = fs.submit(&ops::setlkw(left, &flock(1, READ)), 0);
        let (ranges, whole) = (ranges.unwrap(), whole.unwrap());
        // In the third crash, whatever is in flight is blamed and answered EIO.
        for _ in 0..if kill { 2 } else { 4 } {
            still_waits(two.left.fs(), ranges);
            end(&mut two.left, kill);
            two.left.resume_with(heritage.pass_to(volume.daemon()));
        }
        still_waits(two.left.fs(), whole);
        held(two.right(range(1, UNLOCK, 0, END)));
        two.left.fs().wait(ranges).unwrap();
        kept_out(two.right(range(1, WRITE, 0, 9)));
        held(two.right(flock(1, UNLOCK)));
        two.left.fs().wait(whole).unwrap();
    }
}

fn what_another_took_in_between_is_lost(volume: &Volume) {
    let (mut two, heritage) = heirs(volume);
    held(two.left(range(1, WRITE, 0, 9)));
    held(two.left(range(1, WRITE, 20, 29)));
    let right = two.on_right;
    let request = ops::setlkw(right, &range(9, WRITE, 0, 9));
    let ticket = two.right.fs().submit(&request, 0).unwrap();
    end(&mut two.left, true);
    two.right.fs().wait(ticket).unwrap();
    two.left.resume_with(heritage.pass_to(volume.daemon()));
    kept_out(two.right(range(9, WRITE, 20, 20)));
    kept_out(two.left(range(1, WRITE, 0, 0)));
    let log = two.left.daemon.log();
    assert!(
        log.contains("1 locks are held again, and 1 are lost"),
        "{log}"
    );
}

/// A striped file without a name is found again, any other if someone else still has it open.
fn locks_of_a_removed_file(volume: &Volume) {
    for shared in [true, false] {
        let (mut two, heritage) = heirs(volume);
        held(two.left(range(1, WRITE, 0, 9)));
        held(two.left(flock(1, WRITE)));
        let (left, right) = (two.on_left, two.on_right);
        let fs = two.right.fs();
        fs.unlink(ROOT_ID, "f").unwrap();
        if !shared {
            fs.release(right).unwrap();
            fs.forget(right.nodeid, 1 << 40).unwrap();
            fs.drain_hiprio().unwrap();
        }
        end(&mut two.left, true);
        two.left.resume_with(heritage.pass_to(volume.daemon()));
        if shared {
            kept_out(two.right(range(1, WRITE, 0, 9)));
            kept_out(two.right(flock(1, WRITE)));
        }
        let found = shared || volume.is_striped();
        for kind in [READ, UNLOCK] {
            assert_eq!(two.left(range(1, kind, 0, 9)).is_ok(), found);
            assert_eq!(two.left(flock(1, kind)).is_ok(), found);
        }
        let fs = two.left.fs();
        assert_eq!(fs.flush(left, 1).is_ok(), found);
        fs.release(left).unwrap();
        fs.statfs(ROOT_ID).unwrap();
        if shared {
            held(two.right(range(1, WRITE, 0, 9)));
            held(two.right(flock(1, WRITE)));
        }
    }
}
