//! Copies between striped files.

use rustix::io::{pread, pwrite};

use super::inode::Stripe;
use super::prepare::prepare;
use super::{size, File};
use crate::fs::{Errno, Result};
use crate::tree::attrs::size_fd;

/// Bytes copied at a time.
const COPY_STEP_BYTES: usize = 1 << 20;
/// Largest copy of one request, in bytes: a longer one is answered short, and the requester
/// goes on.
const COPY_MAX: u64 = 64 << 20;

/// Copies up to `len` bytes through memory: the two files' stripes need not lie alike.
pub(super) fn copy(from: (&File, u64), to: (&File, u64), len: u64) -> Result<u32> {
    // The source ends where it did at the start: a copy within one file may extend it.
    let len = len
        .min(COPY_MAX)
        .min(size_fd(&from.0.meta)?.saturating_sub(from.1));
    let mut buffer = vec![0; COPY_STEP_BYTES];
    // A read of the inode changes the access time, if anything does; none harms.
    let _ = pread(&from.0.meta, &mut buffer[..1], 0);
    let mut copied = 0;
    while copied < len {
        let step = (len - copied).min(buffer.len() as u64) as usize;
        let result = read(from.0, &mut buffer[..step], from.1 + copied).and_then(|got| match got {
            0 => Ok(0),
            got => write(to.0, &buffer[..got], to.1 + copied).map(|()| got),
        });
        match result {
            Ok(0) => break,
            Ok(got) => copied += got as u64,
            // What is copied stays copied: the next request meets the error.
            Err(errno) if copied == 0 => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(copied as u32)
}

/// Reads what is in the file from `offset` on; answers how much that is. Blocks.
pub(super) fn read(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let valid = size_fd(&file.meta)?
        .saturating_sub(offset)
        .min(buffer.len() as u64) as usize;
    let buffer = &mut buffer[..valid];
    buffer.fill(0);
    let stripe = file.inode.stripe(&file.meta)?;
    for piece in pieces(file, stripe, offset, valid as u64)? {
        let part = &mut buffer[piece.start as usize..][..piece.len as usize];
        let fd = match (piece.object, stripe) {
            (None, _) => Some(&file.meta),
            (Some(object), Some(stripe)) => file.inode.object(stripe, object)?,
            (Some(_), None) => None,
        };
        let Some(fd) = fd else { continue };
        let mut got = 0;
        while got < part.len() {
            match pread(fd, &mut part[got..], piece.offset + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
    }
    Ok(valid)
}

fn write(file: &File, buffer: &[u8], offset: u64) -> Result<()> {
    let end = offset
        .checked_add(buffer.len() as u64)
        .filter(|end| *end <= i64::MAX as u64);
    let end = end.ok_or(Errno::FBIG)?;
    let stripe = file.stripe_for_end(end)?;
    let _hold = match stripe.is_some() || file.inode.volume.usage.counts() {
        true => Some(size::wait_hold(
            file,
            file.inode.extends_with(),
            || match stripe.is_some() && prepare(file, end)? {
                true => Ok(()),
                false => file.inode.extend(&file.meta, end),
            },
        )?),
        false => None,
    };
    for piece in pieces(file, stripe, offset, buffer.len() as u64)? {
        let mut part = &buffer[piece.start as usize..][..piece.len as usize];
        let fd = match (piece.object, stripe) {
            (Some(object), Some(stripe)) => {
                file.inode.object_for_write(&file.meta, stripe, object)?
            }
            _ => &file.meta,
        };
        let mut at = piece.offset;
        while !part.is_empty() {
            let moved = pwrite(fd, part, at)?;
            part = &part[moved..];
            at += moved as u64;
        }
    }
    Ok(())
}

/// A piece of a range that lies in the inode (`object` is none) or on one object.
struct Piece {
    object: Option<u64>,
    offset: u64,
    start: u64,
    len: u64,
}

fn pieces(
    file: &File,
    stripe: Option<&Stripe>,
    offset: u64,
    len: u64,
) -> Result<impl Iterator<Item = Piece>> {
    let mdt_size = file.inode.mdt_size_bytes(&file.meta)?;
    let in_inode = mdt_size.saturating_sub(offset).min(len);
    let layout = stripe.map_or(file.inode.volume.default.layout, |stripe| {
        stripe.record.layout
    });
    let inode = Piece {
        object: None,
        offset,
        start: 0,
        len: in_inode,
    };
    let striped = layout
        .extents(offset + in_inode, len - in_inode)
        .map(move |extent| Piece {
            object: Some(extent.object),
            offset: extent.offset,
            start: in_inode + extent.start,
            len: extent.len,
        });
    let inode = std::iter::once(inode).filter(|piece| piece.len > 0);
    Ok(inode.chain(striped))
}
