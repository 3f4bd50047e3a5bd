//! Several daemons.

use std::ffi::CString;

use super::*;

/// Numbers that repeat for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// One of few names, so that daemons meet on them.
    fn name(&mut self) -> CString {
        CString::new(format!("n{}", self.below(6))).unwrap()
    }
}

/// Anything at all; what cannot be is refused, and changes no count.
fn anything(mount: &mut Mount, open: &mut Vec<Open>, dice: &mut Dice) {
    let (a, b) = (dice.name(), dice.name());
    let size = [10, 5000, 9000, 60_000][dice.below(4) as usize] + dice.below(100);
    let file = match open.len() {
        0 => None,
        len => Some(open[dice.below(len as u64) as usize]),
    };
    let _ = match (dice.below(16), file) {
        (0, _) => mount.try_mkdir(&a),
        (1, _) => mount.symlink(&a),
        (2, _) => mount.fifo(&a),
        (3 | 4, _) => mount.try_remove(&a),
        (5, _) => mount.rmdir(&a),
        (6, _) => mount.try_rename(&a, &b, 0),
        (7, _) => mount.try_link(&a, &b),
        (8, _) if open.len() < 6 => mount
            .try_create(&a, libc::O_RDWR)
            .map(|file| open.push(file)),
        (9, _) => mount
            .try_create(&a, libc::O_RDWR | libc::O_TRUNC)
            .map(|file| mount.release(file)),
        (10, Some(file)) => mount.try_truncate(file, size),
        (11, Some(file)) => mount.try_fallocate(file, size / 2, size, 0),
        (12, Some(file)) => {
            open.retain(|open| open.handle != file.handle);
            mount.release(file);
            Ok(())
        }
        (_, Some(file)) => mount
            .try_write(file, dice.below(size), size as usize)
            .map(drop),
        (_, None) => Ok(()),
    };
}

#[test]
fn two_daemons_count_together() {
    for seed in 1..=4 {
        let limits = Limits {
            capacity_bytes: Some(300_000),
            inodes: Some(8),
        };
        let ownership = match seed % 2 {
            0 => Ownership::Native,
            _ => Ownership::Mapped,
        };
        let rig = Rig::owned(3, limits, ownership);
        let over = std::sync::atomic::AtomicBool::new(false);
        let lane = |lane: u64| {
            let (mut mount, mut open) = (rig.mount(), Vec::new());
            let mut dice = Dice((seed << 8) + lane + 1);
            for _ in 0..600 {
                anything(&mut mount, &mut open, &mut dice);
                let used = used(&rig);
                if used.bytes > 300_000 || used.inodes > 8 {
                    over.store(true, Ordering::Relaxed);
                }
            }
            for file in open {
                mount.release(file);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| lane(0));
            scope.spawn(|| lane(1));
        });
        assert!(!over.load(Ordering::Relaxed), "more than the limit");
        clean(&rig);
    }
}
