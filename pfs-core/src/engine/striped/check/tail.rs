//! Sizes past the data: a write beyond the end extends the size first, and may have been cut off
//! before its data came.
//!
//! That is told from a file that was only made longer by the block that an extension leaves at the
//! end of the inode, and the last close frees. The size stays: what else it may have been set to is
//! not known, and those bytes read as zeros either way.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{fallocate, openat, FallocateFlags, Mode, OFlags};

use super::walk::Met;
use super::{Checker, Error, Kind};
use crate::engine::striped::record::Record;
use crate::fs::Errno;
use crate::tree::proc::last_errno;

/// `struct fiemap`, without room for extents: they are only counted.
#[repr(C)]
#[derive(Default)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `FS_IOC_FIEMAP`: `_IOWR('f', 11, struct fiemap)`.
const FS_IOC_FIEMAP: u32 = 0xC020_660B;

impl Checker<'_> {
    /// Looks at a file of which no object has data at `data_end` or beyond. For one who is alone:
    /// others' writes may be on their way.
    pub(super) fn check_tail(
        &mut self,
        met: &Met<'_>,
        record: &Record,
        data_end: u64,
    ) -> Result<(), Error> {
        let (size, mdt_size) = (met.stat.st_size as u64, record.mdt_size_bytes);
        if !self.volume.alone || size <= mdt_size || size <= data_end {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            openat(met.dir, met.name, flags, Mode::empty()).map_err(Error::io("open", met.path))?;
        if !is_allocated(&file, size - 1).map_err(Error::io("look at the blocks of", met.path))? {
            return Ok(());
        }
        let (dir, name) = (met.dir, met.name);
        self.mend(Kind::SizePastData, met.path, || {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty())?;
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let end = size.next_multiple_of(64 << 10);
            fallocate(file, mode, mdt_size, end - mdt_size)
        });
        Ok(())
    }
}

/// Whether there is a block for the byte at `offset`, be it written or not. Where the file system
/// does not tell, there is none.
fn is_allocated(file: &OwnedFd, offset: u64) -> Result<bool, Errno> {
    let mut map = Fiemap {
        start: offset,
        length: 1,
        ..Fiemap::default()
    };
    // SAFETY: the kernel reads and writes no more than the structure, which has room for no extent.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) };
    match result {
        0 => Ok(map.mapped_extents > 0),
        _ => match last_errno() {
            Errno::OPNOTSUPP | Errno::NOTTY => Ok(false),
            errno => Err(errno),
        },
    }
}
