//! Extended attributes: the guest's own, ACLs of a mapped tree, and those that the engine answers.

use std::sync::Arc;

use super::shared::Shared;
use crate::fs::*;
use crate::tree::guest_xattrs::is_acl;
use crate::tree::{FileData, Inode, XattrChange};

impl<D: FileData> Shared<D> {
    pub(super) fn setxattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        value: &[u8],
        how: SetXattr,
        reply: Reply<()>,
    ) {
        if self.data.is_virtual_xattr(name) {
            return self.change_virtual_xattr(req, node, name, (Some(value), how.flags), reply);
        }
        let inode = attempt!(reply, self.tree.inode(node));
        let tree = &self.tree;
        if tree.is_mapped() && is_acl(name) {
            return self.change_acl(req, inode, name, Some((value, how)), reply);
        }
        let set = tree.set_guest_xattr(req.intent, &inode, name, value, how);
        self.data.attributes_set(tree, &inode);
        reply.send(set);
    }

    pub(super) fn getxattr(&self, node: NodeId, name: &XattrName, reply: Reply<Vec<u8>>) {
        let inode = attempt!(reply, self.tree.inode(node));
        if self.data.is_virtual_xattr(name) {
            return reply.send(self.data.get_virtual_xattr(&self.tree, &inode, name));
        }
        reply.send(self.tree.get_guest_xattr(&inode, name));
    }

    pub(super) fn listxattr(&self, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        let inode = attempt!(reply, self.tree.inode(node));
        reply.send(self.tree.list_guest_xattrs(&inode, &req.caller));
    }

    pub(super) fn removexattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        reply: Reply<()>,
    ) {
        if self.data.is_virtual_xattr(name) {
            return self.change_virtual_xattr(req, node, name, (None, 0), reply);
        }
        let inode = attempt!(reply, self.tree.inode(node));
        let tree = &self.tree;
        if tree.is_mapped() && is_acl(name) {
            return self.change_acl(req, inode, name, None, reply);
        }
        reply.send(tree.remove_guest_xattr(req.intent, &inode, name));
    }

    /// Sets or removes an ACL in a mapped tree.
    fn change_acl(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        inode: Arc<Inode>,
        name: &XattrName,
        to: Option<(&[u8], SetXattr)>,
        reply: Reply<()>,
    ) {
        // Again is as once: there is no intent to keep.
        let (name, to) = (
            name.as_c_str().to_owned(),
            to.map(|(v, how)| (v.to_vec(), how)),
        );
        self.blocking(req, reply, move |fs| {
            let name = XattrName::new(&name)?;
            match to {
                Some((value, how)) => fs.tree.set_guest_xattr(None, &inode, name, &value, how),
                None => fs.tree.remove_guest_xattr(None, &inode, name),
            }
        });
    }

    /// Sets (`to` is a value and flags) or removes an attribute that the engine answers itself.
    fn change_virtual_xattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        to: (Option<&[u8]>, u32),
        reply: Reply<()>,
    ) {
        let inode = attempt!(reply, self.tree.inode(node));
        let by = (req.caller, req.intent);
        let change = attempt!(reply, XattrChange::new(by, &inode, name, to.0, to.1));
        self.blocking(req, reply, move |fs| {
            fs.data.change_virtual_xattr(&fs.tree, &inode, &change)
        });
    }
}
