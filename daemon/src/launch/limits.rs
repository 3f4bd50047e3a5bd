//! How many files may be open.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Most open files where nothing is said.
const OPEN_FILES_DEFAULT: u64 = 1_000_000;
/// Inodes that are worth a descriptor: beyond, finding them again costs less than keeping them.
const INODE_FDS_MAX: u64 = 65536;

/// A limit cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot set the limit of open files to {wanted}: this user may go up to {hard}; use a \
         smaller --rlimit-nofile, or start as root"
    )]
    OpenFiles {
        wanted: u64,
        hard: u64,
        #[source]
        source: rustix::io::Errno,
    },
}

/// Sets the limit of open files: to `wanted`, not at all where that is 0, or by default as high
/// as is useful and allowed. Answers the limit in force.
pub(super) fn set_open_files(wanted: Option<u64>) -> Result<u64, Error> {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    let both = |limit| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    match wanted {
        Some(0) => {}
        Some(wanted) => {
            setrlimit(Resource::Nofile, both(wanted)).map_err(|source| Error::OpenFiles {
                wanted,
                hard,
                source,
            })?;
        }
        None => {
            let kernel = std::fs::read_to_string("/proc/sys/fs/nr_open").ok();
            let kernel = kernel.and_then(|text| text.trim().parse().ok());
            let useful = OPEN_FILES_DEFAULT.min(kernel.unwrap_or(OPEN_FILES_DEFAULT));
            if setrlimit(Resource::Nofile, both(useful)).is_err() {
                let limit = Rlimit {
                    current: now.maximum,
                    maximum: now.maximum,
                };
                // The limit may stay as it is: fewer inodes keep a descriptor then.
                let _ = setrlimit(Resource::Nofile, limit);
            }
        }
    }
    Ok(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// How many of `files_max` open files may be descriptors kept of inodes; the rest is for what
/// the guest has open, and for the daemon.
pub(super) fn inode_fds_max(files_max: u64) -> usize {
    (files_max / 2).min(INODE_FDS_MAX) as usize
}
