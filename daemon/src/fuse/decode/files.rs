//! Requests about a node's attributes and open files.

use pfs_core::fs::{
    At, Errno, Handle, Lock, LockKind, NodeId, Result, SetAttr, SetTime, Timestamp, WriteFlags,
};

use super::{at, names::open_flags, range, Bytes, Raw};
use crate::fuse::abi::{
    fattr, CopyFileRangeIn, FallocateIn, FlushIn, FsyncIn, GetattrIn, LkIn, LseekIn, OpenIn,
    ReadIn, ReleaseIn, SetattrIn, StatxIn, WriteIn, FSYNC_FDATASYNC, GETATTR_FH, LK_FLOCK,
    OPEN_KILL_SUIDGID, RELEASE_FLOCK_UNLOCK, WRITE_CACHE, WRITE_KILL_PRIV,
};
use crate::fuse::opcodes::Opcode;

/// A request about the node that the header names.
#[derive(Debug)]
pub enum Files {
    Getattr {
        handle: Option<Handle>,
    },
    Statx {
        handle: Option<Handle>,
    },
    Setattr {
        set: SetAttr,
    },
    Open {
        flags: i32,
        kill_suidgid: bool,
    },
    Read {
        at: At,
        size: u32,
    },
    Write {
        at: At,
        size: u32,
        flags: WriteFlags,
    },
    Flush {
        handle: Handle,
        owner: u64,
    },
    Release {
        handle: Handle,
        flock_owner: Option<u64>,
    },
    Fsync {
        handle: Handle,
        datasync: bool,
    },
    Fallocate {
        at: At,
        len: u64,
        mode: u32,
    },
    Lseek {
        at: At,
        whence: u32,
    },
    CopyFileRange {
        from: At,
        to: At,
        len: u64,
    },
    Getlk {
        at: At,
        lock: Lock,
    },
    Setlk {
        at: At,
        lock: Lock,
        wait: bool,
    },
}

/// Most bytes that one COPY_FILE_RANGE is let copy; its answer may always be short.
const MAX_COPY_BYTES: u64 = 1 << 30;
const NSEC_PER_SEC: u32 = 1_000_000_000;
/// Modes of `fallocate(2)` that move no data. The rest is `EOPNOTSUPP`, as Linux has it on FUSE.
const FALLOCATE_MODES: u32 =
    (libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) as u32;

pub(super) fn decode(raw: &Raw<'_>, node: NodeId, body: &mut Bytes<'_>) -> Result<Files> {
    let request = match raw.op.code {
        Opcode::Getattr => {
            let get: GetattrIn = body.take()?;
            Files::Getattr {
                handle: handle_if(get.flags, get.fh),
            }
        }
        Opcode::Statx => {
            let get: StatxIn = body.take()?;
            Files::Statx {
                handle: handle_if(get.getattr_flags, get.fh),
            }
        }
        Opcode::Setattr => Files::Setattr {
            set: set_attr(&body.take()?)?,
        },
        Opcode::Open => {
            let open: OpenIn = body.take()?;
            Files::Open {
                flags: open_flags(open.flags),
                kill_suidgid: open.fuse_flags & OPEN_KILL_SUIDGID != 0,
            }
        }
        Opcode::Read => read(raw, node, &body.take()?)?,
        Opcode::Write => write(raw, node, &body.take()?)?,
        Opcode::Flush => {
            let flush: FlushIn = body.take()?;
            Files::Flush {
                handle: Handle(flush.fh),
                owner: flush.lock_owner,
            }
        }
        Opcode::Release => {
            let release: ReleaseIn = body.take()?;
            Files::Release {
                handle: Handle(release.fh),
                flock_owner: (release.release_flags & RELEASE_FLOCK_UNLOCK != 0)
                    .then_some(release.lock_owner),
            }
        }
        Opcode::Fsync => {
            let fsync: FsyncIn = body.take()?;
            Files::Fsync {
                handle: Handle(fsync.fh),
                datasync: fsync.fsync_flags & FSYNC_FDATASYNC != 0,
            }
        }
        Opcode::Fallocate => fallocate(node, &body.take()?)?,
        Opcode::Lseek => lseek(node, &body.take()?)?,
        Opcode::CopyFileRange => copy(node, &body.take()?)?,
        code @ (Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw) => {
            let lk: LkIn = body.take()?;
            let (at, lock) = (at(node, lk.fh, 0)?, lock(&lk)?);
            match code {
                Opcode::Getlk => Files::Getlk { at, lock },
                _ => Files::Setlk {
                    at,
                    lock,
                    wait: code == Opcode::Setlkw,
                },
            }
        }
        _ => return Err(Errno::NOSYS),
    };
    body.end()?;
    Ok(request)
}

fn handle_if(flags: u32, fh: u64) -> Option<Handle> {
    (flags & GETATTR_FH != 0).then_some(Handle(fh))
}

fn read(raw: &Raw<'_>, node: NodeId, read: &ReadIn) -> Result<Files> {
    if read.size > raw.max_write {
        return Err(Errno::INVAL);
    }
    let size = u64::from(read.size);
    Ok(Files::Read {
        at: range(node, read.fh, read.offset, size, Errno::INVAL)?,
        size: read.size,
    })
}

fn write(raw: &Raw<'_>, node: NodeId, write: &WriteIn) -> Result<Files> {
    let size = u64::from(write.size);
    let from_cache = write.fuse_flags & WRITE_CACHE != 0;
    let file_flags = write.flags as i32;
    if size != raw.payload_len || write.size > raw.max_write {
        return Err(Errno::INVAL);
    }
    Ok(Files::Write {
        at: range(node, write.fh, write.offset, size, Errno::INVAL)?,
        size: write.size,
        flags: WriteFlags {
            kill_suidgid: write.fuse_flags & WRITE_KILL_PRIV != 0,
            from_cache,
            // What comes from the guest's page cache has its place there.
            append: file_flags & libc::O_APPEND != 0 && !from_cache,
            direct: file_flags & libc::O_DIRECT != 0,
        },
    })
}

fn fallocate(node: NodeId, fallocate: &FallocateIn) -> Result<Files> {
    let (mode, len) = (fallocate.mode, fallocate.length);
    if len == 0 || i64::try_from(len).is_err() {
        return Err(Errno::INVAL);
    }
    let at = range(node, fallocate.fh, fallocate.offset, len, Errno::FBIG)?;
    let keep = libc::FALLOC_FL_KEEP_SIZE as u32;
    let punch = libc::FALLOC_FL_PUNCH_HOLE as u32;
    let zero = libc::FALLOC_FL_ZERO_RANGE as u32;
    let punch_alone = mode & punch != 0 && mode & keep == 0;
    let punch_and_zero = mode & punch != 0 && mode & zero != 0;
    if mode & !FALLOCATE_MODES != 0 || punch_alone || punch_and_zero {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(Files::Fallocate { at, len, mode })
}

fn lseek(node: NodeId, lseek: &LseekIn) -> Result<Files> {
    let at = at(node, lseek.fh, lseek.offset)?;
    match i32::try_from(lseek.whence) {
        Ok(libc::SEEK_DATA | libc::SEEK_HOLE) => Ok(Files::Lseek {
            at,
            whence: lseek.whence,
        }),
        _ => Err(Errno::INVAL),
    }
}

fn copy(node: NodeId, copy: &CopyFileRangeIn) -> Result<Files> {
    let len = copy.len.min(MAX_COPY_BYTES);
    let to_node = NodeId(copy.nodeid_out);
    let from = range(node, copy.fh_in, copy.offset_in, len, Errno::OVERFLOW)?;
    let to = range(to_node, copy.fh_out, copy.offset_out, len, Errno::OVERFLOW)?;
    // Both ends are known to fit by now.
    let overlap = from.offset < to.offset + len && to.offset < from.offset + len;
    if copy.flags != 0 || (node == to_node && overlap) {
        return Err(Errno::INVAL);
    }
    Ok(Files::CopyFileRange { from, to, len })
}

fn lock(lk: &LkIn) -> Result<Lock> {
    let kind = match i32::try_from(lk.lk.type_) {
        Ok(libc::F_RDLCK) => LockKind::Read,
        Ok(libc::F_WRLCK) => LockKind::Write,
        Ok(libc::F_UNLCK) => LockKind::Unlock,
        _ => return Err(Errno::INVAL),
    };
    if lk.lk.start > lk.lk.end || i64::try_from(lk.lk.end).is_err() {
        return Err(Errno::INVAL);
    }
    Ok(Lock {
        kind,
        start: lk.lk.start,
        end: lk.lk.end,
        owner: lk.owner,
        pid: lk.lk.pid,
        flock: lk.lk_flags & LK_FLOCK != 0,
    })
}

fn set_attr(set: &SetattrIn) -> Result<SetAttr> {
    let valid = set.valid;
    let has = |bit| valid & bit != 0;
    // LOCKOWNER speaks of mandatory locks, which Linux no longer has. CTIME comes with the times
    // that a guest under --writeback has kept: an engine's change times are its own, and later.
    if valid & !fattr::ALL != 0 {
        return Err(Errno::INVAL);
    }
    let id = |bit, id| match (has(bit), id) {
        (false, _) => Ok(None),
        (true, u32::MAX) => Err(Errno::INVAL),
        (true, id) => Ok(Some(id)),
    };
    let time = |bit, now, sec: u64, nsec: u32| {
        if has(now) {
            Ok(Some(SetTime::Now))
        } else if !has(bit) {
            Ok(None)
        } else if nsec >= NSEC_PER_SEC {
            Err(Errno::INVAL)
        } else {
            // Times before 1970 are negative, in 64 bits of two's complement.
            let sec = sec as i64;
            Ok(Some(SetTime::To(Timestamp { sec, nsec })))
        }
    };
    if has(fattr::SIZE) && i64::try_from(set.size).is_err() {
        return Err(Errno::INVAL);
    }
    Ok(SetAttr {
        handle: has(fattr::FH).then_some(Handle(set.fh)),
        mode: has(fattr::MODE).then_some(set.mode & 0o7777),
        uid: id(fattr::UID, set.uid)?,
        gid: id(fattr::GID, set.gid)?,
        size: has(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec)?,
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec)?,
        kill_suidgid: has(fattr::KILL_SUIDGID),
    })
}
