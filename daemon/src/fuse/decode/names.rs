//! Requests about names: what `pfs_core::fs::FileSystem` lists as names and nodes, and CREATE.

use std::ffi::CStr;

use pfs_core::fs::{Errno, Make, Name, NodeId, Result, SYMLINK_MAX};

use super::Bytes;
use crate::fuse::abi::{
    CreateIn, LinkIn, MkdirIn, MknodIn, Rename2In, RenameIn, OPEN_KILL_SUIDGID,
};
use crate::fuse::opcodes::Opcode;

/// A request about names in the directory that the header's node id names.
#[derive(Debug)]
pub enum Names<'a> {
    Lookup {
        name: &'a Name,
    },
    Readlink,
    Symlink {
        name: &'a Name,
        target: &'a CStr,
    },
    Mknod {
        name: &'a Name,
        make: Make,
        rdev: u32,
    },
    Mkdir {
        name: &'a Name,
        make: Make,
    },
    Unlink {
        name: &'a Name,
    },
    Rmdir {
        name: &'a Name,
    },
    Rename {
        name: &'a Name,
        to_parent: NodeId,
        to_name: &'a Name,
        flags: u32,
    },
    Link {
        node: NodeId,
        name: &'a Name,
    },
    Create {
        name: &'a Name,
        make: Make,
        flags: i32,
        kill_suidgid: bool,
    },
    Tmpfile {
        make: Make,
        flags: i32,
    },
}

const PERMISSIONS: u32 = 0o7777;
const UMASK: u32 = 0o777;

/// `open(2)` flags that reach an engine. The rest is the guest's kernel's own business (`O_PATH`,
/// `__FMODE_EXEC`), the engine's (`O_NOFOLLOW`, `O_NONBLOCK`), or would make something else of the
/// request (`O_DIRECTORY`, `O_TMPFILE`).
const OPEN_FLAGS: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_TRUNC
    | libc::O_DIRECT
    | libc::O_SYNC
    | libc::O_NOATIME;

/// Keeps of `open(2)`'s flags those that mean something to an engine.
pub fn open_flags(flags: u32) -> i32 {
    let kept = flags as i32 & OPEN_FLAGS;
    match kept & libc::O_ACCMODE {
        // Linux's mode 3 asks for both permissions, and gives a descriptor that neither reads nor
        // writes, which the guest's kernel sees to.
        libc::O_ACCMODE => kept & !libc::O_ACCMODE | libc::O_RDWR,
        _ => kept,
    }
}

pub(super) fn decode<'a>(code: Opcode, body: &mut Bytes<'a>) -> Result<Names<'a>> {
    let request = match code {
        Opcode::Lookup => Names::Lookup { name: body.name()? },
        Opcode::Readlink => Names::Readlink,
        Opcode::Symlink => Names::Symlink {
            name: body.name()?,
            target: target(body)?,
        },
        Opcode::Mknod => {
            let make: MknodIn = body.take()?;
            Names::Mknod {
                name: body.name()?,
                make: Make {
                    mode: node_mode(make.mode)?,
                    umask: make.umask & UMASK,
                },
                rdev: make.rdev,
            }
        }
        Opcode::Mkdir => {
            let make: MkdirIn = body.take()?;
            Names::Mkdir {
                name: body.name()?,
                make: permissions(make.mode, make.umask),
            }
        }
        Opcode::Unlink => Names::Unlink { name: body.name()? },
        Opcode::Rmdir => Names::Rmdir { name: body.name()? },
        Opcode::Rename => {
            let rename: RenameIn = body.take()?;
            renamed(rename.newdir, 0, body)?
        }
        Opcode::Rename2 => {
            let rename: Rename2In = body.take()?;
            renamed(rename.newdir, rename.flags, body)?
        }
        Opcode::Link => {
            let link: LinkIn = body.take()?;
            Names::Link {
                node: NodeId(link.oldnodeid),
                name: body.name()?,
            }
        }
        _ => return Err(Errno::NOSYS),
    };
    body.end()?;
    Ok(request)
}

pub(super) fn decode_create<'a>(code: Opcode, body: &mut Bytes<'a>) -> Result<Names<'a>> {
    let create: CreateIn = body.take()?;
    let make = permissions(create.mode, create.umask);
    let flags = open_flags(create.flags) | (create.flags as i32 & libc::O_EXCL);
    let request = match code {
        Opcode::Create => Names::Create {
            name: body.name()?,
            make,
            flags,
            kill_suidgid: create.fuse_flags & OPEN_KILL_SUIDGID != 0,
        },
        _ => {
            // Linux sends a name that means nothing ("/"): the file gets none.
            body.c_str()?;
            Names::Tmpfile { make, flags }
        }
    };
    body.end()?;
    Ok(request)
}

fn renamed<'a>(to: u64, flags: u32, body: &mut Bytes<'a>) -> Result<Names<'a>> {
    const KNOWN: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
    // As renameat2(2): an exchange replaces nothing and leaves no hole.
    let exchange_and_more = flags & libc::RENAME_EXCHANGE != 0 && flags != libc::RENAME_EXCHANGE;
    if flags & !KNOWN != 0 || exchange_and_more {
        return Err(Errno::INVAL);
    }
    Ok(Names::Rename {
        name: body.name()?,
        to_parent: NodeId(to),
        to_name: body.name()?,
        flags,
    })
}

fn target<'a>(body: &mut Bytes<'a>) -> Result<&'a CStr> {
    let target = body.c_str()?;
    match target.count_bytes() {
        0 => Err(Errno::NOENT),
        1..=SYMLINK_MAX => Ok(target),
        _ => Err(Errno::NAMETOOLONG),
    }
}

fn permissions(mode: u32, umask: u32) -> Make {
    Make {
        mode: mode & PERMISSIONS,
        umask: umask & UMASK,
    }
}

/// Type and permissions for `mknod`, with its errors.
fn node_mode(mode: u32) -> Result<u32> {
    let permissions = mode & PERMISSIONS;
    match mode & libc::S_IFMT {
        0 => Ok(libc::S_IFREG | permissions),
        kind @ (libc::S_IFREG | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK) => {
            Ok(kind | permissions)
        }
        libc::S_IFDIR => Err(Errno::PERM),
        _ => Err(Errno::INVAL),
    }
}
