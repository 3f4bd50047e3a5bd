//! Extended attributes: the guest's own, ACLs, layouts, and what CephFS tells.
//!
//! | guest | CephFS |
//! | --- | --- |
//! | `user.*`, `trusted.*`, `security.*` | as they are, but for `user.pfs.*` |
//! | `system.posix_acl_access`, `_default` | as they are |
//! | `user.pfs.layout`, `user.pfs.layout.*` | see [`layout`](super::layout) |
//! | `ceph.dir.*`, `ceph.file.*`, `ceph.quota*`, `ceph.snap.*` | as they are, to read only |
//!
//! Of other names a guest has none. What the operator has set (quotas, pins) it cannot change.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::attr::to_set;
use super::calls::Kind;
use super::ffi::STATX_ALL;
use super::layout::{self, Part};
use super::nodes::Node;
use super::shared::Shared;
use crate::fs::intent::begin_making;
use crate::fs::*;

const ACL_ACCESS: &CStr = c"system.posix_acl_access";
const ACL_DEFAULT: &CStr = c"system.posix_acl_default";
/// What CephFS tells of an inode, and a guest may know.
const TOLD: [&[u8]; 4] = [b"ceph.dir.", b"ceph.file.", b"ceph.quota", b"ceph.snap."];

/// What a name stands for.
enum Name<'a> {
    Own(&'a CStr),
    Layout(Part),
    Told(&'a CStr),
}

fn parse(name: &CStr) -> Result<Name<'_>> {
    let bytes = name.to_bytes();
    if let Some(part) = Part::of(bytes) {
        return Ok(Name::Layout(part));
    }
    if bytes.starts_with(b"user.pfs.") {
        return Err(Errno::PERM);
    }
    if TOLD.iter().any(|told| bytes.starts_with(told)) {
        return Ok(Name::Told(name));
    }
    let own = [&b"user."[..], b"trusted.", b"security."];
    let is_own = own.iter().any(|own| bytes.starts_with(own));
    match is_own || name == ACL_ACCESS || name == ACL_DEFAULT {
        true => Ok(Name::Own(name)),
        false => Err(Errno::OPNOTSUPP),
    }
}

impl Shared {
    pub fn setxattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        value: &[u8],
        how: SetXattr,
        reply: Reply<()>,
    ) {
        let change = Change::new(req, name);
        let value = value.to_vec();
        self.call(Kind::Xattr, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            match parse(&change.name)? {
                Name::Told(_) => Err(Errno::PERM),
                Name::Layout(part) => {
                    change.check_owner(&node)?;
                    layout::set(&node, part, &value)
                }
                Name::Own(name) => {
                    change.set(&node, name, &value, how.flags)?;
                    match how.acl_kill_sgid && name == ACL_ACCESS {
                        true => drop_sgid(&node),
                        false => Ok(()),
                    }
                }
            }
        });
    }

    pub fn getxattr(self: &Arc<Self>, node: NodeId, name: &XattrName, reply: Reply<Vec<u8>>) {
        let name = name.as_c_str().to_owned();
        self.call(Kind::Xattr, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            match parse(&name) {
                Ok(Name::Own(name) | Name::Told(name)) => match node.inode.get_xattr(name) {
                    // A guest that keeps ACLs takes any other error for a denial of all access.
                    Err(Errno::OPNOTSUPP) => Err(Errno::NODATA),
                    result => result,
                },
                Ok(Name::Layout(part)) => layout::get(&node, part),
                Err(Errno::PERM) => Err(Errno::NODATA),
                Err(errno) => Err(errno),
            }
        });
    }

    pub fn listxattr(self: &Arc<Self>, req: &mut Req<'_>, node: NodeId, reply: Reply<Vec<u8>>) {
        let is_root = req.caller.is_root;
        self.call(Kind::Xattr, reply, move |fs| {
            let all = fs.nodes.get(node)?.inode.list_xattrs()?;
            let mut list = Vec::with_capacity(all.len());
            let names = all.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            for name in names.filter(|name| is_listed(name, is_root)) {
                list.extend_from_slice(name);
                list.push(0);
            }
            Ok(list)
        });
    }

    pub fn removexattr(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        node: NodeId,
        name: &XattrName,
        reply: Reply<()>,
    ) {
        let change = Change::new(req, name);
        self.call(Kind::Xattr, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            match parse(&change.name) {
                Ok(Name::Own(name)) => change.remove(&node, name),
                Ok(Name::Layout(part)) => {
                    change.check_owner(&node)?;
                    layout::remove(&node, part)
                }
                Ok(Name::Told(_)) => Err(Errno::PERM),
                Err(Errno::PERM) => Err(Errno::NODATA),
                Err(errno) => Err(errno),
            }
        });
    }
}

/// Whether a guest is told of an attribute. Unprivileged users do not see `trusted.*`, as on Linux's own
/// file systems.
fn is_listed(name: &[u8], is_root: bool) -> bool {
    let Ok(c_name) = CString::new(name) else {
        return false;
    };
    let hidden = !is_root && name.starts_with(b"trusted.");
    !hidden && matches!(parse(&c_name), Ok(Name::Own(_)))
}

/// A change of an attribute.
struct Change {
    name: CString,
    caller: Caller,
    log: Option<Box<dyn IntentLog + Send>>,
}

impl Change {
    fn new(req: &Req<'_>, name: &XattrName) -> Change {
        Change {
            name: name.as_c_str().to_owned(),
            caller: req.caller,
            log: req.intent.map(IntentLog::keep),
        }
    }

    fn check_owner(&self, node: &Node) -> Result<()> {
        let owns = self.caller.is_root || node.inode.stat(STATX_ALL)?.stx_uid == self.caller.uid;
        owns.then_some(()).ok_or(Errno::PERM)
    }

    fn set(&self, node: &Node, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        let creates = flags & libc::XATTR_CREATE as u32 != 0;
        let log = self.log.as_deref().filter(|_| creates);
        let may_be_ours = begin_making(log.map(|log| log as _), || {
            node.inode.get_xattr(name) == Err(Errno::NODATA)
        });
        match node.inode.set_xattr(name, value, flags) {
            Err(Errno::EXIST) if may_be_ours => Ok(()),
            result => result,
        }
    }

    fn remove(&self, node: &Node, name: &CStr) -> Result<()> {
        let tried = self.log.as_deref().is_some_and(|log| {
            let tried = log.replayed().is_some();
            log.record(Intent::Victim { ino: node.vino.ino });
            tried
        });
        match node.inode.remove_xattr(name) {
            Err(Errno::NODATA) if tried => Ok(()),
            result => result,
        }
    }
}

/// Drops setgid, as it must be where an ACL's setter is not of the group.
fn drop_sgid(node: &Node) -> Result<()> {
    let mode = u32::from(node.inode.stat(STATX_ALL)?.stx_mode);
    if mode & libc::S_ISGID == 0 {
        return Ok(());
    }
    let (mut stx, mask) = to_set(&SetAttr {
        mode: Some(mode & !libc::S_ISGID),
        ..SetAttr::default()
    });
    node.inode.set(&mut stx, mask)
}
