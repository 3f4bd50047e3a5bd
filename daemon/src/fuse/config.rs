//! How the service serves: what a mount's options say.

use std::time::Duration;

use super::abi::fopen;
use super::ids::Ids;

/// Most data of one READ or WRITE, in bytes: 256 pages of 4 KiB, the most a guest's kernel takes
/// by default (`FUSE_MAX_MAX_PAGES`).
pub const MAX_WRITE_BYTES: u32 = 1 << 20;

/// What a guest may keep, in virtiofsd's words. `docs/caching.md` is the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing: for files that others change. Every read and write goes to the daemon.
    Never,
    /// Names and attributes for long, file data never.
    Metadata,
    /// Close-to-open: an open sees all that was closed before it, and data is kept until an open
    /// finds the file changed.
    #[default]
    Auto,
    /// Everything for long: the guest is alone with the volume.
    Always,
}

/// Options of a [`Service`](super::Service).
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    pub cache: CachePolicy,
    /// Whether the guest has extended attributes.
    pub xattr: bool,
    /// Whether the guest has POSIX ACLs, where it has extended attributes.
    pub posix_acl: bool,
    /// Whether everything that would change the volume is refused with `EROFS`.
    pub readonly: bool,
    /// The guest's users and groups, and the volume's.
    pub ids: Ids,
    /// Whether the guest writes data when it sees fit, and owns sizes and times until then.
    pub writeback: bool,
    /// Whether byte-range locks of `fcntl(2)` hold for all who use the volume; else each guest
    /// has its own.
    pub posix_locks: bool,
    /// The same for locks of `flock(2)`.
    pub flock: bool,
    /// How long a guest may keep a name, where the policy's time is not wanted.
    pub entry_timeout: Option<Duration>,
    /// How long a guest may keep attributes, where the policy's time is not wanted.
    pub attr_timeout: Option<Duration>,
    /// Most data of one READ or WRITE, in bytes: 4 KiB to [`MAX_WRITE_BYTES`].
    pub max_write_bytes: u32,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        ServiceConfig {
            cache: CachePolicy::default(),
            xattr: true,
            posix_acl: true,
            readonly: false,
            writeback: false,
            ids: Ids::default(),
            posix_locks: true,
            flock: true,
            entry_timeout: None,
            attr_timeout: None,
            max_write_bytes: MAX_WRITE_BYTES,
        }
    }
}

impl ServiceConfig {
    /// Whether the guest has POSIX ACLs.
    pub fn has_acls(&self) -> bool {
        self.xattr && self.posix_acl
    }
}

/// What the options come to in replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caching {
    /// How long a directory's name is good.
    pub dir_entry: Duration,
    /// How long the name of anything else is good.
    pub entry: Duration,
    pub attr: Duration,
    /// How long a guest may keep that a name is not there; `None` says it by `ENOENT`.
    pub negative: Option<Duration>,
    /// `FOPEN_*` flags of an opened file.
    pub file_flags: u32,
    /// Whether an open finds out if cached data is still good.
    pub checks_opens: bool,
    /// `FOPEN_*` flags of an opened directory.
    pub dir_flags: u32,
}

const DAY: Duration = Duration::from_secs(86400);
const SECOND: Duration = Duration::from_secs(1);
/// Direct writes are safe side by side: engines order what overlaps, the guest holds its inode
/// lock for those that extend the file.
const DIRECT: u32 = fopen::DIRECT_IO | fopen::PARALLEL_DIRECT_WRITES;

impl Caching {
    pub fn new(config: &ServiceConfig) -> Caching {
        const KEEP: u32 = fopen::KEEP_CACHE;
        let (timeout, file_flags, dir_flags) = match config.cache {
            CachePolicy::Never => (Duration::ZERO, DIRECT, 0),
            CachePolicy::Metadata => (DAY, DIRECT, KEEP | fopen::CACHE_DIR),
            CachePolicy::Auto => (SECOND, 0, 0),
            CachePolicy::Always => (DAY, KEEP, KEEP | fopen::CACHE_DIR),
        };
        let checks_opens = config.cache == CachePolicy::Auto;
        // A name that must be looked up again brings fresh attributes with it: only so does an
        // open by path see the size, and the file, that another client has left there. OPEN
        // itself refreshes neither.
        let file_timeout = if checks_opens {
            Duration::ZERO
        } else {
            timeout
        };
        let entry = config.entry_timeout.unwrap_or(file_timeout);
        Caching {
            dir_entry: config.entry_timeout.unwrap_or(timeout),
            entry,
            checks_opens,
            attr: config.attr_timeout.unwrap_or(timeout),
            negative: (config.cache == CachePolicy::Always).then_some(entry),
            file_flags,
            dir_flags,
        }
    }

    /// How long the name of a node with such a mode is good.
    pub fn entry_of(&self, mode: u32) -> Duration {
        match mode & libc::S_IFMT {
            libc::S_IFDIR => self.dir_entry,
            _ => self.entry,
        }
    }
}
