//! Acting as a guest's user, so that what is created belongs to them.

use std::cell::Cell;

use crate::fs::{Caller, Errno, Result};

/// Keep capabilities when the filesystem uid changes (`capabilities(7)`).
const SECBIT_NO_SETUID_FIXUP: libc::c_int = 1 << 2;

/// What the process may do about ownership.
pub struct Creds {
    own: (u32, u32),
    /// Whether this process can create files for others.
    can_switch: bool,
}

thread_local! {
    /// The filesystem uid and gid of this thread, where it has changed them.
    static ACTING_AS: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
    static KEEPS_CAPS: Cell<bool> = const { Cell::new(false) };
}

impl Creds {
    /// Looks at what the process is.
    pub fn probe() -> Creds {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Creds {
            own: (uid, gid),
            can_switch: uid == 0,
        }
    }

    /// Makes what this thread creates next belong to `caller`.
    ///
    /// The thread stays who it became: its capabilities are kept (`SECBIT_NO_SETUID_FIXUP`), so
    /// the filesystem ids matter to nothing but the owner of new files, and a run of creations
    /// for one user switches once. A daemon without privilege owns all that it creates itself.
    pub fn act_as(&self, caller: &Caller) -> Result<()> {
        let want = (caller.uid, caller.gid);
        let now = ACTING_AS.get().unwrap_or(self.own);
        if !self.can_switch || want == now {
            return Ok(());
        }
        if !KEEPS_CAPS.get() {
            keep_caps()?;
            KEEPS_CAPS.set(true);
        }
        // Group first: a failure leaves what `ACTING_AS` says or is repaired by the next call.
        ACTING_AS.set(Some((u32::MAX, u32::MAX)));
        set_fs_id(libc::setfsgid, want.1)?;
        set_fs_id(libc::setfsuid, want.0)?;
        ACTING_AS.set(Some(want));
        Ok(())
    }
}

/// Sets this thread's filesystem uid or gid. The call itself reports no failure: asking for an
/// impossible id answers the one in force.
fn set_fs_id(set: unsafe extern "C" fn(u32) -> libc::c_int, id: u32) -> Result<()> {
    if id == u32::MAX {
        return Err(Errno::INVAL);
    }
    // SAFETY: setfsuid and setfsgid change this thread's credentials and touch no memory.
    let now = unsafe {
        set(id);
        set(u32::MAX)
    };
    if now as u32 == id {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

fn keep_caps() -> Result<()> {
    // SAFETY: prctl with these options reads and writes this thread's securebits only.
    let done = unsafe {
        let bits = libc::prctl(libc::PR_GET_SECUREBITS);
        bits >= 0
            && (bits & SECBIT_NO_SETUID_FIXUP != 0
                || libc::prctl(libc::PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP) == 0)
    };
    if done {
        Ok(())
    } else {
        Err(super::proc::last_errno())
    }
}

/// Lets every thread started from now on act as guests' users, even after `CAP_SETPCAP` is
/// given up. To be called before a sandbox drops capabilities; without privilege it does
/// nothing.
pub fn prepare_process() {
    let _ = keep_caps();
}
