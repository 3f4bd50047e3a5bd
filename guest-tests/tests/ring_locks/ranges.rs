//! Who may lock what while others hold what.

use super::*;

on_both_kinds_of_volume! {
    exclusive_and_shared_ranges,
    parts_of_ranges,
    up_to_the_end,
    who_holds_it,
    flock_and_ranges_do_not_meet,
    flock_is_shared_or_not_and_converts,
    handles_lock_what_they_were_opened_for,
}

fn exclusive_and_shared_ranges(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 100, 199)));
    held(two.left(range(1, WRITE, 100, 199)));
    for kind in [READ, WRITE] {
        kept_out(two.right(range(1, kind, 0, 100)));
        kept_out(two.right(range(1, kind, 199, 300)));
        kept_out(two.left(range(2, kind, 150, 150)));
        held(two.right(range(1, kind, 0, 99)));
        held(two.right(range(1, kind, 200, 300)));
    }
    held(two.left(range(1, READ, 100, 199)));
    held(two.right(range(1, READ, 150, 150)));
    kept_out(two.left(range(1, WRITE, 100, 199)));
    held(two.right(range(1, UNLOCK, 150, 150)));
    held(two.left(range(1, WRITE, 100, 199)));
    held(two.left(range(1, UNLOCK, 0, END)));
    held(two.right(range(1, WRITE, 0, END)));
}

fn parts_of_ranges(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 0, 999)));
    held(two.left(range(1, UNLOCK, 400, 499)));
    held(two.left(range(1, READ, 600, 699)));
    held(two.right(range(1, WRITE, 400, 499)));
    held(two.right(range(1, READ, 650, 650)));
    kept_out(two.right(range(1, READ, 399, 399)));
    kept_out(two.right(range(1, READ, 500, 500)));
    kept_out(two.right(range(1, WRITE, 600, 600)));
    kept_out(two.right(range(1, READ, 700, 700)));
    kept_out(two.left(range(1, WRITE, 0, 999)));
    held(two.right(range(1, UNLOCK, 0, END)));
    held(two.left(range(1, WRITE, 0, 999)));
    kept_out(two.right(range(1, READ, 450, 450)));
}

fn up_to_the_end(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, WRITE, 1 << 40, END)));
    for end in [1 << 40, (1 << 40) + 5, END - 100, END] {
        kept_out(two.right(range(1, READ, 1 << 40, end)));
    }
    kept_out(two.right(range(1, READ, END - 1000, END - 1000)));
    let found = two.right.fs().getlk(two.on_right, &range(1, READ, 0, END));
    let found = found.unwrap();
    assert_eq!((found.start, found.end), (1 << 40, END));
    // The daemons' own locks are near the end, and are not to be seen.
    held(two.left(range(1, UNLOCK, 0, END)));
    let found = two.right.fs().getlk(two.on_right, &range(1, WRITE, 0, END));
    assert_eq!(found.unwrap().type_, UNLOCK as u32);
    held(two.right(range(1, WRITE, 0, END)));
    two.left.fs().read(two.on_left, 100_000, 1).unwrap();
    two.right.fs().write(two.on_right, 150_000, b"x").unwrap();
}

fn who_holds_it(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(range(1, READ, 10, 19)));
    held(two.left(range(2, WRITE, 30, 39)));
    let ask = |mount: &mut Mount, handle, lock| {
        let found = mount.fs().getlk(handle, &lock).unwrap();
        (found.type_ as i32, found.start, found.end, found.pid)
    };
    let (left, right) = (two.on_left, two.on_right);
    let (l, r) = (&mut two.left, &mut two.right);
    assert_eq!(ask(l, left, range(3, WRITE, 0, END)), (READ, 10, 19, 1001));
    assert_eq!(ask(l, left, range(3, READ, 0, END)), (WRITE, 30, 39, 1002));
    // The other guest's processes have no number here.
    assert_eq!(ask(r, right, range(1, WRITE, 0, END)), (READ, 10, 19, 0));
    assert_eq!(ask(r, right, range(1, READ, 0, END)), (WRITE, 30, 39, 0));
    assert_eq!(ask(l, left, range(2, READ, 0, END)).0, UNLOCK, "its own");
    assert_eq!(ask(l, left, range(2, WRITE, 20, END)).0, UNLOCK);
    assert_eq!(ask(r, right, range(1, WRITE, 20, 29)).0, UNLOCK);
}

fn flock_and_ranges_do_not_meet(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(flock(1, WRITE)));
    held(two.right(range(1, WRITE, 0, END)));
    kept_out(two.right(flock(1, READ)));
    kept_out(two.left(range(1, READ, 0, 0)));
}

fn flock_is_shared_or_not_and_converts(volume: &Volume) {
    let mut two = Two::new(volume);
    held(two.left(flock(1, READ)));
    held(two.left(flock(2, READ)));
    held(two.right(flock(1, READ)));
    kept_out(two.right(flock(2, WRITE)));
    held(two.left(flock(2, UNLOCK)));
    held(two.right(flock(1, UNLOCK)));
    held(two.left(flock(1, WRITE)));
    kept_out(two.right(flock(1, READ)));
    held(two.left(flock(1, READ)));
    held(two.right(flock(1, READ)));
    // Whoever fails to convert has lost what it had, as on ext4.
    kept_out(two.left(flock(1, WRITE)));
    held(two.right(flock(1, WRITE)));
}

fn handles_lock_what_they_were_opened_for(volume: &Volume) {
    let mut two = Two::new(volume);
    let node = two.on_left.nodeid;
    let fs = two.left.fs();
    let reads = fs.open(node, libc::O_RDONLY).unwrap();
    let writes = fs.open(node, libc::O_WRONLY).unwrap();
    for (handle, may, may_not) in [(reads, READ, WRITE), (writes, WRITE, READ)] {
        held(fs.setlk(handle, &range(1, may, 0, 9)));
        let error = fs.setlk(handle, &range(1, may_not, 0, 9)).unwrap_err();
        assert_eq!(error, Errno::BADF);
        held(fs.setlk(handle, &flock(1, WRITE)));
        held(fs.setlk(handle, &range(1, UNLOCK, 0, 9)));
        fs.release(handle).unwrap();
    }
    // A handle that only reads, of one who has a lock for writing through another.
    held(two.left(range(1, WRITE, 0, 9)));
    let fs = two.left.fs();
    let reads = fs.open(node, libc::O_RDONLY).unwrap();
    held(fs.setlk(reads, &range(1, READ, 0, 4)));
    held(two.right(range(1, READ, 0, 4)));
    kept_out(two.right(range(1, READ, 5, 5)));
}

/// The kernel runs no program that someone has open for writing, and for flock nobody need.
#[test]
fn a_program_that_is_flocked_runs_on_the_host() {
    let volume = Volume::posix();
    let program = volume.host_path("f");
    let mut two = Two::new(&volume);
    let status = || std::process::Command::new(&program).status();
    let left = two.on_left;
    two.left.fs().release(left).unwrap();
    let right = two.on_right;
    two.right.fs().release(right).unwrap();
    std::fs::copy("/bin/true", &program).unwrap();
    let runs = |what: &str| {
        let end = Instant::now() + Duration::from_secs(5);
        while let Err(error) = status() {
            // A child of another test may still have what was copied open, until it runs.
            assert_eq!(error.raw_os_error(), Some(libc::ETXTBSY), "{what}");
            assert!(Instant::now() < end, "{what}: {error}");
        }
    };
    runs("before");
    let fs = two.left.fs();
    let handle = fs.open(left.nodeid, libc::O_RDONLY).unwrap();
    held(fs.setlk(handle, &flock(1, WRITE)));
    runs("locked");
    two.on_right = open(two.right.fs(), "f");
    kept_out(two.right(flock(1, READ)));
}
