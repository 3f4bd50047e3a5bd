//! What a client's call can fail with.

use std::fmt;
use std::path::PathBuf;

use crate::fs::Errno;

/// What a client was doing, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Find,
    GetXattr,
    List,
    Make,
    MakeDir,
    Open,
    Read,
    Remove,
    Rename,
    SetXattr,
    Sync,
    Write,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Find => "find",
            Doing::GetXattr => "read an attribute of",
            Doing::List => "list",
            Doing::Make => "make",
            Doing::MakeDir => "make directory",
            Doing::Open => "open",
            Doing::Read => "read",
            Doing::Remove => "remove",
            Doing::Rename => "put in place",
            Doing::SetXattr => "set an attribute of",
            Doing::Sync => "sync",
            Doing::Write => "write",
        })
    }
}

/// A client's call failed. Paths are the volume's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Fs {
        doing: Doing,
        path: PathBuf,
        #[source]
        errno: Errno,
    },
    #[error("{path} is a directory")]
    IsADirectory { path: PathBuf },
    #[error("{path} is not a regular file")]
    NotAFile { path: PathBuf },
    #[error("the volume's root cannot be replaced or removed")]
    Root,
    #[error("cannot read the data to put")]
    Source(#[source] std::io::Error),
    #[error("cannot write the data got")]
    Sink(#[source] std::io::Error),
    #[error("{path} ended after {got} of {size} bytes: it was cut short meanwhile")]
    CutShort { path: PathBuf, got: u64, size: u64 },
}

impl Error {
    /// The errno behind it, where an engine gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Fs { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}
