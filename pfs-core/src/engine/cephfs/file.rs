//! Open files and directories of a client, and the calls on them.

use std::ffi::{c_int, CStr};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;

use libc::iovec;

use super::ffi::{self, ceph_statx};
use super::inode::Inode;
use super::mount::{check, no_statx, on_inode};
use crate::fs::Result;

/// An open file. Closed on drop, which may take a server's answer where it has locks.
pub struct File {
    pub(super) inode: Arc<Inode>,
    pub(super) ptr: *mut ffi::Fh,
}

// SAFETY: as for an inode.
unsafe impl Send for File {}
// SAFETY: as above.
unsafe impl Sync for File {}

impl Drop for File {
    fn drop(&mut self) {
        let mount = &self.inode.mount;
        if let Ok(_open) = mount.enter() {
            // SAFETY: the file is this owner's, and the client is mounted.
            unsafe { (mount.f.ceph_ll_close)(mount.ptr, self.ptr) };
        }
    }
}

impl File {
    /// Reads at `offset`; answers how much, less than asked for at the end only.
    ///
    /// # Safety
    ///
    /// The memory that `parts` name must be writable for the call.
    pub unsafe fn read(&self, parts: &[iovec], offset: i64) -> Result<u32> {
        let (list, count) = (parts.as_ptr(), parts.len() as c_int);
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_readv)(
            m, self.ptr, list, count, offset
        )))
        .map(|len| len as u32)
    }

    /// Writes at `offset`; answers how much.
    ///
    /// # Safety
    ///
    /// The memory that `parts` name must be readable for the call.
    pub unsafe fn write(&self, parts: &[iovec], offset: i64) -> Result<u32> {
        let (list, count) = (parts.as_ptr(), parts.len() as c_int);
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_writev)(
            m, self.ptr, list, count, offset
        )))
        .map(|len| len as u32)
    }

    /// `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`.
    pub fn seek(&self, offset: i64, whence: c_int) -> Result<u64> {
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_lseek)(
            m, self.ptr, offset, whence
        )))
        .map(|offset| offset as u64)
    }

    /// Makes what was written safe.
    pub fn sync(&self, datasync: bool) -> Result<()> {
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_fsync)(
            m,
            self.ptr,
            datasync.into()
        )))
        .map(drop)
    }

    /// `fallocate(2)`.
    pub fn allocate(&self, mode: c_int, offset: i64, len: i64) -> Result<()> {
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_fallocate)(
            m, self.ptr, mode, offset, len
        )))
        .map(drop)
    }

    /// Finds a lock in the way of `lock`, which then says it.
    pub fn get_lock(&self, lock: &mut libc::flock, owner: u64) -> Result<()> {
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_getlk)(
            m, self.ptr, lock, owner
        )))
        .map(drop)
    }

    /// Sets or drops a lock of `owner`, without waiting for it.
    pub fn set_lock(&self, lock: &mut libc::flock, owner: u64) -> Result<()> {
        check(on_inode!(self.inode, |f, m, _p| (f.ceph_ll_setlk)(
            m, self.ptr, lock, owner, 0
        )))
        .map(drop)
    }
}

/// A directory that is being read. Its position is its own: one call at a time.
pub struct Dir {
    pub(super) inode: Arc<Inode>,
    pub(super) ptr: *mut ffi::ceph_dir_result,
}

// SAFETY: used by one thread at a time, for which `&mut` sees to.
unsafe impl Send for Dir {}

/// An entry of a directory.
pub struct DirItem {
    pub raw: libc::dirent,
    /// The inode and what it is, where that was asked for.
    pub found: Option<(Inode, ceph_statx)>,
}

impl DirItem {
    /// The entry's name.
    pub fn name(&self) -> &CStr {
        // SAFETY: the library ends the name by a NUL inside the array.
        unsafe { CStr::from_ptr(self.raw.d_name.as_ptr()) }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let mount = &self.inode.mount;
        if let Ok(_open) = mount.enter() {
            // SAFETY: the directory is this owner's, and the client is mounted.
            unsafe { (mount.f.ceph_ll_releasedir)(mount.ptr, self.ptr) };
        }
    }
}

impl Dir {
    /// Goes on after the entry with this cookie; 0 is the start.
    pub fn seek(&mut self, cookie: i64) -> Result<()> {
        on_inode!(self.inode, |f, m, _p| (f.ceph_seekdir)(m, self.ptr, cookie));
        Ok(())
    }

    /// The next entry, with its inode if `plus`; none at the end.
    pub fn next(&mut self, plus: bool) -> Result<Option<DirItem>> {
        // SAFETY: plain numbers, for which zeroes are good.
        let mut raw: libc::dirent = unsafe { MaybeUninit::zeroed().assume_init() };
        let (mut ptr, mut stx) = (null_mut(), no_statx());
        let found = check(on_inode!(self.inode, |f, m, _p| match plus {
            true => (f.ceph_readdirplus_r)(
                m,
                self.ptr,
                &mut raw,
                &mut stx,
                ffi::STATX_ALL,
                ffi::NOFOLLOW,
                &mut ptr
            ),
            false => (f.ceph_readdir_r)(m, self.ptr, &mut raw),
        }))?;
        if found == 0 {
            return Ok(None);
        }
        let inode = (!ptr.is_null()).then(|| self.inode.mount.inode(ptr));
        Ok(Some(DirItem {
            raw,
            found: inode.map(|inode| (inode, stx)),
        }))
    }
}
