//! Locks of open files: from a request to the session's table of them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::shared::Shared;
use crate::fs::*;
use crate::io::Io;
use crate::locks::{Key, Owner, Request, Span, Whose};
use crate::tree::FileData;

/// No access mode: what is wanted of a handle is allowed through every one.
const ANY_MODE: i32 = -1;

impl<D: FileData> Shared<D> {
    /// Drops locks in `node`, then goes on with `then` on the worker. Costs next to nothing
    /// where there are none.
    pub(super) fn unlock_then(
        self: &Arc<Self>,
        io: &mut Io,
        node: NodeId,
        whose: Whose,
        then: impl FnOnce(&Shared<D>, &mut Io) + Send + 'static,
    ) {
        if self.locks.has_none(node) {
            then(self, io);
        } else if self.data.locks_at_once() {
            self.locks.unlock(node, whose);
            then(self, io);
        } else {
            let (shared, mailbox) = (self.clone(), io.mailbox().clone());
            io.blocking(move || {
                shared.locks.unlock(node, whose);
                mailbox.run(move |io| then(&shared, io));
            });
        }
    }

    /// Runs `job` on the worker, or on the pool where the host may take long over a lock.
    pub(super) fn about_locks(
        self: &Arc<Self>,
        io: &mut Io,
        job: impl FnOnce(&Shared<D>) + Send + 'static,
    ) {
        if self.data.locks_at_once() {
            job(self);
        } else {
            let shared = self.clone();
            io.blocking(move || job(&shared));
        }
    }

    /// What `lock` asks of the host; none where it is wholly on bytes that are not a requester's.
    fn lock_request(&self, at: &At, lock: &Lock) -> Option<Request> {
        let span = match lock.flock {
            true => Span::ALL,
            false => Span {
                first: lock.start,
                last: lock.end.min(self.data.lock_end()),
            },
        };
        let request = Request {
            key: Key {
                node: at.node,
                owner: lock.owner,
                flock: lock.flock,
            },
            handle: at.handle,
            kind: lock.kind,
            span,
            pid: lock.pid,
        };
        (span.first <= span.last).then_some(request)
    }

    /// A descriptor for an owner's locks. Write locks need one open for writing, whatever the
    /// first of the owner's handles was opened for; so does flock, where a server has it as one.
    /// Else flock does not: no program on the host may be kept from running by a lock on it.
    fn open_for_locks(&self, key: &Key) -> Result<OwnedFd> {
        let inode = self.tree.inode(key.node)?;
        if key.flock && self.data.locks_at_once() {
            return self.tree.reopen(&inode, OFlags::RDONLY);
        }
        match self.tree.reopen(&inode, OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
                self.tree.reopen(&inode, OFlags::RDONLY)
            }
            result => result,
        }
    }

    /// A descriptor to ask for others' locks by.
    fn open_for_question(&self, node: NodeId) -> Result<OwnedFd> {
        let inode = self.tree.inode(node)?;
        self.tree.reopen(&inode, OFlags::RDONLY)
    }

    /// Takes the session's locks again, before another can that has waited for them since the
    /// process that had them died.
    pub(super) fn restore_locks(&self) {
        let (held, lost) = self.locks.restore(|key| self.open_for_locks(key));
        if held + lost > 0 {
            log::info!("{held} locks are held again, and {lost} are lost");
        }
    }

    /// As `fcntl(2)` has it, a handle takes a range only for what it was opened for.
    fn may_lock(&self, at: &At, lock: &Lock) -> Result<()> {
        let unwanted = match (lock.flock, lock.kind) {
            (false, LockKind::Read) => libc::O_WRONLY,
            (false, LockKind::Write) => libc::O_RDONLY,
            _ => ANY_MODE,
        };
        self.open_at(at, unwanted).map(drop)
    }

    pub(super) fn getlk(&self, at: At, mut lock: Lock) -> Result<Lock> {
        // There is no such question on Linux.
        if lock.flock || lock.kind == LockKind::Unlock {
            return Err(Errno::INVAL);
        }
        self.open_at(&at, ANY_MODE)?;
        let found = match self.lock_request(&at, &lock) {
            Some(request) => self
                .locks
                .in_the_way(&request, || self.open_for_question(at.node))?,
            None => None,
        };
        lock.kind = LockKind::Unlock;
        if let Some((kind, span, pid)) = found {
            let to_the_end = span.last >= self.data.lock_end();
            lock = Lock {
                kind,
                start: span.first,
                end: if to_the_end {
                    Span::ALL.last
                } else {
                    span.last
                },
                pid,
                ..lock
            };
        }
        Ok(lock)
    }

    pub(super) fn setlk(&self, at: &At, lock: &Lock, wait: Option<MayWait>, reply: Reply<()>) {
        match self.try_setlk(at, lock, wait) {
            Ok(None) => reply.ok(()),
            Ok(Some(waiting)) => waiting.owner.wait(waiting.request, waiting.cancel, reply),
            Err(errno) => reply.err(errno),
        }
    }

    /// Sets or drops a lock; answers what is to wait where another's is in the way.
    fn try_setlk(&self, at: &At, lock: &Lock, wait: Option<MayWait>) -> Result<Option<Waiting>> {
        self.may_lock(at, lock)?;
        let request = match self.lock_request(at, lock) {
            Some(request) => request,
            None if lock.kind == LockKind::Unlock => return Ok(None),
            None => return Err(Errno::OVERFLOW),
        };
        let open = || self.open_for_locks(&request.key);
        let Some(owner) = self.locks.owner(&request, open)? else {
            return Ok(None);
        };
        match (owner.set(&request), wait) {
            (Err(Errno::AGAIN), Some(may_wait)) => Ok(Some(Waiting {
                owner,
                request,
                cancel: may_wait()?,
            })),
            (result, _) => result.map(|()| None),
        }
    }
}

/// A request that has to wait for its lock.
struct Waiting {
    owner: Owner,
    request: Request,
    cancel: Arc<Cancel>,
}
