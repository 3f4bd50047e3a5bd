//! The parallel file system client core.
//!
//! A library that knows nothing of virtio or FUSE. A caller (the daemon, `pfsctl`) opens a
//! [`volume`], gets an engine behind the [`fs::FileSystem`] trait, and drives it with one
//! [`io::Io`] per thread.
//!
//! - [`fs`]: the trait every engine implements, and its types. Start reading here.
//! - [`io`]: what a worker lends an engine: io_uring, the blocking pool, cross-thread answers.
//! - [`session`]: nodes and handles as fixed-size, relocatable records.
//! - [`handles`], [`locks`]: open files and directories, and locks, of a session.
//! - [`layout`], [`striper`], [`target`]: file ranges to object extents to storage targets.
//! - [`tree`]: a local directory tree as a namespace; `posix` and `striped` stand on it.
//! - [`engine`]: `striped`, `cephfs`, `posix`, `null`.
//! - [`volume`]: the volume descriptor (`volume.toml`), create and open.
//! - [`client`]: a blocking client of an engine, for tools and tests.
//! - [`crash`]: where a test can let a process die.

pub mod client;
pub mod crash;
pub mod engine;
pub mod fs;
pub mod handles;
pub mod io;
pub mod layout;
pub mod locks;
mod ofd;
pub mod session;
pub mod striper;
mod sync;
pub mod target;
pub mod tree;
pub mod volume;
