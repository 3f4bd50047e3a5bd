//! Reads of what lies in one piece on one object: without a join, and without keeping anything where
//! the storage never makes it wait.

use std::sync::Arc;

use super::inode::Stripe;
use super::File;
use crate::fs::{Reply, Result, Slices};
use crate::io::{Io, Then};
use crate::layout::Extent;
use crate::striper;
use crate::tree::attrs::size_fd;

/// Reads `range`, which is one `piece` of an object.
pub(super) fn read(
    io: &mut Io,
    file: &Arc<File>,
    stripe: Option<&Stripe>,
    range: striper::Range,
    piece: &Extent,
    reply: Reply<u32>,
) {
    let object = match stripe.map(|stripe| file.inode.object(stripe, piece.object)) {
        Some(Err(errno)) => return reply.err(errno),
        Some(Ok(object)) => object,
        None => None,
    };
    let Some(fd) = object else {
        return reply.send(answer_of(file, &range, Ok(0)));
    };
    match io.read_at_once(fd, range.memory(), piece.offset) {
        Some(result) => reply.send(answer_of(file, &range, result)),
        None => {
            let this = file.clone();
            let then = Then::Call(Box::new(move |_, result| {
                reply.send(answer_of(&this, &range, result));
            }));
            io.read(fd, range.memory(), piece.offset, then);
        }
    }
}

/// What a read of `range` answers, of which the bytes of `result` were in its object.
fn answer_of(file: &File, range: &striper::Range, result: Result<u32>) -> Result<u32> {
    let got = u64::from(result?);
    if got == range.len {
        return Ok(got as u32);
    }
    let valid = valid_bytes(file, range.offset, range.buf)?;
    range.buf.fill_zero(got, valid.saturating_sub(got));
    Ok(valid as u32)
}

/// Where a read came out short there is a hole or the end of the file, and the size tells which:
/// answers how many bytes of `buf` are before the end.
pub(super) fn valid_bytes(file: &File, offset: u64, buf: Slices) -> Result<u64> {
    Ok(size_fd(&file.meta)?.saturating_sub(offset).min(buf.len()))
}
