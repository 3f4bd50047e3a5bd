//! A FUSE client over the rings, as Linux's virtiofs is one.
//!
//! - [`Session`]: a mount: the device, INIT, and a [`Client`] for each request queue.
//! - [`Client`]: blocking calls (`calls.rs`, and on paths in `tree.rs`), or [`Client::submit`]
//!   and [`Client::wait`] with many requests in flight (`client.rs`, its slots in `slots.rs`),
//!   or bytes that nobody checks (`raw.rs`).
//! - [`Pump`]: many in flight at native speed, for measurements (`pump.rs`).
//! - [`ops`]: every operation as a [`Request`]; [`request`] is how they are made and decoded.
//! - [`abi`]: the structures of `linux/fuse.h`.
//!
//! Every reply is checked: an answer that breaks the protocol is an [`Error::Violation`].
//!
//! Many in flight:
//!
//! ```no_run
//! # use guest_tests::ring::fuse::{ops, Client, Error, Handle};
//! # fn f(fs: &mut Client, file: Handle) -> Result<(), Error> {
//! let data = fs.memory().alloc_pages(1 << 20)?;
//! for i in 0..16 {
//!     let part = data.slice(i << 16, 1 << 16);
//!     fs.enqueue(&ops::read(file, (i as u64) << 16, &part), i as u64)?;
//! }
//! fs.kick()?;
//! while fs.in_flight() > 0 {
//!     let done = fs.next_done()?;
//!     let bytes_read: usize = fs.wait(done.ticket())?;
//!     println!("read {} has {bytes_read} bytes", done.tag);
//! }
//! # Ok(())
//! # }
//! ```

pub mod abi;
mod calls;
mod client;
mod error;
mod hiprio;
pub mod ops;
mod pump;
mod raw;
pub mod request;
mod session;
mod slots;
#[cfg(test)]
mod tests;
mod tree;
mod wait;

pub use client::{Caller, Client, Completion, DataShape, Limits, Ticket};
pub use error::{Error, Violation};
pub use hiprio::Hiprio;
pub use ops::{Handle, Lock};
pub use pump::{Answer, Pump};
pub use raw::RawReply;
pub use request::{DirEntry, Reply, Request};
pub use rustix::io::Errno;
pub use session::{InitOptions, Session, SessionConfig};
