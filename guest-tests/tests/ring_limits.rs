//! A volume's capacity and number of inodes: from any number of daemons together, not beyond one
//! request past it; told by `statfs`; set while it is in use; put right after a crash.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use guest_tests::fixture::{pfsctl, try_pfsctl, Mount, Noise, Volume, MDT_SIZE};
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid, WriteOut, ROOT_ID};
use guest_tests::ring::fuse::{ops, Client, Errno, Handle};

const RDWR: i32 = libc::O_RDWR;
const CAPACITY: u64 = 8 << 20;

fn limited(capacity: u64, inodes: u64) -> Volume {
    let (capacity, inodes) = (capacity.to_string(), inodes.to_string());
    Volume::striped_with(&["--capacity", &capacity, "--inodes", &inodes])
}

fn path(volume: &Volume) -> &str {
    volume.path().to_str().unwrap()
}

fn set(volume: &Volume, limits: &[&str]) {
    pfsctl(&[&["volume", "set", path(volume)], limits].concat());
}

/// Runs `pfsctl volume check`; answers its exit code and what it says.
fn check(volume: &Volume, options: &[&str]) -> (i32, String) {
    let output = try_pfsctl(&[&["volume", "check", path(volume)], options].concat());
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Checks until the exit code is `wanted`: the kernel ends what a dead daemon had asked of io_uring
/// behind its back, and lets go of the files, locks and all, only then.
#[track_caller]
fn check_after_death(volume: &Volume, options: &[&str], wanted: i32) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let (code, text) = check(volume, options);
        if code == wanted {
            return;
        }
        assert!(Instant::now() < end, "{code}: {text}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn clean(volume: &Volume) {
    let (code, text) = check(volume, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("in use"), "{text}");
}

/// Files below `dir`, and their sizes together.
fn held(dir: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let meta = entry.unwrap().path().symlink_metadata().unwrap();
        sum = (sum.0 + 1, sum.1 + meta.len());
    }
    sum
}

fn size_of(fs: &mut Client, handle: Handle, size: u64) -> Result<(), Errno> {
    let set = SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size,
        ..Default::default()
    };
    let set = fs.setattr(handle.nodeid, &set);
    set.map(drop).map_err(|error| error.errno().unwrap())
}

/// Keeps many writes of `request` bytes to its own files in flight until all are refused.
fn fill(mount: &mut Mount, prefix: &str, request: usize) {
    let fs = mount.fs();
    let data = fs.memory().alloc_pages(request).unwrap();
    data.fill(7);
    for number in 0.. {
        let name = format!("{prefix}{number}");
        let handle = fs.create(ROOT_ID, &name, 0o600, RDWR).unwrap().1;
        let mut refused = 0;
        let tickets: Vec<_> = (0..32)
            .map(|index| {
                let at = index * request as u64;
                fs.submit(&ops::write(handle, at, &data), 0).unwrap()
            })
            .collect();
        for ticket in tickets {
            match fs.wait::<WriteOut>(ticket) {
                Ok(out) => assert_eq!(out.size as usize, request),
                Err(error) => {
                    assert_eq!(error.errno(), Some(Errno::NOSPC));
                    refused += 1;
                }
            }
        }
        fs.release(handle).unwrap();
        if refused == 32 {
            return;
        }
    }
}

#[test]
fn two_daemons_fill_a_volume() {
    for request in [1000, MDT_SIZE / 3, 100_000] {
        let volume = limited(CAPACITY, 1_000_000);
        let (mut left, mut right) = (volume.mount(), volume.mount());
        thread::scope(|scope| {
            scope.spawn(|| fill(&mut left, "l", request));
            scope.spawn(|| fill(&mut right, "r", request));
        });
        let (files, bytes) = held(&volume.host_path(""));
        assert!(bytes <= CAPACITY, "{bytes} bytes are more than may be");
        // Writes in flight out of order may leave holes, which count: nothing else may be free.
        assert!(bytes + request as u64 > CAPACITY, "{bytes} bytes fill it");
        for mount in [&mut left, &mut right] {
            let stat = mount.fs().statfs(ROOT_ID).unwrap();
            let unit = u64::from(stat.frsize);
            assert_eq!(stat.blocks * unit, CAPACITY);
            assert_eq!(stat.bfree, (CAPACITY - bytes) / unit);
            assert_eq!(stat.files - stat.ffree, files);
        }
        // What one removes, the other can have.
        left.fs().unlink(ROOT_ID, "l0").unwrap();
        let handle = right.fs().create(ROOT_ID, "new", 0o600, RDWR).unwrap().1;
        right.fs().write(handle, 0, &vec![1; request]).unwrap();
        right.fs().release(handle).unwrap();
        drop((left, right));
        clean(&volume);
    }
}

#[test]
fn two_daemons_extend_one_file_to_the_limit() {
    let volume = limited(CAPACITY, 10);
    let (mut left, mut right) = (volume.mount(), volume.mount());
    left.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    const RECORD: u64 = 5000;
    let run = |mount: &mut Mount, first: u64| {
        let fs = mount.fs();
        let node = fs.lookup(ROOT_ID, "f").unwrap().nodeid;
        let handle = fs.open(node, RDWR).unwrap();
        let data = fs.memory().alloc_pages(RECORD as usize).unwrap();
        let mut index = first;
        loop {
            let tickets: Vec<_> = (0..16)
                .map(|_| {
                    let request = ops::write(handle, index * RECORD, &data);
                    index += 2;
                    fs.submit(&request, 0).unwrap()
                })
                .collect();
            let results: Vec<_> = tickets.into_iter().map(|ticket| fs.wait(ticket)).collect();
            if results.iter().all(|result| result.is_err()) {
                fs.release(handle).unwrap();
                return;
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&mut left, 0));
        scope.spawn(|| run(&mut right, 1));
    });
    let size = volume.host_path("f").metadata().unwrap().len();
    assert!(size <= CAPACITY && size + RECORD > CAPACITY, "{size}");
    drop((left, right));
    clean(&volume);
}

#[test]
fn two_daemons_make_all_the_inodes_there_may_be() {
    let volume = limited(CAPACITY, 1000);
    let (mut left, mut right) = (volume.mount(), volume.mount());
    let make = |mount: &mut Mount, prefix: &str| {
        let fs = mount.fs();
        (0..).find(|number| {
            let name = format!("{prefix}{number}");
            let made = match number % 3 {
                0 => fs.mkdir(ROOT_ID, &name, 0o755).map(drop),
                1 => fs.symlink(ROOT_ID, &name, "to").map(drop),
                _ => fs.create(ROOT_ID, &name, 0o600, RDWR).map(drop),
            };
            made.is_err_and(|error| {
                assert_eq!(error.errno(), Some(Errno::NOSPC));
                true
            })
        })
    };
    let made: u64 = thread::scope(|scope| {
        let left = scope.spawn(|| make(&mut left, "l"));
        let right = scope.spawn(|| make(&mut right, "r"));
        left.join().unwrap().unwrap() + right.join().unwrap().unwrap()
    });
    assert_eq!(made, 1000);
    let stat = right.fs().statfs(ROOT_ID).unwrap();
    assert_eq!((stat.files, stat.ffree), (1000, 0));
    left.fs().rmdir(ROOT_ID, "l0").unwrap();
    right.fs().mkdir(ROOT_ID, "new", 0o755).unwrap();
    drop((left, right));
    clean(&volume);
}

#[test]
fn limits_are_set_while_daemons_serve() {
    let volume = limited(CAPACITY, 1000);
    let mut mount = volume.mount();
    let fs = mount.fs();
    let handle = fs.create(ROOT_ID, "f", 0o600, RDWR).unwrap().1;
    size_of(fs, handle, CAPACITY).unwrap();
    assert_eq!(size_of(fs, handle, CAPACITY + 1), Err(Errno::NOSPC));
    set(&volume, &["--capacity", "16M"]);
    size_of(fs, handle, 2 * CAPACITY).unwrap();
    assert_eq!(fs.statfs(ROOT_ID).unwrap().bfree, 0);
    // Less than there is: nothing is lost, and nothing may come.
    set(&volume, &["--capacity", "1M", "--inodes", "1"]);
    let full = fs.write(handle, 2 * CAPACITY, &[1]).unwrap_err();
    assert_eq!(full.errno(), Some(Errno::NOSPC));
    assert!(fs.mkdir(ROOT_ID, "d", 0o755).is_err());
    fs.write(handle, CAPACITY, &[1; 10]).unwrap();
    let stat = fs.statfs(ROOT_ID).unwrap();
    assert_eq!(stat.blocks * u64::from(stat.frsize), 1 << 20);
    assert_eq!((stat.bfree, stat.bavail, stat.ffree), (0, 0, 0));
    set(&volume, &["--capacity", "none", "--inodes", "none"]);
    size_of(fs, handle, 1 << 40).unwrap();
    fs.mkdir(ROOT_ID, "d", 0o755).unwrap();
    let refused = try_pfsctl(&["volume", "set", path(&volume), "--capacity", "1G"]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("needs that no daemon serves it"), "{text}");
    drop(mount);
    set(&volume, &["--capacity", "1T"]);
    clean(&volume);
}

#[test]
fn writes_that_race_with_truncations_are_counted_right() {
    let volume = limited(CAPACITY, 10);
    let (mut left, mut right) = (volume.mount(), volume.mount());
    left.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let run = |mount: &mut Mount, seed: u64| {
        let mut noise = Noise::new(seed);
        let fs = mount.fs();
        let node = fs.lookup(ROOT_ID, "f").unwrap().nodeid;
        let handle = fs.open(node, RDWR).unwrap();
        let data = fs.memory().alloc_pages(3000).unwrap();
        for _ in 0..150 {
            let mut writes = Vec::new();
            let mut cuts = Vec::new();
            for _ in 0..24 {
                if noise.below(4) == 0 {
                    let set = SetattrIn {
                        valid: SetattrValid::SIZE.bits(),
                        size: noise.below(10_000),
                        ..Default::default()
                    };
                    cuts.push(fs.submit(&ops::setattr(node, &set), 0).unwrap());
                } else {
                    let at = noise.below(2 * MDT_SIZE as u64);
                    writes.push(fs.submit(&ops::write(handle, at, &data), 0).unwrap());
                }
            }
            for ticket in writes {
                fs.wait(ticket).unwrap();
            }
            for ticket in cuts {
                fs.wait(ticket).unwrap();
            }
        }
        fs.release(handle).unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&mut left, 1));
        scope.spawn(|| run(&mut right, 2));
    });
    drop((left, right));
    let (_, text) = check(&volume, &[]);
    assert!(!text.contains("counter"), "{text}");
}

#[test]
fn what_a_kill_leaves_of_the_counters_is_put_right() {
    for round in 0..6 {
        let volume = limited(CAPACITY, 1000);
        let mut mount = volume.mount();
        let fs = mount.fs();
        let data = fs.memory().alloc_pages(20_000).unwrap();
        let orphan = fs.create(ROOT_ID, "orphan", 0o600, RDWR).unwrap().1;
        fs.write(orphan, 0, &[1; 200_000]).unwrap();
        fs.unlink(ROOT_ID, "orphan").unwrap();
        for number in 0..6 {
            let name = format!("f{number}");
            let handle = fs.create(ROOT_ID, &name, 0o600, RDWR).unwrap().1;
            for index in 0..4 {
                let request = ops::write(handle, index * 20_000, &data);
                fs.enqueue(&request, 0).unwrap();
            }
            if number % 2 == 1 {
                fs.enqueue(&ops::unlink(ROOT_ID, name.as_bytes()), 0)
                    .unwrap();
            }
        }
        fs.kick().unwrap();
        for _ in 0..round * 4 {
            fs.next_done().unwrap();
        }
        mount.daemon.kill().unwrap();
        drop(mount);
        // No daemon will go on with the session.
        // An orphan is left at least.
        check_after_death(&volume, &["--orphan-age", "0"], 4);
        check_after_death(&volume, &["--repair", "--orphan-age", "0"], 1);
        clean(&volume);
        let (files, bytes) = held(&volume.host_path(""));
        let stat = volume.mount().fs().statfs(ROOT_ID).unwrap();
        let used = (stat.blocks - stat.bfree) * u64::from(stat.frsize);
        assert_eq!(stat.files - stat.ffree, files);
        assert_eq!(used, bytes.next_multiple_of(u64::from(stat.frsize)));
    }
}

#[test]
fn a_check_beside_daemons_raises_no_alarm_and_does_no_harm() {
    let volume = limited(64 << 20, 1000);
    let content = Noise::new(9).bytes(300_000);
    let stop = AtomicBool::new(false);
    let (mut left, mut right) = (volume.mount(), volume.mount());
    let load = |mount: &mut Mount, prefix: &str| {
        let fs = mount.fs();
        let mut noise = Noise::new(prefix.len() as u64);
        while !stop.load(Ordering::Relaxed) {
            let name = format!("{prefix}{}", noise.below(5));
            let other = format!("{prefix}{}", noise.below(5));
            match noise.below(6) {
                0 => drop(fs.unlink(ROOT_ID, &name)),
                1 => drop(fs.rename(ROOT_ID, &name, ROOT_ID, &other)),
                _ => {
                    let len = 1 + noise.below(300_000) as usize;
                    let handle = fs.create(ROOT_ID, &name, 0o600, RDWR | libc::O_TRUNC);
                    let handle = handle.unwrap().1;
                    size_of(fs, handle, 0).unwrap();
                    fs.write_all(handle, 0, &content[..len]).unwrap();
                    fs.release(handle).unwrap();
                }
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| load(&mut left, "l"));
        scope.spawn(|| load(&mut right, "right"));
        for round in 0..12 {
            let options: &[&str] = if round % 2 == 0 { &[] } else { &["--repair"] };
            let (code, text) = check(&volume, options);
            if code != 0 {
                stop.store(true, Ordering::Relaxed);
                panic!("{text}");
            }
            assert!(text.contains("in use"), "{text}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    for entry in left.fs().list("/").unwrap() {
        let name = String::from_utf8(entry.name).unwrap();
        let bytes = left.fs().read_file(&format!("/{name}")).unwrap();
        assert!(bytes == content[..bytes.len()], "{name}");
    }
    drop((left, right));
    clean(&volume);
}
