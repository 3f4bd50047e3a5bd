//! What plays the guest.
//!
//! - [`ring`]: plays QEMU and the guest driver in-process against a vhost-user-fs daemon.
//! - [`vm`]: boots real QEMU guests.

pub mod ring;
pub mod vm;
