//! Owners and types in a hidden attribute: see [`Owner`].

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{getxattr, getxattr_query, readlinkat, removexattr, setxattr, OFlags, XattrFlags};

use super::super::attrs::{id_of, stat_fd};
use super::super::creds::Creds;
use super::super::proc::ProcFd;
use super::super::xattr_names::{Acl, HIDDEN_CAPABILITY};
use super::super::xattrs::read_value;
use super::super::{Inode, Stat};
use super::acl;
use super::lock::{ChangeLocks, Held};
use super::owner::{Owner, NAME, PRIVILEGED_NAME, VALUE_MAX_BYTES};
use super::{make, New, Ownership};
use crate::fs::{Caller, Errno, Result, SetAttr};

/// The error for an attribute that says what cannot be: the inode is damaged.
const DAMAGED: Errno = Errno::UCLEAN;

/// What [`Mapped`] works with.
pub(in crate::tree) struct Mapped {
    pub(super) proc: ProcFd,
    creds: Creds,
    /// Who owns the volume on the host: all that is made shall be theirs, also by root.
    host: Caller,
    locks: ChangeLocks,
}

impl Mapped {
    /// A volume whose root's inode on the host is `root`. `lock_file` is one file for all daemons
    /// of the volume.
    ///
    /// A process that can act for others acts for the volume's owner from here on: so do threads
    /// that it starts later.
    pub fn new(proc: ProcFd, root: &Stat, lock_file: OwnedFd) -> Result<Mapped> {
        let host = Caller {
            uid: root.attr.uid,
            gid: root.attr.gid,
            ..Caller::default()
        };
        let mapped = Mapped {
            proc,
            creds: Creds::probe(),
            host,
            locks: ChangeLocks::new(lock_file),
        };
        mapped.act_as_host()?;
        Ok(mapped)
    }

    /// Makes what this thread makes next the volume owner's.
    pub(super) fn act_as_host(&self) -> Result<()> {
        self.creds.act_as(&self.host)
    }

    fn with_path<T>(&self, inode: &Inode, call: impl FnOnce(&CStr) -> Result<T>) -> Result<T> {
        self.proc.with_path(&inode.fd, call)
    }

    /// What the attribute of the inode behind `fd` says, if there is one.
    fn attribute(&self, fd: BorrowedFd<'_>) -> Result<Option<Owner>> {
        let mut value = [0u8; VALUE_MAX_BYTES];
        let read = |path: &CStr| getxattr(path, NAME, &mut value[..]);
        match self.proc.with_path(fd, read) {
            Ok(len) => value
                .get(..len)
                .and_then(Owner::parse)
                .map(Some)
                .ok_or(DAMAGED),
            Err(Errno::NODATA) => Ok(None),
            Err(Errno::RANGE) => Err(DAMAGED),
            Err(errno) => Err(errno),
        }
    }

    /// What the inode behind `fd` says of itself, if it does.
    pub(super) fn said(&self, fd: BorrowedFd<'_>) -> Result<Option<Owner>> {
        let Some(mut owner) = self.attribute(fd)? else {
            return Ok(None);
        };
        if owner.is_privileged() && !self.proc.with_path(fd, |path| has(path, PRIVILEGED_NAME))? {
            owner.kill_suidgid();
        }
        Ok(Some(owner))
    }

    /// What `inode` is to the guest.
    fn owner(&self, inode: &Inode) -> Result<Owner> {
        match self.said(inode.fd.as_fd())? {
            Some(owner) => Ok(owner),
            None => Ok(Owner::unsaid(&stat_fd(&inode.fd)?)),
        }
    }

    /// Makes of `inode`, which is `before`, what `after` says. With `grants`, privileges that it
    /// has afterwards are in force, whoever dropped them meanwhile.
    ///
    /// Privileges go before an owner comes, and come after their mode is there: in between the
    /// inode has never more than before or after.
    fn say(
        &self,
        _held: &Held<'_>,
        inode: &Inode,
        before: &Owner,
        after: &Owner,
        grants: bool,
    ) -> Result<()> {
        let value = after.to_string();
        self.with_path(inode, |path| {
            if !after.is_privileged() {
                remove(path, PRIVILEGED_NAME)?;
            }
            setxattr(path, NAME, value.as_bytes(), XattrFlags::empty())?;
            if after.is_privileged() && (grants || !before.is_privileged()) {
                setxattr(path, PRIVILEGED_NAME, b"", XattrFlags::empty())?;
            }
            Ok(())
        })
    }

    /// Changes owner and mode.
    fn change(&self, held: &Held<'_>, inode: &Inode, set: &SetAttr) -> Result<()> {
        let before = self.owner(inode)?;
        let mut owner = before;
        if let Some(mode) = set.mode {
            if inode.file_type == libc::S_IFLNK {
                return Err(Errno::OPNOTSUPP);
            }
            owner.mode = owner.mode & !0o7777 | mode & 0o7777;
        }
        owner.uid = set.uid.map_or(Ok(owner.uid), id_of)?;
        owner.gid = set.gid.map_or(Ok(owner.gid), id_of)?;
        let is_file = inode.file_type != libc::S_IFDIR;
        let given = is_file && (set.uid.is_some() || set.gid.is_some());
        if set.mode.is_none() && (given || set.kill_suidgid) && is_file {
            owner.kill_suidgid();
        }
        if set.mode.is_some() {
            self.chmod_acl(inode, owner.mode)?;
        }
        if given {
            self.drop_capability(inode)?;
        }
        self.say(held, inode, &before, &owner, set.mode.is_some())
    }

    fn chmod_acl(&self, inode: &Inode, mode: u32) -> Result<()> {
        let Some(mut acl) = self.stored_acl(inode, Acl::Access)? else {
            return Ok(());
        };
        acl.chmod(mode);
        self.store_acl(inode, Acl::Access, Some(&acl))
    }

    pub(super) fn stored_acl(&self, inode: &Inode, which: Acl) -> Result<Option<acl::Acl>> {
        match self.with_path(inode, |path| read_value(path, which.hidden_name())) {
            Ok(value) => acl::Acl::parse(&value).map_err(|_| DAMAGED),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn store_acl(&self, inode: &Inode, which: Acl, acl: Option<&acl::Acl>) -> Result<()> {
        let name = which.hidden_name();
        self.with_path(inode, |path| match acl {
            Some(acl) => setxattr(path, name, &acl.to_bytes(), XattrFlags::empty()),
            None => remove(path, name),
        })
    }

    fn set_access_acl(&self, inode: &Inode, acl: Option<acl::Acl>, kill_sgid: bool) -> Result<()> {
        let held = self.locks.hold(inode.ino)?;
        let before = self.owner(inode)?;
        let mut owner = before;
        if let Some(acl) = &acl {
            owner.mode = acl.mode(owner.mode);
        }
        if kill_sgid {
            owner.mode &= !libc::S_ISGID;
        }
        // What a mode says is not said twice.
        let acl = acl.filter(|acl| !acl.is_minimal());
        self.store_acl(inode, Acl::Access, acl.as_ref())?;
        self.say(&held, inode, &before, &owner, false)
    }
}

/// Whether the inode at `path` has attribute `name`.
fn has(path: &CStr, name: &CStr) -> Result<bool> {
    match getxattr_query(path, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes attribute `name` of the inode at `path`, if it has it.
fn remove(path: &CStr, name: &CStr) -> Result<()> {
    match removexattr(path, name) {
        Err(Errno::NODATA) => Ok(()),
        result => result,
    }
}

impl Ownership for Mapped {
    fn is_native(&self) -> bool {
        false
    }

    fn complete(&self, fd: BorrowedFd<'_>, stat: &mut Stat) -> Result<()> {
        let owner = self.said(fd)?;
        let owner = owner.unwrap_or_else(|| Owner::unsaid(stat));
        *stat = owner.complete(*stat);
        Ok(())
    }

    fn make_file(&self, dir: &Inode, name: &CStr, new: &New, flags: OFlags) -> Result<OwnedFd> {
        make::file(self, dir, name, new, flags)
    }

    fn make_nameless(&self, dir: &Inode, new: &New, flags: OFlags) -> Result<OwnedFd> {
        make::nameless(self, dir, new, flags)
    }

    fn make_node(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()> {
        make::file(self, dir, name, new, OFlags::RDWR).map(drop)
    }

    fn make_dir(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()> {
        make::dir(self, dir, name, new)
    }

    fn complete_dir(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()> {
        make::complete_dir(self, dir, name, new)
    }

    fn make_symlink(&self, dir: &Inode, name: &CStr, target: &CStr, new: &New) -> Result<()> {
        make::symlink(self, dir, name, target, new)
    }

    fn read_link(&self, inode: &Inode) -> Result<Vec<u8>> {
        let host = stat_fd(&inode.fd)?;
        if host.file_type() == libc::S_IFLNK {
            // The host put it there.
            return readlinkat(&inode.fd, c"", Vec::new()).map(std::ffi::CString::into_bytes);
        }
        make::read_target(self, inode)
    }

    fn prepare_whiteout(&self, _: &Caller) -> Result<bool> {
        Ok(false)
    }

    fn set_owner(&self, inode: &Inode, set: &SetAttr, may_wait: bool) -> Result<()> {
        let asked = set.uid.is_some() || set.gid.is_some() || set.mode.is_some();
        if !asked && !set.kill_suidgid {
            return Ok(());
        }
        let held = match may_wait {
            true => self.locks.hold(inode.ino)?,
            false => self.locks.try_hold(inode.ino)?,
        };
        self.change(&held, inode, set)
    }

    fn kill_suidgid(&self, inode: &Inode) -> Result<()> {
        let owner = self.attribute(inode.fd.as_fd())?;
        match owner.is_some_and(|owner| owner.is_privileged()) {
            true => self.with_path(inode, |path| remove(path, PRIVILEGED_NAME)),
            false => Ok(()),
        }
    }

    fn drop_capability(&self, inode: &Inode) -> Result<()> {
        // Looking is cheaper than removing, also where there is nothing to remove.
        self.with_path(inode, |path| match has(path, HIDDEN_CAPABILITY)? {
            true => remove(path, HIDDEN_CAPABILITY),
            false => Ok(()),
        })
    }

    fn acl(&self, inode: &Inode, which: Acl) -> Result<Vec<u8>> {
        self.with_path(inode, |path| read_value(path, which.hidden_name()))
    }

    fn set_acl(
        &self,
        inode: &Inode,
        which: Acl,
        value: Option<&[u8]>,
        kill_sgid: bool,
    ) -> Result<()> {
        if inode.file_type == libc::S_IFLNK {
            return Err(Errno::OPNOTSUPP);
        }
        let acl = value.map(acl::Acl::parse).transpose()?.flatten();
        match which {
            Acl::Access => self.set_access_acl(inode, acl, kill_sgid),
            Acl::Default if inode.file_type == libc::S_IFDIR => {
                self.store_acl(inode, which, acl.as_ref())
            }
            Acl::Default if acl.is_some() => Err(Errno::ACCESS),
            Acl::Default => Ok(()),
        }
    }
}
