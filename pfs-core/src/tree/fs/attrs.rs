//! Changes of attributes, the size among them.

use std::sync::Arc;

use super::shared::Shared;
use crate::fs::*;
use crate::tree::{FileData, Inode};

impl<D: FileData> Shared<D> {
    pub(super) fn setattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        set: &SetAttr,
        reply: Reply<Attr>,
    ) {
        let inode = attempt!(reply, self.tree.inode(node));
        let mut set = *set;
        if let Some(size) = set.size {
            if attempt!(reply, self.resize(&inode, size, false)) {
                set.size = None;
            }
        }
        if set.size.is_none() {
            match self.set_and_get(&inode, &set, false) {
                // Another daemon changes its owner or mode.
                Err(Errno::AGAIN) => {}
                result => return reply.send(result),
            }
        }
        self.blocking(req, reply, move |fs| {
            if let Some(size) = set.size {
                fs.resize(&inode, size, true)?;
            }
            fs.set_and_get(&inode, &set, true)
        });
    }

    /// Sets the size; unless it may block, only where that cannot. Answers whether it did.
    fn resize(&self, inode: &Inode, size: u64, may_block: bool) -> Result<bool> {
        let done = match inode.file_type {
            libc::S_IFREG if may_block => {
                self.data.truncate(&self.tree, inode, size)?;
                true
            }
            libc::S_IFREG => self.data.truncate_at_once(&self.tree, inode, size)?,
            libc::S_IFDIR => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        };
        if done {
            self.tree.drop_privileges(inode, false)?;
        }
        Ok(done)
    }

    /// Sets all but the size, and answers what the inode then is.
    fn set_and_get(&self, inode: &Inode, set: &SetAttr, may_wait: bool) -> Result<Attr> {
        self.tree.set_attr(inode, set, may_wait)?;
        self.data.attributes_set(&self.tree, inode);
        self.attr(inode)
    }
}
