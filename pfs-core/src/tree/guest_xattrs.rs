//! Extended attributes as a guest knows them: see [`xattr_names`](super::xattr_names).

use std::ffi::CStr;

use super::xattr_names::{shown, stored, Stored};
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
        match stored(name, self.ownership.is_native())? {
            Stored::As(kept) => {
                may_have(inode, name)?;
                self.set_xattr(log, inode, checked(&kept)?, value, how.flags)
                    .map_err(|errno| not_there(errno, name, &kept))
            }
            Stored::Acl(acl) => {
                let kill_sgid = how.acl_kill_sgid;
                self.ownership.set_acl(inode, acl, Some(value), kill_sgid)
            }
        }
    }

    /// Reads a guest's attribute.
    pub fn get_guest_xattr(&self, inode: &Inode, name: &XattrName) -> Result<Vec<u8>> {
        match stored(name, self.ownership.is_native()).map_err(unreadable)? {
            Stored::As(_) if may_have(inode, name).is_err() => Err(Errno::NODATA),
            Stored::As(kept) => self.get_xattr(inode, checked(&kept)?),
            Stored::Acl(acl) => match self.ownership.acl(inode, acl) {
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
        match stored(name, self.ownership.is_native()).map_err(unreadable)? {
            Stored::As(kept) => {
                may_have(inode, name)?;
                self.remove_xattr(log, inode, checked(&kept)?)
                    .map_err(|errno| not_there(errno, name, &kept))
            }
            Stored::Acl(acl) => self.ownership.set_acl(inode, acl, None, false),
        }
    }

    /// Lists the names of a guest's attributes, each ended by a NUL.
    pub fn list_guest_xattrs(&self, inode: &Inode, caller: &Caller) -> Result<Vec<u8>> {
        let native = self.ownership.is_native();
        let names = self.list_xattrs(inode)?;
        let mut list = Vec::with_capacity(names.len());
        for name in names
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            if let Some(name) = shown(name, native, caller.is_root) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }
}

/// Whether `name` is an ACL's.
pub(super) fn is_acl(name: &XattrName) -> bool {
    matches!(stored(name, true), Ok(Stored::Acl(_)))
}

/// Linux has no `user.*` on anything but files and directories.
fn may_have(inode: &Inode, name: &XattrName) -> Result<()> {
    let plain = matches!(inode.file_type, libc::S_IFREG | libc::S_IFDIR);
    match !plain && name.as_c_str().to_bytes().starts_with(b"user.") {
        true => Err(Errno::PERM),
        false => Ok(()),
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

/// Nor has the host: an attribute that is kept as one, but is none to the guest, cannot be kept
/// there.
fn not_there(errno: Errno, name: &XattrName, kept: &CStr) -> Errno {
    match errno {
        Errno::PERM if name.as_c_str() != kept => Errno::OPNOTSUPP,
        errno => errno,
    }
}
