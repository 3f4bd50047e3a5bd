//! Reads, writes and syncs of a striped file: submitted at once, completed later.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::lock::Kind;
use super::prepare::prepare;
use super::{piece, size, File};
use crate::fs::{Errno, Reply, Result, Slices};
use crate::io::{Io, Then};
use crate::layout::Layout;
use crate::striper;

/// Names the part of a join that is in the inode; objects have their own numbers.
const INODE_PART: u64 = u64::MAX;

/// How many bytes of a request are in the inode, and the range of the objects that the rest is.
fn split(mdt_size: u64, layout: Layout, offset: u64, buf: Slices) -> (u64, striper::Range) {
    let in_inode = mdt_size.saturating_sub(offset).min(buf.len());
    let range = striper::Range {
        layout,
        offset: offset + in_inode,
        len: buf.len() - in_inode,
        at: in_inode,
        buf,
    };
    (in_inode, range)
}

/// Reads into `buf`.
pub(super) fn read(io: &mut Io, file: &Arc<File>, offset: u64, buf: Slices, reply: Reply<u32>) {
    let mdt_size = match file.inode.mdt_size_bytes(&file.meta) {
        Ok(bytes) => bytes,
        Err(errno) => return reply.err(errno),
    };
    if offset.saturating_add(buf.len()) <= mdt_size {
        return io.read(
            &file.meta,
            buf.parts(0, buf.len()),
            offset,
            Then::Count(reply),
        );
    }
    let stripe = match file.inode.stripe(&file.meta) {
        Ok(stripe) => stripe,
        Err(errno) => return reply.err(errno),
    };
    // A file without striped bytes is a hole from here on; its layout does not matter.
    let mdt_size = stripe.map_or(mdt_size, |stripe| stripe.record.mdt_size_bytes);
    let layout = stripe.map_or(file.inode.volume.default.layout, |stripe| {
        stripe.record.layout
    });
    let (in_inode, range) = split(mdt_size, layout, offset, buf);
    let noted = in_inode == 0 && file.inode.notes_access();
    if let Some(piece) = range.whole().filter(|_| in_inode == 0 && !noted) {
        return piece::read(io, file, stripe, range, &piece, reply);
    }
    // A byte of the inode, which the kernel that keeps it sees being read: so the access time changes
    // by the rules of the mount, and no other time with it.
    let mut noted = vec![0u8; usize::from(noted)];
    let noted_part = libc::iovec {
        iov_base: noted.as_mut_ptr().cast(),
        iov_len: noted.len(),
    };

    let this = file.clone();
    let join = io.join(Box::new(move |_, result| {
        drop(noted);
        reply.send(result.and_then(|shorts| {
            if shorts.is_empty() {
                return Ok(buf.len() as u32);
            }
            let valid = piece::valid_bytes(&this, offset, buf)?;
            for short in &shorts {
                if short.key == INODE_PART {
                    let end = in_inode.min(valid);
                    buf.fill_zero(short.got, end.saturating_sub(short.got));
                } else {
                    range.fill_short(short, valid);
                }
            }
            Ok(valid as u32)
        }));
    }));
    if in_inode > 0 {
        let then = Then::Part {
            join,
            key: INODE_PART,
            want: in_inode,
        };
        io.read(&file.meta, buf.parts(0, in_inode), offset, then);
    } else if noted_part.iov_len > 0 {
        // Before the answer, which whoever looks at the time waits for; wanted is nothing of it.
        let then = Then::Part {
            join,
            key: INODE_PART,
            want: 0,
        };
        io.read(&file.meta, std::iter::once(noted_part), 0, then);
    }
    range.read(io, join, |object| match stripe {
        Some(stripe) => file.inode.object(stripe, object).map(|fd| fd.cloned()),
        None => Ok(None),
    });
    io.seal(join);
}

/// Writes `buf`.
pub(super) fn write(io: &mut Io, file: &Arc<File>, offset: u64, buf: Slices, reply: Reply<u32>) {
    if buf.is_empty() {
        return reply.ok(0);
    }
    let write = Write {
        file: file.clone(),
        offset,
        buf,
        reply,
    };
    match write.begin() {
        Ok(Range::Inode) => {
            let parts = buf.parts(0, buf.len());
            io.write(&file.meta, parts, offset, Then::Count(write.reply));
        }
        Ok(Range::Within { changes }) => write.within(io, changes),
        Ok(Range::Beyond) => write.beyond(io),
        Err(errno) => write.reply.err(errno),
    }
}

/// A write on its way.
pub(super) struct Write {
    pub file: Arc<File>,
    pub offset: u64,
    pub buf: Slices,
    pub reply: Reply<u32>,
}

/// What a write goes to.
enum Range {
    /// The inode alone, of which the kernel takes care.
    Inode,
    /// The file as it is, after so many [changes](size).
    Within { changes: u64 },
    /// Beyond its end.
    Beyond,
}

impl Write {
    fn end(&self) -> Result<u64> {
        let end = self.offset.checked_add(self.buf.len());
        end.filter(|end| *end <= i64::MAX as u64).ok_or(Errno::FBIG)
    }

    fn begin(&self) -> Result<Range> {
        let (file, end) = (&self.file, self.end()?);
        file.inode.was_changed();
        let counts = file.inode.volume.usage.counts();
        let Some(stripe) = file.stripe_for_end(end)? else {
            return Ok(match counts {
                true => Range::Beyond,
                false => Range::Inode,
            });
        };
        // Where sizes are counted, the kernel may extend none: nor after a truncation.
        let kernel_extends = counts && self.offset < stripe.record.mdt_size_bytes;
        // Before the size is looked at.
        let changes = file.inode.changes();
        Ok(match prepare(file, end)? {
            true if !kernel_extends => Range::Within { changes },
            _ => Range::Beyond,
        })
    }

    /// Writes within the size, as long as it stays that.
    fn within(self, io: &mut Io, changes: u64) {
        self.start(io, move |io, write, result| {
            if write.file.inode.changes() == changes {
                write.reply.send(result);
            } else {
                write.beyond(io);
            }
        });
    }

    /// Writes after the size was extended, if it has to be, with truncations kept out.
    pub fn beyond(self, io: &mut Io) {
        match size::try_hold(&self.file, self.extends_with(), || self.extend()) {
            Ok(Some((hold, ()))) => self.held(io, hold),
            Ok(None) => self.wait(io),
            Err(errno) => self.reply.err(errno),
        }
    }

    /// Goes on as soon as a truncation is through.
    fn wait(self, io: &mut Io) {
        let worker = io.mailbox().clone();
        io.blocking(move || {
            match size::wait_hold(&self.file, self.extends_with(), || self.extend()) {
                Ok((hold, ())) => worker.run(move |io| self.held(io, hold)),
                Err(errno) => self.reply.err(errno),
            }
        });
    }

    fn extends_with(&self) -> Kind {
        self.file.inode.extends_with()
    }

    /// The size before data; the times change with it.
    fn extend(&self) -> Result<()> {
        self.file.inode.extend(&self.file.meta, self.end()?)
    }

    /// Writes; `hold` goes when the data is down.
    pub fn held(self, io: &mut Io, hold: impl Send + 'static) {
        self.start(io, move |_, write, result| {
            drop(hold);
            write.reply.send(result);
        });
    }

    /// Starts all I/O; `then` runs when it is done.
    fn start(self, io: &mut Io, then: impl FnOnce(&mut Io, Write, Result<u32>) + 'static) {
        let (file, offset, buf) = (self.file.clone(), self.offset, self.buf);
        let stripe = match self.end().and_then(|end| file.stripe_for_end(end)) {
            Ok(Some(stripe)) => stripe,
            Ok(None) => {
                let then = Then::Call(Box::new(move |io, result| then(io, self, result)));
                return io.write(&file.meta, buf.parts(0, buf.len()), offset, then);
            }
            Err(errno) => return then(io, self, Err(errno)),
        };
        let (mdt_size, layout) = (stripe.record.mdt_size_bytes, stripe.record.layout);
        let (in_inode, range) = split(mdt_size, layout, offset, buf);
        if let Some(piece) = range.whole().filter(|_| in_inode == 0) {
            let fd = match file
                .inode
                .object_for_write(&file.meta, stripe, piece.object)
            {
                Ok(fd) => fd,
                Err(errno) => return then(io, self, Err(errno)),
            };
            return match io.write_at_once(fd, range.memory(), piece.offset) {
                Some(result) => then(io, self, result),
                None => {
                    let then = Then::Call(Box::new(move |io, result| then(io, self, result)));
                    io.write(fd, range.memory(), piece.offset, then);
                }
            };
        }
        let join = io.join(Box::new(move |io, result| {
            then(io, self, result.map(|_| buf.len() as u32));
        }));
        if in_inode > 0 {
            let then = Then::Part {
                join,
                key: INODE_PART,
                want: in_inode,
            };
            io.write(&file.meta, buf.parts(0, in_inode), offset, then);
        }
        range.write(io, join, |object| {
            let fd = file.inode.object_for_write(&file.meta, stripe, object);
            fd.cloned()
        });
        io.seal(join);
    }
}

/// Makes the file survive power loss: its inode, its objects, and the names of new ones.
pub(super) fn fsync(io: &mut Io, file: &Arc<File>, datasync: bool, reply: Reply<()>) {
    let stripe = match file.inode.stripe(&file.meta) {
        Ok(Some(stripe)) => stripe,
        Ok(None) => return io.fsync(&file.meta, datasync, Then::Nothing(reply)),
        Err(errno) => return reply.err(errno),
    };
    let made_object = stripe.made_object.swap(false, Ordering::AcqRel);
    let this = file.clone();
    let join = io.join(Box::new(move |_, result| {
        if result.is_err() && made_object {
            if let Some(stripe) = this.inode.loaded() {
                stripe.made_object.store(true, Ordering::Release);
            }
        }
        reply.send(result.map(drop));
    }));
    let then = |key| Then::Part { join, key, want: 0 };
    // All of the inode: the record of its objects is an attribute, which fdatasync may leave.
    io.fsync(&file.meta, false, then(INODE_PART));
    for object in stripe.columns() {
        // Also those that another process wrote: fsync speaks for the file, not for one writer.
        match file.inode.object(stripe, object) {
            Ok(Some(fd)) => io.fsync(fd, datasync, then(object)),
            Ok(None) => continue,
            Err(errno) => io.part_done(join, object, 0, Err(errno)),
        }
        if made_object {
            let column = stripe.record.layout.column(object);
            match file.inode.volume.targets.open_dir(&stripe.record, column) {
                Ok(dir) => io.fsync(&dir, false, then(object)),
                Err(errno) => io.part_done(join, object, 0, Err(errno)),
            }
        }
    }
    io.seal(join);
}
