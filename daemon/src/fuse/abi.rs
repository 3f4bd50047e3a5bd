//! The FUSE wire structures of `linux/fuse.h`.
//!
//! Taken from `fuse-backend-rs` where it has them. It knows the protocol up to 7.33 and some
//! flags beyond; what a Linux 6.12 guest (7.41) speaks besides stands here, each with its name in
//! `include/uapi/linux/fuse.h` of that kernel.

pub use fuse_backend_rs::abi::fuse_abi::{
    AccessIn, Attr, AttrOut, BatchForgetIn, CopyFileRangeIn, CreateIn, Dirent, EntryOut,
    FallocateIn, FileLock, FlushIn, ForgetIn, ForgetOne, FsyncIn, GetattrIn, GetxattrIn,
    GetxattrOut, InHeader, InitIn, InitIn2, InitOut, InterruptIn, Kstatfs, LinkIn, LkIn, LkOut,
    LseekIn, LseekOut, MkdirIn, MknodIn, OpenIn, OpenOut, OutHeader, ReadIn, ReleaseIn, Rename2In,
    RenameIn, SetattrIn, SetxattrIn, StatfsOut, WriteIn, WriteOut, FATTR_FH, FATTR_LOCKOWNER,
    FSYNC_FDATASYNC, GETATTR_FH, LK_FLOCK, WRITE_CACHE, WRITE_KILL_PRIV,
};
use vm_memory::ByteValued;

/// `FUSE_KERNEL_VERSION`.
pub const MAJOR: u32 = 7;
/// `FUSE_KERNEL_MINOR_VERSION` of Linux 6.12.
pub const MINOR: u32 = 41;

/// Bytes of `struct fuse_in_header`.
pub const IN_HEADER_BYTES: usize = size_of::<InHeader>();
/// Bytes of `struct fuse_out_header`.
pub const OUT_HEADER_BYTES: usize = size_of::<OutHeader>();
/// Bytes of `struct fuse_dirent` before its name.
pub const DIRENT_BYTES: usize = size_of::<Dirent>();
/// Bytes of `struct fuse_direntplus` before its name.
pub const DIRENTPLUS_BYTES: usize = size_of::<EntryOut>() + DIRENT_BYTES;

/// `FATTR_*` bits of `fuse_setattr_in.valid`; the crate keeps its own to itself.
pub mod fattr {
    pub use super::{FATTR_FH as FH, FATTR_LOCKOWNER as LOCKOWNER};

    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
    /// All that there are.
    pub const ALL: u32 = (1 << 12) - 1;
}

/// `FOPEN_*` flags of `fuse_open_out.open_flags`.
pub mod fopen {
    /// Reads and writes bypass the guest's page cache.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// Cached pages of the file stay valid over this open.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// The guest may cache the directory's entries.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// Writes that bypass the cache may run side by side.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// `FUSE_OPEN_KILL_SUIDGID` of `fuse_open_in.open_flags` and `fuse_create_in.open_flags`.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;

/// `FUSE_RELEASE_FLOCK_UNLOCK` of `fuse_release_in.release_flags`.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;

/// INIT flags, `FUSE_*`; those from bit 32 travel in `flags2`.
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const FILE_OPS: u64 = 1 << 2;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const SPLICE_WRITE: u64 = 1 << 7;
    pub const SPLICE_MOVE: u64 = 1 << 8;
    pub const SPLICE_READ: u64 = 1 << 9;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const HANDLE_KILLPRIV: u64 = 1 << 19;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const MAP_ALIGNMENT: u64 = 1 << 26;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const INIT_RESERVED: u64 = 1 << 31;
    pub const SECURITY_CTX: u64 = 1 << 32;
    pub const HAS_INODE_DAX: u64 = 1 << 33;
    pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub const HAS_EXPIRE_ONLY: u64 = 1 << 35;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const PASSTHROUGH: u64 = 1 << 37;
    pub const NO_EXPORT_SUPPORT: u64 = 1 << 38;
    pub const HAS_RESEND: u64 = 1 << 39;
    pub const ALLOW_IDMAP: u64 = 1 << 40;
}

/// `FUSE_SETXATTR_ACL_KILL_SGID` of [`SetxattrInExt::setxattr_flags`].
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;

/// `struct fuse_setxattr_in` where `FUSE_SETXATTR_EXT` was negotiated (7.33); [`SetxattrIn`] is
/// its beginning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SetxattrInExt {
    pub size: u32,
    pub flags: u32,
    pub setxattr_flags: u32,
    pub padding: u32,
}

/// `struct fuse_syncfs_in` (7.34).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SyncfsIn {
    pub padding: u64,
}

/// `struct fuse_statx_in` (7.39).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StatxIn {
    pub getattr_flags: u32,
    pub reserved: u32,
    pub fh: u64,
    pub sx_flags: u32,
    pub sx_mask: u32,
}

/// `struct fuse_sx_time` (7.39).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SxTime {
    pub tv_sec: i64,
    pub tv_nsec: u32,
    pub reserved: i32,
}

/// `struct fuse_statx` (7.39).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub spare0: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: SxTime,
    pub btime: SxTime,
    pub ctime: SxTime,
    pub mtime: SxTime,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub spare2: [u64; 14],
}

/// `struct fuse_statx_out` (7.39).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StatxOut {
    pub attr_valid: u64,
    pub attr_valid_nsec: u32,
    pub flags: u32,
    pub spare: [u64; 2],
    pub stat: Statx,
}

// SAFETY: plain integers without padding (the sizes are asserted below).
unsafe impl ByteValued for SyncfsIn {}
// SAFETY: as above.
unsafe impl ByteValued for SetxattrInExt {}
// SAFETY: as above.
unsafe impl ByteValued for StatxIn {}
// SAFETY: as above.
unsafe impl ByteValued for StatxOut {}

// Padding would send the daemon's stack to the guest, so sizes are pinned to the sums of fields.
const _: () = {
    assert!(IN_HEADER_BYTES == 40 && OUT_HEADER_BYTES == 16);
    assert!(DIRENT_BYTES == 24 && DIRENTPLUS_BYTES == 152);
    assert!(size_of::<EntryOut>() == 128 && size_of::<AttrOut>() == 104);
    assert!(size_of::<InitOut>() == 64 && size_of::<InitIn>() + size_of::<InitIn2>() == 64);
    assert!(size_of::<SetxattrIn>() == 8 && size_of::<SetxattrInExt>() == 16);
    assert!(size_of::<StatxIn>() == 24 && size_of::<SxTime>() == 16);
    assert!(size_of::<Statx>() == 256 && size_of::<StatxOut>() == 288);
    assert!(size_of::<ReadIn>() == 40 && size_of::<WriteIn>() == 40);
    assert!(size_of::<StatfsOut>() == 80 && size_of::<LkOut>() == 24);
};
