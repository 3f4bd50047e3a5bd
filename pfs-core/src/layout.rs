//! Ceph's layout words: how a file's bytes lie on objects.
//!
//! A file is cut into stripe units. Units go round over `stripe_count` objects, one *column*
//! each, until every object holds `object_size` bytes; then the next *object set* begins. With
//! an `object_size` of 0 the objects are unbounded: there is one set, and the object's index is
//! its column. Offsets map absolutely: bytes kept elsewhere (the start of a file, in its inode)
//! are just never asked of the objects.
//!
//! Everything here is arithmetic without allocation, for offsets up to [`OFFSET_MAX`].

use std::ops::Range;

/// Stripe units are multiples of this, in bytes.
pub const STRIPE_UNIT_STEP_BYTES: u64 = 4096;
/// Largest stripe unit, in bytes.
pub const STRIPE_UNIT_MAX_BYTES: u64 = 1 << 30;
/// Most objects side by side.
pub const STRIPE_COUNT_MAX: u32 = 4096;
/// Largest bounded object, in bytes.
pub const OBJECT_SIZE_MAX_BYTES: u64 = 1 << 40;
/// Largest file offset, in bytes: what a signed 64-bit `off_t` holds.
pub const OFFSET_MAX: u64 = i64::MAX as u64;

/// A layout that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "a stripe unit of {0} bytes is not a multiple of {STRIPE_UNIT_STEP_BYTES} between \
         {STRIPE_UNIT_STEP_BYTES} and {STRIPE_UNIT_MAX_BYTES}"
    )]
    StripeUnit(u64),
    #[error("a stripe count of {0} is not between 1 and {STRIPE_COUNT_MAX}")]
    StripeCount(u32),
    #[error(
        "an object size of {object_size_bytes} bytes is neither 0 (unbounded) nor a multiple of \
         the stripe unit ({stripe_unit_bytes} bytes) up to {OBJECT_SIZE_MAX_BYTES}"
    )]
    ObjectSize {
        object_size_bytes: u64,
        stripe_unit_bytes: u64,
    },
}

/// A checked layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    stripe_unit_bytes: u64,
    stripe_count: u32,
    object_size_bytes: u64,
}

/// A piece of a file range that lies on one object without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Index of the object.
    pub object: u64,
    /// Where the piece starts in the object, in bytes.
    pub offset: u64,
    /// Where the piece starts in the range asked for, in bytes.
    pub start: u64,
    /// Bytes, never 0.
    pub len: u64,
}

impl Layout {
    /// Checks a layout. `object_size_bytes` 0 means unbounded objects.
    pub fn new(
        stripe_unit_bytes: u64,
        stripe_count: u32,
        object_size_bytes: u64,
    ) -> Result<Layout, Error> {
        if !(STRIPE_UNIT_STEP_BYTES..=STRIPE_UNIT_MAX_BYTES).contains(&stripe_unit_bytes)
            || stripe_unit_bytes % STRIPE_UNIT_STEP_BYTES != 0
        {
            return Err(Error::StripeUnit(stripe_unit_bytes));
        }
        if !(1..=STRIPE_COUNT_MAX).contains(&stripe_count) {
            return Err(Error::StripeCount(stripe_count));
        }
        if object_size_bytes > OBJECT_SIZE_MAX_BYTES || object_size_bytes % stripe_unit_bytes != 0 {
            return Err(Error::ObjectSize {
                object_size_bytes,
                stripe_unit_bytes,
            });
        }
        Ok(Layout {
            stripe_unit_bytes,
            stripe_count,
            object_size_bytes,
        })
    }

    /// Bytes that lie on one object before the next one's turn.
    pub fn stripe_unit_bytes(&self) -> u64 {
        self.stripe_unit_bytes
    }

    /// Objects side by side.
    pub fn stripe_count(&self) -> u32 {
        self.stripe_count
    }

    /// Bytes that an object holds, or 0 for unbounded objects.
    pub fn object_size_bytes(&self) -> u64 {
        self.object_size_bytes
    }

    /// Bytes of one round over all columns.
    pub fn stripe_bytes(&self) -> u64 {
        self.stripe_unit_bytes * u64::from(self.stripe_count)
    }

    /// The column of an object: which of the `stripe_count` places side by side it takes.
    pub fn column(&self, object: u64) -> u32 {
        (object % u64::from(self.stripe_count)) as u32
    }

    /// The object and the offset in it of the file's byte at `offset`.
    pub fn locate(&self, offset: u64) -> (u64, u64) {
        let (unit, count) = (self.stripe_unit_bytes, u64::from(self.stripe_count));
        let (block, in_block) = (offset / unit, offset % unit);
        let (stripe, column) = (block / count, block % count);
        match self.object_size_bytes {
            0 => (column, stripe * unit + in_block),
            size => {
                let stripes = size / unit;
                let object = stripe / stripes * count + column;
                (object, stripe % stripes * unit + in_block)
            }
        }
    }

    /// The file offset of byte `offset` of `object`: the inverse of [`Layout::locate`]. `None`
    /// where no file offset up to [`OFFSET_MAX`] lies there.
    pub fn file_offset(&self, object: u64, offset: u64) -> Option<u64> {
        let (set, column) = self.set_and_column(object)?;
        if self.object_size_bytes != 0 && offset >= self.object_size_bytes {
            return None;
        }
        let unit = self.stripe_unit_bytes;
        let in_set = (offset / unit)
            .checked_mul(self.stripe_bytes())?
            .checked_add(column * unit + offset % unit)?;
        let at = self.set_start(set)?.checked_add(in_set)?;
        (at <= OFFSET_MAX).then_some(at)
    }

    /// The pieces of the file's bytes `[offset, offset + len)`, in the file's order. The range
    /// is clipped at [`OFFSET_MAX`].
    pub fn extents(&self, offset: u64, len: u64) -> Extents {
        let offset = offset.min(OFFSET_MAX);
        Extents {
            layout: *self,
            first: offset,
            at: offset,
            end: offset.saturating_add(len).min(OFFSET_MAX),
        }
    }

    /// How many bytes of `object` belong to a file of `file_size` bytes: how long the object may
    /// be.
    pub fn object_end(&self, file_size: u64, object: u64) -> u64 {
        let Some((set, column)) = self.set_and_column(object) else {
            return 0;
        };
        let Some(start) = self.set_start(set) else {
            return 0;
        };
        let in_set = match self.set_bytes() {
            0 => file_size,
            bytes => file_size.saturating_sub(start).min(bytes),
        };
        let (unit, stripe) = (self.stripe_unit_bytes, self.stripe_bytes());
        in_set / stripe * unit + (in_set % stripe).saturating_sub(column * unit).min(unit)
    }

    /// The bytes of `object` that the file's bytes `[offset, offset + len)` cover: always one
    /// run without a gap, empty where the range misses the object.
    pub fn object_range(&self, object: u64, offset: u64, len: u64) -> Range<u64> {
        let end = offset.saturating_add(len);
        self.object_end(offset, object)..self.object_end(end, object)
    }

    /// The objects that the file's bytes `[offset, offset + len)` may touch, ascending. Some at
    /// the edges may have an empty [`Layout::object_range`]; none outside has bytes of it.
    pub fn objects(&self, offset: u64, len: u64) -> Range<u64> {
        if len == 0 || offset >= OFFSET_MAX {
            return 0..0;
        }
        let last = offset.saturating_add(len - 1).min(OFFSET_MAX - 1);
        let count = u64::from(self.stripe_count);
        match self.set_bytes() {
            0 => 0..count,
            bytes => offset / bytes * count..(last / bytes + 1) * count,
        }
    }

    /// Bytes of one object set; 0 where it is unbounded.
    fn set_bytes(&self) -> u64 {
        self.object_size_bytes * u64::from(self.stripe_count)
    }

    fn set_start(&self, set: u64) -> Option<u64> {
        set.checked_mul(self.set_bytes())
    }

    /// `None` for an object that cannot be.
    fn set_and_column(&self, object: u64) -> Option<(u64, u64)> {
        let count = u64::from(self.stripe_count);
        if self.object_size_bytes == 0 && object >= count {
            return None;
        }
        Some((object / count, object % count))
    }
}

/// Iterator of [`Layout::extents`].
#[derive(Clone, Debug)]
pub struct Extents {
    layout: Layout,
    first: u64,
    at: u64,
    end: u64,
}

impl Iterator for Extents {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        if self.at >= self.end {
            return None;
        }
        let layout = &self.layout;
        let (object, offset) = layout.locate(self.at);
        // One column has no turns to wait for: its piece goes on to the object's end.
        let run = match (layout.stripe_count, layout.object_size_bytes) {
            (1, 0) => u64::MAX,
            (1, size) => size - offset,
            _ => layout.stripe_unit_bytes - offset % layout.stripe_unit_bytes,
        };
        let len = run.min(self.end - self.at);
        let start = self.at - self.first;
        self.at += len;
        Some(Extent {
            object,
            offset,
            start,
            len,
        })
    }
}

#[cfg(test)]
mod tests;
