//! Storage targets of a known speed, for tests of what is made of them.
//!
//! A [`SimulatedTarget`] is a small FUSE file system over a directory, served by this process. It
//! passes everything on; only reads and writes of data are answered when a server of so much
//! bandwidth and latency would have ([`clock`]). Nothing of a file is cached by the kernel, so each
//! read and write is one of the server's.
//!
//! [`private_mounts`] first: then nothing is left behind, however the process ends.

mod clock;
mod passthrough;

use std::io;
use std::path::Path;
use std::time::Duration;

use fuser::{BackgroundSession, Config, MountOption, Session, SessionACL};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use passthrough::Passthrough;

/// What a target gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Of reads and writes together.
    pub bytes_per_s: f64,
    /// From a request to its answer, beside the time that its bytes take.
    pub latency: Duration,
}

/// A directory with a speed, until it is dropped.
pub struct SimulatedTarget {
    /// Dropped, it is unmounted.
    _session: BackgroundSession,
}

impl SimulatedTarget {
    /// Gives `dir` a speed, by a mount over it. Who has something of it open goes on as before.
    pub fn mount(dir: &Path, speed: Speed) -> io::Result<SimulatedTarget> {
        let server = Passthrough::new(dir, speed)?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("simulated-target".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.acl = SessionACL::All;
        let session = Session::new(server, dir, &config)?.spawn()?;
        Ok(SimulatedTarget { _session: session })
    }
}

/// From now on this thread, and those and the processes that it starts, have mounts of their own,
/// which go with the last of them. Others see none of them. Needs root.
pub fn private_mounts() -> io::Result<()> {
    // SAFETY: mounts become this thread's own, which concerns no memory and no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    let own = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", own)?)
}

#[cfg(test)]
mod tests;
