//! Reads, writes and syncs of a striped file: submitted at once, completed later.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use rustix::fs::{
    statx, utimensat, AtFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::time::{clock_gettime, ClockId};

use super::File;
use crate::fs::{Errno, Reply, Result, Slices};
use crate::io::{Io, Then};
use crate::layout::Layout;
use crate::striper::Range;
use crate::tree::attrs::{drop_capability, size_fd};

/// Names the part of a join that is in the inode; objects have their own numbers.
const INODE_PART: u64 = u64::MAX;

/// How many bytes of a request are in the inode, and the range of the objects that the rest is.
fn split(mdt_size: u64, layout: Layout, offset: u64, buf: Slices) -> (u64, Range) {
    let in_inode = mdt_size.saturating_sub(offset).min(buf.len());
    let range = Range {
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

    let this = file.clone();
    let join = io.join(Box::new(move |_, result| {
        reply.send(result.and_then(|shorts| {
            if shorts.is_empty() {
                return Ok(buf.len() as u32);
            }
            // Short means a hole or the end of the file: the size tells which.
            let valid = size_fd(&this.meta)?.saturating_sub(offset).min(buf.len());
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
    }
    range.read(io, join, |object| match stripe {
        Some(stripe) => file.inode.object(stripe, object),
        None => Ok(None),
    });
    io.seal(join);
}

/// Writes `buf`.
pub(super) fn write(io: &mut Io, file: &Arc<File>, offset: u64, buf: Slices, reply: Reply<u32>) {
    if buf.is_empty() {
        return reply.ok(0);
    }
    let mdt_size = match file.inode.mdt_size_bytes(&file.meta) {
        Ok(bytes) => bytes,
        Err(errno) => return reply.err(errno),
    };
    if offset.saturating_add(buf.len()) <= mdt_size {
        return io.write(
            &file.meta,
            buf.parts(0, buf.len()),
            offset,
            Then::Count(reply),
        );
    }
    let stripe = match file.inode.stripe_for_write(&file.meta) {
        Ok(stripe) => stripe,
        Err(errno) => return reply.err(errno),
    };
    let end = offset
        .checked_add(buf.len())
        .filter(|end| *end <= i64::MAX as u64);
    let extended = end.ok_or(Errno::FBIG).and_then(|end| prepare(file, end));
    if let Err(errno) = extended {
        return reply.err(errno);
    }
    let (in_inode, range) = split(
        stripe.record.mdt_size_bytes,
        stripe.record.layout,
        offset,
        buf,
    );

    let len = buf.len() as u32;
    let join = io.join(Box::new(move |_, result| reply.send(result.map(|_| len))));
    if in_inode > 0 {
        let then = Then::Part {
            join,
            key: INODE_PART,
            want: in_inode,
        };
        io.write(&file.meta, buf.parts(0, in_inode), offset, then);
    }
    range.write(io, join, |object| {
        file.inode.object_for_write(&file.meta, stripe, object)
    });
    io.seal(join);
}

/// Makes of the inode's size, times and privileges what a write that ends at `end` makes of them,
/// before its data goes to the objects: the kernel that keeps the inode does not see that write.
pub(super) fn prepare(file: &File, end: u64) -> Result<()> {
    drop_capability(&file.meta)?;
    let mask = StatxFlags::SIZE | StatxFlags::MTIME;
    let stat = statx(&file.meta, c"", AtFlags::EMPTY_PATH, mask)?;
    if end > stat.stx_size {
        // Changes the times as well.
        return file.inode.extend(&file.meta, end);
    }
    // As the kernel does: a time within the same tick of the clock is not written again.
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let changed = (stat.stx_mtime.tv_sec, i64::from(stat.stx_mtime.tv_nsec));
    if changed >= (now.tv_sec, now.tv_nsec) && changed.0 <= now.tv_sec + 1 {
        return Ok(());
    }
    touch(file)
}

/// Sets the modification time to now.
pub(super) fn touch(file: &File) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
    };
    utimensat(&file.meta, c"", &times, AtFlags::EMPTY_PATH)
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
            Ok(Some(fd)) => io.fsync(&fd, datasync, then(object)),
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
