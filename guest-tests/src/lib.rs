//! What plays the guest.
//!
//! - [`acl`]: POSIX ACLs as bytes.
//! - [`binaries`]: where the daemons under test are.
//! - [`ceph`]: a real Ceph cluster on this machine.
//! - [`crash`]: where a daemon under test can be made to die.
//! - [`fixture`]: volumes, daemons and sessions for tests of the ring driver.
//! - [`ring`]: plays QEMU and the guest driver in-process against a vhost-user-fs daemon.
//! - [`simulated`]: storage targets of a known speed.
//! - [`suites`]: what suites of crates.io are told, and what is said where something cannot be had.
//! - [`vm`]: boots real QEMU guests.
//!
//! The program `bridge` (`src/bin/bridge/`) mounts a daemon on this host: `/dev/fuse` on one side,
//! [`ring`] on the other. `docs/bridge.md`.

pub mod acl;
pub mod binaries;
pub mod ceph;
pub mod crash;
pub mod fixture;
pub mod ring;
pub mod simulated;
pub mod suites;
pub mod vm;
