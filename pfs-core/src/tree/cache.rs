//! The bounded cache of inodes of which a descriptor is held.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::DefaultHashBuilder;
use rustix::fs::OFlags;

use super::parked::Place;
use super::version::Changes;
use super::Stat;
use crate::fs::NodeId;
use crate::io::Fd;
use crate::sync::lock;

/// Workers meet on a shard only for inodes whose slots are alike.
const SHARDS: usize = 64;
/// Candidates to look at in a shard before an eviction goes on to the next.
const EVICT_TRIES: usize = 8;

/// An inode of which a descriptor is held, so that its number cannot be used again.
///
/// What every request looks at comes first: beside the counts of its [`Arc`], in one line of the
/// processor's cache or two.
#[repr(C)]
pub struct Inode {
    pub node: NodeId,
    /// A descriptor to reach it by.
    pub fd: Fd,
    /// With which flags `fd` was opened, where it is not an `O_PATH` descriptor: the one that the
    /// file was made with.
    pub(super) opened: Option<OFlags>,
    /// The file type bits of the mode, which never change.
    pub file_type: u32,
    pub ino: u64,
    pub dev: u64,
    /// Of a directory.
    pub(super) names: Names,
    pub(super) changes: Changes,
    pub(super) parked: Place,
}

/// Whether descriptors of what a directory names are held, by what the last lookup there found. A
/// name whose inode is held is only looked at; any other is opened at once.
#[derive(Default)]
pub(super) struct Names {
    unheld: AtomicBool,
}

impl Names {
    /// Whether the next name's inode is likely held.
    pub(super) fn likely_held(&self) -> bool {
        !self.unheld.load(Ordering::Relaxed)
    }

    /// Takes note of whether it was.
    pub(super) fn note(&self, held: bool) {
        if self.likely_held() != held {
            self.unheld.store(!held, Ordering::Relaxed);
        }
    }
}

impl Inode {
    /// The inode behind `reach`, which `stat` describes.
    pub(super) fn new(node: NodeId, reach: impl Into<Reach>, stat: &Stat) -> Arc<Inode> {
        let Reach { fd, opened } = reach.into();
        let file_type = stat.file_type();
        Arc::new(Inode {
            node,
            fd,
            opened,
            ino: stat.ino,
            dev: stat.dev,
            file_type,
            names: Names::default(),
            changes: Changes::default(),
            parked: Place::default(),
        })
    }
}

/// How an inode is reached.
pub(super) struct Reach {
    pub fd: Fd,
    /// See [`Inode::opened`].
    pub opened: Option<OFlags>,
}

impl From<OwnedFd> for Reach {
    /// By an `O_PATH` descriptor.
    fn from(fd: OwnedFd) -> Reach {
        Reach {
            fd: fd.into(),
            opened: None,
        }
    }
}

/// An inode in the cache.
struct Held {
    inode: Arc<Inode>,
    /// Since it was last considered for eviction.
    used: bool,
}

#[derive(Default)]
struct Shard {
    inodes: HashMap<NodeId, Held, DefaultHashBuilder>,
    /// Nodes in the order their inodes came in; some may be gone.
    order: VecDeque<NodeId>,
}

/// Inodes by their nodes.
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    held: AtomicUsize,
    held_max: usize,
    next_evict: AtomicUsize,
}

impl Cache {
    /// A cache that should hold at most `held_max` inodes.
    pub(super) fn new(held_max: usize) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            held: AtomicUsize::new(0),
            held_max: held_max.max(1),
            next_evict: AtomicUsize::new(0),
        }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<Arc<Inode>> {
        let mut shard = self.shard(node);
        let held = shard.inodes.get_mut(&node)?;
        held.used = true;
        Some(held.inode.clone())
    }

    /// Whether the node's inode is held; it counts as used. The inode itself is not looked at.
    pub(super) fn holds(&self, node: NodeId) -> bool {
        let mut shard = self.shard(node);
        let held = shard.inodes.get_mut(&node);
        held.map(|held| held.used = true).is_some()
    }

    /// Adds an inode; answers the one that is there where another thread was first.
    pub(super) fn put(&self, inode: Arc<Inode>) -> Arc<Inode> {
        let node = inode.node;
        let mut shard = self.shard(node);
        if let Some(there) = shard.inodes.get(&node) {
            return there.inode.clone();
        }
        let held = Held {
            inode: inode.clone(),
            used: true,
        };
        shard.inodes.insert(node, held);
        self.held.fetch_add(1, Ordering::Relaxed);
        if shard.order.len() > 2 * shard.inodes.len() + 64 {
            let Shard { order, inodes } = &mut *shard;
            order.retain(|node| inodes.contains_key(node));
        }
        shard.order.push_back(node);
        inode
    }

    pub(super) fn remove(&self, node: NodeId) {
        if self.shard(node).inodes.remove(&node).is_some() {
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.held() >= self.held_max
    }

    /// Lets go of an inode that nobody uses or used lately, if `may_go` agrees. Second chance:
    /// a used one is passed over once.
    pub(super) fn evict_one(&self, may_go: impl Fn(&Inode) -> bool) {
        for _ in 0..2 * SHARDS {
            let index = self.next_evict.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let mut shard = lock(&self.shards[index]);
            for _ in 0..EVICT_TRIES {
                let Some(node) = shard.order.pop_front() else {
                    break;
                };
                let Some(held) = shard.inodes.get_mut(&node) else {
                    continue;
                };
                let idle = Arc::strong_count(&held.inode) == 1 && !std::mem::take(&mut held.used);
                if idle && may_go(&held.inode) {
                    shard.inodes.remove(&node);
                    self.held.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
                shard.order.push_back(node);
            }
        }
    }

    fn shard(&self, node: NodeId) -> MutexGuard<'_, Shard> {
        lock(&self.shards[node.0 as u32 as usize % SHARDS])
    }
}
