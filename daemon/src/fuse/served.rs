//! Who serves each opcode, and what a guest sees of it that Linux leaves to the server.
//!
//! `docs/fuse-opcodes.md` is written from it, and tests compare it with the dispatch.

use super::opcodes::Opcode;

/// Who serves an opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The method of [`FileSystem`](pfs_core::fs::FileSystem).
    Engine(&'static str),
    /// The service itself.
    Session,
}

impl Opcode {
    /// Who serves it; of a refused one, who would.
    pub fn served_by(self) -> By {
        use Opcode as O;
        By::Engine(match self {
            O::Init | O::Destroy | O::Interrupt | O::NotifyReply | O::CuseInit => {
                return By::Session
            }
            O::Bmap | O::Ioctl | O::Poll | O::SetupMapping | O::RemoveMapping => {
                return By::Session
            }
            O::Lookup => "lookup",
            O::Forget | O::BatchForget => "forget",
            O::Getattr | O::Statx => "getattr",
            O::Setattr => "setattr",
            O::Readlink => "readlink",
            O::Symlink => "symlink",
            O::Mknod => "mknod",
            O::Mkdir => "mkdir",
            O::Unlink => "unlink",
            O::Rmdir => "rmdir",
            O::Rename | O::Rename2 => "rename",
            O::Link => "link",
            O::Open => "open",
            O::Create => "create",
            O::Tmpfile => "tmpfile",
            O::Read => "read",
            O::Write => "write",
            O::Flush => "flush",
            O::Release => "release",
            O::Fsync => "fsync",
            O::Fallocate => "fallocate",
            O::Lseek => "lseek",
            O::CopyFileRange => "copy_file_range",
            O::Opendir => "opendir",
            O::Readdir | O::Readdirplus => "readdir",
            O::Releasedir => "releasedir",
            O::Fsyncdir => "fsyncdir",
            O::Setxattr => "setxattr",
            O::Getxattr => "getxattr",
            O::Listxattr => "listxattr",
            O::Removexattr => "removexattr",
            O::Statfs => "statfs",
            O::Access => "access",
            O::Syncfs => "syncfs",
            O::Getlk => "getlk",
            O::Setlk | O::Setlkw => "setlk",
        })
    }

    /// What is worth knowing of it; empty where it does what its system call says.
    pub fn note(self) -> &'static str {
        use Opcode as O;
        match self {
            O::Lookup => "`.` and `..` are EINVAL: the guest's kernel resolves them itself",
            O::Getattr => "of the inode, also where the request names a handle",
            O::Statx => "with btime, where the host's file system has one",
            O::Setattr => "all of it: size, owner, mode, times to the nanosecond",
            O::Rename2 => "NOREPLACE, EXCHANGE and WHITEOUT; other flags are EINVAL",
            O::Read => "short only at the end of the file",
            O::Write => {
                "whole, or an error; past 2^63 - 1 is EINVAL, past the engine's largest EFBIG"
            }
            O::Flush => "drops the owner's byte-range locks; asks what the host's `close` says, where it can say something",
            O::Fallocate => {
                "0, KEEP_SIZE, PUNCH_HOLE with KEEP_SIZE, ZERO_RANGE; others, as COLLAPSE_RANGE \
                 and INSERT_RANGE, are EOPNOTSUPP"
            }
            O::Lseek => "SEEK_DATA and SEEK_HOLE; the guest's kernel does the others itself",
            O::CopyFileRange => {
                "at most 1 GiB a request; overlapping ranges of one file are EINVAL"
            }
            O::Tmpfile => "`linkat` gives it a name",
            O::Readdirplus => "`.` and `..` come without a node, as Linux wants it",
            O::Setxattr | O::Getxattr | O::Listxattr | O::Removexattr => {
                "with `--no-xattr`: ENOSYS, which the guest's kernel makes EOPNOTSUPP"
            }
            O::Access => "not asked by Linux here: it checks permissions itself",
            O::Destroy => "ends the session: nodes, handles, all",
            O::Init => "7.27 to 7.41; a second one begins a new session",
            O::Ioctl => "so `lsattr` and `chattr` say that the file system has no such thing",
            O::Poll => "the guest's kernel then answers itself, and does not ask again",
            O::Bmap => "not sent over virtiofs, which is on no block device",
            O::Getlk => "the pid is 0 where the holder is not in the same guest",
            O::Setlk => "EOVERFLOW wholly beyond the last byte of an engine's largest lock",
            O::Setlkw => "ENOLCK where half of the queue, or 1024 requests, wait already",
            O::Release => "drops all locks taken through the handle, those of OFD owners too",
            O::Interrupt => "ends the wait of SETLKW with EINTR; not sent over virtiofs by Linux 6.12",
            _ => "",
        }
    }
}
