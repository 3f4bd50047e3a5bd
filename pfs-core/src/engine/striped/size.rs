//! Who changes a file's size, and who relies on it: two bytes of its inode that daemons lock.
//!
//! - A truncation holds both, exclusively. It cuts the objects, sets the size, counts itself in the
//!   [`Usage`](crate::volume::Usage) page, and cuts the objects again.
//! - A write that ends beyond the size holds [`Byte::Resize`], shared, while it extends the size, and
//!   [`Byte::Size`], shared, until its data is down.
//! - A write within the size holds nothing. If a change was counted since it looked at the size,
//!   it is done again as one beyond the end: what the truncation cut of it is there again, and what
//!   it put beyond the new size is within it.
//!
//! So once all are done no object has a byte beyond the size, for a later extension to show, and no
//! write is lost but to a truncation that came after it.
//!
//! Locks are held for as long as I/O on this host takes, never for a requester. They are tried for
//! on the worker; whoever has to wait does so on the blocking pool.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::file::File;
use super::inode::open_again;
use super::lock::{try_lock, wait_lock, Byte, Kind};
use crate::fs::{Errno, Result};
use crate::sync::lock;

/// How many writes hold [`Byte::Size`] by the file's own descriptor.
#[derive(Default)]
pub(super) struct Holders(Mutex<u32>);

/// Keeps truncations out until it is dropped.
pub(super) enum Hold {
    /// By the file's descriptor, with others.
    Shared(Arc<File>),
    /// By a descriptor of its own.
    Own { _fd: OwnedFd },
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Hold::Shared(file) = self else { return };
        let mut holders = lock(&file.size_holders.0);
        *holders -= 1;
        if *holders == 0 {
            // It fails only where there is no such lock.
            let _ = try_lock(&file.meta, Byte::Size, Kind::None);
        }
    }
}

/// Runs `change`, which may extend the file, and keeps truncations out from before it until the hold
/// is dropped. `None` where another is in the way. With `Kind::Exclusive` nobody else extends the file
/// meanwhile.
pub(super) fn try_hold<T>(
    file: &Arc<File>,
    kind: Kind,
    change: impl FnOnce() -> Result<T>,
) -> Result<Option<(Hold, T)>> {
    let mut holders = lock(&file.size_holders.0);
    match try_lock(&file.meta, Byte::Resize, kind) {
        Err(Errno::AGAIN) => return Ok(None),
        locked => locked?,
    }
    let changed = match *holders {
        // Who has this one alone has `Resize`, too.
        0 => try_lock(&file.meta, Byte::Size, Kind::Shared).and_then(|()| change()),
        _ => change(),
    };
    let unlocked = try_lock(&file.meta, Byte::Resize, Kind::None);
    // Counted also after a failure: the drop puts it right.
    *holders += 1;
    drop(holders);
    let hold = Hold::Shared(file.clone());
    let value = changed?;
    unlocked.map(|()| Some((hold, value)))
}

/// Like [`try_hold`], but waits for others: blocks.
pub(super) fn wait_hold<T>(
    file: &File,
    kind: Kind,
    change: impl FnOnce() -> Result<T>,
) -> Result<(Hold, T)> {
    // A lock of its own: what is granted to the shared descriptor could be let go by others.
    let own = open_again(&file.inode.volume, &file.meta)?;
    wait_lock(&own, Byte::Resize, kind)?;
    wait_lock(&own, Byte::Size, Kind::Shared)?;
    let value = change()?;
    try_lock(&own, Byte::Resize, Kind::None)?;
    Ok((Hold::Own { _fd: own }, value))
}

/// Keeps all out who would extend the file behind `meta`, until `meta` is closed: blocks.
pub(super) fn wait_alone(meta: &OwnedFd) -> Result<()> {
    // Those who come now wait for this one, so that it has not to wait for all of them.
    wait_lock(meta, Byte::Resize, Kind::Exclusive)?;
    wait_lock(meta, Byte::Size, Kind::Exclusive)
}
