//! Two daemons on one volume, as two VMs have them: no byte that either wrote is lost, and each
//! sees what the other did, where nothing is cached.

use std::sync::Barrier;
use std::thread;

use guest_tests::fixture::{Mount, Noise, Volume, MDT_SIZE, STRIPE_UNIT};
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{ops, Client, Errno, Handle};

const RDWR: i32 = libc::O_RDWR;

fn two(volume: &Volume) -> (Mount, Mount) {
    (volume.mount(), volume.mount())
}

fn open(fs: &mut Client, name: &str) -> Handle {
    let node = fs.lookup(ROOT_ID, name).unwrap().nodeid;
    fs.open(node, RDWR).unwrap()
}

fn size(fs: &mut Client, handle: Handle) -> u64 {
    fs.fgetattr(handle).unwrap().attr.size
}

/// Each writes every other record, in order; the file only ever grows.
#[test]
fn both_extend_one_file() {
    for (record, count) in [(1000, 1200), (STRIPE_UNIT + 17, 60), (3 * STRIPE_UNIT, 40)] {
        let volume = Volume::striped();
        let (mut left, mut right) = two(&volume);
        left.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
        let bytes = Noise::new(record as u64).bytes(record * count);
        let write = |mount: &mut Mount, first: usize| {
            let handle = open(mount.fs(), "f");
            let mut seen = 0;
            for index in (first..count).step_by(2) {
                let at = index * record;
                let part = &bytes[at..at + record];
                mount.fs().write_all(handle, at as u64, part).unwrap();
                let now = size(mount.fs(), handle);
                assert!(
                    now >= (at + record) as u64 && now >= seen,
                    "{seen} to {now}"
                );
                seen = now;
            }
            mount.fs().fsync(handle, false).unwrap();
            mount.fs().release(handle).unwrap();
        };
        thread::scope(|scope| {
            scope.spawn(|| write(&mut left, 0));
            scope.spawn(|| write(&mut right, 1));
        });
        assert!(
            left.fs().read_file("/f").unwrap() == bytes,
            "left, {record}"
        );
        assert!(
            right.fs().read_file("/f").unwrap() == bytes,
            "right, {record}"
        );
        assert!(volume.get("/f") == bytes, "host, {record}");
    }
}

/// Small writes at the end, as many in flight as there can be: what one has extended, the other
/// must not cut, not even for a moment.
#[test]
fn both_extend_at_full_speed() {
    const RECORD: usize = 16;
    const BATCH: usize = 48;
    const BATCHES: usize = 300;
    let volume = Volume::striped();
    let (mut left, mut right) = two(&volume);
    left.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let bytes = Noise::new(5).bytes(2 * RECORD * BATCH * BATCHES);
    // Together, so that both are at the end of the file.
    let together = Barrier::new(2);
    let write = |mount: &mut Mount, first: usize| {
        let fs = mount.fs();
        let handle = open(fs, "f");
        let data = fs.memory().alloc_pages(bytes.len()).unwrap();
        data.write(0, &bytes);
        let mut cut = None;
        for batch in 0..BATCHES {
            together.wait();
            let mut end = 0;
            let mut tickets = Vec::new();
            for index in 0..BATCH {
                let at = (2 * (batch * BATCH + index) + first) * RECORD;
                let request = ops::write(handle, (MDT_SIZE + at) as u64, &data.slice(at, RECORD));
                tickets.push(fs.submit(&request, 0).unwrap());
                end = (MDT_SIZE + at + RECORD) as u64;
            }
            for ticket in tickets {
                fs.wait(ticket).unwrap();
            }
            let now = size(fs, handle);
            if now < end {
                cut.get_or_insert((now, end));
            }
        }
        cut
    };
    let cuts = thread::scope(|scope| {
        let left = scope.spawn(|| write(&mut left, 0));
        let right = scope.spawn(|| write(&mut right, 1));
        [left.join().unwrap(), right.join().unwrap()]
    });
    assert_eq!(cuts, [None, None], "size, and the end of what was written");
    let read = left.fs().read_file("/f").unwrap();
    assert_eq!(read.len(), MDT_SIZE + bytes.len());
    assert!(read[MDT_SIZE..] == bytes);
}

/// Where both begin to write to a new file at once, both must use the same objects.
#[test]
fn both_write_the_first_stripes_of_many_files() {
    let volume = Volume::striped();
    let (mut left, mut right) = two(&volume);
    let len = 2 * STRIPE_UNIT;
    let half = |seed: u64| Noise::new(seed).bytes(len);
    for index in 0..40 {
        let name = format!("{index}");
        left.fs().create(ROOT_ID, &name, 0o600, RDWR).unwrap();
        let (a, b) = (open(left.fs(), &name), open(right.fs(), &name));
        thread::scope(|scope| {
            let (left, right, half) = (&mut left, &mut right, &half);
            scope.spawn(move || left.fs().write(a, MDT_SIZE as u64, &half(1)).unwrap());
            scope.spawn(move || {
                let at = (MDT_SIZE + len) as u64;
                right.fs().write(b, at, &half(2)).unwrap()
            });
        });
        let expected = [vec![0; MDT_SIZE], half(1), half(2)].concat();
        assert!(
            left.fs().read_to_end(a).unwrap() == expected,
            "left, file {index}"
        );
        assert!(
            right.fs().read_to_end(b).unwrap() == expected,
            "right, file {index}"
        );
        left.fs().release(a).unwrap();
        right.fs().release(b).unwrap();
    }
    assert_eq!(volume.objects().concat().len(), 40 * 4);
}

#[test]
fn a_file_removed_by_one_lives_in_the_other() {
    let volume = Volume::striped();
    for rename_over in [false, true] {
        for first_to_close in [0, 1] {
            let mut mounts = [volume.mount(), volume.mount()];
            let bytes = Noise::new(3).bytes(500_000);
            mounts[0].fs().write_file("/f", &bytes).unwrap();
            let handles = [0, 1].map(|index| open(mounts[index].fs(), "f"));
            if rename_over {
                mounts[0].fs().write_file("/g", b"small").unwrap();
                mounts[0].fs().rename(ROOT_ID, "g", ROOT_ID, "f").unwrap();
                mounts[0].fs().unlink(ROOT_ID, "f").unwrap();
            } else {
                mounts[0].fs().unlink(ROOT_ID, "f").unwrap();
            }
            let gone = mounts[1].fs().lookup(ROOT_ID, "f").unwrap_err();
            assert_eq!(gone, Errno::NOENT);
            let close = |mount: &mut Mount, handle| mount.fs().release(handle).unwrap();
            close(&mut mounts[first_to_close], handles[first_to_close]);
            let last = 1 - first_to_close;
            let fs = mounts[last].fs();
            assert!(fs.read_to_end(handles[last]).unwrap() == bytes);
            fs.write(handles[last], 400_000, &[9; 200_000]).unwrap();
            assert_eq!(fs.read(handles[last], 599_999, 10).unwrap(), [9]);
            close(&mut mounts[last], handles[last]);
            assert_eq!(volume.objects().concat().len(), 0);
        }
    }
}

#[test]
fn names_are_seen_by_both() {
    let volume = Volume::striped();
    let (mut left, mut right) = two(&volume);
    for round in 0..20 {
        let (a, b) = match round % 2 {
            0 => (left.fs(), right.fs()),
            _ => (right.fs(), left.fs()),
        };
        let name = format!("{round}");
        let made = a.mkdir(ROOT_ID, &name, 0o755).unwrap();
        // No caching: the other may keep neither that it was not there, nor what it is.
        let seen = b.lookup(ROOT_ID, &name).unwrap();
        assert_eq!(seen.attr.ino, made.attr.ino);
        assert_eq!((seen.entry_valid, seen.entry_valid_nsec), (0, 0));
        assert_eq!((seen.attr_valid, seen.attr_valid_nsec), (0, 0));
        let path = format!("/{name}/f");
        b.write_file(&path, &[7; 100_000]).unwrap();
        assert!(a.read_file(&path).unwrap() == [7; 100_000]);
        a.rename(made.nodeid, "f", ROOT_ID, "moved").unwrap();
        assert_eq!(b.attr(&path).unwrap_err(), Errno::NOENT);
        assert_eq!(b.attr("/moved").unwrap().size, 100_000);
        b.unlink(ROOT_ID, "moved").unwrap();
        assert_eq!(a.lookup(ROOT_ID, "moved").unwrap_err(), Errno::NOENT);
        assert_eq!(b.mkdir(ROOT_ID, &name, 0o755).unwrap_err(), Errno::EXIST);
        b.rmdir(ROOT_ID, &name).unwrap();
        assert_eq!(a.lookup(ROOT_ID, &name).unwrap_err(), Errno::NOENT);
    }
    assert!(left.fs().list("/").unwrap().is_empty());
    assert!(right.fs().list("/").unwrap().is_empty());
}

#[test]
fn data_and_sizes_are_seen_by_both() {
    let volume = Volume::striped();
    let (mut left, mut right) = two(&volume);
    left.fs().create(ROOT_ID, "f", 0o600, RDWR).unwrap();
    let (a, b) = (open(left.fs(), "f"), open(right.fs(), "f"));
    let mut noise = Noise::new(4);
    let mut bytes = Vec::new();
    for _ in 0..60 {
        let (at, len) = (
            noise.below(600_000) as usize,
            1 + noise.below(200_000) as usize,
        );
        let part = noise.bytes(len);
        bytes.resize(bytes.len().max(at + len), 0);
        bytes[at..at + len].copy_from_slice(&part);
        left.fs().write(a, at as u64, &part).unwrap();
        assert!(right.fs().read_to_end(b).unwrap() == bytes);
        let cut = noise.below(bytes.len() as u64);
        let set = SetattrIn {
            valid: SetattrValid::SIZE.bits(),
            size: cut,
            ..SetattrIn::default()
        };
        right.fs().setattr(b.nodeid, &set).unwrap();
        bytes.truncate(cut as usize);
        assert_eq!(size(left.fs(), a), cut);
        assert!(left.fs().read_to_end(a).unwrap() == bytes);
    }
}

/// Who makes a name first has it; the other is told, and no file is made twice.
#[test]
fn both_make_the_same_names() {
    let volume = Volume::striped();
    let (mut left, mut right) = two(&volume);
    let make = |mount: &mut Mount| -> Vec<bool> {
        let made = |index| {
            let flags = RDWR | libc::O_EXCL;
            let fs = mount.fs();
            match fs.create(ROOT_ID, format!("{index}"), 0o600, flags) {
                Ok((_, handle)) => {
                    fs.release(handle).unwrap();
                    true
                }
                Err(e) if e == Errno::EXIST => false,
                Err(e) => panic!("{e}"),
            }
        };
        (0..500).map(made).collect()
    };
    let (a, b) = thread::scope(|scope| {
        let a = scope.spawn(|| make(&mut left));
        let b = scope.spawn(|| make(&mut right));
        (a.join().unwrap(), b.join().unwrap())
    });
    for (index, (a, b)) in a.into_iter().zip(b).enumerate() {
        assert!(
            a != b,
            "file {index} was made {}",
            if a { "twice" } else { "by nobody" }
        );
    }
    assert_eq!(left.fs().list("/").unwrap().len(), 500);
}
