//! The daemon: serves a guest's virtiofs mount from an engine of `pfs-core`.
//!
//! - [`cli`], [`launch`], [`sandbox`]: the command line, start-up and what the process may touch.
//! - [`device`]: the vhost-user device; starts and stops queues.
//! - [`queue`], [`inflight`], [`worker`]: one virtqueue, what it has in flight, the thread it has.
//! - [`chain`]: a request's guest memory, checked.
//! - [`fuse`]: FUSE requests from a chain to the engine and back.
//! - [`report`]: how failures are told.

pub mod chain;
pub mod cli;
pub mod device;
pub mod fuse;
pub mod inflight;
pub mod launch;
pub mod queue;
pub mod report;
pub mod sandbox;
pub mod worker;
