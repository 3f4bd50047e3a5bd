//! Close-to-open.

use std::thread;
use std::time::{Duration, Instant};

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid};

use super::*;

const AUTO: &[&str] = &["--cache=auto", "--xattr"];

/// Long enough for a change time to be proof: see `pfs-core/src/tree/version.rs`.
const SETTLED: Duration = Duration::from_millis(150);

/// Past the first bytes, which a striped file keeps in its inode.
const FAR: u64 = 100_000;

fn settle() {
    thread::sleep(SETTLED);
}

/// Opens until the cache is kept: once to fill it, once more to find it good.
#[track_caller]
fn warm(fs: &mut Client, name: &str) {
    settle();
    reopen_keeps(fs, name);
    assert!(reopen_keeps(fs, name), "{name} did not change");
}

#[test]
fn what_nobody_changed_is_kept() {
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, AUTO), vm(&volume, AUTO));
        rewrite(a.fs(), "f", &Noise::new(1).bytes(200_000));
        settle();
        for mount in [&mut a, &mut b] {
            // The first open cannot know what was cached before.
            assert!(!reopen_keeps(mount.fs(), "f"));
            for _ in 0..5 {
                assert!(reopen_keeps(mount.fs(), "f"));
            }
            // Nor does it matter that the file could have been written.
            let (handle, _) = open(mount.fs(), "f", RDWR);
            assert!(handle.open_flags & KEEP_CACHE != 0);
            close(mount.fs(), handle);
            assert!(reopen_keeps(mount.fs(), "f"));
        }
        assert!(reopen_keeps(a.fs(), "f"), "others' opens are no changes");
    }
}

/// A VM's own writes are changes as any other: they cost its cache once.
#[test]
fn own_writes_cost_the_cache_once() {
    for volume in volumes() {
        let mut a = vm(&volume, AUTO);
        rewrite(a.fs(), "f", b"some bytes");
        warm(a.fs(), "f");
        let (handle, _) = open(a.fs(), "f", RDWR);
        a.fs().write_all(handle, FAR, b"x").unwrap();
        close(a.fs(), handle);
        settle();
        assert!(!reopen_keeps(a.fs(), "f"));
        assert!(reopen_keeps(a.fs(), "f"));
    }
}

/// Every way to change a file's data in another VM, each with its close, or none to make.
#[test]
fn what_another_changed_is_not_kept() {
    type Change = fn(&mut Client);
    let changes: [(&str, Change); 8] = [
        ("write", |fs| {
            let (handle, _) = open(fs, "f", WRONLY);
            fs.write_all(handle, 5, b"x").unwrap();
            close(fs, handle);
        }),
        ("write to objects", |fs| {
            let (handle, _) = open(fs, "f", WRONLY);
            fs.write_all(handle, FAR, b"x").unwrap();
            close(fs, handle);
        }),
        ("write, with the old mtime put back", |fs| {
            let (handle, _) = open(fs, "f", WRONLY);
            let attr = fs.fgetattr(handle).unwrap().attr;
            fs.write_all(handle, FAR, b"y").unwrap();
            let set = SetattrIn {
                valid: SetattrValid::MTIME.bits(),
                mtime: attr.mtime,
                mtimensec: attr.mtimensec,
                ..SetattrIn::default()
            };
            fs.setattr(handle.nodeid, &set).unwrap();
            close(fs, handle);
        }),
        ("truncate and extend to the same size", |fs| {
            let entry = fs.lookup(ROOT_ID, "f").unwrap();
            for size in [10, entry.attr.size] {
                let set = SetattrIn {
                    valid: SetattrValid::SIZE.bits(),
                    size,
                    ..SetattrIn::default()
                };
                fs.setattr(entry.nodeid, &set).unwrap();
            }
        }),
        ("open with O_TRUNC", |fs| rewrite(fs, "f", &[7; 200_000])),
        ("punch a hole", |fs| {
            let (handle, _) = open(fs, "f", RDWR);
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            fs.fallocate(handle, mode, FAR, 4096).unwrap();
            close(fs, handle);
        }),
        ("copy_file_range", |fs| {
            let (handle, _) = open(fs, "f", RDWR);
            fs.copy_file_range(handle, 0, handle, FAR, 4096).unwrap();
            close(fs, handle);
        }),
        ("append", |fs| {
            let (handle, size) = open(fs, "f", WRONLY | libc::O_APPEND);
            fs.write_all(handle, size, b"more").unwrap();
            close(fs, handle);
        }),
    ];
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, AUTO), vm(&volume, AUTO));
        rewrite(a.fs(), "f", &Noise::new(2).bytes(200_000));
        for (name, change) in changes {
            warm(a.fs(), "f");
            change(b.fs());
            let (handle, size) = open(a.fs(), "f", RDONLY);
            assert!(handle.open_flags & KEEP_CACHE == 0, "{name}");
            let bytes = a.fs().read_to_end(handle).unwrap();
            assert_eq!(bytes.len() as u64, size, "{name}");
            assert!(bytes == volume.get("/f"), "{name}");
            close(a.fs(), handle);
        }
    }
}

/// The file that a rename put in place is another node.
#[test]
fn a_file_that_was_replaced_is_seen() {
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, AUTO), vm(&volume, AUTO));
        rewrite(a.fs(), "f", b"old");
        warm(a.fs(), "f");
        let before = a.fs().lookup(ROOT_ID, "f").unwrap().nodeid;
        rewrite(b.fs(), "new", b"newer");
        b.fs().rename(ROOT_ID, "new", ROOT_ID, "f").unwrap();
        let (handle, size) = open(a.fs(), "f", RDONLY);
        assert!(handle.nodeid != before && handle.open_flags & KEEP_CACHE == 0);
        assert_eq!(size, 5);
        assert_eq!(a.fs().read_to_end(handle).unwrap(), b"newer");
    }
}

/// Data may reach a file long after its times changed. A reader that took the times for proof in
/// between learns at the writer's close that they were none.
#[test]
fn a_late_close_takes_back_what_was_kept() {
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, AUTO), vm(&volume, AUTO));
        rewrite(a.fs(), "f", &Noise::new(3).bytes(200_000));
        for end in [4, FAR] {
            let (handle, _) = open(b.fs(), "f", RDWR);
            b.fs().write_all(handle, end, b"late").unwrap();
            // For all that A knows, the write is still under way.
            warm(a.fs(), "f");
            let times = b.fs().fgetattr(handle).unwrap().attr;
            close(b.fs(), handle);
            assert!(!reopen_keeps(a.fs(), "f"));
            let after = b.fs().getattr(handle.nodeid).unwrap().attr;
            let mtime = |attr: &guest_tests::ring::fuse::abi::Attr| (attr.mtime, attr.mtimensec);
            assert_eq!(mtime(&times), mtime(&after), "only the change time moves");
            // A close without a write before it changes nothing.
            warm(a.fs(), "f");
            let (handle, _) = open(b.fs(), "f", RDWR);
            close(b.fs(), handle);
            assert!(reopen_keeps(a.fs(), "f"));
        }
    }
}

/// An open that is not known to have reached the guest proves nothing about what it has cached.
#[test]
fn an_open_counts_once_its_handle_is_used() {
    let volume = Volume::posix();
    let mut a = vm(&volume, AUTO);
    rewrite(a.fs(), "f", b"bytes");
    settle();
    let (first, _) = open(a.fs(), "f", RDONLY);
    let (second, _) = open(a.fs(), "f", RDONLY);
    assert!(
        second.open_flags & KEEP_CACHE == 0,
        "the first may still be on its way"
    );
    a.fs().flush(first, 0).unwrap();
    let (third, _) = open(a.fs(), "f", RDONLY);
    assert!(third.open_flags & KEEP_CACHE != 0);
}

/// A guest that believes what it is told never reads what was closed over before its open.
#[test]
fn a_cache_that_is_kept_is_never_stale() {
    for volume in volumes() {
        let (mut a, mut b) = (vm(&volume, AUTO), vm(&volume, AUTO));
        let mut noise = Noise::new(4);
        rewrite(b.fs(), "f", &[0; 150_000]);
        let (mut cached, mut kept) = (Vec::new(), 0);
        let end = Instant::now() + Duration::from_secs(4);
        let mut round = 0u64;
        while Instant::now() < end {
            round += 1;
            if noise.below(3) == 0 {
                let (handle, _) = open(b.fs(), "f", WRONLY);
                let at = [0, FAR][noise.below(2) as usize];
                b.fs().write_all(handle, at, &round.to_le_bytes()).unwrap();
                thread::sleep(Duration::from_millis(
                    [0, 0, 0, 120][noise.below(4) as usize],
                ));
                close(b.fs(), handle);
            }
            thread::sleep(Duration::from_millis(
                [0, 0, 1, 11, 105][noise.below(5) as usize],
            ));
            for _ in 0..=noise.below(3) {
                let (handle, _) = open(a.fs(), "f", RDONLY);
                let bytes = a.fs().read_to_end(handle).unwrap();
                if handle.open_flags & KEEP_CACHE == 0 {
                    cached = bytes;
                } else {
                    kept += 1;
                    assert!(
                        cached == bytes,
                        "round {round}: the cache is not what the file is"
                    );
                }
                close(a.fs(), handle);
            }
        }
        assert!(kept > 0, "nothing was ever kept in {round} rounds");
    }
}
