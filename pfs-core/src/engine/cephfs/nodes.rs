//! Node ids to inodes.
//!
//! A node is a record of the session (its id, lookups, and inode and snapshot numbers), an entry in an
//! index by those, and, while it is held, a [`Node`] with the client's inode. The client keeps what it
//! knows of an inode for as long as that is held, and so does the metadata server: held inodes are
//! bounded, and others found again by their numbers when they are used.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use hashbrown::DefaultHashBuilder;

use super::attr::file_type;
use super::ffi::{ceph_statx, STATX_ALL};
use super::inode::Inode;
use super::mount::{Mount, Vino};
use super::version::Changes;
use crate::fs::{Errno, NodeId, Result};
use crate::session::{Identity, Kind, Record, SessionStore};
use crate::sync::lock;

/// Workers meet on a shard only for inodes that hash alike.
const SHARDS: usize = 64;

/// An inode that is held.
pub struct Node {
    pub id: NodeId,
    pub vino: Vino,
    /// The file type bits of the mode, which never change.
    pub file_type: u32,
    pub inode: Arc<Inode>,
    pub changes: Changes,
    /// It was used since the last look for one to let go of.
    used: AtomicBool,
}

impl Node {
    /// Refuses anything but a directory.
    pub fn dir(self: Arc<Node>) -> Result<Arc<Node>> {
        match self.file_type {
            libc::S_IFDIR => Ok(self),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Refuses anything but a regular file.
    pub fn file(self: Arc<Node>) -> Result<Arc<Node>> {
        match self.file_type {
            libc::S_IFREG => Ok(self),
            libc::S_IFDIR => Err(Errno::ISDIR),
            libc::S_IFLNK => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }
}

#[derive(Default)]
struct Held {
    nodes: HashMap<u64, Arc<Node>, DefaultHashBuilder>,
    /// In the order in which they are looked at when one must go.
    turn: VecDeque<u64>,
}

/// The inode table. Lock order: index, then held.
pub struct Nodes {
    store: Arc<SessionStore>,
    index: Box<[Mutex<HashMap<Vino, u64, DefaultHashBuilder>>]>,
    held: Box<[Mutex<Held>]>,
    held_max: usize,
    hasher: DefaultHashBuilder,
    /// The client that finds inodes; another takes its place where the cluster has given it up.
    mount: RwLock<Option<Arc<Mount>>>,
    root: Mutex<Option<Arc<Node>>>,
}

impl Nodes {
    /// A table without a client.
    pub fn new(store: Arc<SessionStore>, held_max: usize) -> Nodes {
        Nodes {
            store,
            index: (0..SHARDS).map(|_| Mutex::default()).collect(),
            held: (0..SHARDS).map(|_| Mutex::default()).collect(),
            held_max: (held_max / SHARDS).max(1),
            hasher: DefaultHashBuilder::default(),
            mount: RwLock::default(),
            root: Mutex::default(),
        }
    }

    /// Serves the directory that `mount` has mounted; all inodes are found again by it.
    pub fn attach(&self, mount: &Arc<Mount>) -> Result<()> {
        let inode = mount.root()?;
        let stx = inode.stat(STATX_ALL)?;
        let vino = Vino::of(&stx);
        match self.store.get(NodeId::ROOT.0) {
            None => {
                let id = self.store.insert(&record(vino))?;
                assert_eq!(id, NodeId::ROOT.0, "the root is a store's first record");
            }
            Some(known) if (known.a, known.b) == (vino.ino, vino.snap) => {}
            // The volume's path is another directory by now.
            Some(_) => return Err(Errno::STALE),
        }
        lock(self.index(vino)).insert(vino, NodeId::ROOT.0);
        let root = new_node(NodeId::ROOT, inode, &stx);
        let mut current = self
            .mount
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        *current = Some(mount.clone());
        self.held
            .iter()
            .for_each(|held| *lock(held) = Held::default());
        *lock(&self.root) = Some(root);
        Ok(())
    }

    /// The client.
    pub fn mount(&self) -> Result<Arc<Mount>> {
        let mount = self
            .mount
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        mount.clone().ok_or(Errno::NOTCONN)
    }

    fn index(&self, vino: Vino) -> &Mutex<HashMap<Vino, u64, DefaultHashBuilder>> {
        &self.index[self.hasher.hash_one(vino) as usize % SHARDS]
    }

    fn held(&self, node: NodeId) -> &Mutex<Held> {
        &self.held[node.0 as u32 as usize % SHARDS]
    }

    /// Takes one lookup on `inode`, which `stx` describes.
    pub fn intern(&self, inode: impl Into<Arc<Inode>>, stx: &ceph_statx) -> Result<Arc<Node>> {
        let (vino, inode) = (Vino::of(stx), inode.into());
        let mut index = lock(self.index(vino));
        let id = match index.entry(vino) {
            Slot::Occupied(known) => {
                self.store.add_count(*known.get(), 1);
                *known.get()
            }
            Slot::Vacant(new) => *new.insert(self.store.insert(&record(vino))?),
        };
        // Under the index, so that it is not forgotten before it is held.
        Ok(self.hold(NodeId(id), inode, stx))
    }

    /// The node `id`, held: as it is already, or by `inode`.
    fn hold(&self, id: NodeId, inode: Arc<Inode>, stx: &ceph_statx) -> Arc<Node> {
        if id == NodeId::ROOT {
            if let Some(root) = lock(&self.root).clone() {
                return root;
            }
        }
        let mut held = lock(self.held(id));
        let gone = held.make_room(self.held_max);
        let node = match held.nodes.entry(id.0) {
            Slot::Occupied(known) => known.get().clone(),
            Slot::Vacant(free) => {
                let node = free.insert(new_node(id, inode, stx)).clone();
                held.turn.push_back(id.0);
                node
            }
        };
        drop(held);
        // Letting go takes the client's lock.
        drop(gone);
        node
    }

    /// The node if it is held: what may be asked for on a worker.
    pub fn held_now(&self, id: NodeId) -> Option<Arc<Node>> {
        if id == NodeId::ROOT {
            return lock(&self.root).clone();
        }
        let held = lock(self.held(id));
        let node = held.nodes.get(&id.0)?;
        node.used.store(true, Ordering::Relaxed);
        Some(node.clone())
    }

    /// The node `id`: `ESTALE` for one never given out, forgotten, or gone. Asks the cluster where it is
    /// not held.
    pub fn get(&self, id: NodeId) -> Result<Arc<Node>> {
        if let Some(node) = self.held_now(id) {
            return Ok(node);
        }
        let record = self.store.get(id.0);
        let record = record.filter(|record| record.kind == Kind::Node);
        let record = record.ok_or(Errno::STALE)?;
        let vino = Vino {
            ino: record.a,
            snap: record.b,
        };
        let gone = |errno| match errno {
            Errno::NOENT => Errno::STALE,
            errno => errno,
        };
        let inode = Arc::new(self.mount()?.find(vino).map_err(gone)?);
        let stx = inode.stat(STATX_ALL).map_err(gone)?;
        let index = lock(self.index(vino));
        match index.get(&vino) == Some(&id.0) {
            true => Ok(self.hold(id, inode, &stx)),
            false => Err(Errno::STALE),
        }
    }

    /// Gives back `count` lookups; the node goes with the last.
    pub fn forget(&self, id: NodeId, count: u64) {
        let record = self.store.get(id.0);
        let record = record.filter(|record| record.kind == Kind::Node && id != NodeId::ROOT);
        let Some(record) = record else { return };
        let vino = Vino {
            ino: record.a,
            snap: record.b,
        };
        let mut index = lock(self.index(vino));
        // Looked at again under the lock: another thread may have forgotten it.
        if self.store.get(id.0) != Some(record) || self.store.sub_count(id.0, count) > 0 {
            return;
        }
        index.remove(&vino);
        let gone = lock(self.held(id)).nodes.remove(&id.0);
        self.store.remove(id.0);
        drop(index);
        drop(gone);
    }

    /// Forgets every node but the root.
    pub fn forget_all(&self) {
        for id in self.ids() {
            self.forget(NodeId(id), u64::MAX);
        }
    }

    /// Fills the index from the session's records; answers how many nodes there are.
    pub fn restore(&self) -> u64 {
        let ids = self.ids();
        for id in &ids {
            if let Some(record) = self.store.get(*id) {
                let vino = Vino {
                    ino: record.a,
                    snap: record.b,
                };
                lock(self.index(vino)).insert(vino, *id);
            }
        }
        ids.len() as u64
    }

    /// Lets go of all inodes: the client goes.
    pub fn detach(&self) -> Option<Arc<Mount>> {
        let mut mount = self
            .mount
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        self.held
            .iter()
            .for_each(|held| *lock(held) = Held::default());
        *lock(&self.root) = None;
        mount.take()
    }

    fn ids(&self) -> Vec<u64> {
        let nodes = self.store.ids().filter(|(_, kind)| *kind == Kind::Node);
        nodes.map(|(id, _)| id).collect()
    }
}

impl Held {
    /// Where there are `max`, lets go of one that nobody uses and that was not used lately.
    fn make_room(&mut self, max: usize) -> Option<Arc<Node>> {
        if self.nodes.len() < max {
            return None;
        }
        // Twice around, since the first clears what says that they were used.
        for _ in 0..2 * self.turn.len() {
            let id = self.turn.pop_front()?;
            let Some(node) = self.nodes.get(&id) else {
                // It was forgotten.
                continue;
            };
            if Arc::strong_count(node) > 1 || node.used.swap(false, Ordering::Relaxed) {
                self.turn.push_back(id);
                continue;
            }
            return self.nodes.remove(&id);
        }
        None
    }
}

fn new_node(id: NodeId, inode: impl Into<Arc<Inode>>, stx: &ceph_statx) -> Arc<Node> {
    Arc::new(Node {
        id,
        vino: Vino::of(stx),
        file_type: file_type(stx),
        inode: inode.into(),
        changes: Changes::default(),
        used: AtomicBool::new(false),
    })
}

fn record(vino: Vino) -> Record {
    Record {
        kind: Kind::Node,
        a: vino.ino,
        b: vino.snap,
        identity: Identity::NONE,
    }
}
