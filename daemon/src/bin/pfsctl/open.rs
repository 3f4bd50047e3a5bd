//! Opening a volume for one command.

use std::path::Path;
use std::sync::Arc;

use pfs_core::client::Client;
use pfs_core::engine;
use pfs_core::fs::Caller;
use pfs_core::session::SessionStore;
use pfs_core::volume::{OpenVolume, Volume};

use crate::Failure;

/// Most nodes that a command has at once: as deep as a tree may be.
const NODES_MAX: u32 = 1 << 20;
/// Most inodes that it holds a descriptor of.
const INODE_FDS_MAX: usize = 256;

/// A client of the volume at `path`, acting as the user who runs this.
pub fn client(path: &Path) -> Result<Client, Failure> {
    client_of(Volume::open(path)?)
}

/// A client of a volume.
pub fn client_of(volume: OpenVolume) -> Result<Client, Failure> {
    let options = engine::Options {
        store: Arc::new(SessionStore::private(NODES_MAX)?),
        inode_fds_max: INODE_FDS_MAX,
    };
    let caller = Caller::new(
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
        std::process::id(),
    );
    Ok(Client::new(engine::open(volume, &options)?, caller)?)
}
