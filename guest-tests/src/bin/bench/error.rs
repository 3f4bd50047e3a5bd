//! What can go wrong with a measurement.

use std::path::{Path, PathBuf};

use guest_tests::ring::{fuse, process};
use guest_tests::{binaries, vm::script};

/// See the [module](self).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon, or the ring to it.
    #[error("{backend}: {action}")]
    Ring {
        backend: String,
        action: &'static str,
        #[source]
        source: fuse::Error,
    },
    #[error("{backend} cannot be started")]
    Start {
        backend: String,
        #[source]
        source: process::Error,
    },
    #[error("no binary to start")]
    Binary(#[from] binaries::Error),
    #[error("no virtiofsd: set VIRTIOFSD to one")]
    Peer(#[from] script::Error),
    #[error("VIRTIOFSD names nothing that can be run")]
    PeerPath,
    #[error("{path}: cannot {action}", path = .path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("give --ceph, the folder of a cluster of qemu-scripts/ceph-dev.sh")]
    NoCluster,
    #[error("ceph-fuse does not mount {0}")]
    CephFuse(String),
    #[error("pfsctl volume create failed:\n{0}")]
    Volume(String),
    #[error("cannot read the CPU time of process {pid}")]
    Cpu {
        pid: u32,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot run on CPU {cpu} only; --no-pin leaves threads where they are")]
    Pin {
        cpu: usize,
        #[source]
        source: std::io::Error,
    },
    #[error("the floor of {row}")]
    Floor {
        row: &'static str,
        #[source]
        source: rustix::io::Errno,
    },
    #[error("no workload {0:?}; see `bench list`")]
    NoRow(String),
    #[error("{0} did nothing in a slice: give it more --seconds")]
    NoOperations(String),
    #[error("more than {percent}% above what is wanted of the CPU time, as a ratio to virtiofsd's:{text}")]
    Lost { percent: f64, text: String },
    #[error("{backend} serves no queue {queue}")]
    NoWorker { backend: String, queue: usize },
    #[error("{queues} queues need as many CPUs")]
    TooFewCpus { queues: usize },
    #[error("no mounts of its own; simulated targets need root")]
    Mounts(#[source] std::io::Error),
    #[error("less than {at_least} of what the targets could give:{text}")]
    NotScaled { at_least: f64, text: String },
}

impl Error {
    /// For `map_err` of what is done to `path`.
    pub fn file<E: Into<std::io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Error {
        let path = path.to_owned();
        move |source| Error::File {
            action,
            path,
            source: source.into(),
        }
    }
}
