//! Appends: each piece takes the place at the end of the file for itself, whoever else appends.
//!
//! A place is taken by extending the size, with [`Byte::Resize`](super::lock::Byte) held exclusively
//! for as long as the two system calls take. Its data then goes there like that of any write beyond
//! the end, along with that of others.
//!
//! Pieces take their places in the order of arrival; those that had to wait for another daemon in
//! the order of their offsets. An `O_DIRECT` write of a requester may come in pieces out of order:
//! where one claims to be beyond the end it is believed, and the gap kept for the pieces before it.
//!
//! A place is recorded before it is taken. A replay goes there again unless another's bytes are there.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::inode::open_again;
use super::lock::Kind;
use super::prepare::prepare;
use super::transfer::Write;
use super::{copy, size, File};
use crate::fs::{Errno, Intent, IntentLog, Mailbox, Reply, Result, Slices};
use crate::io::Io;
use crate::sync::lock;
use crate::tree::attrs::size_fd;
use crate::tree::Append;

/// Most gaps that a file keeps for pieces that have not arrived.
const GAPS_MAX: usize = 64;

/// Appends to an open file.
#[derive(Default)]
pub(super) struct Appends(Mutex<State>);

#[derive(Default)]
struct State {
    /// A thread takes places for those that wait.
    busy: bool,
    waiting: Vec<Piece>,
    gaps: Vec<Range<u64>>,
}

/// One request; its `write` has the offset that the requester takes for the end.
struct Piece {
    write: Write,
    direct: bool,
    log: Option<Box<dyn IntentLog + Send>>,
    worker: Arc<Mailbox>,
}

/// Writes `buf` at the end of `file`.
pub(super) fn append(
    io: &mut Io,
    file: &Arc<File>,
    append: &Append<'_>,
    buf: Slices,
    reply: Reply<u32>,
) {
    let write = Write {
        file: file.clone(),
        offset: append.offset,
        buf,
        reply,
    };
    if buf.is_empty() {
        return write.reply.ok(0);
    }
    let piece = Piece {
        write,
        direct: append.direct,
        log: append.intent.map(IntentLog::keep),
        worker: io.mailbox().clone(),
    };
    match append.intent.and_then(IntentLog::replayed) {
        Some(Intent::AppendAt { offset }) => piece.replay(io, offset),
        _ => piece.begin(io),
    }
}

/// Takes places for all that wait, until none does.
fn take_places(file: &Arc<File>) {
    loop {
        let mut state = lock(&file.appends.0);
        let mut pieces = std::mem::take(&mut state.waiting);
        if pieces.is_empty() {
            state.busy = false;
            return;
        }
        drop(state);
        pieces.sort_by_key(|piece| piece.write.offset);
        let places = size::wait_hold(file, Kind::Exclusive, || {
            let gaps = &mut lock(&file.appends.0).gaps;
            let places = pieces.iter().map(|piece| piece.take_place(gaps));
            Ok(places.collect::<Vec<_>>())
        });
        match places {
            Ok((hold, places)) => {
                let hold = Arc::new(hold);
                for (piece, place) in pieces.into_iter().zip(places) {
                    piece.go_on(place, hold.clone());
                }
            }
            Err(errno) => {
                for piece in pieces {
                    piece.write.reply.err(errno);
                }
            }
        }
    }
}

impl Piece {
    /// Takes a place, at once or when those who are at it have theirs, and writes there.
    fn begin(self, io: &mut Io) {
        let file = self.write.file.clone();
        let mut state = lock(&file.appends.0);
        if state.busy {
            return state.waiting.push(self);
        }
        let gaps = &mut state.gaps;
        match size::try_hold(&file, Kind::Exclusive, || self.take_place(gaps)) {
            Ok(Some((hold, offset))) => {
                drop(state);
                let write = self.write;
                Write { offset, ..write }.held(io, hold);
            }
            Ok(None) => {
                state.busy = true;
                state.waiting.push(self);
                let file = file.clone();
                io.blocking(move || take_places(&file));
            }
            Err(errno) => self.write.reply.err(errno),
        }
    }

    /// Goes on with what a process that died had begun, and recorded at `place`.
    fn replay(self, io: &mut Io, place: u64) {
        match size_fd(&self.write.file.meta) {
            Ok(size) if size >= place.saturating_add(self.write.buf.len()) => {}
            // It was not taken, or cut off since.
            Ok(_) => return self.begin(io),
            Err(errno) => return self.write.reply.err(errno),
        }
        io.blocking(move || {
            let is_own = is_own_place(&self.write, place);
            let worker = self.worker.clone();
            worker.run(move |io| match is_own {
                // Once more harms nobody, and is as durable as the descriptor demands.
                Ok(true) => {
                    let write = self.write;
                    Write {
                        offset: place,
                        ..write
                    }
                    .beyond(io);
                }
                Ok(false) => self.begin(io),
                Err(errno) => self.write.reply.err(errno),
            });
        });
    }

    /// Takes the piece's place in the file, at the offset that it answers. The caller keeps
    /// everybody else from extending the file.
    fn take_place(&self, gaps: &mut Vec<Range<u64>>) -> Result<u64> {
        let (file, len) = (&self.write.file, self.write.buf.len());
        let size = size_fd(&file.meta)?;
        let offset = match self.direct {
            true => place_of_direct(gaps, self.write.offset, len, size),
            false => size,
        };
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or(Errno::FBIG)?;
        file.inode.was_changed();
        // The layout before the size, the size before data.
        file.stripe_for_end(end)?;
        let within = prepare(file, end)?;
        // Only now: a place that is recorded and not taken could become another's.
        if let Some(log) = &self.log {
            log.record(Intent::AppendAt { offset });
        }
        if !within {
            file.inode.extend(&file.meta, end)?;
        }
        Ok(offset)
    }

    /// Writes at `place`, on its own worker.
    fn go_on(self, place: Result<u64>, hold: Arc<size::Hold>) {
        let write = self.write;
        match place {
            Ok(offset) => self
                .worker
                .run(move |io| Write { offset, ..write }.held(io, hold)),
            Err(errno) => write.reply.err(errno),
        }
    }
}

/// Whether `place`, which is within the file, is one that `write` has taken: its bytes are there, or
/// zeros where they did not get down. A process that died after it recorded a place, and before it
/// took it, left it to another. Blocks, until no data beyond the end is on its way to the file.
fn is_own_place(write: &Write, place: u64) -> Result<bool> {
    let (file, buf) = (&write.file, write.buf);
    let own = open_again(&file.inode.volume, &file.meta)?;
    size::wait_alone(&own)?;
    let mut there = vec![0; buf.len() as usize];
    let got = copy::read(file, &mut there, place)?;
    Ok(buf.is_like(&there[..got], |byte, there| there == byte || there == 0))
}

/// Where a piece of an `O_DIRECT` append goes that takes the end to be at `offset`, in a file of `size`
/// bytes: into the gap that was kept for it, or there, or else to the end.
fn place_of_direct(gaps: &mut Vec<Range<u64>>, offset: u64, len: u64, size: u64) -> u64 {
    // What was truncated since is no gap.
    gaps.retain(|gap| gap.end <= size);
    let of = |gap: &Range<u64>| gap.start <= offset && offset + len <= gap.end;
    if let Some(index) = gaps.iter().position(of) {
        let gap = gaps.swap_remove(index);
        let rest = [gap.start..offset, offset + len..gap.end];
        gaps.extend(rest.into_iter().filter(|gap| !gap.is_empty()));
        return offset;
    }
    if offset <= size || gaps.len() >= GAPS_MAX {
        return size;
    }
    gaps.push(size..offset);
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_out_of_order_find_their_places() {
        let mut gaps = Vec::new();
        let mut size = 100;
        let mut put = |offset, len| {
            let at = place_of_direct(&mut gaps, offset, len, size);
            size = size.max(at + len);
            at
        };
        // Four pieces, the first of them last.
        assert_eq!(put(120, 10), 120);
        assert_eq!(put(130, 10), 130);
        assert_eq!(put(110, 10), 110);
        assert_eq!(put(100, 10), 100);
        // A gap is filled once; what claims less than the end goes there.
        assert_eq!(put(100, 10), 140);
        assert_eq!(put(0, 10), 150);
        assert_eq!(put(160, 5), 160);
        assert!(gaps.is_empty());
    }

    #[test]
    fn gaps_are_few_and_within_the_file() {
        let mut gaps = Vec::new();
        for index in 0..GAPS_MAX as u64 {
            assert_eq!(
                place_of_direct(&mut gaps, 10 * index + 5, 5, 10 * index),
                10 * index + 5
            );
        }
        assert_eq!(gaps.len(), GAPS_MAX);
        assert_eq!(place_of_direct(&mut gaps, 5000, 5, 1000), 1000);
        assert_eq!(place_of_direct(&mut gaps, 0, 5, 1005), 0);
        assert_eq!(place_of_direct(&mut gaps, 10, 5, 12), 12, "truncated since");
        assert!(gaps.len() <= 1);
    }
}
