//! How inodes come to be in mapped mode.
//!
//! What is no directory is made without a name, told what it is, and only then linked: nobody
//! sees it half made, and a crash leaves nothing. A directory cannot be made so. Until it is told
//! what it is, which takes a moment, it is root's alone.

use std::ffi::CStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    fdatasync, fsetxattr, ftruncate, linkat, mkdirat, openat, setxattr, unlinkat, AtFlags, Mode,
    OFlags, XattrFlags,
};

use super::super::attrs::id_of;
use super::super::proc::FdName;
use super::super::xattr_names::Acl;
use super::super::xattrs::read_value;
use super::super::Inode;
use super::acl;
use super::owner::{Owner, NAME, PRIVILEGED_NAME, TARGET_NAME};
use super::{Mapped, New};
use crate::fs::{Errno, Result, SYMLINK_MAX};

/// What a new inode says of itself.
struct Said {
    owner: Owner,
    access: Option<acl::Acl>,
    default: Option<acl::Acl>,
}

impl Said {
    /// What `new` becomes in `dir`, as the kernel's file systems do it: the group of a setgid
    /// directory, its default ACL or else the umask.
    fn of(mapped: &Mapped, dir: &Inode, new: &New) -> Result<Said> {
        let is_dir = new.mode & libc::S_IFMT == libc::S_IFDIR;
        let mut owner = Owner {
            uid: id_of(new.caller.uid)?,
            gid: id_of(new.caller.gid)?,
            mode: new.mode,
            rdev: (rustix::fs::major(new.rdev), rustix::fs::minor(new.rdev)),
        };
        if let Some(parent) = mapped.said(dir.fd.as_fd())? {
            if parent.mode & libc::S_ISGID != 0 {
                owner.gid = parent.gid;
                if is_dir {
                    owner.mode |= libc::S_ISGID;
                }
            }
        }
        let (mut access, mut default) = (None, None);
        if new.mode & libc::S_IFMT != libc::S_IFLNK {
            default = mapped.stored_acl(dir, Acl::Default)?;
            access = default.clone();
            match &mut access {
                Some(acl) => owner.mode = acl.inherit(owner.mode),
                None => owner.mode &= !(new.umask & 0o777),
            }
        }
        Ok(Said {
            owner,
            access: access.filter(|acl| !acl.is_minimal()),
            default: default.filter(|_| is_dir),
        })
    }

    /// Has `set` set each attribute.
    fn attributes(&self, set: impl Fn(&CStr, &[u8]) -> Result<()>) -> Result<()> {
        for (which, acl) in [(Acl::Access, &self.access), (Acl::Default, &self.default)] {
            if let Some(acl) = acl {
                set(which.hidden_name(), &acl.to_bytes())?;
            }
        }
        if self.owner.is_privileged() {
            set(PRIVILEGED_NAME, b"")?;
        }
        // Last: where it is there, all is.
        set(NAME, self.owner.to_string().as_bytes())
    }
}

/// Makes a regular file of the host's without a name, open to read and write, and tells it what
/// it is.
fn told(mapped: &Mapped, dir: &Inode, new: &New, flags: OFlags) -> Result<OwnedFd> {
    let said = Said::of(mapped, dir, new)?;
    mapped.act_as_host()?;
    let flags = flags | OFlags::TMPFILE | OFlags::CLOEXEC;
    let fd = openat(&dir.fd, c".", flags, Mode::from_raw_mode(0o600))?;
    said.attributes(|name, value| fsetxattr(&fd, name, value, XattrFlags::CREATE))?;
    Ok(fd)
}

fn name_it(mapped: &Mapped, fd: &OwnedFd, dir: &Inode, name: &CStr) -> Result<()> {
    let old = FdName::of(fd.as_fd());
    let flags = AtFlags::SYMLINK_FOLLOW;
    linkat(mapped.proc.dir(), old.as_c_str(), &dir.fd, name, flags)
}

/// `fd`, or where `flags` ask for less, another of the same file.
fn opened(mapped: &Mapped, fd: OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    match flags & OFlags::RWMODE {
        OFlags::RDONLY => mapped.proc.open_fd(&fd, flags | OFlags::CLOEXEC),
        _ => Ok(fd),
    }
}

/// Flags that a file without a name can be made with.
fn making(flags: OFlags) -> OFlags {
    match flags & OFlags::RWMODE {
        OFlags::RDONLY => (flags - OFlags::RWMODE) | OFlags::RDWR,
        _ => flags,
    }
}

/// A file of any kind but a directory, named and open with `flags`.
pub(super) fn file(
    mapped: &Mapped,
    dir: &Inode,
    name: &CStr,
    new: &New,
    flags: OFlags,
) -> Result<OwnedFd> {
    let fd = told(mapped, dir, new, making(flags))?;
    name_it(mapped, &fd, dir, name)?;
    opened(mapped, fd, flags)
}

/// A regular file without a name, open with `flags`.
pub(super) fn nameless(mapped: &Mapped, dir: &Inode, new: &New, flags: OFlags) -> Result<OwnedFd> {
    let fd = told(mapped, dir, new, making(flags))?;
    opened(mapped, fd, flags - OFlags::EXCL)
}

/// A symbolic link: a file as long as its target. That is an attribute, which a crash of the host
/// cannot part from the name, as it could content. One that is too long for that is content,
/// synced.
pub(super) fn symlink(
    mapped: &Mapped,
    dir: &Inode,
    name: &CStr,
    target: &CStr,
    new: &New,
) -> Result<()> {
    let fd = told(mapped, dir, new, OFlags::RDWR)?;
    let target = target.to_bytes();
    match fsetxattr(&fd, TARGET_NAME, target, XattrFlags::CREATE) {
        Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => write_target(&fd, target)?,
        kept => kept.and_then(|()| ftruncate(&fd, target.len() as u64))?,
    }
    name_it(mapped, &fd, dir, name)
}

fn write_target(fd: &OwnedFd, mut target: &[u8]) -> Result<()> {
    while !target.is_empty() {
        let written = rustix::io::write(fd, target)?;
        target = target.get(written..).unwrap_or_default();
    }
    fdatasync(fd)
}

/// Reads the target of a symbolic link.
pub(super) fn read_target(mapped: &Mapped, inode: &Inode) -> Result<Vec<u8>> {
    let read = |path: &CStr| read_value(path, TARGET_NAME);
    match mapped.proc.with_path(&inode.fd, read) {
        Err(Errno::NODATA) => {}
        result => return result,
    }
    let fd = mapped
        .proc
        .open_fd(&inode.fd, OFlags::RDONLY | OFlags::CLOEXEC)?;
    let mut target = Vec::new();
    let read = std::fs::File::from(fd)
        .take(SYMLINK_MAX as u64)
        .read_to_end(&mut target);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(target)
}

/// Makes a directory.
pub(super) fn dir(mapped: &Mapped, parent: &Inode, name: &CStr, new: &New) -> Result<()> {
    let said = Said::of(mapped, parent, &made_as(new))?;
    mapped.act_as_host()?;
    mkdirat(&parent.fd, name, Mode::from_raw_mode(0o700))?;
    match tell_dir(mapped, parent, name, &said) {
        // It was made; another has removed it by now, or put something else there.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
        told => told.inspect_err(|_| {
            // To undo: there is nothing to do about a failure.
            let _ = unlinkat(&parent.fd, name, AtFlags::REMOVEDIR);
        }),
    }
}

/// Completes a directory that says nothing of itself.
pub(super) fn complete_dir(mapped: &Mapped, parent: &Inode, name: &CStr, new: &New) -> Result<()> {
    let said = Said::of(mapped, parent, &made_as(new))?;
    match tell_dir(mapped, parent, name, &said) {
        // It is no directory, or a link: another's.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// `mkdir(2)` takes no setuid and setgid.
fn made_as(new: &New) -> New {
    New {
        mode: libc::S_IFDIR | new.mode & 0o1777,
        ..*new
    }
}

/// Tells a directory what it is, unless it knows.
fn tell_dir(mapped: &Mapped, parent: &Inode, name: &CStr, said: &Said) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&parent.fd, name, flags, Mode::empty())?;
    if mapped.said(fd.as_fd())?.is_some() {
        return Ok(());
    }
    mapped.proc.with_path(&fd, |path| {
        said.attributes(
            |name, value| match setxattr(path, name, value, XattrFlags::CREATE) {
                // Another was first to say something of it.
                Err(Errno::EXIST) => Ok(()),
                result => result,
            },
        )
    })
}
