//! The model: a POSIX file system in memory.
//!
//! Its names are in [`names`](super::names). It says what Linux says, errors included; where
//! Linux may do this or that, whoever compares knows.

use std::collections::BTreeMap;

use guest_tests::ring::fuse::Errno;

use super::bytes::Bytes;
use super::times::Times;

/// Names an inode of the model; never used again.
pub type Id = usize;

/// The root directory.
pub const ROOT: Id = 0;

pub type Result<T> = std::result::Result<T, Errno>;

/// What an inode is, with its content.
#[derive(Clone)]
pub enum Kind {
    File(Bytes),
    Dir(BTreeMap<Vec<u8>, Id>),
    Link(Vec<u8>),
    /// A device node, fifo or socket: its `S_IFMT` and device number.
    Special(u32, u32),
}

impl Kind {
    /// The file type in a mode.
    pub fn format(&self) -> u32 {
        match self {
            Kind::File(_) => libc::S_IFREG,
            Kind::Dir(_) => libc::S_IFDIR,
            Kind::Link(_) => libc::S_IFLNK,
            Kind::Special(format, _) => *format,
        }
    }
}

/// Who owns an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// An inode.
#[derive(Clone)]
pub struct Inode {
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub owner: Owner,
    pub links: u32,
    /// Handles of all clients.
    pub handles: u32,
    /// Made without a name, and free to be given one.
    pub linkable: bool,
    /// Bytes of it were written that are not with its metadata.
    pub has_objects: bool,
    /// Without a name, it outlives the daemons of those who have it open.
    pub is_orphan: bool,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub times: Times,
    /// The directory that a directory is in.
    pub parent: Id,
    /// As clients have seen it.
    pub ino: Option<u64>,
}

impl Inode {
    /// Whether it is there no more: what happens to it then is seen by nobody.
    pub fn is_gone(&self) -> bool {
        self.links == 0 && self.handles == 0
    }

    /// Takes setuid, and setgid of what the group may execute.
    pub fn kill_setid(&mut self) {
        self.mode &= !libc::S_ISUID;
        if self.mode & libc::S_IXGRP != 0 {
            self.mode &= !libc::S_ISGID;
        }
    }

    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(_))
    }

    /// The bytes of a file.
    pub fn bytes(&self) -> &Bytes {
        match &self.kind {
            Kind::File(bytes) => bytes,
            _ => panic!("no file"),
        }
    }

    /// The bytes of a file, to change them.
    pub fn bytes_mut(&mut self) -> &mut Bytes {
        match &mut self.kind {
            Kind::File(bytes) => bytes,
            _ => panic!("no file"),
        }
    }
}

/// All inodes that there are or were.
pub struct Tree {
    pub(super) inodes: Vec<Inode>,
}

impl Tree {
    /// An empty root directory with these attributes.
    pub fn new(mode: u32, owner: Owner, times: Times) -> Tree {
        Tree {
            inodes: vec![Inode {
                kind: Kind::Dir(BTreeMap::new()),
                mode,
                owner,
                links: 2,
                handles: 0,
                linkable: false,
                has_objects: false,
                is_orphan: false,
                xattrs: BTreeMap::new(),
                times,
                parent: ROOT,
                ino: None,
            }],
        }
    }

    pub fn get(&self, id: Id) -> &Inode {
        &self.inodes[id]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Inode {
        &mut self.inodes[id]
    }

    /// A new inode without a name.
    pub(super) fn add(&mut self, kind: Kind, mode: u32, owner: Owner, parent: Id) -> Id {
        self.inodes.push(Inode {
            links: if matches!(kind, Kind::Dir(_)) { 2 } else { 1 },
            kind,
            mode,
            owner,
            handles: 0,
            linkable: false,
            has_objects: false,
            is_orphan: false,
            xattrs: BTreeMap::new(),
            times: Times::now(),
            parent,
            ino: None,
        });
        self.inodes.len() - 1
    }

    /// Changes the owner, which takes setuid and setgid from what is no directory.
    pub fn chown(&mut self, id: Id, uid: Option<u32>, gid: Option<u32>) {
        let inode = self.get_mut(id);
        inode.owner.uid = uid.unwrap_or(inode.owner.uid);
        inode.owner.gid = gid.unwrap_or(inode.owner.gid);
        if !inode.is_dir() {
            inode.kill_setid();
        }
        inode.times.change.set();
    }

    /// Sets an attribute.
    pub fn set_xattr(&mut self, id: Id, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        let inode = self.get_mut(id);
        if !inode.is_file() && !inode.is_dir() {
            return Err(Errno::PERM);
        }
        match inode.xattrs.get(name) {
            Some(_) if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EXIST),
            None if flags & libc::XATTR_REPLACE != 0 => return Err(Errno::NODATA),
            Some(old) if old == value => inode.times.change.may_be_set(),
            _ => inode.times.change.set(),
        }
        inode.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// An attribute's value.
    pub fn xattr(&self, id: Id, name: &[u8]) -> Result<&Vec<u8>> {
        self.get(id).xattrs.get(name).ok_or(Errno::NODATA)
    }

    /// Removes an attribute.
    pub fn remove_xattr(&mut self, id: Id, name: &[u8]) -> Result<()> {
        let inode = self.get_mut(id);
        if !inode.is_file() && !inode.is_dir() {
            return Err(Errno::PERM);
        }
        inode.xattrs.remove(name).ok_or(Errno::NODATA)?;
        inode.times.change.set();
        Ok(())
    }

    /// Copies between files; answers the most bytes that may be copied.
    pub fn copy_len(&self, from: (Id, u64), to: (Id, u64), len: u64) -> Result<u64> {
        let size = self.get(from.0).bytes().len();
        let len = len.min(size.saturating_sub(from.1));
        if from.0 == to.0 && to.1 + len > from.1 && to.1 < from.1 + len {
            return Err(Errno::INVAL);
        }
        Ok(len)
    }
}
