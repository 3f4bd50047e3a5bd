//! Appends: the host's kernel finds the end, for this process as for any other, here or on another
//! client of a parallel file system.
//!
//! It gives a place to whoever comes first, so requests of one file that are in flight together
//! go one at a time, lowest offset first: they may be the parts of one `write(2)`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustix::fs::OFlags;
use rustix::io::pread;

use super::Posix;
use crate::fs::{Intent, IntentLog, Mailbox, NodeId, Reply, Slices};
use crate::io::{DataFd, Io, Then};
use crate::sync::lock;
use crate::tree::attrs::size_fd;
use crate::tree::proc::ProcFd;
use crate::tree::Append;

/// Files with an append in flight, and the appends that wait for it.
#[derive(Default)]
pub(super) struct Appends(Mutex<HashMap<NodeId, Vec<Waiting>>>);

struct Waiting {
    offset: u64,
    worker: Arc<Mailbox>,
    job: Job,
}

type Job = Box<dyn FnOnce(&mut Io, Turn) + Send>;

/// The right to append to a file; the next has it when this is dropped.
struct Turn {
    appends: Arc<Appends>,
    node: NodeId,
}

impl Appends {
    /// Runs `job` when no other append to `node` is in flight.
    fn in_turn(self: &Arc<Appends>, io: &mut Io, node: NodeId, offset: u64, job: Job) {
        let mut files = lock(&self.0);
        if let Some(waiting) = files.get_mut(&node) {
            let worker = io.mailbox().clone();
            waiting.push(Waiting {
                offset,
                worker,
                job,
            });
            return;
        }
        files.insert(node, Vec::new());
        drop(files);
        let appends = self.clone();
        job(io, Turn { appends, node });
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut files = lock(&self.appends.0);
        let Some(waiting) = files.get_mut(&self.node) else {
            return;
        };
        let first = (0..waiting.len()).min_by_key(|&index| waiting[index].offset);
        let Some(next) = first.map(|index| waiting.remove(index)) else {
            files.remove(&self.node);
            return;
        };
        drop(files);
        let turn = Turn {
            appends: self.appends.clone(),
            node: self.node,
        };
        // On its own worker, whose I/O it needs. If that ends first, its turn goes with the job.
        next.worker.run(move |io| (next.job)(io, turn));
    }
}

/// Writes `buf` at the end of `file`.
pub(super) fn append(
    posix: &Posix,
    io: &mut Io,
    node: NodeId,
    file: &DataFd,
    append: &Append<'_>,
    buf: Slices,
    reply: Reply<u32>,
) {
    if let Some(Intent::AppendAt { offset }) = append.intent.and_then(IntentLog::replayed) {
        if was_done(&posix.proc, file, offset, &buf) {
            return reply.ok(buf.len() as u32);
        }
    }
    let (file, log) = (file.clone(), append.intent.map(IntentLog::keep));
    let job = move |io: &mut Io, turn: Turn| {
        if let (Some(log), Ok(offset)) = (log, size_fd(&file)) {
            log.record(Intent::AppendAt { offset });
        }
        let then = Then::Call(Box::new(move |_, result| {
            reply.send(result);
            drop(turn);
        }));
        io.append(&file, buf.parts(0, buf.len()), then);
    };
    posix
        .appends
        .in_turn(io, node, append.offset, Box::new(job));
}

/// Whether an append of `buf` that found the end of the file at `offset` was done before its
/// process died: then its bytes are there.
fn was_done(proc: &ProcFd, file: &DataFd, offset: u64, buf: &Slices) -> bool {
    // The request's own descriptor may be for writing only.
    let Ok(file) = proc.open_fd(file, OFlags::RDONLY | OFlags::CLOEXEC) else {
        return false;
    };
    let mut there = vec![0; buf.len() as usize];
    let mut got = 0;
    while got < there.len() {
        match pread(&file, &mut there[got..], offset + got as u64) {
            Ok(more) if more > 0 => got += more,
            _ => return false,
        }
    }
    buf.holds(&there)
}
