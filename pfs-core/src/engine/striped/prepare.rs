//! What a write within the size does to the inode, whose kernel does not see it: capabilities go, and
//! times change.
//!
//! Linux stamps times by a clock that ticks every few milliseconds, and writes none twice within a
//! tick. So neither is the inode looked at twice: many small writes cost the system calls of one.
//! What others change within the tick of the last look, sizes and attributes, is counted in the
//! [`Usage`](crate::volume::Usage) page.

use rustix::fs::{utimensat, AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::time::{clock_gettime, ClockId};

use super::File;
use crate::fs::Result;
use crate::sync::lock;
use crate::tree::attrs::{drop_capability, stat_fd};

/// The longest tick of a kernel's clock, in ns.
const TICK_MAX_NS: i64 = 10_000_000;

/// What a write found, and left, when it looked at the inode.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// The clock's time, in seconds and nanoseconds.
    tick: (i64, i64),
    changes: u64,
    size: u64,
}

/// Whether a write that ends at `end` is within the size. Makes of the inode's privileges and, if so,
/// of its times what the write makes of them.
pub(super) fn prepare(file: &File, end: u64) -> Result<bool> {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let tick = (now.tv_sec, now.tv_nsec);
    // Before the size is looked at.
    let changes = file.inode.changes();
    let mut last = lock(&file.inode.last_look);
    let stands = |look: &Look| look.tick == tick && look.changes == changes;
    if last.is_some_and(|look| stands(&look) && end <= look.size) {
        return Ok(true);
    }
    drop_capability(&file.meta)?;
    let attr = stat_fd(&file.meta)?.attr;
    if end > attr.size {
        return Ok(false);
    }
    // As the kernel does: a time within the same tick of the clock is not written again. One beyond
    // was set by somebody.
    let ahead_s = attr.mtime.sec.saturating_sub(now.tv_sec);
    let ahead_ns = ahead_s
        .saturating_mul(1_000_000_000)
        .saturating_add(i64::from(attr.mtime.nsec) - now.tv_nsec);
    if !(0..=TICK_MAX_NS).contains(&ahead_ns) {
        touch(file)?;
    }
    *last = Some(Look {
        tick,
        changes,
        size: attr.size,
    });
    Ok(true)
}

/// Sets the modification time to now.
pub(super) fn touch(file: &File) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
    };
    utimensat(&file.meta, c"", &times, AtFlags::EMPTY_PATH)
}
