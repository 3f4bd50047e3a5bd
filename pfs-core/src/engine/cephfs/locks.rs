//! Locks, kept by the metadata server: for all daemons and native clients of the file system.
//!
//! libcephfs has calls for byte ranges by inode, but none for flock. So flock is a lock on a byte far
//! behind every file's end, which no byte range of a guest reaches: it holds between daemons. A native
//! client's flock is another lock; one that locks the whole file by `fcntl(2)` meets it.
//!
//! To wait in the library would take a thread that nothing can interrupt. So it is asked again and
//! again, at first soon, then less often.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::calls::Kind;
use super::file::File;
use super::shared::{Shared, ANY_MODE};
use crate::fs::*;
use crate::locks::{Key, LockFile, Request, Span};
use crate::sync::lock;

/// The byte that is locked for flock.
const FLOCK_BYTE: u64 = i64::MAX as u64 - 1;
/// The byte that is locked for appending.
pub const APPEND_BYTE: u64 = i64::MAX as u64 - 2;
/// The last byte that guests lock: one further is "to the end", and theirs end here.
const LAST_BYTE: u64 = i64::MAX as u64 - 3;
/// Tells the server to know an owner by its number alone, not by its process.
const OWNER_ALONE: u64 = 1 << 63;
/// Between two tries for a lock, at first and at last.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_LAST: Duration = Duration::from_millis(60);

/// An owner's own open file.
struct CephLock(File);

impl LockFile for CephLock {
    fn set(&self, request: &Request) -> Result<()> {
        set(&self.0, request.kind, request.span, request.key.owner)
    }

    fn in_the_way(&self, request: &Request) -> Result<Option<(LockKind, Span)>> {
        let mut range = describe(request.kind, request.span);
        self.0
            .get_lock(&mut range, request.key.owner | OWNER_ALONE)?;
        let kind = match i32::from(range.l_type) {
            libc::F_RDLCK => LockKind::Read,
            libc::F_WRLCK => LockKind::Write,
            _ => return Ok(None),
        };
        let first = range.l_start.max(0) as u64;
        let last = match range.l_len {
            len @ 1.. => first.saturating_add(len as u64 - 1),
            _ => Span::ALL.last,
        };
        Ok(Some((kind, Span { first, last })))
    }

    fn wait(&self, request: &Request, cancel: &Cancel) -> Result<()> {
        let told = Arc::new((Mutex::new(false), Condvar::new()));
        let bell = told.clone();
        let ring = move || {
            *lock(&bell.0) = true;
            bell.1.notify_all();
        };
        cancel.during(ring, || {
            let mut pause = PAUSE_FIRST;
            loop {
                if let Some(errno) = cancel.why() {
                    return Err(errno);
                }
                match self.set(request) {
                    Err(Errno::AGAIN) => {}
                    result => return result,
                }
                let rung = lock(&told.0);
                if !*rung {
                    drop(told.1.wait_timeout(rung, pause));
                }
                pause = (pause * 2).min(PAUSE_LAST);
            }
        })
    }
}

/// Sets or drops a lock, without waiting.
pub fn set(file: &File, kind: LockKind, span: Span, owner: u64) -> Result<()> {
    file.set_lock(&mut describe(kind, span), owner | OWNER_ALONE)
}

fn describe(kind: LockKind, span: Span) -> libc::flock {
    let kind = match kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: span.first as i64,
        l_len: (span.last - span.first + 1) as i64,
        l_pid: 0,
    }
}

impl Shared {
    fn open_for_locks(&self, key: &Key) -> Result<CephLock> {
        let node = self.nodes.get(key.node)?.file()?;
        node.inode.open(libc::O_RDONLY).map(CephLock)
    }

    /// What `lock` asks of the server; none where it is wholly on bytes that no guest locks.
    fn lock_request(at: &At, lock: &Lock) -> Option<Request> {
        let span = match lock.flock {
            true => Span {
                first: FLOCK_BYTE,
                last: FLOCK_BYTE,
            },
            false => Span {
                first: lock.start,
                last: lock.end.min(LAST_BYTE),
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

    pub fn getlk(self: &Arc<Self>, at: At, lock: Lock, reply: Reply<Lock>) {
        // There is no such question on Linux.
        if lock.flock || lock.kind == LockKind::Unlock {
            return reply.err(Errno::INVAL);
        }
        self.call(Kind::Lock, reply, move |fs| {
            fs.open_at(&at, ANY_MODE)?;
            let free = Lock {
                kind: LockKind::Unlock,
                ..lock
            };
            let Some(request) = Shared::lock_request(&at, &lock) else {
                return Ok(free);
            };
            let open = || fs.open_for_locks(&request.key);
            let found = fs.locks.in_the_way(&request, open)?;
            Ok(found.map_or(free, |(kind, span, pid)| Lock {
                kind,
                start: span.first,
                end: match span.last >= LAST_BYTE {
                    true => Span::ALL.last,
                    false => span.last,
                },
                pid,
                ..lock
            }))
        });
    }

    pub fn setlk(self: &Arc<Self>, at: At, lock: Lock, wait: Option<MayWait>, reply: Reply<()>) {
        let shared = self.clone();
        self.calls.run(Kind::Lock, move || {
            let begun = shared.insist(|fs| fs.try_setlk(&at, &lock));
            match (begun, wait) {
                (Err(Errno::AGAIN), Some(may_wait)) => shared.wait_for(&at, &lock, may_wait, reply),
                (result, _) => reply.send(result),
            }
        });
    }

    /// Sets or drops a lock: `EAGAIN` where another's is in the way.
    fn try_setlk(&self, at: &At, lock: &Lock) -> Result<()> {
        self.may_lock(at, lock)?;
        let request = match Shared::lock_request(at, lock) {
            Some(request) => request,
            None if lock.kind == LockKind::Unlock => return Ok(()),
            None => return Err(Errno::OVERFLOW),
        };
        let open = || self.open_for_locks(&request.key);
        match self.locks.owner(&request, open)? {
            Some(owner) => owner.set(&request),
            None => Ok(()),
        }
    }

    fn wait_for(&self, at: &At, lock: &Lock, may_wait: MayWait, reply: Reply<()>) {
        let Some(request) = Shared::lock_request(at, lock) else {
            return reply.err(Errno::OVERFLOW);
        };
        let open = || self.open_for_locks(&request.key);
        let waiting = self.locks.owner(&request, open).and_then(|owner| {
            let cancel = may_wait()?;
            Ok((owner.ok_or(Errno::INVAL)?, cancel))
        });
        match waiting {
            Ok((owner, cancel)) => owner.wait(request, cancel, reply),
            Err(errno) => reply.err(errno),
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

    /// Takes the session's locks again, before another can that has waited for them since the process
    /// that had them died.
    pub fn restore_locks(&self) {
        let (held, lost) = self.locks.restore(|key| self.open_for_locks(key));
        if held + lost > 0 {
            log::info!("{held} locks are held again, and {lost} are lost");
        }
    }
}
