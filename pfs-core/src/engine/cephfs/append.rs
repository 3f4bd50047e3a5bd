//! Appends: to the end of a file, which other daemons append to as well.
//!
//! The library finds the end and writes there in two steps, between which another client may write. So
//! daemons take turns by a lock on a byte of the file ([`APPEND_BYTE`]); one has it for as long as it has
//! appends in flight. Native clients know nothing of it. Requests of one file that are in flight
//! together go one at a time, lowest offset first: they may be the parts of one `write(2)`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libc::iovec;

use super::calls::Kind;
use super::ffi::STATX_ALL;
use super::limited::{Buf, Pending};
use super::locks::{self, APPEND_BYTE};
use super::shared::{OpenFile, Shared};
use crate::fs::*;
use crate::locks::Span;
use crate::sync::lock;

/// The lock's owner: each daemon is a client of its own.
const OWNER: u64 = u64::MAX;
/// Between two tries for the lock, at first and at last.
const PAUSE_FIRST: Duration = Duration::from_micros(200);
const PAUSE_LAST: Duration = Duration::from_millis(10);
/// Appends under one lock: then others have their turn.
const TURN_MAX: usize = 64;

/// Files with appends in flight, and the appends that wait.
#[derive(Default)]
pub struct Appends(Mutex<HashMap<NodeId, Vec<Waiting>>>);

struct Waiting {
    at: At,
    buf: Buf,
    kill_suidgid: bool,
    log: Option<Box<dyn IntentLog + Send>>,
    reply: Pending<u32>,
}

impl Waiting {
    fn answer(self, result: Result<u32>) {
        if let Some(reply) = self.reply.take() {
            reply.send(result);
        }
    }
}

impl Appends {
    /// The next append to `node`; where there is none, the next one starts anew.
    fn next(&self, node: NodeId) -> Option<Waiting> {
        let mut files = lock(&self.0);
        let waiting = files.get_mut(&node)?;
        let first = (0..waiting.len()).min_by_key(|&index| waiting[index].at.offset);
        let next = first.map(|index| waiting.swap_remove(index));
        if next.is_none() {
            files.remove(&node);
        }
        next
    }
}

impl Shared {
    /// Writes `buf` at the end of the file.
    pub fn append(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        at: At,
        buf: Slices,
        flags: WriteFlags,
        reply: Reply<u32>,
    ) {
        let reply = Pending::new(reply);
        if let Some(limit) = self.timeout {
            let late = reply.clone();
            self.calls.expire_after(limit, move || late.expire());
        }
        let waiting = Waiting {
            at,
            buf: Buf::to_write(buf, self.timeout.is_some()),
            kill_suidgid: flags.kill_suidgid,
            log: req.intent.map(IntentLog::keep),
            reply,
        };
        let mut files = lock(&self.appends.0);
        let first = !files.contains_key(&at.node);
        files.entry(at.node).or_default().push(waiting);
        drop(files);
        if first {
            let shared = self.clone();
            self.calls
                .run(Kind::Write, move || shared.append_all(at.node));
        }
    }

    /// Makes the appends to `node` that there are.
    fn append_all(self: &Arc<Self>, node: NodeId) {
        let mut next = self.appends.next(node);
        while let Some(first) = next {
            let open = match self.open_at(&first.at, libc::O_RDONLY) {
                Ok(open) => open,
                Err(errno) => {
                    first.answer(Err(errno));
                    next = self.appends.next(node);
                    continue;
                }
            };
            let turn = Turn::take(&open);
            next = Some(first);
            for _ in 0..TURN_MAX {
                let Some(append) = next else { break };
                let result = match &turn {
                    Ok(_) => self.insist(|fs| fs.append_one(&append)),
                    Err(errno) => Err(*errno),
                };
                append.answer(result);
                next = self.appends.next(node);
            }
        }
    }

    fn append_one(&self, append: &Waiting) -> Result<u32> {
        let open = self.open_at(&append.at, libc::O_RDONLY)?;
        if let Some(log) = &append.log {
            if let Some(Intent::AppendAt { offset }) = log.replayed() {
                if self.was_done(&open, offset, &append.buf) {
                    return Ok(append.buf.len() as u32);
                }
            }
        }
        self.write_now(&append.at, &append.buf, append.kill_suidgid, || {
            let offset = open.node.inode.stat(STATX_ALL)?.stx_size;
            if let Some(log) = &append.log {
                log.record(Intent::AppendAt { offset });
            }
            Ok(offset)
        })
    }

    /// Whether an append of `buf` that found the end of the file at `offset` was done before its process
    /// died: then its bytes are there.
    fn was_done(&self, open: &OpenFile, offset: u64, buf: &Buf) -> bool {
        let Ok(file) = open.node.inode.open(libc::O_RDONLY) else {
            return false;
        };
        let mut there = vec![0u8; buf.len() as usize];
        let parts = [iovec {
            iov_base: there.as_mut_ptr().cast(),
            iov_len: there.len(),
        }];
        // SAFETY: the buffer is there for the call.
        let got = unsafe { file.read(&parts, offset as i64) };
        got == Ok(there.len() as u32) && buf.holds(&there)
    }
}

/// The right to append to a file, until this is dropped.
struct Turn<'a>(&'a OpenFile);

const SPAN: Span = Span {
    first: APPEND_BYTE,
    last: APPEND_BYTE,
};

impl Turn<'_> {
    /// Waits for it.
    fn take(open: &OpenFile) -> Result<Turn<'_>> {
        let mut pause = PAUSE_FIRST;
        loop {
            match locks::set(&open.file, LockKind::Write, SPAN, OWNER) {
                Ok(()) => return Ok(Turn(open)),
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Err(errno) = locks::set(&self.0.file, LockKind::Unlock, SPAN, OWNER) {
            log::warn!("the turn to append to a file is not given back: {errno}");
        }
    }
}
