//! What can be wrong with a volume, and what to do about it.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::size::Size;
use crate::{layout, target};

/// A volume cannot be found, opened or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },

    // ---- finding and reading a descriptor --------------------------------------------
    #[error("there is no volume at {path}: no such file or directory")]
    NoVolume { path: PathBuf },
    #[error(
        "{path} is storage target {index} of volume {uuid}, not a volume: give the folder that \
         holds that volume's volume.toml"
    )]
    IsTarget {
        path: PathBuf,
        index: u32,
        uuid: Uuid,
    },
    #[error("{path} is not a volume descriptor: {why}")]
    NotADescriptor { path: PathBuf, why: &'static str },
    #[error("{path}:{line}: {message} (in `{text}`)")]
    Syntax {
        path: PathBuf,
        line: usize,
        text: String,
        message: String,
    },
    #[error(
        "{path} has format {found}, newer than format {ours}, the one that this program \
         reads: use the pfs-virtiofsd that made the volume, or a later one"
    )]
    NewerFormat {
        path: PathBuf,
        found: i64,
        ours: u32,
    },
    #[error(
        "{path} has format {found}, which only a development version of this program made: make \
         the volume anew (pfsctl volume create) and copy its data with the version that made it"
    )]
    OlderFormat { path: PathBuf, found: i64 },
    #[error("{path}: format {found} is not one that ever was: the first is format 1")]
    NoSuchFormat { path: PathBuf, found: i64 },
    #[error(
        "{path}: engine \"{engine}\" is not in this program, which was built without its feature \
         \"ceph\""
    )]
    EngineNotBuilt { path: PathBuf, engine: &'static str },
    #[error(
        "{path}: there is no engine \"{engine}\"; use \"striped\", \"cephfs\", \"posix\" or \"null\""
    )]
    NoSuchEngine { path: PathBuf, engine: String },
    #[error("{path}: [layout]")]
    Layout {
        path: PathBuf,
        #[source]
        source: layout::Error,
    },
    #[error("{path} describes no possible volume")]
    Values {
        path: PathBuf,
        #[source]
        source: Impossible,
    },

    // ---- opening its places ----------------------------------------------------------
    #[error(
        "{path} is missing, which the volume needs: mount it or restore it, or correct its path \
         in volume.toml"
    )]
    PlaceMissing { path: PathBuf },
    #[error("{path} is not a directory: correct its path in volume.toml")]
    PlaceNotADirectory { path: PathBuf },
    #[error(
        "{path} does not carry the mark of volume {uuid}: if its file system is not mounted, \
         mount it; if it was restored from a copy without extended attributes and is the right \
         one, run: setfattr -n {} -v {uuid} {path}",
        super::place::PLACE_XATTR
    )]
    PlaceNotMarked { path: PathBuf, uuid: Uuid },
    #[error("{path} belongs to volume {found}, not to this one, {uuid}: correct its path")]
    PlaceForeign {
        path: PathBuf,
        uuid: Uuid,
        found: String,
    },
    #[error("{path} is read-only: remount its file system writable")]
    PlaceReadOnly { path: PathBuf },
    #[error("{path} may not be written by this user: run as its owner or as root")]
    PlaceNotWritable { path: PathBuf },
    #[error(transparent)]
    Target(#[from] target::Error),

    #[error("{path} is damaged: run pfsctl volume check --repair, which counts the volume anew")]
    UsageDamaged { path: PathBuf },
    #[error(
        "the volume of {path} is being checked, or its limits set, by a process that must be alone \
         with it: try again when that is done"
    )]
    InUse { path: PathBuf },

    // ---- its limits ------------------------------------------------------------------
    #[error(
        "only a striped volume has limits of its own, and this one is {engine}: use the quotas of \
         the file system that it serves"
    )]
    NoLimits { engine: &'static str },
    #[error(
        "the volume at {path} is in use, and was never limited: what is in it must be counted \
         first, which needs that no daemon serves it; later limits can be set at any time"
    )]
    MustBeAlone { path: PathBuf },

    // ---- making one ------------------------------------------------------------------
    #[error("{path} already holds a volume: choose another place, or remove it first")]
    AlreadyAVolume { path: PathBuf },
    #[error("{path} is not empty (it has {entry:?}): choose an empty or a new directory")]
    NotEmpty { path: PathBuf, entry: String },
    #[error("{path} is target {index} of volume {uuid}: choose another directory")]
    AlreadyATarget {
        path: PathBuf,
        index: u32,
        uuid: Uuid,
    },
    #[error("{path} is named twice: each target needs its own directory")]
    TargetTwice { path: PathBuf },
    #[error("target {inner} lies inside {outer}, which is to be a target or the volume itself")]
    TargetNested { inner: PathBuf, outer: PathBuf },
    #[error("cannot make the volume")]
    Impossible(#[from] Impossible),
    #[error("cannot make the volume")]
    ImpossibleLayout(#[from] layout::Error),
    #[error(
        "the file system of {path} does not keep user extended attributes, which the volume \
         needs there: use ext4, xfs or btrfs (or tmpfs on Linux 6.6 or newer)"
    )]
    NoXattrs { path: PathBuf },
    #[error(
        "the file system of {path} cannot {what}, which the volume needs there: use ext4, xfs, \
         btrfs or tmpfs"
    )]
    NoFallocate { path: PathBuf, what: &'static str },
}

/// Values that fit no volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("mapped ownership is for volumes that keep files")]
    MappedNull,
    #[error("a striped volume needs at least one target")]
    NoTarget,
    #[error("a stripe count of {count} needs as many targets, and there are {targets}")]
    TooFewTargets { count: u32, targets: usize },
    #[error("{targets} targets are more than the {max} that a volume can have")]
    TooManyTargets { targets: usize, max: usize },
    #[error(
        "an mdt_size of {} is not a multiple of 4 KiB up to {}",
        Size(*.0),
        Size(super::MDT_SIZE_MAX_BYTES)
    )]
    MdtSize(u64),
    #[error("a cephfs volume needs a ceph.conf, or the addresses of monitors (mon_host)")]
    NoMonitor,
    #[error("the path in a CephFS is an absolute one, without . and ..")]
    CephPath,
    #[error("a timeout is at least 1 second; leave it out to wait for as long as it takes")]
    Timeout,
    #[error("mapped ownership is not for cephfs volumes: owners are the cluster's to keep")]
    MappedCephfs,
    #[error("a limit is at least 1 and less than 2^63, not {0}; leave it out for none")]
    Limit(u64),
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Error {
        Error::Io {
            doing,
            path: path.into(),
            source: source.into(),
        }
    }
}
