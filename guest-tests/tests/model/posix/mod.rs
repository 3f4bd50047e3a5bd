//! The model: a POSIX file system in memory, as Linux is one.
//!
//! - [`tree`]: inodes and their attributes. [`names`]: what is done with names.
//! - [`bytes`]: what is in a file. [`times`]: what its times may be.

mod bytes;
mod names;
mod times;
mod tree;

pub use bytes::Bytes;
pub use times::{begin_step, Time, Times, When};
pub use tree::{Id, Inode, Kind, Owner, Tree, ROOT};
