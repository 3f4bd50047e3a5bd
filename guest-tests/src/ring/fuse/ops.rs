//! The FUSE operations as [`Request`]s, in the order of their opcodes.
//!
//! Each sends what `fs/fuse` of Linux sends. FORGET, BATCH_FORGET and INTERRUPT have no reply
//! and are methods of [`Client`](super::Client).

use super::abi::{self, *};
use super::request::{DirEntry, Reply, Request};
use crate::ring::memory::Buffer;

/// An open file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// Its node.
    pub nodeid: u64,
    /// The daemon's number for it.
    pub fh: u64,
    /// `FOPEN_*`, as the daemon answered.
    pub open_flags: u32,
}

impl Handle {
    /// What OPEN of `nodeid` answered.
    pub fn new(nodeid: u64, open: &OpenOut) -> Self {
        Handle {
            nodeid,
            fh: open.fh,
            open_flags: open.open_flags,
        }
    }
}

fn op<'a, R: Reply>(opcode: Opcode, nodeid: u64) -> Request<'a, R> {
    Request::new(opcode as u32, nodeid)
}

/// LOOKUP.
pub fn lookup(parent: u64, name: &[u8]) -> Request<'_, EntryOut> {
    op(Opcode::Lookup, parent).name(name)
}

/// GETATTR, by handle if there is one.
pub fn getattr<'a>(nodeid: u64, handle: Option<Handle>) -> Request<'a, AttrOut> {
    op(Opcode::Getattr, nodeid).body(&GetattrIn {
        flags: handle.map_or(0, |_| GETATTR_FH),
        dummy: 0,
        fh: handle.map_or(0, |h| h.fh),
    })
}

/// SETATTR.
pub fn setattr<'a>(nodeid: u64, attr: &SetattrIn) -> Request<'a, AttrOut> {
    op(Opcode::Setattr, nodeid).body(attr)
}

/// READLINK.
pub fn readlink<'a>(nodeid: u64) -> Request<'a, Vec<u8>> {
    op(Opcode::Readlink, nodeid).room(4095)
}

/// SYMLINK: `name` in `parent` that points to `target`.
pub fn symlink<'a>(parent: u64, name: &'a [u8], target: &'a [u8]) -> Request<'a, EntryOut> {
    op(Opcode::Symlink, parent).name(name).name(target)
}

/// MKNOD.
pub fn mknod(parent: u64, name: &[u8], mode: u32, rdev: u32, umask: u32) -> Request<'_, EntryOut> {
    let body = MknodIn {
        mode,
        rdev,
        umask,
        padding: 0,
    };
    op(Opcode::Mknod, parent).body(&body).name(name)
}

/// MKDIR.
pub fn mkdir(parent: u64, name: &[u8], mode: u32, umask: u32) -> Request<'_, EntryOut> {
    op(Opcode::Mkdir, parent)
        .body(&MkdirIn { mode, umask })
        .name(name)
}

/// UNLINK.
pub fn unlink(parent: u64, name: &[u8]) -> Request<'_, ()> {
    op(Opcode::Unlink, parent).name(name)
}

/// RMDIR.
pub fn rmdir(parent: u64, name: &[u8]) -> Request<'_, ()> {
    op(Opcode::Rmdir, parent).name(name)
}

/// RENAME.
pub fn rename<'a>(parent: u64, name: &'a [u8], newdir: u64, newname: &'a [u8]) -> Request<'a, ()> {
    op(Opcode::Rename, parent)
        .body(&RenameIn { newdir })
        .name(name)
        .name(newname)
}

/// RENAME2 with `RENAME_*` flags.
pub fn rename2<'a>(
    parent: u64,
    name: &'a [u8],
    newdir: u64,
    newname: &'a [u8],
    flags: u32,
) -> Request<'a, ()> {
    let body = Rename2In {
        newdir,
        flags,
        padding: 0,
    };
    op(Opcode::Rename2, parent)
        .body(&body)
        .name(name)
        .name(newname)
}

/// LINK: one more name for `nodeid`.
pub fn link(nodeid: u64, newparent: u64, newname: &[u8]) -> Request<'_, EntryOut> {
    let body = LinkIn { oldnodeid: nodeid };
    op(Opcode::Link, newparent).body(&body).name(newname)
}

/// OPEN.
pub fn open<'a>(nodeid: u64, flags: i32) -> Request<'a, OpenOut> {
    op(Opcode::Open, nodeid).body(&open_in(flags))
}

fn open_in(flags: i32) -> OpenIn {
    OpenIn {
        flags: flags as u32,
        fuse_flags: 0,
    }
}

/// READ into `data`, all of it. The reply is the number of bytes.
pub fn read<'a>(handle: Handle, offset: u64, data: &Buffer) -> Request<'a, usize> {
    op(Opcode::Read, handle.nodeid)
        .body(&read_in(handle, offset, data))
        .sink(data)
}

fn read_in(handle: Handle, offset: u64, data: &Buffer) -> ReadIn {
    ReadIn {
        fh: handle.fh,
        offset,
        size: data.len() as u32,
        ..ReadIn::default()
    }
}

/// WRITE of all of `data`.
pub fn write<'a>(handle: Handle, offset: u64, data: &Buffer) -> Request<'a, WriteOut> {
    let body = WriteIn {
        fh: handle.fh,
        offset,
        size: data.len() as u32,
        ..WriteIn::default()
    };
    op(Opcode::Write, handle.nodeid).body(&body).payload(data)
}

/// WRITE of all of `data` to the end of the file, which the guest takes to be at `offset`.
pub fn append<'a>(handle: Handle, offset: u64, data: &Buffer) -> Request<'a, WriteOut> {
    let body = WriteIn {
        fh: handle.fh,
        offset,
        size: data.len() as u32,
        flags: (libc::O_WRONLY | libc::O_APPEND) as u32,
        ..WriteIn::default()
    };
    op(Opcode::Write, handle.nodeid).body(&body).payload(data)
}

/// STATFS.
pub fn statfs<'a>(nodeid: u64) -> Request<'a, StatfsOut> {
    op(Opcode::Statfs, nodeid)
}

/// RELEASE.
pub fn release<'a>(handle: Handle, flags: i32) -> Request<'a, ()> {
    op(Opcode::Release, handle.nodeid).body(&release_in(handle, flags))
}

/// RELEASE with FUSE_RELEASE_FLOCK_UNLOCK, as Linux sends where flock(2) was used.
pub fn release_flock<'a>(handle: Handle, flock_owner: u64) -> Request<'a, ()> {
    op(Opcode::Release, handle.nodeid).body(&ReleaseIn {
        release_flags: RELEASE_FLOCK_UNLOCK,
        lock_owner: flock_owner,
        ..release_in(handle, 0)
    })
}

fn release_in(handle: Handle, flags: i32) -> ReleaseIn {
    ReleaseIn {
        fh: handle.fh,
        flags: flags as u32,
        release_flags: 0,
        lock_owner: 0,
    }
}

/// FSYNC; FUSE_FSYNC_FDATASYNC if `datasync`.
pub fn fsync<'a>(handle: Handle, datasync: bool) -> Request<'a, ()> {
    op(Opcode::Fsync, handle.nodeid).body(&fsync_in(handle, datasync))
}

fn fsync_in(handle: Handle, datasync: bool) -> FsyncIn {
    FsyncIn {
        fh: handle.fh,
        fsync_flags: u32::from(datasync),
        padding: 0,
    }
}

/// SETXATTR; `extended` if [`SETXATTR_EXT`] is in force.
pub fn setxattr<'a>(
    nodeid: u64,
    name: &'a [u8],
    value: &'a [u8],
    flags: i32,
    extended: bool,
) -> Request<'a, ()> {
    let (size, flags) = (value.len() as u32, flags as u32);
    let request = op(Opcode::Setxattr, nodeid).name(name).tail(value);
    if extended {
        request.body(&SetxattrInExt {
            size,
            flags,
            ..SetxattrInExt::default()
        })
    } else {
        request.body(&SetxattrIn { size, flags })
    }
}

/// GETXATTR of up to `size` bytes, not 0.
pub fn getxattr(nodeid: u64, name: &[u8], size: u32) -> Request<'_, Vec<u8>> {
    op(Opcode::Getxattr, nodeid)
        .body(&GetxattrIn { size, padding: 0 })
        .name(name)
        .room(size)
}

/// GETXATTR of the value's size.
pub fn getxattr_size(nodeid: u64, name: &[u8]) -> Request<'_, GetxattrOut> {
    op(Opcode::Getxattr, nodeid)
        .body(&GetxattrIn::default())
        .name(name)
}

/// LISTXATTR of up to `size` bytes, not 0.
pub fn listxattr<'a>(nodeid: u64, size: u32) -> Request<'a, Vec<u8>> {
    op(Opcode::Listxattr, nodeid)
        .body(&GetxattrIn { size, padding: 0 })
        .room(size)
}

/// LISTXATTR of the list's size.
pub fn listxattr_size<'a>(nodeid: u64) -> Request<'a, GetxattrOut> {
    op(Opcode::Listxattr, nodeid).body(&GetxattrIn::default())
}

/// REMOVEXATTR.
pub fn removexattr(nodeid: u64, name: &[u8]) -> Request<'_, ()> {
    op(Opcode::Removexattr, nodeid).name(name)
}

/// FLUSH, with the lock owner of the closing process.
pub fn flush<'a>(handle: Handle, lock_owner: u64) -> Request<'a, ()> {
    op(Opcode::Flush, handle.nodeid).body(&FlushIn {
        fh: handle.fh,
        lock_owner,
        ..FlushIn::default()
    })
}

/// INIT.
pub fn init<'a>(body: &InitIn) -> Request<'a, InitOut> {
    op(Opcode::Init, 0).body(body)
}

/// OPENDIR.
pub fn opendir<'a>(nodeid: u64, flags: i32) -> Request<'a, OpenOut> {
    op(Opcode::Opendir, nodeid).body(&open_in(flags))
}

/// READDIR from `offset` into `data`.
pub fn readdir<'a>(handle: Handle, offset: u64, data: &Buffer) -> Request<'a, Vec<DirEntry>> {
    op(Opcode::Readdir, handle.nodeid)
        .body(&read_in(handle, offset, data))
        .sink(data)
}

/// RELEASEDIR.
pub fn releasedir<'a>(handle: Handle, flags: i32) -> Request<'a, ()> {
    op(Opcode::Releasedir, handle.nodeid).body(&release_in(handle, flags))
}

/// FSYNCDIR.
pub fn fsyncdir<'a>(handle: Handle, datasync: bool) -> Request<'a, ()> {
    op(Opcode::Fsyncdir, handle.nodeid).body(&fsync_in(handle, datasync))
}

/// A lock as GETLK, SETLK and SETLKW have it.
#[derive(Debug, Clone, Copy)]
pub struct Lock {
    /// Who holds it, to the daemon.
    pub owner: u64,
    /// Range (both ends included), `F_RDLCK`, `F_WRLCK` or `F_UNLCK`, and process.
    pub lock: FileLock,
    /// A flock(2) lock, not a POSIX one.
    pub flock: bool,
}

fn lk_in(handle: Handle, lock: &Lock) -> LkIn {
    LkIn {
        fh: handle.fh,
        owner: lock.owner,
        lk: lock.lock,
        lk_flags: if lock.flock { LK_FLOCK } else { 0 },
        padding: 0,
    }
}

/// GETLK.
pub fn getlk<'a>(handle: Handle, lock: &Lock) -> Request<'a, LkOut> {
    op(Opcode::Getlk, handle.nodeid).body(&lk_in(handle, lock))
}

/// SETLK.
pub fn setlk<'a>(handle: Handle, lock: &Lock) -> Request<'a, ()> {
    op(Opcode::Setlk, handle.nodeid).body(&lk_in(handle, lock))
}

/// SETLKW.
pub fn setlkw<'a>(handle: Handle, lock: &Lock) -> Request<'a, ()> {
    op(Opcode::Setlkw, handle.nodeid).body(&lk_in(handle, lock))
}

/// ACCESS.
pub fn access<'a>(nodeid: u64, mask: u32) -> Request<'a, ()> {
    op(Opcode::Access, nodeid).body(&AccessIn { mask, padding: 0 })
}

/// CREATE.
pub fn create(
    parent: u64,
    name: &[u8],
    mode: u32,
    flags: i32,
    umask: u32,
) -> Request<'_, (EntryOut, OpenOut)> {
    op(Opcode::Create, parent)
        .body(&create_in(mode, flags, umask))
        .name(name)
}

fn create_in(mode: u32, flags: i32, umask: u32) -> CreateIn {
    CreateIn {
        flags: flags as u32,
        mode,
        umask,
        fuse_flags: 0,
    }
}

/// DESTROY.
pub fn destroy<'a>() -> Request<'a, ()> {
    op(Opcode::Destroy, 0)
}

/// FALLOCATE with `FALLOC_FL_*` in `mode`.
pub fn fallocate<'a>(handle: Handle, mode: i32, offset: u64, length: u64) -> Request<'a, ()> {
    op(Opcode::Fallocate, handle.nodeid).body(&FallocateIn {
        fh: handle.fh,
        offset,
        length,
        mode: mode as u32,
        padding: 0,
    })
}

/// READDIRPLUS from `offset` into `data`.
pub fn readdirplus<'a>(
    handle: Handle,
    offset: u64,
    data: &Buffer,
) -> Request<'a, Vec<(EntryOut, DirEntry)>> {
    op(Opcode::Readdirplus, handle.nodeid)
        .body(&read_in(handle, offset, data))
        .sink(data)
}

/// LSEEK with `SEEK_*`.
pub fn lseek<'a>(handle: Handle, offset: u64, whence: i32) -> Request<'a, LseekOut> {
    op(Opcode::Lseek, handle.nodeid).body(&LseekIn {
        fh: handle.fh,
        offset,
        whence: whence as u32,
        padding: 0,
    })
}

/// COPY_FILE_RANGE.
pub fn copy_file_range<'a>(
    from: Handle,
    offset_in: u64,
    to: Handle,
    offset_out: u64,
    len: u64,
) -> Request<'a, WriteOut> {
    op(Opcode::CopyFileRange, from.nodeid).body(&CopyFileRangeIn {
        fh_in: from.fh,
        offset_in,
        nodeid_out: to.nodeid,
        fh_out: to.fh,
        offset_out,
        len,
        flags: 0,
    })
}

/// SYNCFS.
pub fn syncfs<'a>(nodeid: u64) -> Request<'a, ()> {
    Request::new(abi::SYNCFS, nodeid).body(&SyncfsIn::default())
}

/// TMPFILE; Linux sends the name `/`.
pub fn tmpfile<'a>(
    parent: u64,
    mode: u32,
    flags: i32,
    umask: u32,
) -> Request<'a, (EntryOut, OpenOut)> {
    Request::new(abi::TMPFILE, parent)
        .body(&create_in(mode, flags, umask))
        .name(b"/")
}

/// STATX with `AT_STATX_*` and `STATX_*`.
pub fn statx<'a>(
    nodeid: u64,
    handle: Option<Handle>,
    sx_flags: u32,
    sx_mask: u32,
) -> Request<'a, StatxOut> {
    Request::new(abi::STATX, nodeid).body(&StatxIn {
        getattr_flags: handle.map_or(0, |_| GETATTR_FH),
        reserved: 0,
        fh: handle.map_or(0, |h| h.fh),
        sx_flags,
        sx_mask,
    })
}
