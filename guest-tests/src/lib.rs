//! What plays the guest.
//!
//! - [`binaries`]: where the daemons under test are.
//! - [`fixture`]: volumes, daemons and sessions for tests of the ring driver.
//! - [`ring`]: plays QEMU and the guest driver in-process against a vhost-user-fs daemon.
//! - [`vm`]: boots real QEMU guests.
//!
//! The program `bridge` (`src/bin/bridge/`) mounts a daemon on this host: `/dev/fuse` on one side,
//! [`ring`] on the other. `docs/bridge.md`.

pub mod binaries;
pub mod fixture;
pub mod ring;
pub mod vm;
