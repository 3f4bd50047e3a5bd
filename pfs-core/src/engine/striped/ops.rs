//! What may block on a striped file: truncate, allocate, seek.

use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{fallocate as alloc, ftruncate, seek, FallocateFlags, SeekFrom};

use super::lock::Kind;
use super::prepare::touch;
use super::record::Record;
use super::{size, File, Volume};
use crate::crash;
use crate::fs::{Errno, Result};
use crate::tree::attrs::{drop_capability, size_fd};
use crate::volume::Usage;

/// Sets the size of the file behind `meta`, of inode `ino`; see [`size`].
pub(super) fn truncate(volume: &Volume, meta: &OwnedFd, ino: u64, size: u64) -> Result<()> {
    size::wait_alone(meta)?;
    // Objects first: a crash in between leaves zeros within the size, never old data beyond it for
    // a later extension to show. Nor does it where the size grows.
    if let Some(record) = Record::load(meta)? {
        cut_objects(volume, &record, size.min(size_fd(meta)?))?;
    }
    crash::point("objects_cut");
    set_size(Some(&volume.usage), meta, size)?;
    volume.usage.count_change(ino);
    crash::point("size_set");
    // What was on its way to within the old size, and is not done again by who wrote it.
    match Record::load(meta)? {
        Some(record) => cut_objects(volume, &record, size),
        None => Ok(()),
    }
}

/// Sets the size of the file behind `meta`, which the caller changes [alone](size::wait_alone), and
/// counts it.
pub(super) fn set_size(usage: Option<&Usage>, meta: &OwnedFd, size: u64) -> Result<()> {
    let Some(usage) = usage.filter(|usage| usage.counts()) else {
        return ftruncate(meta, size);
    };
    let old = size_fd(meta)?;
    usage.charged(size.saturating_sub(old), || ftruncate(meta, size))?;
    usage.release_bytes(old.saturating_sub(size));
    Ok(())
}

/// Sets the size where no object can have a byte and nothing blocks; answers whether it could.
pub(super) fn truncate_small(meta: &OwnedFd, size: u64) -> Result<bool> {
    if Record::load(meta)?.is_some() {
        return Ok(false);
    }
    ftruncate(meta, size)?;
    // Who is about to write to objects records that first: either is seen here, or finds the size.
    Ok(Record::load(meta)?.is_none())
}

/// Cuts what objects have beyond `size` bytes of the file.
fn cut_objects(volume: &Volume, record: &Record, size: u64) -> Result<()> {
    let keep = match size > record.mdt_size_bytes {
        true => size,
        false => 0,
    };
    for column in 0..record.layout.stripe_count() {
        let Some(object) = volume.targets.open(record, column, false)? else {
            continue;
        };
        let end = record.layout.object_end(keep, u64::from(column));
        if size_fd(&object)? > end {
            ftruncate(&object, end)?;
        }
    }
    Ok(())
}

/// `fallocate(2)` with modes 0, keep size, punch hole and zero range.
pub(super) fn fallocate(file: &File, range: Range<u64>, mode: i32) -> Result<()> {
    if range.is_empty() {
        return Err(Errno::INVAL);
    }
    let mode = FallocateFlags::from_bits(mode as u32).ok_or(Errno::OPNOTSUPP)?;
    let keep_size = mode.contains(FallocateFlags::KEEP_SIZE);
    let kind = mode - FallocateFlags::KEEP_SIZE;
    let punch = kind == FallocateFlags::PUNCH_HOLE;
    if !(kind.is_empty() || punch && keep_size || kind == FallocateFlags::ZERO_RANGE) {
        return Err(Errno::OPNOTSUPP);
    }
    let _hold = match file.inode.volume.usage.counts() && !punch {
        true => Some(charge_range(file, range.end, keep_size)?),
        false => None,
    };
    let mdt_size = file.inode.mdt_size_bytes(&file.meta)?;
    let in_inode = range.start.min(mdt_size)..range.end.min(mdt_size);
    if !in_inode.is_empty() {
        alloc(
            &file.meta,
            mode,
            in_inode.start,
            in_inode.end - in_inode.start,
        )?;
    }
    if range.end > mdt_size {
        let striped = range.start.max(mdt_size)..range.end;
        if !keep_size && range.end > size_fd(&file.meta)? {
            let extend = || file.inode.extend(&file.meta, range.end);
            size::wait_hold(file, file.inode.extends_with(), extend)?;
        }
        drop_capability(&file.meta)?;
        allocate_objects(file, &striped, mode)?;
        touch(file)?;
    }
    Ok(())
}

/// Charges for what is about to be allocated up to `end`, where sizes are counted, and keeps
/// truncations out until it is. Space beyond the end of a file is part of no size, so there is none
/// to be had: `EOPNOTSUPP`.
fn charge_range(file: &File, end: u64, keep_size: bool) -> Result<size::Hold> {
    let charge = || match keep_size {
        true if end > size_fd(&file.meta)? => Err(Errno::OPNOTSUPP),
        true => Ok(()),
        false => file.inode.extend(&file.meta, end),
    };
    size::wait_hold(file, Kind::Exclusive, charge).map(|(hold, ())| hold)
}

fn allocate_objects(file: &File, range: &Range<u64>, mode: FallocateFlags) -> Result<()> {
    let punch = mode.contains(FallocateFlags::PUNCH_HOLE);
    let stripe = match punch {
        true => match file.inode.stripe(&file.meta)? {
            Some(stripe) => stripe,
            None => return Ok(()),
        },
        false => file.inode.stripe_for_write(&file.meta)?,
    };
    let (layout, len) = (&stripe.record.layout, range.end - range.start);
    for object in layout.objects(range.start, len) {
        let run = layout.object_range(object, range.start, len);
        let fd = match punch {
            true => file.inode.object(stripe, object)?,
            false => Some(file.inode.object_for_write(&file.meta, stripe, object)?),
        };
        if let Some(fd) = fd.filter(|_| !run.is_empty()) {
            // What an object lacks within the size reads as zeros: its length only tells a check
            // that nothing is missing there.
            alloc(fd, mode, run.start, run.end - run.start)?;
        }
    }
    Ok(())
}

/// The next data or hole at or after `offset`, as `lseek(2)`.
pub(super) fn lseek(file: &File, offset: u64, whence: u32) -> Result<u64> {
    let size = size_fd(&file.meta)?;
    if offset >= size {
        return Err(Errno::NXIO);
    }
    match whence as i32 {
        libc::SEEK_DATA => next_data(file, offset, size)?.ok_or(Errno::NXIO),
        libc::SEEK_HOLE => next_hole(file, offset, size),
        _ => Err(Errno::INVAL),
    }
}

fn next_data(file: &File, offset: u64, size: u64) -> Result<Option<u64>> {
    let mdt_size = file.inode.mdt_size_bytes(&file.meta)?;
    if offset < mdt_size {
        // Beyond `mdt_size` the inode may have blocks that only carry the size.
        if let Some(data) = seek_fd(&file.meta, SeekFrom::Data(offset))?.filter(|at| *at < mdt_size)
        {
            return Ok(Some(data));
        }
    }
    let Some(stripe) = file.inode.stripe(&file.meta)? else {
        return Ok(None);
    };
    let (layout, from) = (&stripe.record.layout, offset.max(mdt_size));
    let mut first = None;
    for object in stripe.columns() {
        let Some(fd) = file.inode.object(stripe, object)? else {
            continue;
        };
        let start = layout.object_end(from, object);
        if let Some(data) = seek_fd(fd, SeekFrom::Data(start))? {
            let at = layout.file_offset(object, data).filter(|at| *at < size);
            first = [first, at].into_iter().flatten().min();
        }
    }
    Ok(first)
}

fn next_hole(file: &File, offset: u64, size: u64) -> Result<u64> {
    let mdt_size = file.inode.mdt_size_bytes(&file.meta)?;
    let mut at = offset;
    if at < mdt_size {
        match seek_fd(&file.meta, SeekFrom::Hole(at))? {
            Some(hole) if hole < mdt_size => return Ok(hole.min(size)),
            _ => at = mdt_size,
        }
    }
    let Some(stripe) = file.inode.stripe(&file.meta)? else {
        return Ok(at.min(size));
    };
    let layout = &stripe.record.layout;
    let unit = layout.stripe_unit_bytes();
    while at < size {
        let (object, start) = layout.locate(at);
        let Some(fd) = file.inode.object(stripe, object)? else {
            return Ok(at);
        };
        let end = start - start % unit + unit;
        // No data from here on in the object is a hole here.
        let hole = seek_fd(fd, SeekFrom::Hole(start))?.unwrap_or(start);
        if hole < end {
            return Ok((at + (hole - start)).min(size));
        }
        at += end - start;
    }
    Ok(size)
}

/// Seeks; none past the last data.
fn seek_fd(fd: &crate::io::DataFd, from: SeekFrom) -> Result<Option<u64>> {
    // The descriptor's own position is used by nothing.
    match seek(fd, from) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno),
    }
}
