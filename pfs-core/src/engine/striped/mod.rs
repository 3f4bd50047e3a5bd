//! The embedded engine: names on a metadata target, data striped over storage targets.
//!
//! A file's inode on the metadata target carries its name, owner, times, xattrs and, as a sparse
//! length, its size. Its first `mdt_size` bytes live in that inode (Lustre's Data-on-MDT), so
//! small files never touch a target. The rest is RAID-0 over object files, one per target.
//!
//! - [`record`]: what the inode says of a striped file: object id, layout.
//! - [`file_layout`]: what a file is made with, as text. [`layouts`]: whose layout is which, and
//!   who may change it.
//! - [`inode`]: a file in use by this process: its objects' descriptors. [`file`]: an open one, with
//!   its guard.
//! - [`transfer`]: reads and writes; [`piece`]: small reads. [`append`]: who gets which place.
//!   [`ops`]: truncate, seek, allocate; [`copy`]. [`size`]: what keeps truncations and writes apart.
//!   [`prepare`]: what a write does to the inode.
//! - [`objects`]: object files on targets. [`check`]: what a crash can leave, and its repair.
//!   [`limits`]: setting how much a volume may hold.
//!
//! - [`orphans`]: files in use without a name. [`names`]: removing names. [`reaper`]: what dead
//!   daemons left. [`lock`]: what daemons lock.
//!
//! # What several daemons on one volume rely on
//!
//! *Size before data.* A write beyond the end first extends the size by `fallocate(2)`, which the
//! kernel makes a maximum: no extension ever shrinks another's. So bytes beyond a file's size are
//! never data, and a gap reads as zeros.
//!
//! *A guard while in use.* Every open file holds a shared lock on its inode; who removes the last
//! name, or lets go last, deletes the objects only under the exclusive one.
//!
//! *Always a name.* A file with objects, or one open in the process that removes it, moves to the
//! orphans when its last name goes, so that it is found after a crash.

mod append;
pub mod check;
mod copy;
mod file;
mod file_layout;
mod inode;
mod layouts;
mod limits;
mod lock;
mod names;
mod objects;
mod ops;
mod orphans;
mod piece;
mod prepare;
mod reaper;
mod record;
mod size;
mod table;
mod transfer;

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, OFlags, RenameFlags};

use crate::fs::{Attr, Errno, Name, NodeId, Reply, Result, Slices, StatFs, XattrName};
use crate::io::{DataFd, Io};
use crate::layout::Layout;
use crate::tree::proc::ProcFd;
use crate::tree::{Append, Budget, Closing, FileData, Inode, Opening, Stat, Tree, XattrChange};
use crate::volume::{OpenVolume, Usage, VolumeKind};
pub use file::File;
use file_layout::{FileLayout, Part};
use inode::StripedInode;
pub use limits::set_limits;
use objects::Targets;
pub use orphans::OrphanReport;
use orphans::{Orphans, Store};
use reaper::Reaper;
use record::Record;
use table::Table;

/// The last byte of an inode that a guest's lock may be on. The 16 beyond, which no file reaches,
/// are for locks of daemons among themselves.
const LOCK_END: u64 = i64::MAX as u64 - 16;

/// File data striped over targets.
pub struct Striped {
    shared: Arc<Volume>,
    /// Inodes that have open files here.
    inodes: Table,
    reaper: Reaper,
}

/// What all files of the volume share.
struct Volume {
    proc: ProcFd,
    orphans: Orphans,
    usage: Usage,
    targets: Targets,
    /// Another process takes over the open files.
    goes_on: AtomicBool,
    /// The layout of files where nothing else was said.
    default: FileLayout,
}

impl Volume {
    fn store(&self) -> Store<'_> {
        Store {
            targets: &self.targets,
            usage: Some(&self.usage),
        }
    }
}

impl Striped {
    /// File data on `targets` (their `objects` directories, by index), with `orphans` the
    /// directory of files without a name.
    pub fn new(
        proc: ProcFd,
        orphans: OwnedFd,
        usage: Usage,
        targets: Vec<OwnedFd>,
        layout: Layout,
        mdt_size_bytes: u64,
    ) -> Striped {
        let shared = Arc::new(Volume {
            proc,
            orphans: Orphans::new(orphans),
            usage,
            targets: Targets::new(targets),
            goes_on: AtomicBool::new(false),
            default: FileLayout {
                layout,
                mdt_size_bytes,
            },
        });
        Striped {
            shared,
            inodes: Table::default(),
            reaper: Reaper::default(),
        }
    }

    /// The inode's state, shared by all its open files.
    fn inode(&self, tree: &Tree, inode: &Inode) -> Arc<StripedInode> {
        // Numbers of other file systems mounted in the tree are told apart.
        let ino = tree.shown_ino(inode.ino, inode.dev);
        self.inodes.get_or(ino, || {
            StripedInode::new(self.shared.clone(), ino, tree.is_on_root(inode.dev))
        })
    }
}

/// Removes the files of a striped volume that have no name and that nobody uses, and that lost
/// their name longer ago than `min_age`. Blocks; the volume may be in use.
pub fn purge_orphans(volume: &OpenVolume, min_age: Duration) -> Result<OrphanReport> {
    let VolumeKind::Striped {
        meta,
        targets,
        usage,
        ..
    } = &volume.kind
    else {
        return Ok(OrphanReport::default());
    };
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0);
    let targets = Targets::new(targets.iter().map(copy).collect::<Result<_>>()?);
    let store = Store {
        targets: &targets,
        usage: Some(usage),
    };
    Orphans::new(copy(&meta.orphans)?).purge_unused(store, min_age)
}

impl FileData for Striped {
    type File = File;

    fn open_flags(&self, flags: i32) -> OFlags {
        // Appending is ours: the inode's own end is not where the data goes. What is written is
        // also read: a write may start in the inode and go on in the objects.
        let sync = OFlags::from_bits_retain(flags as u32) & (OFlags::DSYNC | OFlags::SYNC);
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY => OFlags::RDONLY | sync,
            _ => OFlags::RDWR | sync,
        }
    }

    fn keeps_made_fd(&self) -> bool {
        true
    }

    fn open(&self, tree: &Tree, inode: &Arc<Inode>, opening: Opening) -> Result<File> {
        let flags = opening.flags;
        let is_tmpfile = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let fd = DataFd::shared(opening.fd, tree.storage_of(inode));
        let file = File::new(fd, self.inode(tree, inode), is_tmpfile)?;
        file.inode.was_named_at(opening.named_at);
        if is_tmpfile {
            file.inode.set_linkable(flags & libc::O_EXCL == 0);
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
        append::append(io, file, append, buf, reply);
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

    fn close(&self, io: &mut Io, closing: &Closing<'_>, file: Arc<File>, reply: Reply<()>) {
        // What is done at the end is done before the answer: what comes after finds it done.
        match Arc::try_unwrap(file).map(|mut file| (file.let_go(), file)) {
            Ok((true, file)) => io.blocking(move || {
                drop(file);
                reply.ok(());
            }),
            Ok((false, file)) => {
                if let Some((meta, named_at)) = file.into_meta() {
                    closing.park(meta, named_at);
                }
                reply.ok(());
            }
            Err(file) => File::release(file, reply),
        }
    }

    fn truncate_at_once(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<bool> {
        // A large file's blocks may take long to free; what is counted changes alone.
        let is_small = crate::tree::attrs::size_fd(&inode.fd)? <= self.shared.mdt_size_min_bytes();
        if !is_small || self.shared.usage.counts() {
            return Ok(false);
        }
        ops::truncate_small(&tree.reopen(inode, OFlags::RDWR)?, size)
    }

    fn truncate(&self, tree: &Tree, inode: &Inode, size: u64) -> Result<()> {
        let meta = tree.reopen(inode, OFlags::RDWR)?;
        let ino = tree.shown_ino(inode.ino, inode.dev);
        ops::truncate(&self.shared, &meta, ino, size)
    }

    fn lock_end(&self) -> u64 {
        LOCK_END
    }

    fn lseek(&self, file: &File, offset: u64, whence: u32) -> Result<u64> {
        ops::lseek(file, offset, whence)
    }

    fn copy(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u32> {
        copy::copy(from, to, len)
    }

    fn complete_attr(&self, tree: &Tree, node: NodeId, attr: &mut Attr) {
        if attr.mode & libc::S_IFMT != libc::S_IFREG {
            return;
        }
        attr.blksize =
            u32::try_from(self.shared.default.layout.stripe_unit_bytes()).unwrap_or(1 << 20);
        if attr.nlink == 1 {
            let open = self.inodes.get(attr.ino);
            if open.is_some_and(|inode| inode.is_nameless(attr)) {
                attr.nlink = 0;
            }
        }
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

    fn attributes_set(&self, tree: &Tree, inode: &Inode) {
        let ino = tree.shown_ino(inode.ino, inode.dev);
        if inode.file_type == libc::S_IFREG {
            self.shared.usage.count_change(ino);
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

    fn keeps(&self, tree: &Tree, dir: &Inode, name: &Name, stat: &Stat, purges: u64) -> bool {
        self.is_victim(tree, (dir, name), stat, purges)
    }

    fn budget(&self) -> &dyn Budget {
        &self.shared.usage
    }

    fn remove(&self, tree: &Tree, dir: &Inode, name: &Name, flags: AtFlags) -> Result<()> {
        self.remove_name(tree, dir, name, flags)
    }

    fn complete_removal(&self, ino: u64) {
        Striped::complete_removal(self, ino);
    }

    fn rename_over(
        &self,
        tree: &Tree,
        from: (&Inode, &Name),
        to: (&Inode, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        Striped::rename_over(self, tree, from, to, flags)
    }

    fn link(&self, tree: &Tree, inode: &Inode, dir: &Inode, name: &CStr) -> Result<()> {
        self.link_name(tree, inode, dir, name)
    }

    fn keeps_nameless(&self) -> bool {
        true
    }

    fn orphans(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.orphans.dir())
    }

    fn keep_nameless(&self, tree: &Tree, inode: &Inode) -> Result<()> {
        if !tree.is_on_root(inode.dev) {
            return Ok(());
        }
        let volume = &self.shared;
        volume.orphans.link(&volume.proc, &inode.fd, inode.ino)
    }

    fn prepare_restore(&self) {
        self.shared.goes_on.store(true, Ordering::Release);
    }

    fn start(&self) {
        self.reaper.start(&self.shared);
    }

    fn statfs(&self, tree: &Tree, inode: &Inode) -> Result<StatFs> {
        let meta = tree.statfs(inode)?;
        let mut stat = self.shared.targets.statfs(&meta)?;
        self.shared.usage.limit_statfs(&mut stat);
        Ok(stat)
    }

    fn sync_all(&self) -> Result<()> {
        self.shared.targets.sync()
    }
}

/// The error for a record that says what cannot be: the file is damaged.
const DAMAGED: Errno = Errno::UCLEAN;

#[cfg(test)]
mod tests;
