//! Descriptors of files that were closed, parked for whoever opens them next.
//!
//! Many files are opened again soon: just made ones, programs, headers. To open one anew by way of
//! `/proc` costs more than all else that an open does. So the [`FileData`](super::FileData) may give
//! a descriptor back when it closes it. One of each inode is parked there, with the inode's own
//! descriptor: it keeps nothing alive that this does not, and goes with it when the inode is forgotten,
//! or makes room for others. Few are parked at a time; those parked first go first. Where it is the
//! inode's own descriptor that is parked, it takes nobody's turn.
//!
//! To the host a parked file is open. An engine only parks what nobody there can mind.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::fs::OFlags;

use super::{Inode, Tree};
use crate::io::Fd;
use crate::sync::lock;

/// Most descriptors parked at a time.
const PARKED_MAX: usize = 1024;
/// Of so many descriptors that inodes may hold, one is parked.
const INODES_PER_PARKED: usize = 8;

/// A descriptor that can be had again.
pub struct Parked {
    pub fd: Fd,
    /// What it was opened with.
    pub flags: OFlags,
    /// See [`Opening::named_at`](super::data::Opening::named_at).
    pub named_at: Option<u64>,
}

impl Parked {
    fn is_own(&self, inode: &Inode) -> bool {
        Arc::ptr_eq(&self.fd, &inode.fd)
    }
}

/// What is parked of one inode, and its turn; its own descriptor has none.
#[derive(Default)]
pub(super) struct Place(Mutex<Option<(Option<u64>, Parked)>>);

/// Who parks, by turn.
pub(super) struct Lot {
    turns: Box<[Turn]>,
    next: AtomicU64,
}

type Turn = Mutex<Option<(u64, Weak<Inode>)>>;

impl Lot {
    /// A lot beside a cache of `held_max` inodes.
    pub fn new(held_max: usize) -> Lot {
        let len = (held_max / INODES_PER_PARKED).clamp(1, PARKED_MAX);
        Lot {
            turns: (0..len).map(|_| Mutex::default()).collect(),
            next: AtomicU64::new(0),
        }
    }

    fn park(&self, inode: &Arc<Inode>, parked: Parked) {
        if parked.is_own(inode) {
            let _before = lock(&inode.parked.0).replace((None, parked));
            return;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        // What is closed, is closed without the lock.
        let _closed = match &mut *lock(&inode.parked.0) {
            Some((None, _)) => return,
            place => place.replace((Some(turn), parked)),
        };
        let mut at = lock(&self.turns[turn as usize % self.turns.len()]);
        let first = at.replace((turn, Arc::downgrade(inode)));
        drop(at);
        if let Some((turn, inode)) = first.and_then(|(turn, who)| Some((turn, who.upgrade()?))) {
            inode.parked.take_if(|now, _| now == Some(turn));
        }
    }
}

impl Place {
    fn take_if(&self, wanted: impl FnOnce(Option<u64>, &Parked) -> bool) -> Option<Parked> {
        let mut place = lock(&self.0);
        let taken = place.take_if(|(turn, parked)| wanted(*turn, parked))?;
        Some(taken.1)
    }
}

impl Tree {
    /// Parks a descriptor of `inode`, in place of any other.
    pub fn park(&self, inode: &Arc<Inode>, parked: Parked) {
        self.lot.park(inode, parked);
    }

    /// The parked descriptor of `inode`, if it was opened with `flags`. Its own can do more than is
    /// asked of it.
    pub(super) fn unpark(&self, inode: &Inode, flags: OFlags) -> Option<Parked> {
        inode
            .parked
            .take_if(|_, parked| match parked.is_own(inode) {
                true => {
                    parked.flags - OFlags::RWMODE == flags - OFlags::RWMODE
                        && can(parked.flags, flags)
                }
                false => parked.flags == flags,
            })
    }

    /// Looks at `inode` by a descriptor that is open to read, where there is one.
    pub fn by_opened<T>(&self, inode: &Inode, look: impl FnOnce(BorrowedFd<'_>) -> T) -> Option<T> {
        if inode.opened.is_some() {
            return Some(look(inode.fd.as_fd()));
        }
        let place = lock(&inode.parked.0);
        place.as_ref().map(|(_, parked)| look(parked.fd.as_fd()))
    }
}

/// Whether what was opened with `flags` can do what `wanted` asks for.
fn can(flags: OFlags, wanted: OFlags) -> bool {
    let (mode, wanted) = (flags & OFlags::RWMODE, wanted & OFlags::RWMODE);
    mode == wanted || mode == OFlags::RDWR
}

#[cfg(test)]
mod tests {
    use rustix::fs::{open, Mode};

    use super::*;
    use crate::fs::NodeId;
    use crate::tree::attrs::stat_fd;

    fn inode() -> Arc<Inode> {
        let fd = open("/dev/null", OFlags::PATH, Mode::empty()).unwrap();
        let stat = stat_fd(&fd).unwrap();
        Inode::new(NodeId(1), fd, &stat)
    }

    fn parked(flags: OFlags) -> Parked {
        Parked {
            fd: open("/dev/null", flags, Mode::empty()).unwrap().into(),
            flags,
            named_at: None,
        }
    }

    fn is_parked(inode: &Inode) -> bool {
        lock(&inode.parked.0).is_some()
    }

    #[test]
    fn few_are_parked_and_the_first_go_first() {
        let lot = Lot::new(3 * INODES_PER_PARKED);
        let inodes: Vec<_> = (0..5).map(|_| inode()).collect();
        for inode in &inodes {
            lot.park(inode, parked(OFlags::RDWR));
        }
        let now: Vec<bool> = inodes.iter().map(|inode| is_parked(inode)).collect();
        assert_eq!(now, [false, false, true, true, true]);
    }

    #[test]
    fn who_parks_again_has_a_new_turn() {
        let lot = Lot::new(2 * INODES_PER_PARKED);
        let (one, other) = (inode(), inode());
        lot.park(&one, parked(OFlags::RDWR));
        assert!(one.parked.take_if(|_, _| true).is_some());
        lot.park(&one, parked(OFlags::RDWR));
        // The turn that ends here is one that `one` has given up.
        lot.park(&other, parked(OFlags::RDWR));
        assert!(is_parked(&one) && is_parked(&other));
        lot.park(&other, parked(OFlags::RDONLY));
        assert!(!is_parked(&one) && is_parked(&other));
    }

    #[test]
    fn only_what_was_opened_alike_is_had_again() {
        let (lot, inode) = (Lot::new(100), inode());
        lot.park(&inode, parked(OFlags::RDWR));
        let had = |flags| inode.parked.take_if(|_, parked| parked.flags == flags);
        assert!(had(OFlags::RDONLY).is_none());
        assert!(had(OFlags::RDWR | OFlags::DSYNC).is_none());
        assert!(had(OFlags::RDWR).is_some());
        assert!(had(OFlags::RDWR).is_none());
    }
}
