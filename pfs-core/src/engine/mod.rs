//! The engines: each a [`FileSystem`] behind the descriptor of a volume.
//!
//! - [`striped`]: a namespace on a metadata target, file data striped over storage targets.
//! - [`posix`]: a mounted file system or a plain directory as it is.
//! - [`null`]: answers at once and stores nothing; measures what is above it.

pub mod null;
pub mod posix;
pub mod striped;

use std::sync::Arc;

use crate::fs::FileSystem;
use crate::session::SessionStore;
use crate::tree::proc::ProcFd;
use crate::tree::{self, Tree, TreeFs};
use crate::volume::{OpenVolume, VolumeKind};

/// What an engine is opened with.
#[derive(Clone)]
pub struct Options {
    /// Where nodes and handles are recorded.
    pub store: Arc<SessionStore>,
    /// Most inodes to hold a descriptor of; others are found again by file handle.
    pub inode_fds_max: usize,
}

/// An engine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open the volume's directory tree")]
    Tree(#[from] tree::Error),
}

/// Opens the engine of a volume. To be called before the process gives up privileges or paths,
/// and before it starts threads.
pub fn open(volume: OpenVolume, options: &Options) -> Result<Arc<dyn FileSystem>, Error> {
    let open_tree = |root| {
        let options = tree::Options {
            store: options.store.clone(),
            inode_fds_max: options.inode_fds_max,
        };
        match volume.owner_lock {
            Some(lock) => Tree::open_mapped(root, &options, lock),
            None => Tree::open(root, &options),
        }
    };
    Ok(match volume.kind {
        VolumeKind::Posix { root } => {
            let proc = ProcFd::open().map_err(tree::Error::Proc)?;
            let data = posix::Posix::probe(proc, &root);
            Arc::new(TreeFs::new(open_tree(root)?, data))
        }
        VolumeKind::Striped {
            meta,
            usage,
            targets,
            layout,
            mdt_size_bytes,
        } => {
            let proc = ProcFd::open().map_err(tree::Error::Proc)?;
            let data =
                striped::Striped::new(proc, meta.orphans, usage, targets, layout, mdt_size_bytes);
            Arc::new(TreeFs::new(open_tree(meta.namespace)?, data))
        }
        VolumeKind::Null => Arc::new(null::Null),
    })
}
