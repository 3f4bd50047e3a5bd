//! The data of open files, and their end.

use std::sync::Arc;

use super::shared::Shared;
use crate::fs::*;
use crate::locks::Whose;
use crate::tree::data::Append;
use crate::tree::{Closing, FileData};

impl<D: FileData> Shared<D> {
    pub(super) fn write(
        &self,
        req: &mut Req<'_>,
        at: At,
        buf: Slices,
        flags: WriteFlags,
        reply: Reply<u32>,
    ) {
        let Some((file, reply)) = self.begin_write(&at, reply) else {
            return;
        };
        if flags.kill_suidgid || self.tree.is_mapped() {
            let inode = attempt!(reply, self.tree.inode(at.node));
            attempt!(reply, self.tree.drop_privileges(&inode, flags.kill_suidgid));
        }
        if !flags.append {
            return self.data.write(req.io, &file, at.offset, buf, reply);
        }
        let append = Append {
            offset: at.offset,
            direct: flags.direct,
            intent: req.intent,
        };
        self.data
            .append(req.io, at.node, &file, &append, buf, reply);
    }

    pub(super) fn flush(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        handle: Handle,
        owner: u64,
        reply: Reply<()>,
    ) {
        let node = attempt!(reply, self.files.node(handle));
        self.unlock_then(req.io, node, Whose::Owner(owner), move |fs, io| {
            let open = attempt!(reply, fs.open_file(handle));
            fs.closing(&open);
            let file = open.file.clone();
            fs.data.flush(io, &file, reply);
        });
    }

    pub(super) fn fallocate(
        &self,
        req: &mut Req<'_>,
        at: At,
        len: u64,
        mode: u32,
        reply: Reply<()>,
    ) {
        let Some((file, reply)) = self.begin_write(&at, reply) else {
            return;
        };
        let end = at
            .offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64);
        let end = attempt!(reply, end.ok_or(Errno::FBIG));
        attempt!(reply, self.changed_by(&req.caller, at.node));
        self.data
            .fallocate(req.io, &file, at.offset..end, mode as i32, reply);
    }

    pub(super) fn lseek(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        at: At,
        whence: u32,
        reply: Reply<u64>,
    ) {
        let file = attempt!(reply, self.file(at.handle));
        self.blocking(req, reply, move |fs| {
            fs.data.lseek(&file, at.offset, whence)
        });
    }

    pub(super) fn copy_file_range(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        from: At,
        to: At,
        len: u64,
        reply: Reply<u32>,
    ) {
        let source = attempt!(reply, self.readable(&from));
        let Some((target, reply)) = self.begin_write(&to, reply) else {
            return;
        };
        attempt!(reply, self.changed_by(&req.caller, to.node));
        self.blocking(req, reply, move |fs| {
            fs.data
                .copy((&source, from.offset), (&target, to.offset), len)
        });
    }

    pub(super) fn release(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        handle: Handle,
        flock_owner: Option<u64>,
        reply: Reply<()>,
    ) {
        let node = attempt!(reply, self.files.node(handle));
        let removed = attempt!(reply, self.files.remove(handle));
        let whose = Whose::Handle {
            handle,
            flock_owner,
        };
        self.unlock_then(req.io, node, whose, move |fs, io| match removed {
            Some(open) => {
                fs.closing(&open);
                // Nothing of it may be left here: the last to let go may have much to do.
                let (inode, flags) = (open.inode.clone(), open.flags & !libc::O_TRUNC);
                let file =
                    Arc::try_unwrap(open).map_or_else(|open| open.file.clone(), |open| open.file);
                let closing = Closing {
                    tree: &fs.tree,
                    inode: &inode,
                    flags: fs.data.open_flags(flags),
                };
                fs.data.close(io, &closing, file, reply);
            }
            None => reply.ok(()),
        });
    }

    /// Drops what `caller`'s change of a file's data drops. The request, unlike a write, does not
    /// say whether setuid and setgid do: as on Linux, for who is not privileged.
    fn changed_by(&self, caller: &Caller, node: NodeId) -> Result<()> {
        let inode = self.tree.inode(node)?;
        self.tree.drop_privileges(&inode, !caller.is_root)
    }
}
