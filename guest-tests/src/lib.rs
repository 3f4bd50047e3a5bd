//! What plays the guest.
//!
//! - [`binaries`]: where the daemons under test are.
//! - [`ring`]: plays QEMU and the guest driver in-process against a vhost-user-fs daemon.
//! - [`vm`]: boots real QEMU guests.

pub mod binaries;
pub mod ring;
pub mod vm;
