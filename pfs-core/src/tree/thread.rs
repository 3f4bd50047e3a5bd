//! What Linux keeps per process and a worker needs for itself: working directory and umask.

use std::cell::Cell;

use rustix::fs::Mode;

use super::proc::last_errno;
use crate::fs::Result;

thread_local! {
    static OWNS_FS: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread a working directory and a umask of its own, the first time.
pub(super) fn own_fs() -> Result<()> {
    if OWNS_FS.get() {
        return Ok(());
    }
    // SAFETY: unshare(CLONE_FS) only gives this thread its own working directory, root and
    // umask, as copies.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(last_errno());
    }
    OWNS_FS.set(true);
    Ok(())
}

/// A requester's umask, in force on this thread until it is dropped. Then the umask is 0 again,
/// as [`Tree::open`](super::Tree::open) set it: what an engine makes for itself never meets it.
pub(super) struct Umask {
    set: bool,
}

impl Umask {
    /// Puts `mask` in force.
    pub fn set(mask: u32) -> Result<Umask> {
        let set = mask & 0o777 != 0;
        if set {
            own_fs()?;
            rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
        }
        Ok(Umask { set })
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        if self.set {
            rustix::process::umask(Mode::empty());
        }
    }
}
