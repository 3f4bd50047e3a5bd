//! Extended attributes as a guest knows them: see [`xattr_names`](super::xattr_names).

use std::ffi::CStr;

use super::xattr_names::{shown, stored, Acl, Stored};
use super::{Inode, Tree};
use crate::fs::{Caller, Errno, IntentLog, Result, SetXattr, XattrName};

impl Tree {
    /// Sets a guest's attribute.
    pub fn set_guest_xattr(
        &self,
        log: Option<&dyn IntentLog>,
        inode: &Inode,
        name: &XattrName,
        value: &[u8],
        how: SetXattr,
    ) -> Result<()> {
        match stored(name, true)? {
            Stored::As(kept) => self
                .set_xattr(log, inode, checked(&kept)?, value, how.flags)
                .map_err(|errno| not_there(errno, name, &kept)),
            Stored::Acl(acl) => self.set_acl(inode, acl, value, how),
        }
    }

    /// Reads a guest's attribute.
    pub fn get_guest_xattr(&self, inode: &Inode, name: &XattrName) -> Result<Vec<u8>> {
        match stored(name, true).map_err(unreadable)? {
            Stored::As(kept) => self.get_xattr(inode, checked(&kept)?),
            Stored::Acl(acl) => match self.get_xattr(inode, checked(acl.name())?) {
                // A guest that keeps ACLs takes any other error for a denial of all access.
                Err(Errno::OPNOTSUPP) => Err(Errno::NODATA),
                result => result,
            },
        }
    }

    /// Removes a guest's attribute.
    pub fn remove_guest_xattr(
        &self,
        log: Option<&dyn IntentLog>,
        inode: &Inode,
        name: &XattrName,
    ) -> Result<()> {
        match stored(name, true).map_err(unreadable)? {
            Stored::As(kept) => self
                .remove_xattr(log, inode, checked(&kept)?)
                .map_err(|errno| not_there(errno, name, &kept)),
            Stored::Acl(acl) => self.remove_xattr(log, inode, checked(acl.name())?),
        }
    }

    /// Lists the names of a guest's attributes, each ended by a NUL.
    pub fn list_guest_xattrs(&self, inode: &Inode, caller: &Caller) -> Result<Vec<u8>> {
        let names = self.list_xattrs(inode)?;
        let mut list = Vec::with_capacity(names.len());
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            if let Some(name) = shown(name, true, caller.is_root) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// Sets an ACL; the host's kernel checks it and makes the mode follow.
    fn set_acl(&self, inode: &Inode, acl: Acl, value: &[u8], how: SetXattr) -> Result<()> {
        self.set_xattr(None, inode, checked(acl.name())?, value, 0)?;
        let kills = how.acl_kill_sgid && acl == Acl::Access;
        match self.attr(inode)?.mode {
            mode if kills && mode & libc::S_ISGID != 0 => self.chmod(inode, mode & !libc::S_ISGID),
            _ => Ok(()),
        }
    }
}

fn checked(name: &CStr) -> Result<&XattrName> {
    XattrName::new(name)
}

/// The volume's own attributes are as if they were not there; only setting one tells.
fn unreadable(errno: Errno) -> Errno {
    match errno {
        Errno::PERM | Errno::RANGE => Errno::NODATA,
        errno => errno,
    }
}

/// Linux has no `user.*` on anything but files and directories. An attribute that is kept as one,
/// but is none to the guest, cannot be kept there.
fn not_there(errno: Errno, name: &XattrName, kept: &CStr) -> Errno {
    match errno {
        Errno::PERM if name.as_c_str() != kept => Errno::OPNOTSUPP,
        errno => errno,
    }
}
