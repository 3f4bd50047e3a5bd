//! The embedded engine: names on a metadata target, data striped over storage targets.
//!
//! A file's inode on the metadata target carries its name, owner, times, xattrs and, as a sparse
//! length, its size. Its first `mdt_size` bytes live in that inode (Lustre's Data-on-MDT), so
//! small files never touch a target. The rest is RAID-0 over object files, one per target.
//!
//! - [`record`]: what the inode says of a striped file: object id, layout.
//! - [`file_layout`]: what a file is made with, as text. [`layouts`]: whose layout is which, and
//!   who may change it.
//! - [`inode`]: a striped file in use by this process: its objects' descriptors, its guard.
//! - [`transfer`]: reads and writes. [`ops`]: what may block: truncate, seek, copy, allocate.
//! - [`objects`]: object files on targets. [`check`]: what a crash can leave, and its repair.
//!
//! # What several daemons on one volume rely on
//!
//! *Size before data.* A write beyond the end first extends the size by `fallocate(2)`, which the
//! kernel makes a maximum: no extension ever shrinks another's. So bytes beyond a file's size are
//! never data, and a gap reads as zeros.
//!
//! *A guard while in use.* A process that uses a file's objects holds a shared lock on the inode;
//! who removes the last name, or lets go last, deletes the objects only under the exclusive one.

pub mod check;
mod file_layout;
mod inode;
mod layouts;
mod limits;
mod objects;
mod ops;
mod record;
mod transfer;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use rustix::fs::{openat, Mode, OFlags};

use crate::fs::{Attr, Errno, Name, NodeId, Reply, Result, Slices, StatFs, XattrName};
use crate::io::{Fd, Io};
use crate::layout::Layout;
use crate::tree::proc::ProcFd;
use crate::tree::{Append, FileData, Inode, Tree, XattrChange};
use crate::volume::Usage;
use file_layout::{FileLayout, Part};
use inode::StripedInode;
pub use limits::set_limits;
use objects::Targets;
use record::Record;

/// The last byte of an inode that a guest's lock may be on. The 16 beyond, which no file reaches,
/// are for locks of daemons among themselves.
const LOCK_END: u64 = i64::MAX as u64 - 16;

/// File data striped over targets.
pub struct Striped {
    shared: Arc<Volume>,
    /// Inodes that have open files here.
    inodes: Mutex<HashMap<NodeId, Weak<StripedInode>>>,
}

/// What all files of the volume share.
struct Volume {
    proc: ProcFd,
    usage: Usage,
    targets: Targets,
    /// The layout of files where nothing else was said.
    default: FileLayout,
}

/// An open file.
pub struct File {
    /// The inode on the metadata target, opened as asked.
    meta: Fd,
    inode: Arc<StripedInode>,
}

impl Striped {
    /// File data on `targets` (their `objects` directories, by index).
    pub fn new(
        proc: ProcFd,
        usage: Usage,
        targets: Vec<OwnedFd>,
        layout: Layout,
        mdt_size_bytes: u64,
    ) -> Striped {
        let targets = Targets::new(targets);
        let shared = Arc::new(Volume {
            proc,
            usage,
            targets,
            default: FileLayout {
                layout,
                mdt_size_bytes,
            },
        });
        Striped {
            shared,
            inodes: Mutex::default(),
        }
    }

    fn inodes(&self) -> MutexGuard<'_, HashMap<NodeId, Weak<StripedInode>>> {
        crate::sync::lock(&self.inodes)
    }

    /// The inode's state, shared by all its open files.
    fn inode(&self, node: NodeId) -> Arc<StripedInode> {
        let mut inodes = self.inodes();
        if let Some(inode) = inodes.get(&node).and_then(Weak::upgrade) {
            return inode;
        }
        // Entries of closed files go when the table would grow.
        if inodes.len() == inodes.capacity() {
            inodes.retain(|_, inode| inode.strong_count() > 0);
        }
        let inode = Arc::new(StripedInode::new(self.shared.clone()));
        inodes.insert(node, Arc::downgrade(&inode));
        inode
    }
}

impl FileData for Striped {
    type File = File;
    type Victim = OwnedFd;

    fn open_flags(&self, flags: i32) -> OFlags {
        // Appending is ours: the inode's own end is not where the data goes. What is written is
        // also read: a write may start in the inode and go on in the objects.
        let sync = OFlags::from_bits_retain(flags as u32) & (OFlags::DSYNC | OFlags::SYNC);
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY => OFlags::RDONLY | sync,
            _ => OFlags::RDWR | sync,
        }
    }

    fn open(&self, _: &Tree, inode: &Arc<Inode>, fd: OwnedFd, _: i32) -> Result<File> {
        let file = File {
            meta: Arc::new(fd),
            inode: self.inode(inode.node),
        };
        // With data in objects, the guard must be held before anyone removes the last name.
        if crate::tree::attrs::size_fd(&file.meta)? > self.shared.mdt_size_min_bytes() {
            file.inode.stripe(&file.meta)?;
        }
        Ok(file)
    }

    fn read(&self, io: &mut Io, file: &Arc<File>, offset: u64, buf: Slices, reply: Reply<u32>) {
        transfer::read(io, file, offset, buf, reply);
    }

    fn write(&self, io: &mut Io, file: &Arc<File>, offset: u64, buf: Slices, reply: Reply<u32>) {
        transfer::write(io, file, offset, buf, reply);
    }

    fn append(
        &self,
        io: &mut Io,
        _: NodeId,
        file: &Arc<File>,
        append: &Append<'_>,
        buf: Slices,
        reply: Reply<u32>,
    ) {
        // The end as the requester has seen it.
        transfer::write(io, file, append.offset, buf, reply);
    }

    fn flush(&self, _: &mut Io, _: &Arc<File>, reply: Reply<()>) {
        // Local file systems report errors at the write or the fsync, never at a close.
        reply.ok(());
    }

    fn fsync(&self, io: &mut Io, file: &Arc<File>, datasync: bool, reply: Reply<()>) {
        transfer::fsync(io, file, datasync, reply);
    }

    fn fallocate(
        &self,
        io: &mut Io,
        file: &Arc<File>,
        range: std::ops::Range<u64>,
        mode: i32,
        reply: Reply<()>,
    ) {
        let file = file.clone();
        io.blocking(move || reply.send(ops::fallocate(&file, range, mode)));
    }

    fn close(&self, io: &mut Io, file: Arc<File>, reply: Reply<()>) {
        if file.inode.closes_at_once() {
            drop(file);
            return reply.ok(());
        }
        io.blocking(move || {
            drop(file);
            reply.ok(());
        });
    }

    fn truncates_at_once(&self, _: &Tree, inode: &Inode) -> bool {
        let size = crate::tree::attrs::size_fd(&inode.fd);
        size.is_ok_and(|size| size <= self.shared.mdt_size_min_bytes())
    }

    fn truncate(&self, tree: &Tree, inode: &Arc<Inode>, size: u64) -> Result<()> {
        let meta = tree.reopen(inode, OFlags::RDWR)?;
        ops::truncate(&self.shared, &meta, size)
    }

    fn lock_end(&self) -> u64 {
        LOCK_END
    }

    fn lseek(&self, file: &File, offset: u64, whence: u32) -> Result<u64> {
        ops::lseek(file, offset, whence)
    }

    fn copy(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u32> {
        ops::copy(from, to, len)
    }

    fn complete_attr(&self, tree: &Tree, node: NodeId, attr: &mut Attr) {
        if attr.mode & libc::S_IFMT != libc::S_IFREG {
            return;
        }
        attr.blksize =
            u32::try_from(self.shared.default.layout.stripe_unit_bytes()).unwrap_or(1 << 20);
        if attr.size <= self.shared.mdt_size_min_bytes() {
            return;
        }
        let record = tree
            .inode(node)
            .and_then(|inode| tree.get_xattr(&inode, record::xattr_name()))
            .and_then(|text| Record::parse(&text));
        if let Ok(record) = record {
            attr.blocks += self.shared.targets.blocks(&record);
        }
    }

    fn get_virtual_xattr(&self, tree: &Tree, inode: &Inode, name: &XattrName) -> Result<Vec<u8>> {
        let part = Part::of(name).ok_or(Errno::NODATA)?;
        Ok(self.layout(tree, inode)?.to_value(part))
    }

    fn change_virtual_xattr(
        &self,
        tree: &Tree,
        inode: &Arc<Inode>,
        change: &XattrChange,
    ) -> Result<()> {
        self.change_layout(tree, inode, change)
    }

    fn made(&self, tree: &Tree, parent: NodeId, node: NodeId) -> Result<()> {
        self.inherit_layout(tree, parent, node)
    }

    fn victim(&self, tree: &Tree, parent: NodeId, name: &Name) -> Option<OwnedFd> {
        let parent = tree.inode(parent).ok()?;
        let stat = crate::tree::attrs::stat_name(&parent.fd, name).ok()?;
        if stat.file_type() != libc::S_IFREG {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = openat(&parent.fd, name.as_c_str(), flags, Mode::empty()).ok()?;
        let inode = tree.unlisted(path).ok()?;
        tree.get_xattr(&inode, record::xattr_name()).ok()?;
        tree.reopen(&inode, OFlags::RDWR).ok()
    }

    fn purge(&self, victim: OwnedFd) {
        inode::purge_if_last(&self.shared, &victim);
    }

    fn statfs(&self, tree: &Tree, inode: &Inode) -> Result<StatFs> {
        let meta = tree.statfs(inode)?;
        self.shared.targets.statfs(&meta)
    }

    fn sync_all(&self) -> Result<()> {
        self.shared.targets.sync()
    }
}

/// The error for a record that says what cannot be: the file is damaged.
const DAMAGED: Errno = Errno::UCLEAN;

/// Whether `fd` refers to an inode without a name.
fn has_no_name(fd: impl AsFd) -> bool {
    crate::tree::attrs::stat_fd(fd).is_ok_and(|stat| stat.attr.nlink == 0)
}

#[cfg(test)]
mod tests;
