//! An inode of a client, and the calls on it.

use std::ffi::{c_int, CStr};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;

use libc::mode_t;

use super::ffi::{self, ceph_statx};
use super::file::{Dir, File};
use super::mount::{check, no_statx, on_inode, Mount, Perms, UMASK};
use crate::fs::{Errno, Result};

/// Room for the target of a symbolic link, in bytes.
const LINK_ROOM_BYTES: usize = 4096;

/// An inode, held until this is dropped.
pub struct Inode {
    pub mount: Arc<Mount>,
    pub(super) ptr: *mut ffi::Inode,
}

// SAFETY: an inode is the client's, which locks it.
unsafe impl Send for Inode {}
// SAFETY: as above.
unsafe impl Sync for Inode {}

impl Drop for Inode {
    fn drop(&mut self) {
        if let Ok(_open) = self.mount.enter() {
            // SAFETY: the reference is this owner's, and the client is mounted.
            unsafe { (self.mount.f.ceph_ll_put)(self.mount.ptr, self.ptr) };
        }
    }
}

/// How to make an inode: for whom, with which mode before the umask.
pub struct NewInode<'a> {
    pub name: &'a CStr,
    pub perms: &'a Perms,
    pub mode: mode_t,
    pub umask: mode_t,
}

impl Inode {
    /// What it is: all of `want`, as the cluster has it.
    pub fn stat(&self, want: u32) -> Result<ceph_statx> {
        let mut stx = no_statx();
        check(on_inode!(self, |f, m, p| (f.ceph_ll_getattr)(
            m,
            self.ptr,
            &mut stx,
            want,
            ffi::NOFOLLOW,
            p
        )))?;
        Ok(stx)
    }

    /// Sets the attributes that `mask` names.
    pub fn set(&self, stx: &mut ceph_statx, mask: i32) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_setattr)(
            m, self.ptr, stx, mask, p
        )))
        .map(drop)
    }

    /// An inode, and what it is.
    fn with_stat(
        &self,
        call: impl FnOnce(*mut *mut ffi::Inode, *mut ceph_statx) -> Result<c_int>,
    ) -> Result<(Inode, ceph_statx)> {
        let (mut ptr, mut stx) = (null_mut(), no_statx());
        check(call(&mut ptr, &mut stx)?)?;
        Ok((self.mount.inode(ptr), stx))
    }

    /// The inode `name` in this directory, and what it is.
    pub fn lookup(&self, name: &CStr) -> Result<(Inode, ceph_statx)> {
        self.with_stat(|inode, stx| {
            Ok(on_inode!(self, |f, m, p| (f.ceph_ll_lookup)(
                m,
                self.ptr,
                name.as_ptr(),
                inode,
                stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                p
            )))
        })
    }

    /// Makes a directory in this one.
    pub fn mkdir(&self, new: &NewInode<'_>) -> Result<(Inode, ceph_statx)> {
        UMASK.set(new.umask);
        self.with_stat(|inode, stx| {
            Ok(on_inode!(self, |f, m, _p| (f.ceph_ll_mkdir)(
                m,
                self.ptr,
                new.name.as_ptr(),
                new.mode,
                inode,
                stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                new.perms.ptr
            )))
        })
    }

    /// Makes a file, device, fifo or socket.
    pub fn mknod(&self, new: &NewInode<'_>, rdev: libc::dev_t) -> Result<(Inode, ceph_statx)> {
        UMASK.set(new.umask);
        self.with_stat(|inode, stx| {
            Ok(on_inode!(self, |f, m, _p| (f.ceph_ll_mknod)(
                m,
                self.ptr,
                new.name.as_ptr(),
                new.mode,
                rdev,
                inode,
                stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                new.perms.ptr
            )))
        })
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, new: &NewInode<'_>, target: &CStr) -> Result<(Inode, ceph_statx)> {
        self.with_stat(|inode, stx| {
            Ok(on_inode!(self, |f, m, _p| (f.ceph_ll_symlink)(
                m,
                self.ptr,
                new.name.as_ptr(),
                target.as_ptr(),
                inode,
                stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                new.perms.ptr
            )))
        })
    }

    /// Makes a file in this directory, and opens it; one that exists is opened, unless `flags` have
    /// `O_EXCL`.
    pub fn create(
        &self,
        new: &NewInode<'_>,
        flags: c_int,
    ) -> Result<(Arc<Inode>, File, ceph_statx)> {
        UMASK.set(new.umask);
        let mut file = null_mut();
        let (inode, stx) = self.with_stat(|inode, stx| {
            Ok(on_inode!(self, |f, m, _p| (f.ceph_ll_create)(
                m,
                self.ptr,
                new.name.as_ptr(),
                new.mode,
                flags | libc::O_CREAT,
                inode,
                &mut file,
                stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                new.perms.ptr
            )))
        })?;
        let inode = Arc::new(inode);
        let file = File {
            inode: inode.clone(),
            ptr: file,
        };
        Ok((inode, file, stx))
    }

    /// Opens it.
    pub fn open(self: &Arc<Self>, flags: c_int) -> Result<File> {
        let mut ptr = null_mut();
        check(on_inode!(self, |f, m, p| (f.ceph_ll_open)(
            m, self.ptr, flags, &mut ptr, p
        )))?;
        Ok(File {
            inode: self.clone(),
            ptr,
        })
    }

    /// Opens this directory.
    pub fn open_dir(self: &Arc<Self>) -> Result<Dir> {
        let mut ptr = null_mut();
        check(on_inode!(self, |f, m, p| (f.ceph_ll_opendir)(
            m, self.ptr, &mut ptr, p
        )))?;
        Ok(Dir {
            inode: self.clone(),
            ptr,
        })
    }

    /// Gives `inode` the name `name` in this directory.
    pub fn link(&self, inode: &Inode, name: &CStr) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_link)(
            m,
            inode.ptr,
            self.ptr,
            name.as_ptr(),
            p
        )))
        .map(drop)
    }

    /// Renames `name` in this directory to `new_name` in `to`.
    pub fn rename(&self, name: &CStr, to: &Inode, new_name: &CStr) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_rename)(
            m,
            self.ptr,
            name.as_ptr(),
            to.ptr,
            new_name.as_ptr(),
            p
        )))
        .map(drop)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, name: &CStr) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_unlink)(
            m,
            self.ptr,
            name.as_ptr(),
            p
        )))
        .map(drop)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &CStr) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_rmdir)(
            m,
            self.ptr,
            name.as_ptr(),
            p
        )))
        .map(drop)
    }

    /// The target of a symbolic link.
    pub fn readlink(&self) -> Result<Vec<u8>> {
        let mut target = vec![0u8; LINK_ROOM_BYTES];
        let len = check(on_inode!(self, |f, m, p| (f.ceph_ll_readlink)(
            m,
            self.ptr,
            target.as_mut_ptr().cast(),
            target.len(),
            p
        )))?;
        target.truncate(len as usize);
        Ok(target)
    }

    /// Size and use of the file system, as far as this inode's quota lets them be seen.
    pub fn statfs(&self) -> Result<libc::statvfs> {
        let mut stat = MaybeUninit::zeroed();
        check(on_inode!(self, |f, m, _p| (f.ceph_ll_statfs)(
            m,
            self.ptr,
            stat.as_mut_ptr()
        )))?;
        // SAFETY: plain numbers, zeroed before they were set.
        Ok(unsafe { stat.assume_init() })
    }

    /// Waits until what was changed of it is safe.
    pub fn sync(&self, datasync: bool) -> Result<()> {
        check(on_inode!(self, |f, m, _p| (f.ceph_ll_sync_inode)(
            m,
            self.ptr,
            datasync.into()
        )))
        .map(drop)
    }

    /// The value of an extended attribute.
    pub fn get_xattr(&self, name: &CStr) -> Result<Vec<u8>> {
        let get = |value: &mut [u8]| {
            check(on_inode!(self, |f, m, p| (f.ceph_ll_getxattr)(
                m,
                self.ptr,
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
                p
            )))
        };
        grown(get)
    }

    /// The names of extended attributes, each ended by a NUL.
    pub fn list_xattrs(&self) -> Result<Vec<u8>> {
        grown(|list: &mut [u8]| {
            let mut size = 0;
            check(on_inode!(self, |f, m, p| (f.ceph_ll_listxattr)(
                m,
                self.ptr,
                list.as_mut_ptr().cast(),
                list.len(),
                &mut size,
                p
            )))?;
            Ok(size as i64)
        })
    }

    /// Sets an extended attribute; `flags` as in `setxattr(2)`.
    pub fn set_xattr(&self, name: &CStr, value: &[u8], flags: u32) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_setxattr)(
            m,
            self.ptr,
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            flags as c_int,
            p
        )))
        .map(drop)
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, name: &CStr) -> Result<()> {
        check(on_inode!(self, |f, m, p| (f.ceph_ll_removexattr)(
            m,
            self.ptr,
            name.as_ptr(),
            p
        )))
        .map(drop)
    }
}

/// What `get` puts into a buffer that is large enough for it.
fn grown(get: impl Fn(&mut [u8]) -> Result<i64>) -> Result<Vec<u8>> {
    let mut value = vec![0u8; 256];
    for _ in 0..8 {
        match get(&mut value) {
            Ok(len) if len as usize <= value.len() => {
                value.truncate(len as usize);
                return Ok(value);
            }
            Ok(_) | Err(Errno::RANGE) => {
                let needed = get(&mut [])? as usize;
                value.resize(needed.max(1), 0);
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::RANGE)
}
