//! What is asked of a daemon.
//!
//! - [`data`]: reads and writes of one large file, also of one that is not cached ([`cold`]).
//! - [`steps`]: sequences of requests on one file; [`files`] runs one again and again,
//!   [`postmark`] mixes some.
//! - [`dirs`] lists directories. [`unseen`] looks up what others have made.

use std::path::Path;

use guest_tests::ring::fuse::{Answer, Client, Errno, Error, Pump};

use crate::floor::Floor;

pub mod cold;
pub mod data;
pub mod dirs;
pub mod files;
pub mod postmark;
pub mod steps;
pub mod unseen;

/// A workload on one daemon. Several operations go on at once, each in a slot of its own, and
/// one operation may take several requests, one after the other.
pub trait Workload {
    /// Once: makes files, in a directory of that name.
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error>;

    /// Before each slice, not measured. All that the daemon stores is in `folder`.
    fn before(&mut self, client: &mut Client, folder: &Path) -> Result<(), Error>;

    /// Sends the first request of an operation from a free slot. Sends nothing if nothing is left
    /// to do in this slice.
    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error>;

    /// Takes an answer. Sends the next request of the operation, or says how many units of work
    /// it was.
    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error>;

    /// After each slice, not measured.
    fn after(&mut self, _client: &mut Client) -> Result<(), Error> {
        Ok(())
    }

    /// Once: gives back what takes much space.
    fn finish(&mut self, _client: &mut Client) -> Result<(), Error> {
        Ok(())
    }

    /// The bare system calls for the same work.
    fn floor(&self) -> Box<dyn Floor>;
}

/// A directory for a workload; the root where there are no directories.
fn make_dir(client: &mut Client, name: &str) -> Result<u64, Error> {
    const ROOT: u64 = guest_tests::ring::fuse::abi::ROOT_ID;
    match client.mkdir(ROOT, name, 0o755) {
        Ok(entry) => Ok(entry.nodeid),
        Err(Error::Errno {
            errno: Errno::OPNOTSUPP,
            ..
        }) => Ok(ROOT),
        Err(e) => Err(e),
    }
}
