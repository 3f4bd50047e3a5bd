//! Descriptors of data, and what may be done with them on the spot.
//!
//! io_uring tries an operation without waiting first, and leaves it to a thread of the kernel where
//! a file system cannot promise that. tmpfs promises nothing, though it never waits for a device: each
//! operation would wake a thread. So what is in memory is read and written with a system call, and large
//! reads of what a device's file system has cached.
//!
//! Files of FUSE can be polled and always are ready, which io_uring takes for the promise: it would
//! wait for the file system's server where the operation is submitted. It is told not to try.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::op::{Kind, Transfer};
use super::Fd;

/// What waits for the storage behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Nothing: it is memory.
    Memory,
    /// What is not cached.
    Device,
    /// Everything: a process serves it.
    Fuse,
}

/// File systems that are memory: their magic numbers in `statfs(2)`.
const MEMORY_MAGIC: [u64; 2] = [
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
];

/// FUSE's, whatever is behind it (linux/magic.h).
const FUSE_MAGIC: u64 = 0x6573_5546;

impl Storage {
    /// The storage of the file system that `fd` is on.
    pub fn of(fd: impl AsFd) -> Storage {
        match fstatfs(fd) {
            Ok(stat) if MEMORY_MAGIC.contains(&(stat.f_type as u64)) => Storage::Memory,
            Ok(stat) if stat.f_type as u64 == FUSE_MAGIC => Storage::Fuse,
            _ => Storage::Device,
        }
    }
}

/// A descriptor to read and write data with, shared by all who use it; closed when the last of them
/// lets go.
#[derive(Clone, Debug)]
pub struct DataFd {
    fd: Fd,
    storage: Storage,
}

impl DataFd {
    /// A descriptor of data on `storage`.
    pub fn new(fd: OwnedFd, storage: Storage) -> DataFd {
        DataFd::shared(fd.into(), storage)
    }

    /// One that others have, too.
    pub fn shared(fd: Fd, storage: Storage) -> DataFd {
        DataFd { fd, storage }
    }

    /// The descriptor itself.
    pub fn into_fd(self) -> Fd {
        self.fd
    }

    pub(super) fn as_raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Whether the kernel, asked not to wait, waits nevertheless.
    pub(super) fn waits_at_once(&self) -> bool {
        self.storage == Storage::Fuse
    }

    /// Whether what is cached is at hand, and all else waits for a device.
    pub(super) fn is_device(&self) -> bool {
        self.storage == Storage::Device
    }

    /// Whether what is done with it never waits.
    pub(super) fn is_memory(&self) -> bool {
        self.storage == Storage::Memory
    }
}

impl AsFd for DataFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Does as much of `transfer` as one system call takes. The result is that of a completion.
pub(super) fn call(fd: &DataFd, transfer: &Transfer) -> i32 {
    let (list, count) = transfer.rest();
    let (fd, count, at) = (fd.as_raw(), count as i32, transfer.at() as i64);
    // SAFETY: the list is the transfer's own, with at least one entry where `count` says so, and the
    // memory it names the promise of who started it (`Io::read`).
    let done = unsafe {
        match transfer.kind {
            // A small request is one piece: the kernel has no list to take in.
            Kind::Read if count == 1 => libc::pread(fd, (*list).iov_base, (*list).iov_len, at),
            Kind::Write if count == 1 => libc::pwrite(fd, (*list).iov_base, (*list).iov_len, at),
            Kind::Read => libc::preadv(fd, list, count, at),
            Kind::Write => libc::pwritev(fd, list, count, at),
            Kind::Append => libc::pwritev2(fd, list, count, 0, libc::RWF_APPEND),
            // Nothing in memory outlives a power loss, whatever the kernel is asked.
            Kind::Fsync { .. } => 0,
            Kind::Fallocate { mode, len } => libc::fallocate(fd, mode, at, len as i64) as isize,
        }
    };
    result_of(done)
}

/// Reads as much of `transfer` as is cached and one system call takes: `EAGAIN` where that is nothing.
pub(super) fn read_cached(fd: &DataFd, transfer: &Transfer) -> i32 {
    let (list, count) = transfer.rest();
    let (fd, count, at) = (fd.as_raw(), count as i32, transfer.at() as i64);
    // SAFETY: as in `call`.
    result_of(unsafe { libc::preadv2(fd, list, count, at, libc::RWF_NOWAIT) })
}

fn result_of(done: isize) -> i32 {
    match done {
        -1 => -std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(Errno::IO.raw_os_error()),
        // A call moves at most 2 GiB.
        done => done as i32,
    }
}
