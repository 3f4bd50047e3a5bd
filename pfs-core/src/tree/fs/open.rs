//! Opening and creating files.

use std::sync::Arc;

use super::names::by;
use super::shared::{OpenFile, Shared};
use crate::fs::*;
use crate::tree::names::{CreatedFile, Opens};
use crate::tree::{FileData, Inode, Opening};

impl<D: FileData> Shared<D> {
    pub(super) fn open(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        how: OpenFlags,
        reply: Reply<Opened>,
    ) {
        let inode = attempt!(reply, self.tree.inode(node));
        let at_once = how.flags & libc::O_TRUNC == 0;
        self.run(req, at_once, reply, move |fs| fs.open_inode(&inode, how));
    }

    pub(super) fn create(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        how: OpenFlags,
        reply: Reply<Created>,
    ) {
        let how = OpenFlags {
            flags: how.widened(),
            ..how
        };
        let (by, opens) = (by(req, &self.data), self.opens(how.flags));
        let made = self.tree.create(by, parent, name, make, opens);
        let made = attempt!(reply, made);
        // A file found with data in it may take long to truncate.
        let at_once = how.flags & libc::O_TRUNC == 0 || made.entry.attr.size == 0;
        self.run(req, at_once, reply, move |fs| fs.created(made, how));
    }

    pub(super) fn tmpfile(
        &self,
        req: &mut Req<'_>,
        parent: NodeId,
        make: &Make,
        flags: i32,
        reply: Reply<Created>,
    ) {
        let data = &self.data;
        // Or the engine sees to it that it can never be given a name.
        let excl = flags & libc::O_EXCL != 0 && !data.keeps_nameless();
        let tree = &self.tree;
        let made = tree.tmpfile(by(req, data), parent, make, excl, self.opens(flags));
        reply.send(made.and_then(|made| {
            let created = self.created(made, (flags | libc::O_TMPFILE).into());
            // Without a name, what is not open is gone.
            let mut created = created.inspect_err(|_| data.budget().release_inode(0))?;
            let inode = tree.inode(created.entry.node)?;
            if let Err(errno) = data.keep_nameless(tree, &inode) {
                log::debug!("a file without a name will not outlive the daemon: {errno}");
            }
            created.entry.attr = self.attr(&inode)?;
            Ok(created)
        }));
    }

    fn opens(&self, flags: i32) -> Opens {
        Opens {
            flags,
            fd_flags: self.data.open_flags(flags),
            keeps_fd: self.data.keeps_made_fd(),
        }
    }

    /// Gives out a handle of what was opened; `how.flags` are those that it was opened with.
    fn opened(&self, inode: &Arc<Inode>, opening: Opening, how: OpenFlags) -> Result<Opened> {
        let flags = how.flags;
        let file = Arc::new(self.data.open(&self.tree, inode, opening)?);
        let version = how.cached.then(|| self.tree.version(inode)).flatten();
        let keep_cache = version.is_some_and(|version| inode.is_cached(&version));
        let open = OpenFile {
            inode: inode.clone(),
            flags,
            version,
            file,
        };
        let handle = self.files.insert(inode.node, flags, open)?;
        Ok(Opened { handle, keep_cache })
    }

    fn open_inode(&self, inode: &Arc<Inode>, mut how: OpenFlags) -> Result<Opened> {
        let wide = how.widened();
        let opening = match self.opening(inode, wide) {
            // This process may write it, but not read it.
            Err(Errno::ACCESS) if wide != how.flags => self.opening(inode, how.flags)?,
            opening => {
                how.flags = wide;
                opening?
            }
        };
        self.truncate_opened(inode, how)?;
        self.opened(inode, opening, how)
    }

    /// A descriptor of `inode` for `flags`: a parked one, or a new one.
    fn opening(&self, inode: &Inode, flags: i32) -> Result<Opening> {
        let open_flags = self.data.open_flags(flags);
        let (fd, named_at) = match self.tree.unpark(inode, open_flags) {
            Some(parked) => (parked.fd, parked.named_at),
            None => (self.tree.reopen(inode, open_flags)?.into(), None),
        };
        Ok(Opening {
            fd,
            flags,
            named_at,
        })
    }

    fn truncate_opened(&self, inode: &Arc<Inode>, how: OpenFlags) -> Result<()> {
        if how.flags & libc::O_TRUNC != 0 {
            self.data.truncate(&self.tree, inode, 0)?;
            self.tree.drop_privileges(inode, how.kill_suidgid)?;
        }
        Ok(())
    }

    /// The answer to a create: what was taken on the way is given back on failure.
    fn created(&self, made: CreatedFile, how: OpenFlags) -> Result<Created> {
        let mut entry = made.entry;
        let opened = self.tree.inode(entry.node).and_then(|inode| {
            if let Some(parent) = made.made_in {
                inode.was_made();
                self.data.made(&self.tree, parent, entry.node)?;
            }
            if made.made_in.is_none() && how.flags & libc::O_TRUNC != 0 {
                self.truncate_opened(&inode, how)?;
                entry.attr = self.attr(&inode)?;
            } else {
                self.data
                    .complete_attr(&self.tree, entry.node, &mut entry.attr);
            }
            let opening = Opening {
                fd: made.fd,
                flags: how.flags,
                named_at: made.named_at,
            };
            self.opened(&inode, opening, how)
        });
        match opened {
            Ok(opened) => Ok(Created { entry, opened }),
            Err(errno) => {
                self.tree.forget(entry.node, 1);
                Err(errno)
            }
        }
    }
}
