//! An open file, and what the last to let go of it does.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rustix::fs::{statx, utimensat, AtFlags, OFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT};

use super::append::Appends;
use super::inode::{free_size_blocks, open_again, Stripe, StripedInode};
use super::lock::{try_lock, Byte, Kind};
use super::orphans::purge_nameless;
use super::record::Record;
use super::size::Holders;
use crate::fs::{Errno, Reply, Result};
use crate::io::DataFd;
use crate::sync::lock;
use crate::tree::attrs::stat_fd;

/// An open file. While it is, it holds the shared guard.
pub struct File {
    /// The inode on the metadata target, opened as asked.
    pub(super) meta: DataFd,
    pub(super) inode: Arc<StripedInode>,
    pub(super) size_holders: Holders,
    pub(super) appends: Appends,
    closing: Closing,
    /// Whose answer waits until the last request lets go.
    released: Mutex<Option<Reply<()>>>,
}

/// How far an open file is let go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// In use: it holds the guard.
    No,
    /// The guard is let go, and there is something to free or to remove.
    WithWork,
    /// The guard is let go, and nothing is left to do.
    Done,
    /// Nothing can be done: the guard goes with the descriptor.
    Failed,
}

impl File {
    /// An open file over `meta`, whose guard it takes: `ESTALE` where the file is being deleted, or
    /// has been.
    pub(super) fn new(meta: DataFd, inode: Arc<StripedInode>, is_tmpfile: bool) -> Result<File> {
        match try_lock(&meta, Byte::Guard, Kind::Shared) {
            Err(Errno::AGAIN) => return Err(Errno::STALE),
            result => result?,
        }
        inode.begin_use(&meta, is_tmpfile)?;
        inode.was_changed();
        Ok(File {
            meta,
            inode,
            size_holders: Holders::default(),
            appends: Appends::default(),
            closing: Closing::No,
            released: Mutex::default(),
        })
    }

    /// Answers once the last request that uses `file` has let go of it.
    pub(super) fn release(file: Arc<File>, reply: Reply<()>) {
        *lock(&file.released) = Some(reply);
    }

    /// The objects, made or not, that data up to `end` needs; none where the inode holds all of it.
    pub(super) fn stripe_for_end(&self, end: u64) -> Result<Option<&Stripe>> {
        match end > self.inode.mdt_size_bytes(&self.meta)? {
            true => self.inode.stripe_for_write(&self.meta).map(Some),
            false => Ok(None),
        }
    }

    /// Lets go of the guard. Answers whether a drop then does what may block.
    pub(super) fn let_go(&mut self) -> bool {
        if self.closing == Closing::No {
            // The guard goes before the exclusive one is tried for, or two who close at once
            // would each see the other. The descriptor itself may be in use a little longer.
            self.inode.end_use();
            self.closing = match try_lock(&self.meta, Byte::Guard, Kind::None) {
                Err(_) => Closing::Failed,
                Ok(()) if self.frees_blocks() || self.leaves_something() => Closing::WithWork,
                Ok(()) => Closing::Done,
            };
        }
        self.closing == Closing::WithWork
    }

    /// The descriptor of a file that was [let go](Self::let_go) without any lock on it, and as of when
    /// it had a name; none where there is something left to do.
    pub(super) fn into_meta(self) -> Option<(DataFd, Option<u64>)> {
        if self.closing != Closing::Done {
            return None;
        }
        Some((self.meta.clone(), self.inode.named_at()))
    }

    fn frees_blocks(&self) -> bool {
        Arc::strong_count(&self.inode) == 1 && self.inode.extended.load(Ordering::Relaxed) > 0
    }

    /// Frees what extensions of the size left in the inode.
    fn free_blocks(&self) {
        self.inode.extended.store(0, Ordering::Relaxed);
        let freed = self.inode.mdt_size_bytes(&self.meta).and_then(|mdt_size| {
            // Whoever lets go last may have opened it only to read.
            let meta = open_again(&self.inode.volume, &self.meta)?;
            keep_mtime(&meta, || free_size_blocks(&meta, mdt_size));
            Ok(())
        });
        if let Err(errno) = freed {
            log::debug!("inode {}: its spare blocks stay: {errno}", self.inode.ino);
        }
    }

    /// Whether the file has no name, and something of it is left.
    fn leaves_something(&self) -> bool {
        // Without a record, nothing is left but the inode.
        if self.inode.is_named() && self.inode.loaded().is_none() {
            return false;
        }
        let Ok(stat) = stat_fd(&self.meta) else {
            return false;
        };
        match stat.attr.nlink {
            0 => !matches!(Record::load(&self.meta), Ok(None)),
            _ => self.inode.is_nameless(&stat.attr),
        }
    }

    /// Removes what is left of a file without a name, if this was its last user.
    fn purge(&self) -> Result<()> {
        let volume = &self.inode.volume;
        if stat_fd(&self.meta)?.attr.nlink > 0 {
            return volume
                .orphans
                .purge(volume.store(), self.inode.ino)
                .map(drop);
        }
        // The lock needs a descriptor that can write.
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        purge_nameless(volume.store(), &volume.proc.open_fd(&self.meta, flags)?)
    }

    /// Nobody uses it any more.
    fn end(&mut self) {
        let goes_on = &self.inode.volume.goes_on;
        if goes_on.load(Ordering::Acquire) || !self.let_go() {
            return;
        }
        if self.frees_blocks() {
            self.free_blocks();
        }
        let purged = match self.leaves_something() {
            true => self.purge(),
            false => Ok(()),
        };
        if let Err(errno) = purged {
            let ino = self.inode.ino;
            log::warn!("inode {ino}, which has no name, cannot be removed yet: {errno}");
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.end();
        if let Some(reply) = lock(&self.released).take() {
            reply.ok(());
        }
    }
}

/// Does `work`, which moves the modification time, and moves it back: a close changes nothing, and
/// what `utimensat(2)` set before it stays. Should another daemon set it within these few
/// microseconds, that is lost.
fn keep_mtime(meta: impl AsFd, work: impl FnOnce()) {
    let stat = statx(&meta, c"", AtFlags::EMPTY_PATH, StatxFlags::MTIME);
    work();
    let Ok(stat) = stat else { return };
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: stat.stx_mtime.tv_sec,
            tv_nsec: stat.stx_mtime.tv_nsec.into(),
        },
    };
    let _ = utimensat(&meta, c"", &times, AtFlags::EMPTY_PATH);
}
