//! How the service serves: what a mount's options say.

use std::time::Duration;

use super::abi::fopen;

/// Most data of one READ or WRITE, in bytes: 256 pages of 4 KiB, the most a guest's kernel takes
/// by default (`FUSE_MAX_MAX_PAGES`).
pub const MAX_WRITE_BYTES: u32 = 1 << 20;

/// What a guest may keep, in virtiofsd's words and with their meaning there (1.13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing: for files that others change. Every read and write goes to the daemon.
    Never,
    /// Names and attributes for long, file data never.
    Metadata,
    /// Names and attributes for a second, data until the next open finds the file changed.
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
    /// Whether everything that would change the volume is refused with `EROFS`.
    pub readonly: bool,
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
            xattr: false,
            readonly: false,
            entry_timeout: None,
            attr_timeout: None,
            max_write_bytes: MAX_WRITE_BYTES,
        }
    }
}

/// What the options come to in replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caching {
    pub entry: Duration,
    pub attr: Duration,
    /// How long a guest may keep that a name is not there; `None` says it by `ENOENT`.
    pub negative: Option<Duration>,
    /// `FOPEN_*` flags of an opened file.
    pub file_flags: u32,
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
        let (timeout, file_flags, dir_flags) = match config.cache {
            CachePolicy::Never => (Duration::ZERO, DIRECT, 0),
            CachePolicy::Metadata => (DAY, DIRECT, fopen::CACHE_DIR | fopen::KEEP_CACHE),
            CachePolicy::Auto => (SECOND, 0, 0),
            CachePolicy::Always => (DAY, fopen::KEEP_CACHE, fopen::KEEP_CACHE | fopen::CACHE_DIR),
        };
        let entry = config.entry_timeout.unwrap_or(timeout);
        Caching {
            entry,
            attr: config.attr_timeout.unwrap_or(timeout),
            negative: (config.cache == CachePolicy::Always).then_some(entry),
            file_flags,
            dir_flags,
        }
    }
}
