//! Requests about open directories.

use pfs_core::fs::{Errno, Handle, Result};

use super::Bytes;
use crate::fuse::abi::{FsyncIn, OpenIn, ReadIn, ReleaseIn, FSYNC_FDATASYNC};
use crate::fuse::opcodes::Opcode;

/// A request about the directory that the header's node id names.
#[derive(Debug)]
pub enum Dirs {
    Opendir,
    Readdir {
        handle: Handle,
        /// A cookie of the engine's, or 0.
        offset: u64,
        size: u32,
        plus: bool,
    },
    Releasedir {
        handle: Handle,
    },
    Fsyncdir {
        handle: Handle,
        datasync: bool,
    },
}

pub(super) fn decode(code: Opcode, body: &mut Bytes<'_>) -> Result<Dirs> {
    let request = match code {
        Opcode::Opendir => {
            let _: OpenIn = body.take()?;
            Dirs::Opendir
        }
        Opcode::Readdir | Opcode::Readdirplus => {
            let read: ReadIn = body.take()?;
            Dirs::Readdir {
                handle: Handle(read.fh),
                offset: read.offset,
                size: read.size,
                plus: code == Opcode::Readdirplus,
            }
        }
        Opcode::Releasedir => {
            let release: ReleaseIn = body.take()?;
            Dirs::Releasedir {
                handle: Handle(release.fh),
            }
        }
        Opcode::Fsyncdir => {
            let fsync: FsyncIn = body.take()?;
            Dirs::Fsyncdir {
                handle: Handle(fsync.fh),
                datasync: fsync.fsync_flags & FSYNC_FDATASYNC != 0,
            }
        }
        _ => return Err(Errno::NOSYS),
    };
    body.end()?;
    Ok(request)
}
