//! A client of the cluster: what is safe of libcephfs, with [`inode`](super::inode) and
//! [`file`](super::file).
//!
//! Errors are the errnos that libcephfs answers. A call may block for as long as a server is away, so
//! all but the letting go of references is for threads of the [`Calls`](super::calls::Calls).

use std::cell::Cell;
use std::ffi::{c_void, CStr};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use libc::mode_t;

use super::ffi::{self, ceph_mount_info, ceph_statx, vinodeno_t, Functions};
use super::inode::Inode;
use crate::fs::{Errno, Result};

/// How long calls under way may take to end before the client is let go of without them.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

thread_local! {
    /// The umask of the request that this thread works on: the library asks for it where no default
    /// ACL takes its place.
    pub(super) static UMASK: Cell<mode_t> = const { Cell::new(0) };
}

unsafe extern "C" fn umask_of_request(_: *mut c_void) -> mode_t {
    UMASK.get()
}

/// An inode's number: which one, and in which snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vino {
    pub ino: u64,
    pub snap: u64,
}

impl Vino {
    /// `CEPH_NOSNAP`: of no snapshot, but as it is now.
    pub const LIVE: u64 = -2i64 as u64;

    /// Of what a [`ceph_statx`] describes.
    pub fn of(stx: &ceph_statx) -> Vino {
        Vino {
            ino: stx.stx_ino,
            snap: stx.stx_dev,
        }
    }
}

/// Whose request it is, for the library.
pub struct Perms {
    f: &'static Functions,
    pub(super) ptr: *mut ffi::UserPerm,
}

// SAFETY: it is not changed after it was made.
unsafe impl Send for Perms {}
// SAFETY: as above.
unsafe impl Sync for Perms {}

impl Perms {
    /// A user, in no other groups: what that may do, the requester's kernel has checked.
    pub fn new(f: &'static Functions, uid: u32, gid: u32) -> Result<Perms> {
        // SAFETY: no groups are passed.
        let ptr = unsafe { (f.ceph_userperm_new)(uid, gid, 0, null_mut()) };
        match ptr.is_null() {
            true => Err(Errno::NOMEM),
            false => Ok(Perms { f, ptr }),
        }
    }
}

impl Drop for Perms {
    fn drop(&mut self) {
        // SAFETY: it was made by `ceph_userperm_new`, and nobody uses it any more.
        unsafe { (self.f.ceph_userperm_destroy)(self.ptr) };
    }
}

/// A client. Closed, it answers `ENOTCONN`.
pub struct Mount {
    pub(super) f: &'static Functions,
    pub(super) ptr: *mut ceph_mount_info,
    pub(super) root: Perms,
    /// Whether it is mounted. Held by every call for as long as it takes.
    open: RwLock<bool>,
}

// SAFETY: libcephfs locks what its calls share; `open` keeps them from a client that is not mounted.
unsafe impl Send for Mount {}
// SAFETY: as above.
unsafe impl Sync for Mount {}

/// A mount that lets calls through until this is dropped.
pub(super) type Opened<'a> = RwLockReadGuard<'a, bool>;

pub(super) fn check(result: impl Into<i64>) -> Result<i64> {
    match result.into() {
        negative if negative < 0 => Err(Errno::from_raw_os_error(
            i32::try_from(-negative).unwrap_or(libc::EIO),
        )),
        good => Ok(good),
    }
}

pub(super) fn no_statx() -> ceph_statx {
    // SAFETY: plain numbers, for which zeroes are good.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

impl Mount {
    /// A client that is not mounted, as `user` (without `client.`).
    pub fn new(f: &'static Functions, user: &CStr) -> Result<Mount> {
        let mut ptr = null_mut();
        // SAFETY: `ptr` is written to, `user` is read.
        check(unsafe { (f.ceph_create)(&mut ptr, user.as_ptr()) })?;
        Ok(Mount {
            f,
            ptr,
            root: Perms::new(f, 0, 0)?,
            open: RwLock::new(false),
        })
    }

    /// Another client that is not mounted, with the user and the settings of this one, which they go on
    /// sharing.
    pub fn another(&self) -> Result<Mount> {
        let f = self.f;
        let mut ptr = null_mut();
        // SAFETY: the context is the client's; `ptr` is written to, and its client holds the context.
        check(unsafe {
            let context = (f.ceph_get_mount_context)(self.ptr);
            (f.ceph_create_with_context)(&mut ptr, context)
        })?;
        Ok(Mount {
            f,
            ptr,
            root: Perms::new(f, 0, 0)?,
            open: RwLock::new(false),
        })
    }

    /// Takes settings from a `ceph.conf`.
    pub fn read_conf(&self, path: &CStr) -> Result<()> {
        // SAFETY: the client is there, the path is read.
        check(unsafe { (self.f.ceph_conf_read_file)(self.ptr, path.as_ptr()) }).map(drop)
    }

    /// Sets an option of the client.
    pub fn set(&self, option: &CStr, value: &CStr) -> Result<()> {
        // SAFETY: the client is there, the strings are read.
        check(unsafe { (self.f.ceph_conf_set)(self.ptr, option.as_ptr(), value.as_ptr()) })
            .map(drop)
    }

    /// Asks the cluster to let go, at once, of all that the dead client `uuid` held; answers whether
    /// there was any. The client is not mounted yet.
    pub fn reclaim(&self, uuid: &CStr) -> Result<bool> {
        // SAFETY: the client is there, the string is read.
        let begun = unsafe {
            let begun = (self.f.ceph_start_reclaim)(self.ptr, uuid.as_ptr(), ffi::RECLAIM_RESET);
            (self.f.ceph_finish_reclaim)(self.ptr);
            begun
        };
        match check(begun) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Prepares to mount as the client `uuid`, of the file system `fs` or the default one.
    pub fn init(&self, uuid: &CStr, fs: Option<&CStr>) -> Result<()> {
        // SAFETY: the client is there and not mounted, the strings are read.
        unsafe {
            check((self.f.ceph_init)(self.ptr))?;
            if let Some(fs) = fs {
                check((self.f.ceph_select_filesystem)(self.ptr, fs.as_ptr()))?;
            }
            (self.f.ceph_set_uuid)(self.ptr, uuid.as_ptr());
        }
        Ok(())
    }

    /// Mounts `path`, above which the client sees nothing.
    pub fn mount(&self, path: &CStr) -> Result<()> {
        // SAFETY: the client is there, the path is read.
        check(unsafe { (self.f.ceph_mount)(self.ptr, path.as_ptr()) })?;
        // SAFETY: callbacks are plain pointers, for which zeroes say none.
        let mut callbacks: ffi::ceph_client_callback_args =
            unsafe { MaybeUninit::zeroed().assume_init() };
        callbacks.umask_cb = Some(umask_of_request);
        // SAFETY: the structure is read, and its function is there for good.
        unsafe { (self.f.ceph_ll_register_callbacks)(self.ptr, &mut callbacks) };
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = true;
        Ok(())
    }

    /// Lets the cluster know that the client goes. Where calls hang, it is told nothing.
    pub fn close(&self) -> bool {
        let limit = Instant::now() + CLOSE_LIMIT;
        loop {
            if let Ok(mut open) = self.open.try_write() {
                if std::mem::replace(&mut *open, false) {
                    // SAFETY: it is mounted, and no call is under way or begins.
                    unsafe { (self.f.ceph_unmount)(self.ptr) };
                }
                return true;
            }
            if Instant::now() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The library's functions.
    pub fn functions(&self) -> &'static Functions {
        self.f
    }

    /// Keeps it mounted for a call, where it is.
    pub(super) fn enter(&self) -> Result<Opened<'_>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match *open {
            true => Ok(open),
            false => Err(Errno::NOTCONN),
        }
    }

    /// The directory that was mounted.
    pub fn root(self: &Arc<Self>) -> Result<Inode> {
        let _open = self.enter()?;
        let mut ptr = null_mut();
        // SAFETY: the client is mounted, `ptr` is written to.
        check(unsafe { (self.f.ceph_ll_lookup_root)(self.ptr, &mut ptr) })?;
        Ok(self.inode(ptr))
    }

    /// The inode of this number, wherever it is in the file system.
    pub fn find(self: &Arc<Self>, vino: Vino) -> Result<Inode> {
        let _open = self.enter()?;
        let mut ptr = null_mut();
        let vino = vinodeno_t {
            ino: vino.ino,
            snapid: vino.snap,
        };
        // SAFETY: the client is mounted, `ptr` is written to.
        check(unsafe { (self.f.ceph_ll_lookup_vino)(self.ptr, vino, &mut ptr) })?;
        Ok(self.inode(ptr))
    }

    /// Waits until all that was changed is safe.
    pub fn sync(&self) -> Result<()> {
        let _open = self.enter()?;
        // SAFETY: the client is mounted.
        check(unsafe { (self.f.ceph_sync_fs)(self.ptr) }).map(drop)
    }

    /// The inode of which the library has given out a reference.
    pub(super) fn inode(self: &Arc<Self>, ptr: *mut ffi::Inode) -> Inode {
        Inode {
            mount: self.clone(),
            ptr,
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.close() {
            // SAFETY: it is not mounted, and nobody has it any more.
            unsafe { (self.f.ceph_release)(self.ptr) };
        }
    }
}

/// Calls on inodes. Each takes the functions `f`, the client `m` and the root's permissions `p`.
macro_rules! on_inode {
    ($holder:expr, |$f:ident, $m:ident, $p:ident| $call:expr) => {{
        let mount = &$holder.mount;
        let _open = mount.enter()?;
        let ($f, $m, $p) = (mount.f, mount.ptr, mount.root.ptr.cast_const());
        // SAFETY: the client is mounted while `_open` is there; the inode is held by `self`, and all
        // that else is passed outlives the call.
        unsafe { $call }
    }};
}
pub(super) use on_inode;
