//! File handles: inodes that are found again without a descriptor (`open_by_handle_at(2)`).

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use rustix::fs::{fstatvfs, openat, Mode, OFlags, StatVfsMountFlags};

use super::proc::last_errno;
use crate::fs::{Errno, Result};
use crate::session::{Identity, IDENTITY_MAX};

/// The mount that a tree's root is on.
pub(super) struct RootMount {
    fd: OwnedFd,
    id: i32,
    flags: StatVfsMountFlags,
}

impl RootMount {
    /// The mount of `root`, if the process may open inodes by their handles and `root` has one.
    pub fn of(root: &OwnedFd) -> Option<RootMount> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(root, ".", flags, Mode::empty()).ok()?;
        let (identity, id) = identity_of(root);
        let mount = RootMount {
            flags: fstatvfs(root).ok()?.f_flag,
            fd,
            id,
        };
        mount.open(&identity, OFlags::PATH).ok()?;
        Some(mount)
    }

    /// The handle of what `fd` refers to; none where it is on a mount of other flags: what is opened
    /// by a handle is on this one, and may be written although the other is read-only.
    pub fn identity_of(&self, fd: impl AsFd) -> Identity {
        let (identity, mount_id) = identity_of(&fd);
        let is_alike = || fstatvfs(&fd).is_ok_and(|stat| stat.f_flag == self.flags);
        match mount_id == self.id || is_alike() {
            true => identity,
            false => Identity::NONE,
        }
    }

    /// Opens the inode that `identity` names: `ESTALE` where it is gone.
    pub fn open(&self, identity: &Identity, flags: OFlags) -> Result<OwnedFd> {
        open_identity(&self.fd, identity, flags)
    }
}

/// `struct file_handle` with room for an [`Identity`], of which 4 bytes are the type.
#[repr(C)]
struct FileHandle {
    handle_bytes: u32,
    handle_type: i32,
    handle: [u8; IDENTITY_MAX - 4],
}

/// The kernel's file handle for what `fd` refers to, and the number of the mount that it is on; none
/// where the file system has none, or one too large for a record.
pub(super) fn identity_of(fd: impl AsFd) -> (Identity, i32) {
    identity_at(fd.as_fd(), c"", libc::AT_EMPTY_PATH)
}

/// As [`identity_of`], for `path` in `dir`, which is not followed.
pub(super) fn identity_at(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> (Identity, i32) {
    let mut handle = FileHandle {
        handle_bytes: (IDENTITY_MAX - 4) as u32,
        handle_type: 0,
        handle: [0; IDENTITY_MAX - 4],
    };
    let mut mount_id = 0;
    // SAFETY: the path ends with NUL; the handle says how much room it has, and the kernel writes
    // no more than that.
    let result = unsafe {
        libc::name_to_handle_at(
            dir.as_raw_fd(),
            path.as_ptr(),
            (&raw mut handle).cast(),
            &mut mount_id,
            flags,
        )
    };
    if result != 0 {
        return (Identity::NONE, 0);
    }
    let mut bytes = [0; IDENTITY_MAX];
    let len = 4 + (handle.handle_bytes as usize).min(handle.handle.len());
    bytes[..4].copy_from_slice(&handle.handle_type.to_le_bytes());
    bytes[4..].copy_from_slice(&handle.handle);
    let identity = Identity::new(&bytes[..len]).unwrap_or(Identity::NONE);
    (identity, mount_id)
}

/// How often, and for how long each time, an inode number that is being given away is waited for.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_micros(50);

/// Opens the inode that `identity` names, on the mount of `mount`: `ESTALE` where it is gone.
fn open_identity(mount: &OwnedFd, identity: &Identity, flags: OFlags) -> Result<OwnedFd> {
    let Some((kind, bytes)) = identity.as_bytes().split_first_chunk::<4>() else {
        return Err(Errno::STALE);
    };
    let mut handle = FileHandle {
        handle_bytes: bytes.len() as u32,
        handle_type: i32::from_le_bytes(*kind),
        handle: [0; IDENTITY_MAX - 4],
    };
    handle.handle[..bytes.len()].copy_from_slice(bytes);
    // The kernel says ENOMEM, too, while the inode number is being given to a new file, and
    // ESTALE as soon as it has been (iget_locked(), I_CREATING).
    let mut tries = 0;
    loop {
        match open_handle(mount, &mut handle, flags) {
            Err(Errno::NOMEM) if tries < BUSY_TRIES => {
                tries += 1;
                thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

/// `open_by_handle_at(2)`.
fn open_handle(mount: &OwnedFd, handle: &mut FileHandle, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // SAFETY: the handle is as long as it says, and the kernel only reads it.
    let fd = unsafe {
        libc::open_by_handle_at(
            mount.as_fd().as_raw_fd(),
            std::ptr::from_mut(handle).cast(),
            flags.bits() as i32,
        )
    };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_being_given_away_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let root = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let Some(mount) = RootMount::of(&root) else {
            return println!("skipped: file handles need CAP_DAC_READ_SEARCH");
        };
        let name = |index: usize| dir.path().join(index.to_string());
        let gone: Vec<Identity> = (0..8)
            .map(|index| {
                let file = OwnedFd::from(std::fs::File::create(name(index)).unwrap());
                std::fs::remove_file(name(index)).unwrap();
                identity_of(&file).0
            })
            .collect();
        thread::scope(|scope| {
            let maker = scope.spawn(|| {
                for index in 0..5_000 {
                    std::fs::File::create(name(index % 8)).unwrap();
                    std::fs::remove_file(name(index % 8)).unwrap();
                }
            });
            while !maker.is_finished() {
                for identity in &gone {
                    let opened = mount.open(identity, OFlags::PATH).map(drop);
                    assert_eq!(opened, Err(Errno::STALE));
                }
            }
        });
    }
}
