//! Who holds what, and who waits for what, in this process. The kernel decides who gets a lock;
//! the table knows of each when to let go of its descriptor, what the session must remember,
//! whose a lock in the way is, and who waits in a circle.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Once};

use super::ranges::{Held, Hold, Ranges};
use super::{record, warn_once, Key, OwnFile, Request, Span, Whose};
use crate::fs::{Cancel, Errno, Handle, LockKind, NodeId, Result};
use crate::session::SessionStore;

/// Waits followed before a circle is taken for none: each is compared with all that is locked in
/// its file, under the table's lock.
const CIRCLE_MAX: usize = 32;

/// One owner in one inode.
pub(super) struct Entry {
    owner: u64,
    flock: bool,
    file: Arc<OwnFile>,
    /// Requests that are at it; it stays that long.
    uses: usize,
    /// The handle through which it was locked last.
    handle: Handle,
    held: Ranges,
}

/// A request that waits for a lock.
pub(super) struct Wait {
    pub id: u64,
    pub request: Request,
    pub cancel: Arc<Cancel>,
}

#[derive(Default)]
pub(super) struct Table {
    nodes: HashMap<NodeId, Vec<Entry>>,
    /// How many entries there are.
    owners: usize,
    /// How many ranges all entries have.
    ranges: usize,
    waits: Vec<Wait>,
    last_wait: u64,
}

impl Table {
    pub fn owners(&self) -> usize {
        self.owners
    }

    pub fn ranges(&self) -> usize {
        self.ranges
    }

    pub fn has_none(&self, node: NodeId) -> bool {
        !self.nodes.contains_key(&node)
    }

    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        let entries = self.nodes.get_mut(&key.node)?;
        entries.iter_mut().find(|entry| entry.is(key))
    }

    /// The entry of `key`, if `file` is still what is behind it.
    fn entry_of(&mut self, key: &Key, file: &Arc<OwnFile>) -> Option<&mut Entry> {
        self.entry(key)
            .filter(|entry| Arc::ptr_eq(&entry.file, file))
    }

    /// Begins to use an owner's descriptor; to be [given back](Self::give_back).
    pub fn take(&mut self, key: &Key) -> Option<Arc<OwnFile>> {
        let entry = self.entry(key)?;
        entry.uses += 1;
        Some(entry.file.clone())
    }

    /// As [`take`](Self::take); `file` is the owner's where it has none yet.
    pub fn take_or_put(&mut self, key: &Key, file: Arc<OwnFile>) -> Arc<OwnFile> {
        if let Some(file) = self.take(key) {
            return file;
        }
        self.owners += 1;
        self.nodes.entry(key.node).or_default().push(Entry {
            owner: key.owner,
            flock: key.flock,
            file: file.clone(),
            uses: 1,
            handle: Handle(0),
            held: Ranges::default(),
        });
        file
    }

    /// Ends a use. The entry goes where nothing is locked by it or about to be; it is answered,
    /// so that its descriptor is closed elsewhere.
    pub fn give_back(&mut self, key: &Key, file: &Arc<OwnFile>) -> Option<Entry> {
        let entry = self.entry_of(key, file)?;
        entry.uses -= 1;
        if entry.uses > 0 || !entry.held.is_empty() {
            return None;
        }
        let entries = self.nodes.get_mut(&key.node)?;
        let at = entries.iter().position(|entry| entry.is(key))?;
        let entry = entries.swap_remove(at);
        if entries.is_empty() {
            self.nodes.remove(&key.node);
        }
        self.owners -= 1;
        Some(entry)
    }

    /// Whether an unlock would make one range two.
    pub fn splits(&mut self, request: &Request) -> bool {
        let entry = self.entry(&request.key);
        entry.is_some_and(|entry| entry.held.splits(request.span))
    }

    /// Notes what the kernel has done. `EINTR` where the session has ended meanwhile, so that
    /// nobody would ever unlock it.
    pub fn apply(
        &mut self,
        request: &Request,
        file: &Arc<OwnFile>,
        store: &SessionStore,
    ) -> Result<()> {
        let key = request.key;
        let entry = self.entry_of(&key, file).ok_or(Errno::INTR)?;
        let hold = request.exclusive().map(|exclusive| Hold {
            exclusive,
            pid: request.pid,
        });
        if hold.is_some() {
            entry.handle = request.handle;
        }
        let (before, handle) = (entry.held.len(), entry.handle);
        // New records before old ones go: a process that ends in between leaves too many, and
        // the request that it was about is executed again.
        let gone = entry.held.set(request.span, hold, |held| {
            store
                .insert(&record::of(&key, handle, held))
                .unwrap_or_else(|errno| {
                    static SAID: Once = Once::new();
                    let what = format_args!("a lock will not outlive this process: {errno}");
                    warn_once(&SAID, what);
                    0
                })
        });
        self.ranges = self.ranges + self.entry(&key).map_or(0, |entry| entry.held.len()) - before;
        gone.iter().for_each(|held| store.remove(held.record));
        Ok(())
    }

    /// A lock of another owner in this process that is in the way.
    pub fn in_the_way(&self, request: &Request) -> Option<Held> {
        let exclusive = request.exclusive()?;
        let entries = self.nodes.get(&request.key.node)?.iter();
        let others = entries.filter(|entry| entry.is_other_of(&request.key));
        let held = others.filter_map(|entry| entry.held.conflict(request.span, exclusive));
        held.min_by_key(|held| held.span.first).copied()
    }

    /// The keys of those entries of `node`, and the waits for locks of theirs.
    pub fn of(&mut self, node: NodeId, whose: Whose) -> (Vec<Key>, Vec<Arc<Cancel>>) {
        let entries = self.nodes.get(&node).into_iter().flatten();
        let keys = entries.filter_map(|entry| {
            let key = Key {
                node,
                owner: entry.owner,
                flock: entry.flock,
            };
            whose.includes(&key, entry.handle).then_some(key)
        });
        // An owner that closes another descriptor goes on waiting, as on Linux.
        let Whose::Handle { handle, .. } = whose else {
            return (keys.collect(), Vec::new());
        };
        let waits = self.waits.iter();
        let waits = waits
            .filter(|wait| wait.request.key.node == node && wait.request.handle == handle)
            .map(|wait| wait.cancel.clone());
        (keys.collect(), waits.collect())
    }

    pub fn waiting(&self) -> usize {
        self.waits.len()
    }

    /// A request begins to wait. `EDEADLK` where those that it would wait for wait for it.
    pub fn begin_wait(&mut self, request: &Request, cancel: Arc<Cancel>) -> Result<u64> {
        if !request.key.flock && self.is_circle(request) {
            return Err(Errno::DEADLK);
        }
        self.last_wait += 1;
        self.waits.push(Wait {
            id: self.last_wait,
            request: *request,
            cancel,
        });
        Ok(self.last_wait)
    }

    pub fn end_wait(&mut self, id: u64) {
        self.waits.retain(|wait| wait.id != id);
    }

    /// Whether any of those that `request` waits for waits, in the end, for its owner.
    fn is_circle(&self, request: &Request) -> bool {
        let waits = self.waits.iter().map(|wait| &wait.request);
        let mut waits: Vec<_> = waits.filter(|request| !request.key.flock).collect();
        let mut reached = HashSet::new();
        self.blockers(request, &mut reached);
        for _ in 0..CIRCLE_MAX {
            if reached.contains(&request.key.owner) {
                return true;
            }
            let next = waits
                .iter()
                .position(|wait| reached.contains(&wait.key.owner));
            let Some(next) = next else { return false };
            self.blockers(waits.swap_remove(next), &mut reached);
        }
        reached.contains(&request.key.owner)
    }

    /// The owners in this process whose locks are in the way of `request`.
    fn blockers(&self, request: &Request, into: &mut HashSet<u64>) {
        let Some(exclusive) = request.exclusive() else {
            return;
        };
        let entries = self.nodes.get(&request.key.node).into_iter().flatten();
        let others = entries.filter(|entry| entry.is_other_of(&request.key));
        let held = others.filter(|entry| entry.held.conflict(request.span, exclusive).is_some());
        into.extend(held.map(|entry| entry.owner));
    }

    /// Empties the table; answers what was in it.
    pub fn clear(&mut self) -> (Vec<Entry>, Vec<Wait>) {
        let entries = self.nodes.drain().flat_map(|(_, all)| all).collect();
        (self.owners, self.ranges) = (0, 0);
        (entries, std::mem::take(&mut self.waits))
    }
}

impl Entry {
    fn is(&self, key: &Key) -> bool {
        self.owner == key.owner && self.flock == key.flock
    }

    fn is_other_of(&self, key: &Key) -> bool {
        self.owner != key.owner && self.flock == key.flock
    }
}

impl Whose {
    fn includes(self, key: &Key, through: Handle) -> bool {
        match self {
            Whose::Owner(owner) => !key.flock && key.owner == owner,
            Whose::Handle {
                handle,
                flock_owner,
            } => through == handle || (key.flock && Some(key.owner) == flock_owner),
        }
    }
}

impl Request {
    /// Whether it is for an exclusive lock; none where it unlocks.
    pub(super) fn exclusive(&self) -> Option<bool> {
        match self.kind {
            LockKind::Read => Some(false),
            LockKind::Write => Some(true),
            LockKind::Unlock => None,
        }
    }

    /// The request that drops all that `key` has.
    pub(super) fn unlock_all(key: Key) -> Request {
        Request {
            key,
            handle: Handle(0),
            kind: LockKind::Unlock,
            span: Span::ALL,
            pid: 0,
        }
    }
}
