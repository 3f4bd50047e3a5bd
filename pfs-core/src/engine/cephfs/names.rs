//! Names: lookup, and what makes, moves and removes them.

use std::ffi::CStr;
use std::sync::Arc;

use super::attr::ino;
use super::calls::Kind;
use super::ffi::ceph_statx;
use super::inode::{Inode, NewInode};
use super::mount::Vino;
use super::nodes::Node;
use super::shared::Shared;
use crate::fs::intent::{begin_making, begin_removing, begin_renaming};
use crate::fs::*;

/// A name that an inode is made under, for whom, and with what memory of an earlier try.
struct Making {
    parent: NodeId,
    name: std::ffi::CString,
    caller: Caller,
    make: Make,
    log: Option<Box<dyn IntentLog + Send>>,
}

/// What a call that makes an inode answers.
type Made = Result<(Inode, ceph_statx)>;

impl Making {
    fn new(req: &Req<'_>, parent: NodeId, name: &Name, make: &Make) -> Making {
        Making {
            parent,
            name: name.as_c_str().to_owned(),
            caller: req.caller,
            make: *make,
            log: req.intent.map(IntentLog::keep),
        }
    }

    /// Has `make` make the inode. Where an earlier try may have, what is there is taken for it.
    fn run(&self, fs: &Shared, make: impl FnOnce(&Inode, &NewInode<'_>) -> Made) -> Result<Entry> {
        let dir = fs.nodes.get(self.parent)?.dir()?;
        let may_be_ours = begin_making(self.log.as_deref().map(|log| log as _), || {
            absent(&dir, &self.name)
        });
        let perms = fs.perms(&self.caller)?;
        let new = NewInode {
            name: &self.name,
            perms: &perms,
            mode: self.make.mode,
            umask: self.make.umask,
        };
        match make(&dir.inode, &new) {
            Err(Errno::EXIST) if may_be_ours => fs.entry(dir.inode.lookup(&self.name)?),
            made => fs.entry(made?),
        }
    }
}

fn absent(dir: &Node, name: &CStr) -> bool {
    matches!(dir.inode.lookup(name), Err(Errno::NOENT))
}

/// The number of the inode `name` in `dir`, as guests and intents have it.
fn number(dir: &Node, name: &CStr) -> Result<u64> {
    let (_inode, stx) = dir.inode.lookup(name)?;
    Ok(ino(Vino::of(&stx)))
}

impl Shared {
    pub fn lookup(self: &Arc<Self>, parent: NodeId, name: &Name, reply: Reply<Entry>) {
        let name = name.as_c_str().to_owned();
        self.call(Kind::Lookup, reply, move |fs| {
            fs.entry(fs.nodes.get(parent)?.dir()?.inode.lookup(&name)?)
        });
    }

    pub fn symlink(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        target: &CStr,
        reply: Reply<Entry>,
    ) {
        let make = Make {
            mode: 0o777,
            umask: 0,
        };
        let making = Making::new(req, parent, name, &make);
        let target = target.to_owned();
        self.call(Kind::Names, reply, move |fs| {
            making.run(fs, |dir, new| dir.symlink(new, &target))
        });
    }

    pub fn mknod(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        rdev: u32,
        reply: Reply<Entry>,
    ) {
        let mode = match make.mode & libc::S_IFMT {
            0 => make.mode | libc::S_IFREG,
            libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK => {
                make.mode
            }
            _ => return reply.err(Errno::INVAL),
        };
        let rdev = match mode & libc::S_IFMT {
            libc::S_IFCHR | libc::S_IFBLK => device(rdev),
            _ => 0,
        };
        let making = Making::new(req, parent, name, &Make { mode, ..*make });
        self.call(Kind::Names, reply, move |fs| {
            making.run(fs, |dir, new| dir.mknod(new, rdev))
        });
    }

    pub fn mkdir(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        reply: Reply<Entry>,
    ) {
        let making = Making::new(req, parent, name, make);
        self.call(Kind::Names, reply, move |fs| {
            making.run(fs, |dir, new| dir.mkdir(new))
        });
    }

    /// Removes a name; with `is_dir`, an empty directory.
    pub fn remove(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        is_dir: bool,
        reply: Reply<()>,
    ) {
        let (name, log) = (name.as_c_str().to_owned(), req.intent.map(IntentLog::keep));
        self.call(Kind::Names, reply, move |fs| {
            let dir = fs.nodes.get(parent)?.dir()?;
            if let Some(log) = &log {
                if begin_removing(&**log, number(&dir, &name)).is_some() {
                    return Ok(());
                }
            }
            match is_dir {
                true => dir.inode.rmdir(&name),
                false => dir.inode.unlink(&name),
            }
        });
    }

    /// Renames. Of the flags of `renameat2(2)` the metadata server has none.
    pub fn rename(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        from: (NodeId, &Name),
        to: (NodeId, &Name),
        flags: u32,
        reply: Reply<()>,
    ) {
        if flags != 0 {
            return reply.err(Errno::INVAL);
        }
        let owned = |(node, name): (NodeId, &Name)| (node, name.as_c_str().to_owned());
        let (from, to, log) = (owned(from), owned(to), req.intent.map(IntentLog::keep));
        self.call(Kind::Names, reply, move |fs| {
            let (dir, to_dir) = (fs.nodes.get(from.0)?.dir()?, fs.nodes.get(to.0)?.dir()?);
            if let Some(log) = &log {
                if begin_renaming(&**log, number(&dir, &from.1)) {
                    return Ok(());
                }
            }
            dir.inode.rename(&from.1, &to_dir.inode, &to.1)
        });
    }

    pub fn link(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        reply: Reply<Entry>,
    ) {
        let make = Make { mode: 0, umask: 0 };
        let making = Making::new(req, parent, name, &make);
        self.call(Kind::Names, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            making.run(fs, |dir, new| {
                dir.link(&node.inode, new.name)?;
                dir.lookup(new.name)
            })
        });
    }

    pub fn readlink(self: &Arc<Self>, node: NodeId, reply: Reply<Vec<u8>>) {
        self.call(Kind::Xattr, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            match node.file_type {
                libc::S_IFLNK => node.inode.readlink(),
                _ => Err(Errno::INVAL),
            }
        });
    }
}

/// A device's number: the kernel's 32-bit form (`new_encode_dev`) to the C library's.
fn device(rdev: u32) -> libc::dev_t {
    let (major, minor) = (
        (rdev >> 8) & 0xfff,
        (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
    );
    libc::makedev(major, minor)
}
