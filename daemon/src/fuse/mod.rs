//! FUSE requests from a [`Chain`] to the engine, and its answers back.
//!
//! - [`abi`]: the structures of `linux/fuse.h`.
//! - [`opcodes`]: the table of opcodes: sizes, replay, and why some are refused. [`served`]: who
//!   serves them.
//! - [`decode`]: bytes to typed requests; all that a guest says is checked there.
//! - [`init`]: the negotiation. [`flags`]: its flags, and why each is taken or not.
//! - [`ids`]: the guest's users and groups, and the volume's.
//! - `dispatch`: a typed request to the engine's method.
//! - `reply`: the engine's answer to bytes.
//! - [`config`]: the mount's options.
//! - [`interrupts`]: requests that wait, and what ends their wait.
//!
//! The guest is hostile: nothing that it sends may panic here.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod abi;
pub mod config;
pub mod decode;
mod dispatch;
pub mod flags;
pub mod ids;
pub mod init;
pub mod interrupts;
pub mod opcodes;
mod pending;
mod reply;
pub mod served;
mod service;

#[cfg(test)]
mod tests;

pub use config::{CachePolicy, ServiceConfig};
pub use ids::Ids;
pub use interrupts::Source;
pub use pending::Pending;
pub use service::{RestoreError, Restored, Service, Submitted};
