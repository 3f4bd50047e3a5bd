//! Boots real QEMU guests and runs commands in them.
//!
//! - [`guest`]: a running guest and its builder; what tests use.
//! - [`agent`]: the host's end of the agent in the guest: commands in, output and exit codes out.
//! - `boot`: the watch over a boot, for kernels that stall under emulation.
//! - [`qemu`]: QEMU's command line, and the choice of KVM or TCG.
//! - [`image`]: the cached root image, kernels and QEMU builds that guests boot from.
//! - [`script`]: the scripts that prepare what guests need.
//! - [`tools`]: test programs of crates.io, for use in guests.
//! - [`volume`]: a volume for a test, its daemons, and how the host reads and writes it.
//! - [`steps`]: named steps, so that many checks can share one booted guest.
//!
//! ```no_run
//! use guest_tests::vm::{Guest, Share, Volume};
//! use std::time::Duration;
//!
//! let volume = Volume::create(4, "64K").unwrap();
//! let daemon = volume.serve("data").unwrap();
//! let guest = Guest::builder().share(Share::new(daemon.socket(), "data")).boot().unwrap();
//! guest.mount("data", "/mnt").unwrap();
//! let output = guest.run("ls -l /mnt", Duration::from_secs(10)).unwrap();
//! assert_eq!(output.code, 0, "{output}");
//! ```

pub mod agent;
mod boot;
pub mod guest;
pub mod image;
pub mod qemu;
pub mod script;
pub mod steps;
pub mod tools;
pub mod volume;

pub use agent::{Output, Running};
pub use guest::{Guest, GuestBuilder};
pub use image::{Kernel, Root};
pub use qemu::Share;
pub use steps::{data_mib, Steps};
pub use tools::Tools;
pub use volume::{Engine, Served, Volume};

/// Prints why a test cannot run on this machine; the test then returns.
pub fn print_skip(reason: impl std::fmt::Display) {
    eprintln!("SKIPPED: {reason}");
}
