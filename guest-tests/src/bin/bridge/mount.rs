//! `/dev/fuse` and the mount.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Setter};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::error::Error;

/// FUSE_DEV_IOC_CLONE of `linux/fuse.h`.
const FUSE_DEV_IOC_CLONE: rustix::ioctl::Opcode = opcode::read::<u32>(229, 0);

/// Opens `/dev/fuse`, for [`Mount::new`]. Non-blocking.
pub fn open_fuse() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::open("/dev/fuse", flags, Mode::empty()).map_err(Error::OpenFuse)
}

/// Another channel to the connection of `fuse`, which is mounted: what is read from one is
/// answered on the same.
pub fn clone_fuse(fuse: &OwnedFd) -> Result<OwnedFd, Error> {
    let clone = open_fuse()?;
    let number = fuse.as_raw_fd() as u32;
    // SAFETY: the ioctl reads the number of a descriptor from a u32 and changes no memory.
    unsafe {
        let request = Setter::<FUSE_DEV_IOC_CLONE, u32>::new(number);
        ioctl(clone.as_fd(), request).map_err(Error::CloneFuse)?;
    }
    Ok(clone)
}

/// A mount, undone on drop. Whoever drops it has closed the connection before, or still serves it.
#[derive(Debug, Clone)]
pub struct Mount {
    mountpoint: PathBuf,
    /// Tells this mount from others at the same place.
    source: String,
}

impl Mount {
    /// Mounts the connection of `fuse`, as the virtiofs driver mounts its own: for all users, who
    /// are checked by the kernel.
    pub fn new(fuse: &OwnedFd, mountpoint: &Path) -> Result<Mount, Error> {
        let failed = |source| Error::Mountpoint(mountpoint.to_owned(), source);
        let mountpoint = fs::canonicalize(mountpoint).map_err(failed)?;
        if !mountpoint.is_dir() {
            return Err(failed(Errno::NOTDIR.into()));
        }
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            fuse.as_raw_fd()
        );
        let options = CString::new(options).unwrap_or_default();
        let source = format!("bridge-{}", std::process::id());
        let flags = MountFlags::empty();
        rustix::mount::mount(&source, &mountpoint, "fuse.bridge", flags, &*options)
            .map_err(|errno| Error::Mount(mountpoint.clone(), errno))?;
        Ok(Mount { mountpoint, source })
    }

    /// Takes it out of the tree; it ends when the last file in it is closed. Nothing happens if
    /// somebody has done it already.
    pub fn detach(&self) {
        if !self.is_there() {
            return;
        }
        if let Err(errno) = rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH) {
            eprintln!(
                "bridge: cannot unmount {}: {errno}",
                self.mountpoint.display()
            );
        }
    }

    /// Asks no file system: one of them may be this dead one.
    fn is_there(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        mounts
            .lines()
            .any(|line| source_of(line) == Some(&self.source))
    }
}

/// The source in a line of `/proc/PID/mountinfo`: the second word after a lone dash (proc(5)).
fn source_of(line: &str) -> Option<&str> {
    line.split(" - ").nth(1)?.split(' ').nth(1)
}

/// Detaches on drop.
#[derive(Debug)]
pub struct DetachOnDrop(pub Mount);

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        self.0.detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_mount() {
        let line =
            r"98 30 0:45 / /a\040-\040b rw,relatime shared:1 - fuse.bridge bridge-7 rw,user_id=0";
        assert_eq!(source_of(line), Some("bridge-7"));
        assert_eq!(source_of("half a line"), None);
    }
}
