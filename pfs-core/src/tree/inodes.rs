//! Node ids to inodes.
//!
//! A node is a record of the session (its id, lookups, inode number, and file handle where
//! there is one), an entry in an index by inode number, and, while its descriptor is held, an
//! [`Inode`] in the [cache](super::cache). Descriptors are bounded: one that has not been used
//! lately is closed when the kernel can find the inode again by its file handle.

use std::collections::HashMap;
use std::ffi::CStr;
use std::hash::BuildHasher;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use hashbrown::{DefaultHashBuilder, HashTable};
use rustix::fs::{openat, Mode, OFlags};

use super::cache::{Cache, Inode, Reach};
use super::file_handle::{identity_at, identity_of, RootMount};
use super::ownership::Ownership;
use super::{find, Stat};
use crate::fs::{Errno, Name, NodeId, Result};
use crate::session::{Identity, Kind, Record, SessionStore};
use crate::sync::lock;

/// Workers meet on a shard only for inodes that hash alike.
const SHARDS: usize = 64;

/// The inode table. Lock order: index, then cache.
pub(super) struct Inodes {
    store: Arc<SessionStore>,
    /// Slots of all nodes, by inode number.
    index: Box<[Mutex<HashTable<u32>>]>,
    hasher: DefaultHashBuilder,
    ownership: Arc<dyn Ownership>,
    cache: Cache,
    /// The root's mount, for `open_by_handle_at(2)`; `None` where the process may not use it, or the
    /// file system has no handles.
    mount: Option<RootMount>,
    /// The file system that the root is on: its handles lead back, where `mount` is there.
    root_dev: u64,
}

impl Inodes {
    /// A table with the root in it.
    pub(super) fn new(
        store: Arc<SessionStore>,
        held_max: usize,
        ownership: Arc<dyn Ownership>,
        root: OwnedFd,
        stat: &Stat,
    ) -> Result<Inodes> {
        let table = Inodes {
            store,
            index: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            ownership,
            cache: Cache::new(held_max),
            mount: RootMount::of(&root),
            root_dev: stat.dev,
        };
        if table.store.get(NodeId::ROOT.0).is_none() {
            let id = table.store.insert(&table.record(&root, stat))?;
            assert_eq!(
                id,
                NodeId::ROOT.0,
                "the root is the first record of a store"
            );
        }
        let (hash, mut index) = table.index(stat.ino, stat.dev);
        index.insert_unique(hash, NodeId::ROOT.0 as u32, |slot| table.hash_of(*slot));
        drop(index);
        table.cache.put(Inode::new(NodeId::ROOT, root, stat));
        Ok(table)
    }

    fn index(&self, ino: u64, dev: u64) -> (u64, MutexGuard<'_, HashTable<u32>>) {
        let hash = self.hasher.hash_one((ino, dev));
        // The table itself uses the low and the highest bits.
        (hash, lock(&self.index[(hash >> 32) as usize % SHARDS]))
    }

    fn hash_of(&self, slot: u32) -> u64 {
        let (_, ino, dev) = self.store.words_of_slot(slot).unwrap_or_default();
        self.hasher.hash_one((ino, dev))
    }

    fn record(&self, fd: &OwnedFd, stat: &Stat) -> Record {
        // A private store's records are completed when the need comes: at an eviction.
        let identity = match &self.mount {
            _ if !self.store.is_shared() => Identity::NONE,
            Some(mount) => mount.identity_of(fd),
            None => identity_of(fd).0,
        };
        Record {
            kind: Kind::Node,
            a: stat.ino,
            b: stat.dev,
            identity,
        }
    }

    /// The node in the index for an inode number, which may have been used again since.
    fn indexed(&self, index: &HashTable<u32>, hash: u64, stat: &Stat) -> Option<NodeId> {
        let mut node = None;
        index.find(hash, |slot| {
            let record = self.store.words_of_slot(*slot);
            let same = record.filter(|(_, ino, dev)| (*ino, *dev) == (stat.ino, stat.dev));
            node = same.map(|(id, ..)| NodeId(id));
            node.is_some()
        })?;
        node
    }

    /// Takes one lookup on the inode with `stat`'s number, if its descriptor is held: only then
    /// is it certain that the number means the same inode.
    pub(super) fn known(&self, stat: &Stat) -> Option<NodeId> {
        let (hash, index) = self.index(stat.ino, stat.dev);
        let node = self.indexed(&index, hash, stat)?;
        self.cache.holds(node).then(|| {
            self.store.add_count(node.0, 1);
            node
        })
    }

    /// Takes one lookup on the inode that `stat` describes, just looked at as `name` in `dir`,
    /// without a new descriptor: where one is held, or where the name's handle is the record's.
    ///
    /// Then the number was another inode's at the look only if that one went, and this one came,
    /// was found and let go of, in between.
    pub(super) fn known_at(&self, dir: impl AsFd, name: &Name, stat: &Stat) -> Option<NodeId> {
        if let Some(node) = self.known(stat) {
            return Some(node);
        }
        let node = {
            let (hash, index) = self.index(stat.ino, stat.dev);
            self.indexed(&index, hash, stat)?
        };
        let recorded = self.store.get(node.0)?.identity;
        if recorded.is_none() || recorded != identity_at(dir.as_fd(), name.as_c_str(), 0).0 {
            return None;
        }
        let (hash, index) = self.index(stat.ino, stat.dev);
        let still = self.indexed(&index, hash, stat) == Some(node);
        still.then(|| {
            self.store.add_count(node.0, 1);
            node
        })
    }

    /// Whether a new descriptor costs another inode its own.
    pub(super) fn is_full(&self) -> bool {
        self.mount.is_some() && self.cache.is_full()
    }

    /// The inode with `stat`'s number, if its descriptor is held.
    pub(super) fn held_as(&self, stat: &Stat) -> Option<Arc<Inode>> {
        let (hash, index) = self.index(stat.ino, stat.dev);
        self.cache.get(self.indexed(&index, hash, stat)?)
    }

    /// Takes one lookup on the inode behind `reach`, which `stat` describes; answers also whether its
    /// descriptor was held already.
    pub(super) fn intern(&self, reach: impl Into<Reach>, stat: &Stat) -> Result<(NodeId, bool)> {
        let reach = reach.into();
        if let Some(node) = self.known(stat) {
            return Ok((node, true));
        }
        self.make_room();
        let (hash, mut index) = self.index(stat.ino, stat.dev);
        if let Some(node) = self.indexed(&index, hash, stat) {
            // Another thread may have been first.
            if self.cache.holds(node) {
                self.store.add_count(node.0, 1);
                return Ok((node, true));
            }
            let recorded = self.store.get(node.0).map(|record| record.identity);
            if recorded.is_some_and(|known| !known.is_none() && known == identity_of(&reach.fd).0) {
                self.store.add_count(node.0, 1);
                self.cache.put(Inode::new(node, reach, stat));
                return Ok((node, false));
            }
            // The number was used again: the old inode is gone, its node stays until forgotten.
            if let Ok(entry) = index.find_entry(hash, |slot| *slot == node.0 as u32) {
                entry.remove();
            }
        }
        let node = NodeId(self.store.insert(&self.record(&reach.fd, stat))?);
        index.insert_unique(hash, node.0 as u32, |slot| self.hash_of(*slot));
        self.cache.put(Inode::new(node, reach, stat));
        Ok((node, false))
    }

    /// The inode of `node`: `ESTALE` for one never given out, forgotten, or gone.
    pub(super) fn get(&self, node: NodeId) -> Result<Arc<Inode>> {
        if let Some(inode) = self.cache.get(node) {
            return Ok(inode);
        }
        let record = self
            .store
            .get(node.0)
            .filter(|record| record.kind == Kind::Node);
        let (record, mount) = record.zip(self.mount.as_ref()).ok_or(Errno::STALE)?;
        self.make_room();
        let fd = mount.open(&record.identity, OFlags::PATH)?;
        let stat = super::ownership::stat(&*self.ownership, &fd)?;
        if (stat.ino, stat.dev) != (record.a, record.b) {
            return Err(Errno::STALE);
        }
        Ok(self.cache.put(Inode::new(node, fd, &stat)))
    }

    /// Gives back `count` lookups; the node goes with the last.
    pub(super) fn forget(&self, node: NodeId, count: u64) {
        let record = self
            .store
            .get(node.0)
            .filter(|record| record.kind == Kind::Node);
        let Some(record) = record.filter(|_| node != NodeId::ROOT) else {
            return;
        };
        let (hash, mut index) = self.index(record.a, record.b);
        // Looked at again under the lock: another thread may have forgotten it.
        if self.store.get(node.0) != Some(record) || self.store.sub_count(node.0, count) > 0 {
            return;
        }
        if let Ok(entry) = index.find_entry(hash, |slot| *slot == node.0 as u32) {
            entry.remove();
        }
        self.cache.remove(node);
        self.store.remove(node.0);
    }

    /// Forgets every node but the root.
    pub(super) fn forget_all(&self) {
        for id in self.nodes() {
            self.forget(NodeId(id), u64::MAX);
        }
    }

    /// Fills the index from the session's records; answers how many nodes there are.
    pub(super) fn restore(&self) -> u64 {
        let nodes = self.nodes();
        for id in &nodes {
            let Some(record) = self.store.get(*id).filter(|_| *id != NodeId::ROOT.0) else {
                continue;
            };
            let (hash, mut index) = self.index(record.a, record.b);
            if index.find(hash, |slot| *slot == *id as u32).is_none() {
                index.insert_unique(hash, *id as u32, |slot| self.hash_of(*slot));
            }
        }
        nodes.len() as u64
    }

    /// Where inodes cannot be opened by their file handles, looks for the session's in the root and
    /// in `beside`, whole trees; answers how many are not found.
    pub(super) fn find_all(&self, beside: Option<BorrowedFd<'_>>) -> u64 {
        let Some(root) = self
            .cache
            .get(NodeId::ROOT)
            .filter(|_| self.mount.is_none())
        else {
            return 0;
        };
        let nodes = self.nodes().into_iter().map(NodeId);
        let mut wanted: HashMap<u64, NodeId> = nodes
            .filter(|node| self.cache.get(*node).is_none())
            .filter_map(|node| Some((self.store.get(node.0)?.a, node)))
            .collect();
        for dir in [Some(root.fd.as_fd()), beside].into_iter().flatten() {
            if wanted.is_empty() {
                break;
            }
            let searched = find::each_name(dir, |parent, name, ino| {
                if wanted
                    .get(&ino)
                    .is_some_and(|node| self.is_at(*node, parent, name))
                {
                    wanted.remove(&ino);
                }
                !wanted.is_empty()
            });
            if let Err(errno) = searched {
                log::warn!("cannot look for the session's inodes: {errno}");
            }
        }
        wanted.len() as u64
    }

    /// Whether `name` in `dir` is the inode of `node`, which is then held.
    fn is_at(&self, node: NodeId, dir: &OwnedFd, name: &CStr) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = openat(dir, name, flags, Mode::empty()) else {
            return false;
        };
        let recorded = self.store.get(node.0).map(|record| record.identity);
        if recorded.is_none_or(|known| known.is_none() || known != identity_of(&fd).0) {
            return false;
        }
        let stat = super::ownership::stat(&*self.ownership, &fd);
        stat.is_ok_and(|stat| {
            self.cache.put(Inode::new(node, fd, &stat));
            true
        })
    }

    /// Completes every node's record; answers how many could not be made findable.
    pub(super) fn complete_records(&self) -> u64 {
        let nodes = self.nodes();
        nodes
            .into_iter()
            .filter(|id| !self.make_findable(NodeId(*id)))
            .count() as u64
    }

    /// Descriptors held.
    pub(super) fn held(&self) -> usize {
        self.cache.held()
    }

    fn nodes(&self) -> Vec<u64> {
        let nodes = self.store.ids().filter(|(_, kind)| *kind == Kind::Node);
        nodes.map(|(id, _)| id).collect()
    }

    /// Closes a descriptor where there are too many.
    fn make_room(&self) {
        if self.is_full() {
            self.cache
                .evict_one(|inode| inode.node != NodeId::ROOT && self.record_identity(inode));
        }
    }

    fn make_findable(&self, node: NodeId) -> bool {
        match self.cache.get(node) {
            Some(inode) => node == NodeId::ROOT || self.record_identity(&inode),
            // Its descriptor could only be let go once its identity was recorded.
            None => true,
        }
    }

    /// Opens `inode` for data by its file handle, which is half the price of a way through `/proc`;
    /// none where that cannot be done.
    pub(super) fn open_handle(&self, inode: &Inode, flags: OFlags) -> Option<OwnedFd> {
        let mount = self.mount.as_ref()?;
        if inode.dev != self.root_dev {
            return None;
        }
        let record = self.store.get(inode.node.0)?;
        let identity = self.recorded_identity(inode, &record)?;
        mount.open(&identity, flags).ok()
    }

    /// Records how `inode` can be found without its descriptor; answers whether it can.
    fn record_identity(&self, inode: &Inode) -> bool {
        let record = self.store.get(inode.node.0);
        record.is_none_or(|record| self.recorded_identity(inode, &record).is_some())
    }

    /// How `inode`, of which `record` is, can be found without its descriptor: recorded now if it was
    /// not. None where it cannot.
    fn recorded_identity(&self, inode: &Inode, record: &Record) -> Option<Identity> {
        if !record.identity.is_none() {
            return Some(record.identity);
        }
        let mount = self.mount.as_ref()?;
        let identity = mount.identity_of(&inode.fd);
        // An inode of another file system has a handle that leads nowhere, or elsewhere, on this one.
        let leads_back = match inode.dev == self.root_dev {
            true => !identity.is_none(),
            false => {
                let found = mount.open(&identity, OFlags::PATH);
                let found = found.and_then(|fd| super::attrs::stat_fd(&fd));
                found.is_ok_and(|stat| (stat.ino, stat.dev) == (inode.ino, inode.dev))
            }
        };
        leads_back.then(|| {
            self.store.set_identity(inode.node.0, &identity);
            identity
        })
    }
}
