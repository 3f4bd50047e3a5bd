//! One file range to parallel object I/Os to one completion.
//!
//! The pieces of a range that lie on one object are one run there, so a range takes one I/O per
//! object, gathered from (or scattered to) the requester's memory.

use crate::fs::{Result, Slices};
use crate::io::{DataFd, Io, JoinId, Short, Then};
use crate::layout::{Extent, Layout};

/// A range of a striped file, and the requester's memory for it.
#[derive(Clone, Copy)]
pub struct Range {
    pub layout: Layout,
    /// Where the range starts in the file, in bytes.
    pub offset: u64,
    /// Its length, in bytes.
    pub len: u64,
    /// Where its bytes start in `buf`.
    pub at: u64,
    pub buf: Slices,
}

impl Range {
    /// The one piece that all of the range is, if it does not go on to another object: most small
    /// ones do not.
    pub fn whole(&self) -> Option<Extent> {
        let first = self.layout.extents(self.offset, self.len).next()?;
        (first.len == self.len).then_some(first)
    }

    /// The requester's memory for it.
    pub fn memory(&self) -> impl Iterator<Item = libc::iovec> + '_ {
        self.buf.parts(self.at, self.len)
    }

    /// Starts a read of every object that the range touches, as parts of `join`. `object` gives
    /// the descriptor of one, or none where it has never been written.
    pub fn read(
        &self,
        io: &mut Io,
        join: JoinId,
        mut object: impl FnMut(u64) -> Result<Option<DataFd>>,
    ) {
        for (id, run) in self.runs() {
            let (key, want) = (id, run.end - run.start);
            match object(id) {
                Ok(Some(fd)) => {
                    io.read(
                        &fd,
                        self.parts(id),
                        run.start,
                        Then::Part { join, key, want },
                    );
                }
                Ok(None) => io.part_done(join, key, want, Ok(0)),
                Err(errno) => io.part_done(join, key, want, Err(errno)),
            }
        }
    }

    /// Starts a write of every object that the range touches, as parts of `join`.
    pub fn write(&self, io: &mut Io, join: JoinId, mut object: impl FnMut(u64) -> Result<DataFd>) {
        for (id, run) in self.runs() {
            let (key, want) = (id, run.end - run.start);
            match object(id) {
                Ok(fd) => io.write(
                    &fd,
                    self.parts(id),
                    run.start,
                    Then::Part { join, key, want },
                ),
                Err(errno) => io.part_done(join, key, want, Err(errno)),
            }
        }
    }

    /// Sets to zero what a read of an object left untouched, as far as `valid` bytes of `buf`.
    pub fn fill_short(&self, short: &Short, valid: u64) {
        let mut got = short.got;
        for piece in self.pieces(short.key) {
            let have = got.min(piece.len);
            got -= have;
            let (start, end) = (
                self.at + piece.start + have,
                self.at + piece.start + piece.len,
            );
            let end = end.min(valid);
            if start < end {
                self.buf.fill_zero(start, end - start);
            }
        }
    }

    /// The objects that the range touches, each with its run.
    fn runs(&self) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> + '_ {
        let objects = self.layout.objects(self.offset, self.len);
        objects
            .map(|id| (id, self.layout.object_range(id, self.offset, self.len)))
            .filter(|(_, run)| !run.is_empty())
    }

    fn pieces(&self, object: u64) -> impl Iterator<Item = Extent> + '_ {
        self.layout
            .extents(self.offset, self.len)
            .filter(move |piece| piece.object == object)
    }

    fn parts(&self, object: u64) -> impl Iterator<Item = libc::iovec> + '_ {
        self.pieces(object)
            .flat_map(|piece| self.buf.parts(self.at + piece.start, piece.len))
    }
}

#[cfg(test)]
mod tests;
