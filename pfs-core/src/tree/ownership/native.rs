//! Owners and types as the host's inodes have them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    chmodat, chownat, mkdirat, mknodat, openat, readlinkat, symlinkat, AtFlags, FileType, Gid,
    Mode, OFlags, Uid, XattrFlags,
};

use super::super::attrs::{id_of, stat_fd};
use super::super::creds::Creds;
use super::super::proc::{FdName, ProcFd};
use super::super::thread::Umask;
use super::super::xattr_names::Acl;
use super::super::xattrs::read_value;
use super::super::{Inode, Stat};
use super::owner::without_suidgid;
use super::{New, Ownership};
use crate::fs::{Caller, Result, SetAttr};

/// What [`Native`] needs of the process.
pub(in crate::tree) struct Native {
    creds: Creds,
    proc: ProcFd,
}

impl Native {
    /// Looks at what the process may do.
    pub fn new(proc: ProcFd) -> Native {
        Native {
            creds: Creds::probe(),
            proc,
        }
    }

    /// Makes what this thread makes next the caller's, under their umask. The mode is given
    /// whole: the umask is the kernel's to apply, or a default ACL in its place.
    fn begin(&self, new: &New) -> Result<(Umask, Mode)> {
        self.creds.act_as(&new.caller)?;
        let mode = Mode::from_raw_mode(new.mode & 0o7777);
        Ok((Umask::set(new.umask)?, mode))
    }

    fn chmod(&self, inode: &Inode, mode: u32) -> Result<()> {
        // A link's own mode cannot be changed, and chmod by way of /proc says so.
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let name = FdName::of(inode.fd.as_fd());
        chmodat(self.proc.dir(), name.as_c_str(), mode, AtFlags::empty())
    }
}

impl Ownership for Native {
    fn is_native(&self) -> bool {
        true
    }

    fn complete(&self, _: BorrowedFd<'_>, _: &mut Stat) -> Result<()> {
        Ok(())
    }

    fn make_file(&self, dir: &Inode, name: &CStr, new: &New, flags: OFlags) -> Result<OwnedFd> {
        let (_umask, mode) = self.begin(new)?;
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&dir.fd, name, flags, mode)
    }

    fn make_nameless(&self, dir: &Inode, new: &New, flags: OFlags) -> Result<OwnedFd> {
        let (_umask, mode) = self.begin(new)?;
        openat(
            &dir.fd,
            c".",
            flags | OFlags::TMPFILE | OFlags::CLOEXEC,
            mode,
        )
    }

    fn make_node(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()> {
        let (_umask, mode) = self.begin(new)?;
        let kind = FileType::from_raw_mode(new.mode);
        mknodat(&dir.fd, name, kind, mode, new.rdev)
    }

    fn make_dir(&self, dir: &Inode, name: &CStr, new: &New) -> Result<()> {
        let (_umask, mode) = self.begin(new)?;
        mkdirat(&dir.fd, name, mode)
    }

    fn complete_dir(&self, _: &Inode, _: &CStr, _: &New) -> Result<()> {
        Ok(())
    }

    fn make_symlink(&self, dir: &Inode, name: &CStr, target: &CStr, new: &New) -> Result<()> {
        self.creds.act_as(&new.caller)?;
        symlinkat(target, &dir.fd, name)
    }

    fn read_link(&self, inode: &Inode) -> Result<Vec<u8>> {
        readlinkat(&inode.fd, c"", Vec::new()).map(std::ffi::CString::into_bytes)
    }

    fn prepare_whiteout(&self, caller: &Caller) -> Result<bool> {
        self.creds.act_as(caller).map(|()| true)
    }

    fn set_owner(&self, inode: &Inode, set: &SetAttr, _: bool) -> Result<()> {
        if set.uid.is_some() || set.gid.is_some() {
            let uid = set.uid.map(id_of).transpose()?.map(Uid::from_raw);
            let gid = set.gid.map(id_of).transpose()?.map(Gid::from_raw);
            chownat(&inode.fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        match set.mode {
            Some(mode) => self.chmod(inode, mode),
            None if set.kill_suidgid => self.kill_suidgid(inode),
            None => Ok(()),
        }
    }

    fn kill_suidgid(&self, inode: &Inode) -> Result<()> {
        let mode = stat_fd(&inode.fd)?.attr.mode;
        match without_suidgid(mode) {
            keep if keep == mode => Ok(()),
            keep => self.chmod(inode, keep),
        }
    }

    fn drop_capability(&self, _: &Inode) -> Result<()> {
        Ok(())
    }

    fn acl(&self, inode: &Inode, which: Acl) -> Result<Vec<u8>> {
        self.proc
            .with_path(&inode.fd, |path| read_value(path, which.name()))
    }

    /// The host's kernel checks it and makes the mode follow.
    fn set_acl(
        &self,
        inode: &Inode,
        which: Acl,
        value: Option<&[u8]>,
        kill_sgid: bool,
    ) -> Result<()> {
        self.proc.with_path(&inode.fd, |path| match value {
            Some(value) => rustix::fs::setxattr(path, which.name(), value, XattrFlags::empty()),
            None => rustix::fs::removexattr(path, which.name()),
        })?;
        if kill_sgid && which == Acl::Access {
            let mode = stat_fd(&inode.fd)?.attr.mode;
            if mode & libc::S_ISGID != 0 {
                self.chmod(inode, mode & !libc::S_ISGID)?;
            }
        }
        Ok(())
    }
}
