//! The locks of requesters: POSIX byte ranges and flock, in one table for a session.
//!
//! Each owner of locks in an inode has an open file of its own there, a [`LockFile`], and who keeps
//! those decides who gets a lock. Where that is the host's kernel, byte ranges are its `F_OFD_SETLK`,
//! flock its `flock(2)`: so daemons that share a volume on a host keep each other out with no server
//! of ours, daemons on several hosts do where the file system behind them has such locks, and a
//! process that dies loses its locks with its descriptors.
//!
//! - `table`: who holds and waits for what here. `ranges`: byte ranges of one owner.
//! - `kernel`: the host's locks, and how to wait for them. `waiting`: threads that do.
//!   `alarm`: what ends their system calls.
//! - `record`: a lock in the session's records.
//!
//! Lock order: an owner's (over its system calls), then the table.

mod alarm;
mod kernel;
mod ranges;
mod record;
mod table;
mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};

use rustix::process::{getrlimit, Resource};

use crate::fs::{Cancel, Errno, Handle, LockKind, NodeId, Result};
use crate::session::{Kind, SessionStore};
use crate::sync::lock;
use ranges::Held;
pub use ranges::Span;
use table::Table;

/// Most owners with locks, each with a descriptor; fewer where the process may open few files.
const OWNERS_MAX: usize = 16384;
/// Most locked ranges of all owners together. The kernel keeps those of an inode in a list that
/// each request walks, with all other daemons' requests waiting: more would hold those up.
const RANGES_MAX: usize = 8192;
/// Most requests that wait for locks, each with a thread.
const WAITS_MAX: usize = 1024;

/// Whose locks, and in what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub node: NodeId,
    /// The requester's name for who locks.
    pub owner: u64,
    /// The lock of the whole file that `flock(2)` takes; it and byte ranges do not meet.
    pub flock: bool,
}

/// What to lock or unlock.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub key: Key,
    /// The open file through which it is asked.
    pub handle: Handle,
    pub kind: LockKind,
    pub span: Span,
    /// Who asks, in the requester's own numbers.
    pub pid: u32,
}

/// Whose locks in an inode are dropped together.
#[derive(Clone, Copy, Debug)]
pub enum Whose {
    /// Byte ranges of an owner that has closed a descriptor of the inode.
    Owner(u64),
    /// All that were taken through a handle, and the flock of `flock_owner`.
    Handle {
        handle: Handle,
        flock_owner: Option<u64>,
    },
}

/// An open file that holds the locks of one owner, and loses them when it is dropped.
pub trait LockFile: Send + Sync + 'static {
    /// Sets or drops what `request` says: `EAGAIN` where another has a lock in the way.
    fn set(&self, request: &Request) -> Result<()>;

    /// A lock in the way of `request` that is not this file's.
    fn in_the_way(&self, request: &Request) -> Result<Option<(LockKind, Span)>>;

    /// Sets what `request` says once nothing is in the way, unless `cancel` ends the wait: then
    /// nothing has changed.
    fn wait(&self, request: &Request, cancel: &Cancel) -> Result<()>;
}

/// The file of one owner.
struct OwnFile {
    file: Box<dyn LockFile>,
    /// Held over a system call that does not wait, and the change of the table that it means.
    op: Mutex<()>,
}

/// The locks of a session.
pub struct Locks {
    store: Arc<SessionStore>,
    table: Mutex<Table>,
    owners_max: usize,
    /// As many as the table has; to know without a lock that there are none.
    owners: AtomicUsize,
}

/// An owner's descriptor in use.
pub struct Owner {
    locks: Arc<Locks>,
    key: Key,
    file: Arc<OwnFile>,
}

impl Locks {
    /// No locks yet. Each is recorded in `store`.
    pub fn new(store: Arc<SessionStore>) -> Arc<Locks> {
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        Arc::new(Locks {
            store,
            table: Mutex::default(),
            owners_max: OWNERS_MAX.min((files_max / 8) as usize),
            owners: AtomicUsize::new(0),
        })
    }

    /// Whether nobody has locks in `node`.
    pub fn has_none(&self, node: NodeId) -> bool {
        self.owners.load(Ordering::Acquire) == 0 || lock(&self.table).has_none(node)
    }

    fn find(self: &Arc<Self>, key: &Key) -> Option<Owner> {
        let file = lock(&self.table).take(key)?;
        Some(self.owner_of(*key, file))
    }

    fn owner_of(self: &Arc<Self>, key: Key, file: Arc<OwnFile>) -> Owner {
        Owner {
            locks: self.clone(),
            key,
            file,
        }
    }

    /// The owner that `request` is of; `open` gives it a descriptor where it has none. `None`
    /// where it has no lock and `request` unlocks. `ENOLCK` where there are too many.
    pub fn owner<F: LockFile>(
        self: &Arc<Self>,
        request: &Request,
        open: impl FnOnce() -> Result<F>,
    ) -> Result<Option<Owner>> {
        let found = self.find(&request.key);
        if found.is_some() || request.kind == LockKind::Unlock {
            return Ok(found);
        }
        if self.owners.load(Ordering::Acquire) >= self.owners_max {
            return Err(Errno::NOLCK);
        }
        let file = Arc::new(OwnFile {
            file: Box::new(open()?),
            op: Mutex::new(()),
        });
        let mut table = lock(&self.table);
        let file = table.take_or_put(&request.key, file);
        self.owners.store(table.owners(), Ordering::Release);
        drop(table);
        Ok(Some(self.owner_of(request.key, file)))
    }

    /// A lock in the way of `request`, with the pid of its holder where that is a requester of
    /// this session, else 0.
    pub fn in_the_way<F: LockFile>(
        self: &Arc<Self>,
        request: &Request,
        open: impl FnOnce() -> Result<F>,
    ) -> Result<Option<(LockKind, Span, u32)>> {
        let own = lock(&self.table).in_the_way(request);
        if let Some(held) = own {
            let kind = match held.exclusive {
                true => LockKind::Write,
                false => LockKind::Read,
            };
            return Ok(Some((kind, held.span, held.pid)));
        }
        let found = match self.find(&request.key) {
            Some(owner) => owner.file.file.in_the_way(request)?,
            None => open()?.in_the_way(request)?,
        };
        Ok(found.map(|(kind, span)| (kind, span, 0)))
    }

    /// Drops locks in `node`.
    pub fn unlock(self: &Arc<Self>, node: NodeId, whose: Whose) {
        let (keys, waits) = lock(&self.table).of(node, whose);
        waits.iter().for_each(|wait| wait.cancel(Errno::INTR));
        for owner in keys.iter().filter_map(|key| self.find(key)) {
            owner.unlock_all();
        }
    }

    /// Drops all locks and ends all waits: the session is over. The locks are gone once what is answered
    /// is dropped.
    pub fn reset(&self) -> impl Send {
        let files = self.let_go();
        self.recorded().for_each(|id| self.store.remove(id));
        files
    }

    /// As [`reset`](Self::reset), but the session's records stay, to be taken up by
    /// [`restore`](Self::restore).
    pub fn let_go(&self) -> impl Send {
        let (entries, waits) = {
            let mut table = lock(&self.table);
            self.owners.store(0, Ordering::Release);
            table.clear()
        };
        waits
            .iter()
            .for_each(|wait| wait.cancel.cancel(Errno::INTR));
        entries
    }

    /// Takes again what the session's records say was held; answers how many locks, and how many
    /// could not be had any more.
    pub fn restore<F: LockFile>(
        self: &Arc<Self>,
        open: impl Fn(&Key) -> Result<F>,
    ) -> (usize, usize) {
        let mut lost = 0;
        for id in self.recorded() {
            let request = self
                .store
                .get(id)
                .and_then(|record| record::request(&record));
            let Some(request) = request else { continue };
            let owner = self.owner(&request, || open(&request.key));
            // As many ranges as there were, whatever one more would need.
            let taken = owner.and_then(|owner| owner.map_or(Ok(()), |own| own.set_now(&request)));
            // Where it was taken, it has a new record.
            self.store.remove(id);
            if let Err(errno) = taken {
                lost += 1;
                log::warn!("a lock was lost in the restart, to another or with its file: {errno}; {request:?}");
            }
        }
        (lock(&self.table).ranges(), lost)
    }

    fn recorded(&self) -> std::vec::IntoIter<u64> {
        let ids = self.store.ids().filter(|(_, kind)| *kind == Kind::Lock);
        ids.map(|(id, _)| id).collect::<Vec<_>>().into_iter()
    }
}

impl Owner {
    /// Sets or drops what `request` says, without waiting: `EAGAIN` where another has a lock in
    /// the way, `ENOLCK` where there are too many.
    pub fn set(&self, request: &Request) -> Result<()> {
        let may_add = match request.kind {
            LockKind::Unlock => usize::from(lock(&self.locks.table).splits(request)),
            _ => 2,
        };
        if may_add > 0 && lock(&self.locks.table).ranges() + may_add > RANGES_MAX {
            return Err(Errno::NOLCK);
        }
        self.set_now(request)
    }

    fn set_now(&self, request: &Request) -> Result<()> {
        let _op = lock(&self.file.op);
        let file = &self.file.file;
        let set = file.set(request);
        if set == Err(Errno::AGAIN) && request.key.flock {
            // Linux lets go of the old kind before it tries for the new one. What others do
            // shall be the same.
            let unlock = Request::unlock_all(request.key);
            file.set(&unlock)?;
            self.apply(&unlock)?;
        }
        set.and_then(|()| self.apply(request))
    }

    fn unlock_all(&self) {
        let _op = lock(&self.file.op);
        let unlock = Request::unlock_all(self.key);
        if let Err(errno) = self.file.file.set(&unlock) {
            log::warn!("a file is not unlocked: {errno}");
        }
        // Fails where the session is over, and everything is unlocked.
        let _ = self.apply(&unlock);
    }

    fn apply(&self, request: &Request) -> Result<()> {
        lock(&self.locks.table).apply(request, &self.file, &self.locks.store)
    }
}

/// A fault of the host that a requester can run into again and again: one line in the log.
fn warn_once(said: &Once, what: std::fmt::Arguments<'_>) {
    said.call_once(|| log::warn!("{what}; this is said once"));
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut table = lock(&self.locks.table);
        let idle = table.give_back(&self.key, &self.file);
        self.locks.owners.store(table.owners(), Ordering::Release);
        drop(table);
        // Its descriptor is closed without the table's lock.
        drop(idle);
    }
}

#[cfg(test)]
mod tests;
