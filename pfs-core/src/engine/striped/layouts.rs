//! Whose layout is which: directories that have one, files that take it, who may change it.
//!
//! A directory's layout is for what is made in it from then on, and each new directory and file
//! takes a copy: a later change above changes nothing below. A file's can change as long as the
//! file is empty and never had a byte in an object.
//!
//! # Two daemons
//!
//! Where a file's first bytes lie depends on its layout, so whoever has a file without a record
//! open holds a shared lock against changes ([`StripedInode`](super::inode::StripedInode)), and a
//! change takes the exclusive one. On a volume where no layout was ever set nobody looks, and
//! nobody locks; the first who sets one tells all by the [`Usage`](crate::volume::Usage) file.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{fgetxattr, openat, Mode, OFlags, XattrFlags};

use super::file_layout::{self, FileLayout, Part};
use super::record::{self, Record};
use super::{Striped, Volume, DAMAGED};
use crate::fs::{Errno, NodeId, Result};
use crate::tree::{Inode, Tree, XattrChange};

/// Longest layout in an inode, in bytes.
const LAYOUT_MAX_BYTES: usize = 256;
/// How long the first layout of a volume waits for requests that began before anyone could know
/// of it.
const FIRST_WAIT: Duration = Duration::from_millis(100);

impl Volume {
    /// The layout of its own of the inode behind `meta`, which is no `O_PATH` descriptor.
    pub(super) fn own_layout(&self, meta: impl AsFd) -> Result<Option<FileLayout>> {
        let mut value = [0u8; LAYOUT_MAX_BYTES];
        match fgetxattr(meta, file_layout::xattr_name().as_c_str(), &mut value[..]) {
            Ok(len) => self.parse_layout(&value[..len]).map(Some),
            Err(Errno::NODATA) => Ok(None),
            Err(Errno::RANGE) => Err(DAMAGED),
            Err(errno) => Err(errno),
        }
    }

    /// The layout of its own of `inode`.
    fn layout_of(&self, tree: &Tree, inode: &Inode) -> Result<Option<FileLayout>> {
        match tree.get_xattr(inode, file_layout::xattr_name()) {
            Ok(value) => self.parse_layout(&value).map(Some),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn parse_layout(&self, value: &[u8]) -> Result<FileLayout> {
        FileLayout::parse(value, self.targets.count()).ok_or(DAMAGED)
    }

    /// A file without a record has at least so many bytes in its inode.
    pub(super) fn mdt_size_min_bytes(&self) -> u64 {
        self.usage.mdt_size_min_bytes(self.default.mdt_size_bytes)
    }
}

impl Striped {
    /// The layout of a file, or the one that new files in a directory get.
    pub(super) fn layout(&self, tree: &Tree, inode: &Inode) -> Result<FileLayout> {
        match inode.file_type {
            libc::S_IFDIR => {}
            libc::S_IFREG => match tree.get_xattr(inode, record::xattr_name()) {
                Ok(text) => return Record::parse(&text).map(|record| record.file_layout()),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            },
            _ => return Err(Errno::NODATA),
        }
        let own = self.shared.layout_of(tree, inode)?;
        Ok(own.unwrap_or(self.shared.default))
    }

    /// Sets or removes an attribute of a layout, for a caller who may.
    pub(super) fn change_layout(
        &self,
        tree: &Tree,
        inode: &Arc<Inode>,
        change: &XattrChange,
    ) -> Result<()> {
        let part = Part::of(change.name()?).ok_or(match change.value {
            Some(_) => Errno::INVAL,
            None => Errno::NODATA,
        })?;
        if !matches!(inode.file_type, libc::S_IFDIR | libc::S_IFREG) {
            return Err(Errno::INVAL);
        }
        if !change.caller.is_root && change.caller.uid != tree.attr(inode)?.uid {
            return Err(Errno::PERM);
        }
        // There always is a layout.
        if change.flags.contains(XattrFlags::CREATE) {
            return Err(Errno::EXIST);
        }
        let done = match (inode.file_type, &change.value) {
            (libc::S_IFDIR, Some(value)) => {
                let targets = self.shared.targets.count();
                self.change_dir(tree, inode, |now| now.changed(part, value, targets))
            }
            (libc::S_IFDIR, None) => {
                let above = self.layout_above(tree, inode)?;
                self.change_dir(tree, inode, |now| Ok(now.reset(part, &above)))
            }
            (_, Some(value)) => self.change_file(tree, inode, part, value),
            (_, None) => Err(Errno::INVAL),
        };
        match (done, &change.value) {
            // Done before a crash, and the file was written to since.
            (Err(Errno::BUSY), Some(value)) if change.may_be_done => {
                let now = self.layout(tree, inode)?;
                let wanted = now.changed(part, value, self.shared.targets.count())?;
                (now == wanted).then_some(()).ok_or(Errno::BUSY)
            }
            (done, _) => done,
        }
    }

    fn change_dir(
        &self,
        tree: &Tree,
        inode: &Inode,
        change: impl FnOnce(FileLayout) -> Result<FileLayout>,
    ) -> Result<()> {
        // One that is damaged can be set anew.
        let now = match self.shared.layout_of(tree, inode) {
            Err(errno) if errno == DAMAGED => None,
            own => own?,
        };
        let new = change(now.unwrap_or(self.shared.default))?;
        self.announce(&new);
        self.put_dir(tree, inode, &new)
    }

    fn put_dir(&self, tree: &Tree, inode: &Inode, layout: &FileLayout) -> Result<()> {
        let (name, text) = (file_layout::xattr_name(), layout.to_string());
        tree.set_xattr(None, inode, name, text.as_bytes(), 0)
    }

    fn change_file(&self, tree: &Tree, inode: &Arc<Inode>, part: Part, value: &[u8]) -> Result<()> {
        // What cannot be is told before what cannot be now.
        let targets = self.shared.targets.count();
        let wanted = self.layout(tree, inode)?.changed(part, value, targets)?;
        let meta = tree.reopen(inode, OFlags::RDONLY)?;
        if Record::load(&meta)?.is_some() {
            return Err(Errno::BUSY);
        }
        self.announce(&wanted);
        self.inode(tree, inode)
            .set_layout(&meta, |now| now.changed(part, value, targets))
    }

    /// Tells all daemons of the volume that layouts are to be looked for.
    fn announce(&self, layout: &FileLayout) {
        if self.shared.usage.add_layout(layout.mdt_size_bytes) {
            std::thread::sleep(FIRST_WAIT);
        }
    }

    /// The layout that directory `inode` would take if it were made now.
    fn layout_above(&self, tree: &Tree, inode: &Inode) -> Result<FileLayout> {
        if inode.node == NodeId::ROOT {
            return Ok(self.shared.default);
        }
        let dir = tree.reopen(inode, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = openat(dir, "..", flags, Mode::empty())?;
        Ok(self
            .shared
            .own_layout(above)?
            .unwrap_or(self.shared.default))
    }

    /// Gives a new file or directory the layout of the directory that it was made in.
    pub(super) fn inherit_layout(&self, tree: &Tree, parent: NodeId, node: NodeId) -> Result<()> {
        if !self.shared.usage.has_layouts() {
            return Ok(());
        }
        let Some(layout) = self.shared.layout_of(tree, &*tree.inode(parent)?)? else {
            return Ok(());
        };
        let inode = tree.inode(node)?;
        match inode.file_type {
            libc::S_IFDIR => self.put_dir(tree, &inode, &layout),
            libc::S_IFREG => {
                let meta = tree.reopen(&inode, OFlags::RDONLY)?;
                match self.inode(tree, &inode).set_layout(&meta, |_| Ok(layout)) {
                    // Another daemon has found it and opened it: it stays as that one saw it.
                    Err(Errno::BUSY) => Ok(()),
                    done => done,
                }
            }
            _ => Ok(()),
        }
    }
}
