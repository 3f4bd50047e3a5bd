//! The flags of FUSE_INIT that Linux 6.12 knows: which are taken, and why, or why not.
//!
//! `docs/fuse-opcodes.md` is written from this table.

use std::time::Duration;

use super::abi::init::*;
use super::config::{Caching, ServiceConfig};

/// When a flag that the guest offers is taken.
#[derive(Clone, Copy, Debug)]
pub enum Taken {
    Always,
    /// Under options, as the documentation names them.
    With {
        options: &'static str,
        is_set: fn(&ServiceConfig) -> bool,
    },
    Never,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// As in `linux/fuse.h`, without `FUSE_`.
    pub name: &'static str,
    pub bits: u64,
    pub taken: Taken,
    pub why: &'static str,
}

macro_rules! flags {
    ($($name:ident: $taken:expr, $why:literal;)*) => {
        /// All flags, by bit.
        pub const FLAGS: &[Flag] = &[$(Flag {
            name: stringify!($name),
            bits: $name,
            taken: $taken,
            why: $why,
        }),*];
    };
}

use Taken::{Always, Never, With};

const NAMES_KEPT: Taken = Taken::With {
    options: "`--cache metadata`, `always`, or an `--entry-timeout`",
    is_set: |config| Caching::new(config).entry > Duration::ZERO,
};
const WRITEBACK: Taken = Taken::With {
    options: "`--writeback`",
    is_set: |config| config.writeback,
};

flags! {
    ASYNC_READ: Always, "several reads of a file may be in flight, in any order";
    POSIX_LOCKS: With { options: "`--posix-lock`, the default", is_set: |config| config.posix_locks }, "byte-range locks hold for all who use the volume; a null one has none";
    FILE_OPS: Never, "no kernel gives it a meaning";
    ATOMIC_O_TRUNC: Never, "the guest's kernel must see ETXTBSY before the file is cut, or a running program dies of an O_TRUNC that fails";
    EXPORT_SUPPORT: Never, "lookups of \".\" and \"..\" are refused";
    BIG_WRITES: Always, "WRITE of more than a page";
    DONT_MASK: Always, "the umask comes with the request: the engine applies it, or a default ACL in its place";
    SPLICE_WRITE: Never, "speaks of /dev/fuse";
    SPLICE_MOVE: Never, "speaks of /dev/fuse";
    SPLICE_READ: Never, "speaks of /dev/fuse";
    FLOCK_LOCKS: With { options: "`--flock`, the default", is_set: |config| config.flock }, "locks of flock(2) hold for all who use the volume; a null one has none";
    HAS_IOCTL_DIR: Never, "says what the guest's kernel can; ioctls are refused";
    AUTO_INVAL_DATA: Always, "pages are dropped when attributes show that the file has changed: other clients write too";
    DO_READDIRPLUS: NAMES_KEPT, "a listing brings attributes along; of no use where names must be looked up again";
    READDIRPLUS_AUTO: NAMES_KEPT, "but only where the guest finds that it needs them";
    ASYNC_DIO: Always, "one large O_DIRECT request is split into several in flight";
    WRITEBACK_CACHE: WRITEBACK, "the guest owns sizes and times, which other clients then see late";
    NO_OPEN_SUPPORT: Never, "handles keep unlinked files alive";
    PARALLEL_DIROPS: Always, "lookups and readdirs of one directory may run side by side";
    HANDLE_KILLPRIV: Never, "its second version is taken";
    POSIX_ACL: With { options: "ACLs: not `--no-posix-acl`, not `--no-xattr`", is_set: ServiceConfig::has_acls }, "the guest's kernel enforces ACLs; the engine keeps and inherits them";
    ABORT_ERROR: Never, "speaks of /dev/fuse";
    MAX_PAGES: Always, "requests of more than 32 pages: `max_pages` counts";
    CACHE_SYMLINKS: Always, "a symlink never changes: its target may be kept as long as its inode";
    NO_OPENDIR_SUPPORT: Never, "handles keep removed directories readable";
    EXPLICIT_INVAL_DATA: Never, "a change of the file must drop pages by itself";
    MAP_ALIGNMENT: Never, "there is no DAX window";
    SUBMOUNTS: Never, "a volume is one file system";
    HANDLE_KILLPRIV_V2: Always, "setuid and setgid are dropped on write, truncate and chown as each request says, which spares a GETXATTR of security.capability before each write";
    SETXATTR_EXT: With { options: "ACLs, as POSIX_ACL", is_set: ServiceConfig::has_acls }, "carries the rule that an ACL set by one not of the group drops setgid";
    INIT_EXT: Always, "there are flags beyond bit 31";
    INIT_RESERVED: Never, "reserved";
    SECURITY_CTX: Never, "nothing uses the security context that it appends to requests";
    HAS_INODE_DAX: Never, "there is no DAX window";
    CREATE_SUPP_GROUP: Never, "nothing uses the group that it appends to requests";
    HAS_EXPIRE_ONLY: Never, "there is no queue for notifications";
    DIRECT_IO_ALLOW_MMAP: Always, "mmap(MAP_SHARED) works on files that bypass the page cache (cache=never, metadata)";
    PASSTHROUGH: Never, "a guest has no descriptors of the host's files";
    NO_EXPORT_SUPPORT: Never, "takes file handles from the guest, for which there is no reason";
    HAS_RESEND: Never, "there is no queue for notifications";
    ALLOW_IDMAP: Never, "ids of mounts that the guest maps stay within the guest";
}

/// The flags that are taken where the guest offers them.
pub fn wanted(config: &ServiceConfig) -> u64 {
    let wanted = FLAGS.iter().filter(|flag| match flag.taken {
        Taken::Always => true,
        Taken::With { is_set, .. } => is_set(config),
        Taken::Never => false,
    });
    wanted.fold(0, |bits, flag| bits | flag.bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_row_in_order() {
        for (bit, flag) in FLAGS.iter().enumerate() {
            assert_eq!(flag.bits, 1 << bit, "{}", flag.name);
            assert!(!flag.why.is_empty(), "{}", flag.name);
        }
        // Linux 6.12 knows bits up to ALLOW_IDMAP.
        assert_eq!(FLAGS.len(), 41);
    }
}
