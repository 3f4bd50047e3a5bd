//! Names: what makes, moves and removes them.

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fs::{renameat_with, unlinkat, AtFlags, RenameFlags};

use super::shared::Shared;
use crate::fs::*;
use crate::tree::attrs::stat_name;
use crate::tree::budget::Charge;
use crate::tree::names::{By, Removal};
use crate::tree::{FileData, Inode};

/// How the tree is to change names for `req`.
pub(super) fn by<'a>(req: &Req<'a>, data: &'a impl FileData) -> By<'a> {
    By {
        caller: req.caller,
        intent: req.intent,
        budget: data.budget(),
    }
}

impl<D: FileData> Shared<D> {
    pub(super) fn symlink(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        target: &CStr,
        reply: Reply<Entry>,
    ) {
        let made = self.tree.symlink(by(req, &self.data), parent, name, target);
        reply.send(self.complete(made));
    }

    pub(super) fn mknod(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        rdev: u32,
        reply: Reply<Entry>,
    ) {
        // The kernel's 32-bit form (`new_encode_dev`) to the C library's.
        let (major, minor) = (
            (rdev >> 8) & 0xfff,
            (rdev & 0xff) | ((rdev >> 12) & 0xfff00),
        );
        let rdev = rustix::fs::makedev(major, minor);
        let by = by(req, &self.data);
        let made = self.tree.mknod(by, parent, name, make, rdev);
        reply.send(self.complete_made(parent, made));
    }

    pub(super) fn mkdir(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        reply: Reply<Entry>,
    ) {
        let made = self.tree.mkdir(by(req, &self.data), parent, name, make);
        reply.send(self.complete_made(parent, made));
    }

    pub(super) fn rename(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        from: (NodeId, &Name),
        to: (NodeId, &Name),
        flags: u32,
        reply: Reply<()>,
    ) {
        let (tree, data) = (&self.tree, &self.data);
        let flags = attempt!(reply, RenameFlags::from_bits(flags).ok_or(Errno::INVAL));
        let from_dir = attempt!(reply, tree.inode(from.0));
        let to_dir = attempt!(reply, tree.inode(to.0));
        let caller = req.caller;
        if attempt!(reply, tree.begin_rename(by(req, data), &from_dir, from.1)) {
            return reply.send(tree.end_whiteout(&caller, flags, &from_dir, from.1));
        }
        let (old, new) = (from.1.as_c_str(), to.1.as_c_str());
        let rename = |more| {
            self.with_whiteout(&caller, flags, (&from_dir, from.1), |flags| {
                renameat_with(&from_dir.fd, old, &to_dir.fd, new, flags | more)
            })
        };
        let no_more = RenameFlags::empty();
        if flags.intersects(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE) {
            return reply.send(rename(no_more));
        }
        let purges = data.budget().purges_in_all();
        match stat_name(&to_dir.fd, to.1) {
            Ok(stat) if data.keeps(tree, &to_dir, to.1, &stat, purges) => {}
            Err(_) if data.keeps_nameless() => {
                match rename(RenameFlags::NOREPLACE) {
                    // Another put a file there meanwhile.
                    Err(Errno::EXIST) => {}
                    result => return reply.send(result),
                }
            }
            _ => return reply.send(rename(no_more)),
        }
        let (old, new) = (old.to_owned(), new.to_owned());
        self.blocking(req, reply, move |fs| {
            let (from, to) = ((&*from_dir, Name::new(&old)?), (&*to_dir, Name::new(&new)?));
            fs.with_whiteout(&caller, flags, from, |flags| {
                fs.data.rename_over(&fs.tree, from, to, flags)
            })
        });
    }

    /// Runs `rename` of `from` with the flags that the kernel is to be given where `caller` asks for
    /// `flags`; a whiteout that they ask for is charged, and left at `from`.
    fn with_whiteout(
        &self,
        caller: &Caller,
        flags: RenameFlags,
        from: (&Inode, &Name),
        rename: impl FnOnce(RenameFlags) -> Result<()>,
    ) -> Result<()> {
        let charge = match flags.contains(RenameFlags::WHITEOUT) {
            true => Charge::take(self.data.budget(), 0)?,
            false => Charge::none(),
        };
        rename(self.tree.begin_whiteout(caller, flags)?)?;
        self.tree.end_whiteout(caller, flags, from.0, from.1)?;
        charge.keep();
        Ok(())
    }

    pub(super) fn link(
        &self,
        req: &mut Req<'_>,
        node: NodeId,
        parent: NodeId,
        name: &Name,
        reply: Reply<Entry>,
    ) {
        let (tree, data) = (&self.tree, &self.data);
        let linked = tree.link(req.intent, node, parent, name, |inode, dir| {
            data.link(tree, inode, dir, name.as_c_str())
        });
        reply.send(self.complete(linked));
    }

    /// Removes a name; with `AtFlags::REMOVEDIR`, an empty directory.
    pub(super) fn remove(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        flags: AtFlags,
        reply: Reply<()>,
    ) {
        let tree = &self.tree;
        let dir = attempt!(reply, tree.inode(parent));
        let wanted = self.data.keeps_nameless();
        let purges = self.data.budget().purges_in_all();
        match attempt!(reply, tree.begin_remove(req.intent, &dir, name, wanted)) {
            Removal::Done { ino } => self.blocking(req, reply, move |fs| {
                fs.data.complete_removal(ino);
                Ok(())
            }),
            Removal::Of(stat) if self.data.keeps(tree, &dir, name, &stat, purges) => {
                let name = name.as_c_str().to_owned();
                self.blocking(req, reply, move |fs| {
                    fs.data.remove(&fs.tree, &dir, Name::new(&name)?, flags)
                });
            }
            Removal::Of(_) | Removal::Unknown => {
                reply.send(unlinkat(&dir.fd, name.as_c_str(), flags))
            }
        }
    }

    /// The answer to what made a name in `parent`.
    fn complete_made(&self, parent: NodeId, entry: Result<Entry>) -> Result<Entry> {
        let entry = entry?;
        match self.data.made(&self.tree, parent, entry.node) {
            Ok(()) => self.complete(Ok(entry)),
            Err(errno) => {
                self.tree.forget(entry.node, 1);
                Err(errno)
            }
        }
    }
}
