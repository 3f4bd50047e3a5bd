//! A ring driver: plays QEMU and the guest's virtiofs driver in this process, against a real
//! vhost-user-fs daemon over its socket. No VM: requests go at native speed.
//!
//! From below:
//!
//! - [`process`]: starts a daemon binary, watches it, kills it, leaves none behind.
//! - [`memory`]: guest memory in memfds, and an allocator of buffers in it.
//! - [`queue`]: the driver's side of a split virtqueue.
//! - [`device`]: the vhost-user front-end: features, memory table, rings, and handing all of
//!   it to another daemon.
//! - [`fuse`]: FUSE requests over the queues, blocking or many in flight.
//!
//! Every wait is bounded: a daemon that hangs makes an error that says in which request.
//!
//! ```no_run
//! use guest_tests::ring::{fuse::Session, process::DaemonCommand};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut daemon = DaemonCommand::new("virtiofsd", "/tmp/d.sock")
//!     .args(["--socket-path", "/tmp/d.sock", "--shared-dir", "/srv"])
//!     .spawn()?;
//! let mut session = Session::connect(daemon.connect()?, &Default::default())?;
//! let fs = session.fs();
//! fs.write_file("/hello", b"world")?;
//! assert_eq!(fs.read_file("/hello")?, b"world");
//! # Ok(())
//! # }
//! ```

pub mod device;
pub mod fuse;
pub mod memory;
pub mod process;
pub mod queue;
