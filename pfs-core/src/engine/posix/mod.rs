//! Any mounted file system, or a plain directory, as it is.
//!
//! - [`append`]: appends, whose place the host's kernel finds.

mod append;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{copy_file_range, ftruncate, seek, OFlags, SeekFrom};

use crate::fs::{Errno, NodeId, Reply, Result, Slices};
use crate::io::{DataFd, Io, Then};
use crate::tree::proc::ProcFd;
use crate::tree::version::is_local;
use crate::tree::{Append, Closing, FileData, Inode, Opening, Tree};
use append::Appends;

/// Largest copy of one request, in bytes: a longer one is answered short, and the requester
/// goes on.
const COPY_MAX: u64 = 256 << 20;

/// Files of the host's kernel.
pub struct Posix {
    /// Errors of earlier writes are only told when a descriptor is closed, as NFS and others do.
    tells_at_close: bool,
    proc: ProcFd,
    appends: Arc<Appends>,
}

impl Posix {
    /// Looks at what kind of file system `root` is on.
    pub fn probe(proc: ProcFd, root: impl AsFd) -> Posix {
        Posix {
            tells_at_close: !is_local(root),
            proc,
            appends: Arc::default(),
        }
    }
}

impl FileData for Posix {
    type File = DataFd;

    fn open(&self, tree: &Tree, inode: &Arc<Inode>, opening: Opening) -> Result<DataFd> {
        Ok(DataFd::shared(opening.fd, tree.storage_of(inode)))
    }

    fn read(&self, io: &mut Io, file: &Arc<DataFd>, offset: u64, buf: Slices, reply: Reply<u32>) {
        io.read(file, buf.parts(0, buf.len()), offset, Then::Count(reply));
    }

    fn write(&self, io: &mut Io, file: &Arc<DataFd>, offset: u64, buf: Slices, reply: Reply<u32>) {
        io.write(file, buf.parts(0, buf.len()), offset, Then::Count(reply));
    }

    fn append(
        &self,
        io: &mut Io,
        node: NodeId,
        file: &Arc<DataFd>,
        append: &Append<'_>,
        buf: Slices,
        reply: Reply<u32>,
    ) {
        append::append(self, io, node, file, append, buf, reply);
    }

    fn flush(&self, io: &mut Io, file: &Arc<DataFd>, reply: Reply<()>) {
        if !self.tells_at_close {
            return reply.ok(());
        }
        let file = file.clone();
        io.blocking(move || {
            let copy = rustix::io::fcntl_dupfd_cloexec(&*file, 0);
            reply.send(copy.and_then(try_close));
        });
    }

    fn fsync(&self, io: &mut Io, file: &Arc<DataFd>, datasync: bool, reply: Reply<()>) {
        io.fsync(file, datasync, Then::Nothing(reply));
    }

    fn fallocate(
        &self,
        io: &mut Io,
        file: &Arc<DataFd>,
        range: std::ops::Range<u64>,
        mode: i32,
        reply: Reply<()>,
    ) {
        io.fallocate(
            file,
            mode,
            range.start,
            range.end - range.start,
            Then::Nothing(reply),
        );
    }

    fn close(&self, io: &mut Io, closing: &Closing<'_>, file: Arc<DataFd>, reply: Reply<()>) {
        if self.tells_at_close {
            io.blocking(move || drop(file));
        } else if !closing.can_write() {
            // While a file is open for writing, programs of the host cannot be told that it is
            // complete, nor execute it.
            if let Some(data) = Arc::into_inner(file) {
                closing.park(data, None);
            }
        }
        reply.ok(());
    }

    fn truncate_at_once(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<bool> {
        match self.tells_at_close {
            true => Ok(false),
            false => self.truncate(tree, inode, size).map(|()| true),
        }
    }

    fn truncate(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<()> {
        ftruncate(tree.reopen(inode, OFlags::WRONLY)?, size)
    }

    fn locks_at_once(&self) -> bool {
        // What tells of errors late keeps its locks at a server.
        !self.tells_at_close
    }

    fn lseek(&self, file: &DataFd, offset: u64, whence: u32) -> Result<u64> {
        let from = match whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        // The descriptor's own position is used by nothing.
        seek(file, from)
    }

    fn copy(&self, from: (&DataFd, u64), to: (&DataFd, u64), len: u64) -> Result<u32> {
        let (mut at, mut to_at) = (from.1, to.1);
        let len = len.min(COPY_MAX) as usize;
        copy_file_range(from.0, Some(&mut at), to.0, Some(&mut to_at), len)
            .map(|copied| copied as u32)
    }
}

/// Closes a descriptor and tells what `close(2)` said.
fn try_close(fd: OwnedFd) -> Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: `into_raw_fd` gives up the only ownership of the descriptor.
    if unsafe { libc::close(fd.into_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(crate::tree::proc::last_errno())
    }
}
