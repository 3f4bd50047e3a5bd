//! The opcode table: what each request of `linux/fuse.h` looks like, whether it may be run
//! again, and why some are refused.
//!
//! Every request is dispatched through its row: sizes are checked against it before anything
//! else, and its [`Replay`] says who gets an intent log. `docs/fuse-opcodes.md` is written from it.

use pfs_core::fs::Errno;

use super::abi::*;

/// What may happen when a worker dies between executing a request and publishing its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// Running it again does the same: at worst it takes a lookup or a handle twice, which the
    /// session's end gives back.
    Idempotent,
    /// Running it again would do something else: it is marked done before it is executed.
    AtMostOnce,
    /// Running it again needs to know what it found: the engine records an
    /// [`Intent`](pfs_core::fs::Intent) before it changes anything.
    Intent,
}

/// Bytes between the in-header and the end of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many.
    Exact(usize),
    /// So many, then names or values.
    AtLeast(usize),
    /// So many, then data that is not copied.
    Payload(usize),
}

/// Bytes that a reply has after the out-header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is no reply at all.
    NoReply,
    /// So many. Known before the request is executed, so no answer is ever lost for lack of room.
    Exact(usize),
    /// As many as are asked for and there is room for.
    AsAsked,
}

/// Why an opcode is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub errno: Errno,
    pub why: &'static str,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub code: Opcode,
    pub body: Body,
    pub room: Room,
    pub replay: Replay,
    /// Whether it changes the volume, and so is refused on a read-only one.
    pub mutates: bool,
    pub refused: Option<Refused>,
}

macro_rules! opcodes {
    ($($name:ident = $code:literal),* $(,)?) => {
        /// `enum fuse_opcode`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Opcode {
            $($name = $code,)*
        }

        impl Opcode {
            /// All that Linux 6.12 knows, and CUSE's.
            pub const ALL: &[Opcode] = &[$(Opcode::$name),*];

            /// The opcode of a request header, if there is such a one.
            pub const fn from_code(code: u32) -> Option<Opcode> {
                match code {
                    $($code => Some(Opcode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8,
    Mkdir = 9, Unlink = 10, Rmdir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16,
    Statfs = 17, Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22, Listxattr = 23,
    Removexattr = 24, Flush = 25, Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29,
    Fsyncdir = 30, Getlk = 31, Setlk = 32, Setlkw = 33, Access = 34, Create = 35, Interrupt = 36,
    Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40, NotifyReply = 41, BatchForget = 42,
    Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46, CopyFileRange = 47,
    SetupMapping = 48, RemoveMapping = 49, Syncfs = 50, Tmpfile = 51, Statx = 52,
    CuseInit = 4096,
}

/// The row of an opcode as it stands in a request header. `None` is answered `ENOSYS`, as every
/// Linux FUSE server does.
pub fn find(code: u32) -> Option<&'static Op> {
    const CUSE_INIT: u32 = Opcode::CuseInit as u32;
    match TABLE.get(code as usize) {
        Some(row) => row.as_ref(),
        None => (code == CUSE_INIT).then_some(&CUSE),
    }
}

static CUSE: Op = Op::of(Opcode::CuseInit);

/// The rows by their codes, but CUSE's.
#[allow(clippy::indexing_slicing)] // At compile time, by an index that the loop bounds.
static TABLE: [Option<Op>; 64] = {
    let mut table = [None; 64];
    let mut code = 0;
    while code < table.len() {
        if let Some(known) = Opcode::from_code(code as u32) {
            table[code] = Some(Op::of(known));
        }
        code += 1;
    }
    table
};

impl Op {
    /// The row of `code`.
    pub const fn of(code: Opcode) -> Op {
        use Body::{AtLeast, Exact, Payload};
        use Opcode as O;
        use Replay::{AtMostOnce, Idempotent, Intent};

        const NONE: Room = Room::Exact(0);
        const ENTRY: Room = Room::Exact(size_of::<EntryOut>());
        const OPEN: Room = Room::Exact(size_of::<OpenOut>());
        const CREATE: Room = Room::Exact(size_of::<EntryOut>() + size_of::<OpenOut>());
        const ATTR: Room = Room::Exact(size_of::<AttrOut>());
        const fn fixed<T>() -> Body {
            Exact(size_of::<T>())
        }
        const fn then_names<T>(names: usize) -> Body {
            // Each name is at least its NUL.
            AtLeast(size_of::<T>() + names)
        }

        let (body, room, replay) = match code {
            O::Lookup => (then_names::<()>(1), ENTRY, Idempotent),
            O::Forget => (fixed::<ForgetIn>(), Room::NoReply, AtMostOnce),
            O::BatchForget => (then_names::<BatchForgetIn>(0), Room::NoReply, AtMostOnce),
            O::Getattr => (fixed::<GetattrIn>(), ATTR, Idempotent),
            O::Statx => (
                fixed::<StatxIn>(),
                Room::Exact(size_of::<StatxOut>()),
                Idempotent,
            ),
            O::Setattr => (fixed::<SetattrIn>(), ATTR, Idempotent),
            O::Readlink => (Exact(0), Room::AsAsked, Idempotent),
            O::Symlink => (then_names::<()>(2), ENTRY, Intent),
            O::Mknod => (then_names::<MknodIn>(1), ENTRY, Intent),
            O::Mkdir => (then_names::<MkdirIn>(1), ENTRY, Intent),
            O::Unlink | O::Rmdir => (then_names::<()>(1), NONE, Intent),
            O::Rename => (then_names::<RenameIn>(2), NONE, Intent),
            O::Rename2 => (then_names::<Rename2In>(2), NONE, Intent),
            O::Link => (then_names::<LinkIn>(1), ENTRY, Intent),
            O::Open | O::Opendir => (fixed::<OpenIn>(), OPEN, Idempotent),
            O::Create => (then_names::<CreateIn>(1), CREATE, Intent),
            O::Tmpfile => (then_names::<CreateIn>(1), CREATE, Idempotent),
            O::Read | O::Readdir | O::Readdirplus => (fixed::<ReadIn>(), Room::AsAsked, Idempotent),
            // At its offset it is idempotent, but an append must go where it went first.
            O::Write => (
                Payload(size_of::<WriteIn>()),
                Room::Exact(size_of::<WriteOut>()),
                Intent,
            ),
            O::Statfs => (Exact(0), Room::Exact(size_of::<StatfsOut>()), Idempotent),
            // A handle given back already is answered an error that no guest looks at.
            O::Release | O::Releasedir => (fixed::<ReleaseIn>(), NONE, Idempotent),
            O::Fsync | O::Fsyncdir => (fixed::<FsyncIn>(), NONE, Idempotent),
            // With XATTR_CREATE, and removing: as with names.
            O::Setxattr => (then_names::<SetxattrIn>(1), NONE, Intent),
            O::Removexattr => (then_names::<()>(1), NONE, Intent),
            O::Getxattr => (then_names::<GetxattrIn>(1), Room::AsAsked, Idempotent),
            O::Listxattr => (fixed::<GetxattrIn>(), Room::AsAsked, Idempotent),
            O::Flush => (fixed::<FlushIn>(), NONE, Idempotent),
            O::Init => (
                AtLeast(size_of::<InitIn>()),
                Room::Exact(size_of::<InitOut>()),
                Idempotent,
            ),
            O::Destroy => (Exact(0), NONE, Idempotent),
            O::Getlk => (fixed::<LkIn>(), Room::Exact(size_of::<LkOut>()), Idempotent),
            O::Setlk | O::Setlkw => (fixed::<LkIn>(), NONE, Idempotent),
            O::Access => (fixed::<AccessIn>(), NONE, Idempotent),
            O::Interrupt => (fixed::<InterruptIn>(), Room::NoReply, Idempotent),
            // The modes that shift data, which are not idempotent, are refused.
            O::Fallocate => (fixed::<FallocateIn>(), NONE, Idempotent),
            O::Lseek => (
                fixed::<LseekIn>(),
                Room::Exact(size_of::<LseekOut>()),
                Idempotent,
            ),
            // Ranges of one file that overlap, which are not idempotent, are refused.
            O::CopyFileRange => (
                fixed::<CopyFileRangeIn>(),
                Room::Exact(size_of::<WriteOut>()),
                Idempotent,
            ),
            O::Syncfs => (fixed::<SyncfsIn>(), NONE, Idempotent),
            O::NotifyReply => (AtLeast(0), Room::NoReply, Idempotent),
            O::Bmap | O::Ioctl | O::Poll | O::SetupMapping | O::RemoveMapping | O::CuseInit => {
                (AtLeast(0), NONE, Idempotent)
            }
        };
        Op {
            code,
            body,
            room,
            replay,
            mutates: code.mutates(),
            refused: code.refused(),
        }
    }
}

impl Opcode {
    /// The name, for logs and metrics.
    pub fn name(self) -> &'static str {
        use Opcode as O;
        match self {
            O::Lookup => "LOOKUP",
            O::Forget => "FORGET",
            O::Getattr => "GETATTR",
            O::Setattr => "SETATTR",
            O::Readlink => "READLINK",
            O::Symlink => "SYMLINK",
            O::Mknod => "MKNOD",
            O::Mkdir => "MKDIR",
            O::Unlink => "UNLINK",
            O::Rmdir => "RMDIR",
            O::Rename => "RENAME",
            O::Link => "LINK",
            O::Open => "OPEN",
            O::Read => "READ",
            O::Write => "WRITE",
            O::Statfs => "STATFS",
            O::Release => "RELEASE",
            O::Fsync => "FSYNC",
            O::Setxattr => "SETXATTR",
            O::Getxattr => "GETXATTR",
            O::Listxattr => "LISTXATTR",
            O::Removexattr => "REMOVEXATTR",
            O::Flush => "FLUSH",
            O::Init => "INIT",
            O::Opendir => "OPENDIR",
            O::Readdir => "READDIR",
            O::Releasedir => "RELEASEDIR",
            O::Fsyncdir => "FSYNCDIR",
            O::Getlk => "GETLK",
            O::Setlk => "SETLK",
            O::Setlkw => "SETLKW",
            O::Access => "ACCESS",
            O::Create => "CREATE",
            O::Interrupt => "INTERRUPT",
            O::Bmap => "BMAP",
            O::Destroy => "DESTROY",
            O::Ioctl => "IOCTL",
            O::Poll => "POLL",
            O::NotifyReply => "NOTIFY_REPLY",
            O::BatchForget => "BATCH_FORGET",
            O::Fallocate => "FALLOCATE",
            O::Readdirplus => "READDIRPLUS",
            O::Rename2 => "RENAME2",
            O::Lseek => "LSEEK",
            O::CopyFileRange => "COPY_FILE_RANGE",
            O::SetupMapping => "SETUPMAPPING",
            O::RemoveMapping => "REMOVEMAPPING",
            O::Syncfs => "SYNCFS",
            O::Tmpfile => "TMPFILE",
            O::Statx => "STATX",
            O::CuseInit => "CUSE_INIT",
        }
    }

    const fn mutates(self) -> bool {
        use Opcode as O;
        matches!(
            self,
            O::Setattr
                | O::Symlink
                | O::Mknod
                | O::Mkdir
                | O::Unlink
                | O::Rmdir
                | O::Rename
                | O::Rename2
                | O::Link
                | O::Create
                | O::Tmpfile
                | O::Write
                | O::Setxattr
                | O::Removexattr
                | O::Fallocate
                | O::CopyFileRange
        )
    }

    /// Whether the caller will own what it makes.
    pub fn makes_nodes(self) -> bool {
        matches!(
            self,
            Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Create | Opcode::Tmpfile
        )
    }

    /// Whether the hiprio queue is for it (virtio 1.3, 5.11.6.1).
    pub fn is_hiprio(self) -> bool {
        matches!(
            self,
            Opcode::Forget | Opcode::BatchForget | Opcode::Interrupt
        )
    }

    const fn refused(self) -> Option<Refused> {
        let (errno, why) = match self {
            Opcode::Bmap => (Errno::NOSYS, "a striped file has no block numbers"),
            Opcode::Ioctl => (
                Errno::NOTTY,
                "no ioctl of the host's may be reached by a guest",
            ),
            Opcode::Poll => (Errno::NOSYS, "files are always ready"),
            Opcode::NotifyReply => (Errno::NOSYS, "nothing is ever retrieved from a guest"),
            Opcode::SetupMapping | Opcode::RemoveMapping => {
                (Errno::NOSYS, "the device has no DAX window")
            }
            Opcode::CuseInit => (Errno::NOSYS, "this is no character device"),
            _ => return None,
        };
        Some(Refused { errno, why })
    }
}
