//! The parts of the FUSE ABI that `fuse-backend-rs` has not: what came with 7.34 to 7.41.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux 6.12. Everything else is re-exported.

pub use fuse_backend_rs::abi::fuse_abi::{
    AccessIn, Attr, AttrOut, BatchForgetIn, CopyFileRangeIn, CreateIn, Dirent, Direntplus,
    EntryOut, FallocateIn, FileLock, FlushIn, ForgetIn, ForgetOne, FsOptions, FsyncIn, GetattrIn,
    GetxattrIn, GetxattrOut, InHeader, InitOut, InterruptIn, Kstatfs, LinkIn, LkIn, LkOut, LseekIn,
    LseekOut, MkdirIn, MknodIn, Opcode, OpenIn, OpenOut, OutHeader, ReadIn, ReleaseIn, Rename2In,
    RenameIn, SetattrIn, SetattrValid, SetxattrIn, StatfsOut, WriteIn, WriteOut, FATTR_FH, ROOT_ID,
};
use vm_memory::ByteValued;

/// FUSE_SYNCFS, since 7.34.
pub const SYNCFS: u32 = 50;
/// FUSE_TMPFILE, since 7.37.
pub const TMPFILE: u32 = 51;
/// FUSE_STATX, since 7.39.
pub const STATX: u32 = 52;

/// FUSE_SETXATTR_EXT: `setxattr_in` has `setxattr_flags`. Since 7.33.
pub const SETXATTR_EXT: u64 = 1 << 29;
/// FUSE_SECURITY_CTX. Since 7.36.
pub const SECURITY_CTX: u64 = 1 << 32;
/// FUSE_CREATE_SUPP_GROUP. Since 7.38.
pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
/// FUSE_HAS_EXPIRE_ONLY. Since 7.38.
pub const HAS_EXPIRE_ONLY: u64 = 1 << 35;
/// FUSE_DIRECT_IO_ALLOW_MMAP. Since 7.39.
pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
/// FUSE_PASSTHROUGH. Since 7.40.
pub const PASSTHROUGH: u64 = 1 << 37;
/// FUSE_NO_EXPORT_SUPPORT. Since 7.40.
pub const NO_EXPORT_SUPPORT: u64 = 1 << 38;
/// FUSE_HAS_RESEND. Since 7.40.
pub const HAS_RESEND: u64 = 1 << 39;
/// FUSE_ALLOW_IDMAP. Since 7.41.
pub const ALLOW_IDMAP: u64 = 1 << 40;

/// FUSE_GETATTR_FH.
pub const GETATTR_FH: u32 = 1;
/// FUSE_LK_FLOCK.
pub const LK_FLOCK: u32 = 1;
/// FUSE_RELEASE_FLOCK_UNLOCK.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// FUSE_INT_REQ_BIT: set in the `unique` of an INTERRUPT.
pub const INTERRUPT_BIT: u64 = 1;

/// What `fuse_send_init` of a 6.12 guest with virtiofs offers, without DAX.
pub const LINUX_6_12_FLAGS: u64 = FsOptions::ASYNC_READ.bits()
    | FsOptions::POSIX_LOCKS.bits()
    | FsOptions::ATOMIC_O_TRUNC.bits()
    | FsOptions::EXPORT_SUPPORT.bits()
    | FsOptions::BIG_WRITES.bits()
    | FsOptions::DONT_MASK.bits()
    | FsOptions::SPLICE_WRITE.bits()
    | FsOptions::SPLICE_MOVE.bits()
    | FsOptions::SPLICE_READ.bits()
    | FsOptions::FLOCK_LOCKS.bits()
    | FsOptions::HAS_IOCTL_DIR.bits()
    | FsOptions::AUTO_INVAL_DATA.bits()
    | FsOptions::DO_READDIRPLUS.bits()
    | FsOptions::READDIRPLUS_AUTO.bits()
    | FsOptions::ASYNC_DIO.bits()
    | FsOptions::WRITEBACK_CACHE.bits()
    | FsOptions::ZERO_MESSAGE_OPEN.bits()
    | FsOptions::PARALLEL_DIROPS.bits()
    | FsOptions::HANDLE_KILLPRIV.bits()
    | FsOptions::POSIX_ACL.bits()
    | FsOptions::ABORT_ERROR.bits()
    | FsOptions::MAX_PAGES.bits()
    | FsOptions::CACHE_SYMLINKS.bits()
    | FsOptions::ZERO_MESSAGE_OPENDIR.bits()
    | FsOptions::EXPLICIT_INVAL_DATA.bits()
    | FsOptions::SUBMOUNTS.bits()
    | FsOptions::HANDLE_KILLPRIV_V2.bits()
    | SETXATTR_EXT
    | FsOptions::INIT_EXT.bits()
    | SECURITY_CTX
    | CREATE_SUPP_GROUP
    | HAS_EXPIRE_ONLY
    | DIRECT_IO_ALLOW_MMAP
    | PASSTHROUGH
    | NO_EXPORT_SUPPORT
    | HAS_RESEND
    | ALLOW_IDMAP;

/// `struct fuse_init_in` since 7.36: `fuse-backend-rs` has it in two halves.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct InitIn {
    /// 7.
    pub major: u32,
    /// The guest's minor version.
    pub minor: u32,
    /// Bytes.
    pub max_readahead: u32,
    /// Flags 0 to 31.
    pub flags: u32,
    /// Flags 32 to 63.
    pub flags2: u32,
    /// Zero.
    pub unused: [u32; 11],
}

/// `struct fuse_setxattr_in` with [`SETXATTR_EXT`].
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SetxattrInExt {
    /// Bytes of the value.
    pub size: u32,
    /// XATTR_CREATE, XATTR_REPLACE.
    pub flags: u32,
    /// FUSE_SETXATTR_ACL_KILL_SGID.
    pub setxattr_flags: u32,
    /// Zero.
    pub padding: u32,
}

/// `struct fuse_syncfs_in`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SyncfsIn {
    /// Zero.
    pub padding: u64,
}

/// `struct fuse_statx_in`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct StatxIn {
    /// [`GETATTR_FH`] if `fh` is valid.
    pub getattr_flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Handle.
    pub fh: u64,
    /// AT_STATX_*.
    pub sx_flags: u32,
    /// STATX_*.
    pub sx_mask: u32,
}

/// `struct fuse_sx_time`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SxTime {
    /// Seconds.
    pub tv_sec: i64,
    /// Nanoseconds.
    pub tv_nsec: u32,
    /// Zero.
    pub reserved: i32,
}

/// `struct fuse_statx`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
#[allow(missing_docs)] // The fields of statx(2).
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

/// `struct fuse_statx_out`.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct StatxOut {
    /// Seconds for which the attributes may be cached.
    pub attr_valid: u64,
    /// And nanoseconds.
    pub attr_valid_nsec: u32,
    /// FUSE_ATTR_*.
    pub flags: u32,
    /// Zero.
    pub spare: [u64; 2],
    /// The attributes.
    pub stat: Statx,
}

// SAFETY: plain integers, `repr(C)`, no padding: any bytes are a value.
unsafe impl ByteValued for InitIn {}
// SAFETY: as above.
unsafe impl ByteValued for SetxattrInExt {}
// SAFETY: as above.
unsafe impl ByteValued for SyncfsIn {}
// SAFETY: as above.
unsafe impl ByteValued for StatxIn {}
// SAFETY: as above.
unsafe impl ByteValued for StatxOut {}

/// The opcode's name as the header has it, without `FUSE_`.
pub fn opcode_name(opcode: u32) -> &'static str {
    const NAMES: [&str; 53] = [
        "0",
        "LOOKUP",
        "FORGET",
        "GETATTR",
        "SETATTR",
        "READLINK",
        "SYMLINK",
        "7",
        "MKNOD",
        "MKDIR",
        "UNLINK",
        "RMDIR",
        "RENAME",
        "LINK",
        "OPEN",
        "READ",
        "WRITE",
        "STATFS",
        "RELEASE",
        "19",
        "FSYNC",
        "SETXATTR",
        "GETXATTR",
        "LISTXATTR",
        "REMOVEXATTR",
        "FLUSH",
        "INIT",
        "OPENDIR",
        "READDIR",
        "RELEASEDIR",
        "FSYNCDIR",
        "GETLK",
        "SETLK",
        "SETLKW",
        "ACCESS",
        "CREATE",
        "INTERRUPT",
        "BMAP",
        "DESTROY",
        "IOCTL",
        "POLL",
        "NOTIFY_REPLY",
        "BATCH_FORGET",
        "FALLOCATE",
        "READDIRPLUS",
        "RENAME2",
        "LSEEK",
        "COPY_FILE_RANGE",
        "SETUPMAPPING",
        "REMOVEMAPPING",
        "SYNCFS",
        "TMPFILE",
        "STATX",
    ];
    NAMES.get(opcode as usize).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_header() {
        assert_eq!(size_of::<InitIn>(), 64);
        assert_eq!(size_of::<SetxattrInExt>(), 16);
        assert_eq!(size_of::<StatxIn>(), 24);
        assert_eq!(size_of::<Statx>(), 256);
        assert_eq!(size_of::<StatxOut>(), 288);
        assert_eq!(opcode_name(Opcode::CopyFileRange as u32), "COPY_FILE_RANGE");
        assert_eq!(opcode_name(STATX), "STATX");
    }
}
