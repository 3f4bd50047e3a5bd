//! What the process may still reach once it serves.
//!
//! | `--sandbox` | file names | network, IPC | capabilities |
//! | --- | --- | --- | --- |
//! | `namespace` | an empty root of its own | its own, empty; the host's network for `cephfs` | only [those needed](Needs) |
//! | `chroot` | the volume's folder | the host's | only those needed |
//! | `none` | the host's | the host's | its user's |
//!
//! Under `namespace` the volume's descriptors are of mounts of their own ([`Sandbox::confine`]),
//! which even `..` does not leave. What is not there yet: a user and a PID namespace, and a
//! filter of system calls. So a daemon taken over by its guest still can ask the kernel for
//! anything that needs no name, and by file handle for any file of the volume's file systems.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability, CapsHashSet};
use pfs_core::volume::{Descriptor, Engine, Ownership};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    mount, mount_change, mount_remount, open_tree, unmount, MountFlags, MountPropagationFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::{unshare_unsafe, UnshareFlags};

pub use crate::cli::Sandbox as Kind;

/// What an engine needs; all else is given up.
pub struct Needs {
    capabilities: &'static [Capability],
    network: bool,
}

impl Needs {
    /// What serving such a volume takes.
    pub fn of(volume: &Descriptor) -> Needs {
        let capabilities: &[Capability] = match (&volume.engine, volume.ownership) {
            (Engine::Cephfs(_) | Engine::Null, _) => &[],
            (_, Ownership::Native) => &TO_ACT_FOR_USERS,
            (_, Ownership::Mapped) => &TO_FIND_INODES,
        };
        Needs {
            capabilities,
            network: matches!(volume.engine, Engine::Cephfs(_)),
        }
    }
}

/// Finding inodes again by file handle.
const TO_FIND_INODES: [Capability; 1] = [Capability::CAP_DAC_READ_SEARCH];

/// Also acting for a guest's users.
const TO_ACT_FOR_USERS: [Capability; 9] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
];

/// The sandbox cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "--sandbox {kind} needs root ({missing:?}): start the daemon as root, or with \
         --sandbox none, which lets it reach whatever its user can"
    )]
    NeedsRoot {
        kind: &'static str,
        missing: Capability,
    },
    #[error("cannot make the sandbox: cannot {doing} (try another --sandbox: chroot or none)")]
    Step {
        doing: &'static str,
        #[source]
        source: Errno,
    },
    #[error("cannot make the sandbox: cannot give up capabilities: {0}")]
    Caps(String),
    #[error("cannot make the sandbox: cannot enter {path} (try another --sandbox)")]
    Root {
        path: PathBuf,
        #[source]
        source: Errno,
    },
}

fn step(doing: &'static str) -> impl FnOnce(Errno) -> Error {
    move |source| Error::Step { doing, source }
}

/// A sandbox on its way: prepared, entered, sealed, in that order, before any thread starts.
pub struct Sandbox {
    kind: Kind,
}

impl Sandbox {
    /// Checks that this user may have such a sandbox.
    pub fn prepare(kind: Kind) -> Result<Sandbox, Error> {
        let (name, needed) = match kind {
            Kind::None => return Ok(Sandbox { kind }),
            Kind::Chroot => ("chroot", Capability::CAP_SYS_CHROOT),
            Kind::Namespace => ("namespace", Capability::CAP_SYS_ADMIN),
        };
        for missing in [needed, Capability::CAP_SETPCAP] {
            if !caps::has_cap(None, CapSet::Effective, missing).unwrap_or(false) {
                return Err(Error::NeedsRoot {
                    kind: name,
                    missing,
                });
            }
        }
        Ok(Sandbox { kind })
    }

    /// Leaves the host's mounts and IPC. Paths stay as they are until [`Sandbox::seal`].
    pub fn enter(&self) -> Result<(), Error> {
        if self.kind != Kind::Namespace {
            return Ok(());
        }
        unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC)
            .map_err(step("leave the host's mounts"))?;
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .map_err(step("part from the host's mounts"))
    }

    /// The directory `dir`, opened after [`Sandbox::enter`], as the root of a mount of its own:
    /// no path from it leads out of it.
    pub fn confine(&self, dir: impl AsFd) -> Result<OwnedFd, Error> {
        let doing = "open a directory of the volume again";
        if self.kind != Kind::Namespace {
            return reopen(dir.as_fd()).map_err(step(doing));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(dir.as_fd(), c"", flags)
            .map_err(step("give a directory a mount of its own"))?;
        reopen(tree.as_fd()).map_err(step(doing))
    }

    /// Gives up all paths but those below descriptors, and what is not among `needs`. `root` is a
    /// directory to be the root, or to be it for a moment.
    pub fn seal(self, root: &Path, needs: &Needs) -> Result<(), Error> {
        match self.kind {
            Kind::None => return no_new_privileges(),
            Kind::Chroot => {
                rustix::process::chroot(root)
                    .and_then(|()| rustix::process::chdir("/"))
                    .map_err(|source| Error::Root {
                        path: root.into(),
                        source,
                    })?;
            }
            Kind::Namespace => {
                if !needs.network {
                    unshare(UnshareFlags::NEWNET).map_err(step("leave the host's network"))?;
                }
                empty_root(root)?;
            }
        }
        keep_only(needs.capabilities)?;
        no_new_privileges()
    }
}

fn reopen(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::empty())
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: no descriptor table is unshared, and no other thread runs yet.
    unsafe { unshare_unsafe(flags) }
}

/// Replaces the root by an empty, read-only directory, which in this mount namespace covers
/// `over` first.
fn empty_root(over: &Path) -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let doing = step("make an empty root");
    mount("none", over, "tmpfs", flags, Some(c"size=4k,mode=0555")).map_err(doing)?;
    rustix::process::chdir(over)
        .and_then(|()| rustix::process::pivot_root(".", "."))
        // The old root now covers the new one.
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| rustix::process::chdir("/"))
        .map_err(step("change the root"))?;
    mount_remount("/", flags | MountFlags::RDONLY, c"").map_err(step("close the empty root"))
}

/// Gives up all capabilities but `kept`, for this process and all it might start.
fn keep_only(kept: &[Capability]) -> Result<(), Error> {
    let failed = |error: caps::errors::CapsError| Error::Caps(error.to_string());
    let have = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let keep: CapsHashSet = kept
        .iter()
        .copied()
        .filter(|cap| have.contains(cap))
        .collect();
    for cap in caps::runtime::thread_all_supported() {
        if !keep.contains(&cap) {
            caps::drop(None, CapSet::Bounding, cap).map_err(failed)?;
        }
    }
    // The effective set cannot be larger than the permitted one at any moment.
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &keep).map_err(failed)?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)
}

fn no_new_privileges() -> Result<(), Error> {
    rustix::thread::set_no_new_privs(true).map_err(step("forbid new privileges"))
}
