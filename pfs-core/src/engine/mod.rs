//! The engines: each a [`FileSystem`] behind the descriptor of a volume.
//!
//! - [`striped`]: a namespace on a metadata target, file data striped over storage targets.
//! - [`posix`]: a mounted file system or a plain directory as it is.
//! - [`cephfs`]: a CephFS, by its client library; in builds with the feature `ceph`.
//! - [`null`]: answers at once and stores nothing; measures what is above it.

#[cfg(feature = "ceph")]
pub mod cephfs;
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
    #[cfg(feature = "ceph")]
    #[error(transparent)]
    Cephfs(#[from] cephfs::Error),
    #[error(
        "the engine cephfs is not in this program, which was built without its feature \"ceph\""
    )]
    NotBuilt,
}

/// An engine that is to [start](Prepared::start).
pub struct Prepared(Inner);

enum Inner {
    Ready(Arc<dyn FileSystem>),
    #[cfg(feature = "ceph")]
    Cephfs(cephfs::Cephfs),
}

impl Prepared {
    /// Lets it do what takes the network, or threads of its own. To be called when the process has
    /// given up what it does not need.
    pub fn start(self) -> Result<Arc<dyn FileSystem>, Error> {
        match self.0 {
            Inner::Ready(fs) => Ok(fs),
            #[cfg(feature = "ceph")]
            Inner::Cephfs(fs) => {
                fs.connect()?;
                Ok(Arc::new(fs))
            }
        }
    }
}

/// Opens the engine of a volume, for a process that keeps what it has.
pub fn open(volume: OpenVolume, options: &Options) -> Result<Arc<dyn FileSystem>, Error> {
    prepare(volume, options)?.start()
}

/// Does all that takes paths or privileges. To be called before the process gives those up, and
/// before it starts threads.
pub fn prepare(volume: OpenVolume, options: &Options) -> Result<Prepared, Error> {
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
    let fs: Arc<dyn FileSystem> = match volume.kind {
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
        #[cfg(feature = "ceph")]
        VolumeKind::Cephfs { settings, clients } => {
            let inodes_max = options.inode_fds_max;
            let fs = cephfs::Cephfs::prepare(&settings, clients, &options.store, inodes_max)?;
            return Ok(Prepared(Inner::Cephfs(fs)));
        }
        #[cfg(not(feature = "ceph"))]
        VolumeKind::Cephfs { .. } => return Err(Error::NotBuilt),
        VolumeKind::Null => Arc::new(null::Null),
    };
    Ok(Prepared(Inner::Ready(fs)))
}
