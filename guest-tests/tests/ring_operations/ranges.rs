//! Sizes, holes and ranges of a file.

use guest_tests::fixture::{Mount, Noise, Volume, MDT_SIZE, STRIPE_UNIT, TARGETS};
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{Client, Errno, Handle};

use crate::data::Modelled;

on_every_kind_of_volume! {
    a_sparse_file,
    truncation,
    opening_truncates,
    fallocate_modes,
    fallocate_at_random,
    data_and_holes,
    copies_between_files,
    copies_within_a_file,
}

const ROW: usize = STRIPE_UNIT * TARGETS;
const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;

fn set_size(fs: &mut Client, file: &mut Modelled, size: usize) {
    let set = SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size: size as u64,
        ..SetattrIn::default()
    };
    let out = fs.setattr(file.handle.nodeid, &set).unwrap();
    assert_eq!(out.attr.size, size as u64);
    file.bytes.resize(size, 0);
}

fn a_sparse_file(mount: &mut Mount, volume: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    let data = Noise::new(1).bytes(5000);
    file.write(fs, (9 << 20) + 3, &data);
    file.write(fs, 3 * STRIPE_UNIT + 1, &data);
    file.check(fs);
    let attr = fs.fgetattr(file.handle).unwrap().attr;
    assert!(attr.blocks * 512 < 1 << 20, "{} blocks", attr.blocks);
    fs.release(file.handle).unwrap();
    if volume.is_striped() {
        // What only carried the size has no blocks.
        let blocks = fs.attr("/f").unwrap().blocks;
        assert!(blocks * 512 < 128 << 10, "{blocks} blocks");
        assert!(volume.get("/f") == file.bytes);
    }
}

fn truncation(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(2);
    let mut file = Modelled::new(fs, "f");
    let sizes = [
        0,
        1,
        MDT_SIZE - 1,
        MDT_SIZE,
        MDT_SIZE + 1,
        MDT_SIZE + STRIPE_UNIT,
        ROW - 1,
        ROW + MDT_SIZE + 1,
        2 * ROW + 4097,
    ];
    for cut in sizes {
        for grown in sizes {
            file.write(fs, 0, &noise.bytes(2 * ROW + 9000));
            set_size(fs, &mut file, cut);
            set_size(fs, &mut file, grown.max(cut));
            // Nothing of what was cut off comes back.
            file.check(fs);
        }
    }
    let huge = SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size: 1 << 63,
        ..SetattrIn::default()
    };
    assert!(fs
        .setattr(file.handle.nodeid, &huge)
        .unwrap_err()
        .errno()
        .is_some());
    let dir = fs.setattr(ROOT_ID, &SetattrIn { size: 0, ..huge });
    assert_eq!(dir.unwrap_err(), Errno::ISDIR);
    file.check(fs);
}

fn opening_truncates(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    for len in [100, ROW + 100] {
        let name = format!("{len}");
        let mut file = Modelled::new(fs, &name);
        let data = Noise::new(3).bytes(len);
        for round in 0..2 {
            file.write(fs, 0, &data);
            let flags = libc::O_RDWR | libc::O_TRUNC;
            let again = match round {
                0 => fs.open(file.handle.nodeid, flags).unwrap(),
                _ => {
                    let (entry, handle) = fs.create(ROOT_ID, &name, 0o600, flags).unwrap();
                    assert_eq!((entry.nodeid, entry.attr.size), (file.handle.nodeid, 0));
                    handle
                }
            };
            file.bytes.clear();
            file.check(fs);
            // The handle from before still is of this file.
            file.write(fs, 7, &data[..50]);
            assert_eq!(fs.read(again, 7, 50).unwrap(), data[..50]);
            file.check(fs);
        }
    }
}

/// Allocates in the file and in its model.
fn allocate(fs: &mut Client, file: &mut Modelled, mode: i32, at: usize, len: usize) {
    fs.fallocate(file.handle, mode, at as u64, len as u64)
        .unwrap();
    let end = at + len;
    if mode & KEEP == 0 && end > file.bytes.len() {
        file.bytes.resize(end, 0);
    }
    if mode & !KEEP != 0 {
        let size = file.bytes.len();
        file.bytes[at.min(size)..end.min(size)].fill(0);
    }
}

fn fallocate_modes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(4);
    for mode in [0, KEEP, PUNCH, ZERO, ZERO | KEEP] {
        let mut file = Modelled::new(fs, &format!("{mode}"));
        let len = ROW + MDT_SIZE + 1000;
        for (at, range) in [
            (100, 5000),
            (MDT_SIZE - 10, 20),
            (MDT_SIZE + 5, 2 * STRIPE_UNIT),
            (0, len),
            (len - 7, ROW),
            (len + ROW, 10),
        ] {
            file.write(fs, 0, &noise.bytes(len));
            allocate(fs, &mut file, mode, at, range);
            file.check(fs);
        }
    }
    let mut file = Modelled::new(fs, "not");
    file.write(fs, 0, &noise.bytes(ROW + MDT_SIZE));
    let unit = STRIPE_UNIT as u64;
    for mode in [
        libc::FALLOC_FL_COLLAPSE_RANGE,
        libc::FALLOC_FL_INSERT_RANGE,
        libc::FALLOC_FL_PUNCH_HOLE,
        PUNCH | ZERO,
        1 << 30,
    ] {
        let refused = fs.fallocate(file.handle, mode, unit, unit);
        assert_eq!(refused.unwrap_err(), Errno::OPNOTSUPP, "{mode:#x}");
    }
    assert_eq!(
        fs.fallocate(file.handle, 0, 0, 0).unwrap_err(),
        Errno::INVAL
    );
    let beyond = fs.fallocate(file.handle, 0, i64::MAX as u64, 1);
    assert_eq!(beyond.unwrap_err(), Errno::FBIG);
    file.check(fs);
}

fn fallocate_at_random(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(5);
    let mut file = Modelled::new(fs, "f");
    for _ in 0..60 {
        let (at, len) = (
            noise.below(1 << 20) as usize,
            1 + noise.below(200_000) as usize,
        );
        match noise.below(7) {
            0 => allocate(fs, &mut file, 0, at, len),
            1 => allocate(fs, &mut file, KEEP, at, len),
            2 => allocate(fs, &mut file, PUNCH, at, len),
            3 => allocate(fs, &mut file, ZERO, at, len),
            4 => set_size(fs, &mut file, at),
            _ => file.write(fs, at, &noise.bytes(len)),
        }
        file.check(fs);
    }
}

/// Where SEEK_DATA and SEEK_HOLE lead from `at`; none for ENXIO.
fn seek(fs: &mut Client, handle: Handle, at: u64, whence: i32) -> Option<u64> {
    match fs.lseek(handle, at, whence) {
        Ok(found) => Some(found),
        Err(e) if e == Errno::NXIO => None,
        Err(e) => panic!("{e}"),
    }
}

fn data_and_holes(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    let handle = file.handle;
    let unit = STRIPE_UNIT as u64;
    assert_eq!(seek(fs, handle, 0, libc::SEEK_DATA), None);
    assert_eq!(seek(fs, handle, 0, libc::SEEK_HOLE), None);
    // Data at 2 to 4 and 9 to 10 stripes, a hole at the end.
    file.write(fs, 2 * STRIPE_UNIT, &Noise::new(6).bytes(2 * STRIPE_UNIT));
    file.write(fs, 9 * STRIPE_UNIT, &Noise::new(7).bytes(STRIPE_UNIT));
    set_size(fs, &mut file, 12 * STRIPE_UNIT);
    file.check(fs);
    for (at, data, hole) in [
        (0, Some(2 * unit), Some(0)),
        (2 * unit - 1, Some(2 * unit), Some(2 * unit - 1)),
        (2 * unit, Some(2 * unit), Some(4 * unit)),
        (3 * unit + 5, Some(3 * unit + 5), Some(4 * unit)),
        (4 * unit, Some(9 * unit), Some(4 * unit)),
        (9 * unit, Some(9 * unit), Some(10 * unit)),
        (10 * unit, None, Some(10 * unit)),
        (12 * unit - 1, None, Some(12 * unit - 1)),
        (12 * unit, None, None),
        (1 << 62, None, None),
    ] {
        assert_eq!(
            seek(fs, handle, at, libc::SEEK_DATA),
            data,
            "data from {at}"
        );
        assert_eq!(
            seek(fs, handle, at, libc::SEEK_HOLE),
            hole,
            "hole from {at}"
        );
    }
    // A file without holes has one at its end.
    let mut full = Modelled::new(fs, "full");
    full.write(fs, 0, &Noise::new(8).bytes(5 * STRIPE_UNIT + 10));
    assert_eq!(
        seek(fs, full.handle, 17, libc::SEEK_HOLE),
        Some(5 * unit + 10)
    );
    assert_eq!(
        fs.lseek(handle, 0, libc::SEEK_CUR).unwrap_err(),
        Errno::INVAL
    );
    assert_eq!(fs.lseek(handle, 0, 99).unwrap_err(), Errno::INVAL);
}

fn copies_between_files(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut noise = Noise::new(9);
    let mut from = Modelled::new(fs, "from");
    from.write(fs, 0, &noise.bytes(ROW));
    set_size(fs, &mut from, ROW + 50_000);
    from.write(fs, 2 * ROW, &noise.bytes(ROW));
    let mut to = Modelled::new(fs, "to");
    for (at, to_at, len) in [
        (0, 0, 10),
        (MDT_SIZE - 5, 1, 10),
        (3, MDT_SIZE + 4, ROW),
        (ROW - 100, STRIPE_UNIT - 7, ROW + 200),
        (0, ROW, 3 * ROW),
    ] {
        let mut copied = 0;
        while copied < len {
            let (at, to_at) = ((at + copied) as u64, (to_at + copied) as u64);
            let some = fs.copy_file_range(from.handle, at, to.handle, to_at, (len - copied) as u64);
            let some = some.unwrap();
            assert!(some > 0, "{copied} of {len}");
            copied += some;
        }
        to.bytes.resize(to.bytes.len().max(to_at + len), 0);
        to.bytes[to_at..to_at + len].copy_from_slice(&from.bytes[at..at + len]);
        to.check(fs);
    }
    let end = from.bytes.len() as u64;
    for (at, len, expected) in [
        (end - 5, 100, 5),
        (end, 100, 0),
        (end + 9, 100, 0),
        (0, 0, 0),
    ] {
        let copied = fs
            .copy_file_range(from.handle, at, to.handle, 0, len)
            .unwrap();
        assert_eq!(copied, expected, "{len} from {at}");
        to.bytes[..expected].copy_from_slice(&from.bytes[from.bytes.len() - expected..]);
    }
    to.check(fs);
    from.check(fs);
}

fn copies_within_a_file(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let mut file = Modelled::new(fs, "f");
    file.write(fs, 0, &Noise::new(10).bytes(2 * ROW));
    let handle = file.handle;
    let copied = fs.copy_file_range(handle, 10, handle, ROW as u64 + 3, STRIPE_UNIT as u64);
    assert_eq!(copied.unwrap(), STRIPE_UNIT);
    file.bytes.copy_within(10..10 + STRIPE_UNIT, ROW + 3);
    file.check(fs);
    let overlapping = fs.copy_file_range(handle, 0, handle, 100, 1000);
    assert_eq!(overlapping.unwrap_err(), Errno::INVAL);
    file.check(fs);
}
