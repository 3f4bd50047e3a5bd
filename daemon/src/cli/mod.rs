//! The command line: virtiofsd's, in both of its dialects.
//!
//! - `Args`: today's options (`--shared-dir DIR --cache auto`), which libvirt 11 uses.
//! - [`legacy`]: `-o source=DIR,cache=auto`, which libvirt 9 uses.
//! - [`unsupported`]: options of virtiofsd that are not there, and why: each is refused by name.
//!
//! An option that is accepted does what it says.

mod legacy;
mod timeout;
mod unsupported;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use log::LevelFilter;

use crate::fuse::ids::{IdMap, Rule};
use crate::fuse::{CachePolicy, Ids};

/// The default of `--poll-us`.
const POLL_LIMIT_US: u32 = 20;
/// Longer than that is no short while any more.
const POLL_LIMIT_MAX_US: i64 = 10_000;

/// What libvirt and others ask before they start the daemon; only what is true.
pub const CAPABILITIES: &str = r#"{
  "type": "fs",
  "features": [
    "separate-options"
  ]
}
"#;

/// Serve a volume to a VM over virtiofs
///
/// The volume is named by its folder (with a volume.toml, see pfsctl volume create), that file
/// itself, or a plain directory. One daemon serves one VM, and ends with it. It takes virtiofsd's
/// options; those that it does not have are refused with the reason.
#[derive(Parser)]
#[command(name = "pfs-virtiofsd", version, max_term_width = 100)]
struct Args {
    /// The volume: its folder, its volume.toml, or a plain directory
    #[arg(long, value_name = "PATH")]
    shared_dir: Option<PathBuf>,

    /// Listen on this vhost-user socket, which is made, and removed at the end
    #[arg(long, value_name = "PATH", alias = "socket", conflicts_with = "fd")]
    socket_path: Option<PathBuf>,

    /// Group that may connect to the socket, by name or number
    #[arg(
        long,
        value_name = "GROUP",
        requires = "socket_path",
        conflicts_with = "fd"
    )]
    socket_group: Option<String>,

    /// Listen on this inherited socket
    #[arg(long, value_name = "FD")]
    fd: Option<RawFd>,

    /// Mount tag, for VMMs that ask the device for it
    ///
    /// QEMU does not: there it is the device's property "tag", and QEMU before 8.1 warns of a
    /// device that has one to tell.
    #[arg(long)]
    tag: Option<String>,

    /// What the guest may keep
    #[arg(long, value_name = "POLICY", default_value = "auto")]
    cache: Cache,

    /// Let the guest write its data when it sees fit
    ///
    /// Faster for small writes. The guest then goes by its own sizes and times: it must be the
    /// only one to change the files that it uses. Needs --cache auto or always.
    #[arg(long)]
    writeback: bool,

    /// How long the guest may keep a name [default: as --cache has it]
    ///
    /// With --cache auto, names of files are looked up by each open, so that it sees what others
    /// closed before. This gives that up for fewer requests.
    #[arg(long, value_name = "SECONDS", value_parser = timeout::parse)]
    entry_timeout: Option<Duration>,

    /// How long the guest may keep attributes [default: as --cache has it]
    #[arg(long, value_name = "SECONDS", value_parser = timeout::parse)]
    attr_timeout: Option<Duration>,

    /// Accepted: the guest has extended attributes unless --no-xattr is given
    #[arg(long, hide = true, overrides_with = "no_xattr")]
    xattr: bool,

    /// Give the guest no extended attributes, and so no ACLs
    #[arg(long, overrides_with = "xattr")]
    no_xattr: bool,

    /// Accepted: the guest has POSIX ACLs unless --no-posix-acl or --no-xattr is given
    #[arg(
        long,
        hide = true,
        overrides_with = "no_posix_acl",
        conflicts_with = "no_xattr"
    )]
    posix_acl: bool,

    /// Give the guest no POSIX ACLs
    #[arg(long, overrides_with = "posix_acl")]
    no_posix_acl: bool,
    /// Translate users between the guest and the volume: TYPE:SOURCE:TARGET:COUNT
    ///
    /// TYPE is guest (a range of the guest's to one of the volume's), host (the other way),
    /// squash-guest and squash-host (a range to one id), map (both ways; SOURCE is the guest's), or
    /// forbid-guest:SOURCE:COUNT (the guest may make nothing that they own). Ids of which nothing
    /// is said stay. May be given several times.
    #[arg(long, value_name = "RULE")]
    translate_uid: Vec<Rule>,

    /// Translate groups, as --translate-uid does users
    #[arg(long, value_name = "RULE")]
    translate_gid: Vec<Rule>,

    /// Let the guest change nothing
    #[arg(long)]
    readonly: bool,

    /// Byte-range locks (fcntl) hold for all who use the volume [default]
    #[arg(long, overrides_with = "no_posix_lock")]
    posix_lock: bool,

    /// Byte-range locks hold within the guest only
    #[arg(long, overrides_with = "posix_lock")]
    no_posix_lock: bool,

    /// Locks of flock(2) hold for all who use the volume [default]
    #[arg(long, overrides_with = "no_flock")]
    flock: bool,

    /// Locks of flock(2) hold within the guest only
    #[arg(long, overrides_with = "flock")]
    no_flock: bool,

    /// What the process may still reach once it serves [default: namespace]
    #[arg(long, value_name = "KIND", default_value = "namespace")]
    sandbox: Sandbox,

    /// Accepted, without effect
    ///
    /// Every queue has one worker that never waits for a request, and what can only block runs
    /// in a pool of its own: there is nothing to set.
    #[arg(long, value_name = "N")]
    thread_pool_size: Option<u32>,

    /// How long a queue looks for the guest's next request before it sleeps, in microseconds
    ///
    /// For guests that wait for each answer this saves most of the latency, and costs CPU time: no
    /// more than the time until the next request, and none once the guest is idle. 0 turns it off.
    #[arg(long, value_name = "US", default_value_t = POLL_LIMIT_US, value_parser = clap::value_parser!(u32).range(..=POLL_LIMIT_MAX_US))]
    poll_us: u32,

    /// Most open files; 0 leaves the limit as it is [default: 1000000 or what the kernel allows]
    #[arg(long, value_name = "N")]
    rlimit_nofile: Option<u64>,

    /// Least urgent messages to log, to standard error
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: Level,

    /// Print what this program can do, as vhost-user.json describes it, and exit
    #[arg(long)]
    print_capabilities: bool,

    /// Keep the session's records in this inherited memfd, for the next process
    ///
    /// With records in it, the session that they describe goes on.
    #[arg(long, value_name = "FD", hide_short_help = true)]
    state_fd: Option<RawFd>,

    /// Keep the log of requests in flight in this inherited memfd, for the next process
    #[arg(long, value_name = "FD", hide_short_help = true, requires = "state_fd")]
    inflight_fd: Option<RawFd>,

    /// Options as the virtiofsd of QEMU took them: source=PATH,cache=POLICY,...
    #[arg(short = 'o', value_name = "OPTIONS", hide_short_help = true)]
    legacy: Vec<String>,

    /// Log at level debug
    #[arg(short = 'd', hide_short_help = true)]
    debug: bool,

    /// Accepted, without effect: the daemon never goes into the background
    #[arg(short = 'f', hide = true)]
    foreground: bool,

    /// System calls are not filtered yet: only "none" is true
    #[arg(long, value_name = "none", value_parser = ["none"], hide = true)]
    seccomp: Option<String>,

    /// Inodes are found again by file handle where that is possible: only "prefer" is true
    #[arg(long, value_name = "prefer", value_parser = ["prefer"], hide = true)]
    inode_file_handles: Option<String>,

    /// Always so
    #[arg(long, hide = true)]
    killpriv_v2: bool,

    /// Always so: a volume is one file system
    #[arg(long, hide = true)]
    no_announce_submounts: bool,
}

/// What the guest may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Cache {
    /// Nothing: for files that others change
    #[value(alias = "none")]
    Never,
    /// Names and attributes, no data
    Metadata,
    /// Data until an open finds the file changed, attributes for a second: close-to-open
    Auto,
    /// Everything: for a guest that is alone with the volume
    Always,
}

impl From<Cache> for CachePolicy {
    fn from(cache: Cache) -> CachePolicy {
        match cache {
            Cache::Never => CachePolicy::Never,
            Cache::Metadata => CachePolicy::Metadata,
            Cache::Auto => CachePolicy::Auto,
            Cache::Always => CachePolicy::Always,
        }
    }
}

/// What the process may still reach once it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// Own mount, network and IPC namespaces with an empty root, few capabilities (needs root)
    Namespace,
    /// The volume's folder as root directory, few capabilities (needs root)
    Chroot,
    /// What its user may
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> LevelFilter {
        match level {
            Level::Off => LevelFilter::Off,
            Level::Error => LevelFilter::Error,
            Level::Warn => LevelFilter::Warn,
            Level::Info => LevelFilter::Info,
            Level::Debug => LevelFilter::Debug,
            Level::Trace => LevelFilter::Trace,
        }
    }
}

/// Where the VMM connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// A socket to make.
    Path {
        path: PathBuf,
        group: Option<String>,
    },
    /// An inherited one.
    Fd(RawFd),
}

/// What to do, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub shared_dir: PathBuf,
    pub socket: Socket,
    pub tag: Option<String>,
    pub cache: CachePolicy,
    pub writeback: bool,
    pub entry_timeout: Option<Duration>,
    pub attr_timeout: Option<Duration>,
    pub xattr: bool,
    pub posix_acl: bool,
    pub ids: Ids,
    pub readonly: bool,
    pub posix_lock: bool,
    pub flock: bool,
    pub sandbox: Sandbox,
    pub thread_pool_size: Option<u32>,
    /// How long a queue may look for requests before it sleeps.
    pub poll_limit: Duration,
    pub rlimit_nofile: Option<u64>,
    pub log_level: LevelFilter,
    pub state_fd: Option<RawFd>,
    pub inflight_fd: Option<RawFd>,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Serve(Box<Options>),
    PrintCapabilities,
}

/// Reads a command line. Help and version come as "errors" that say so themselves.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Action, clap::Error> {
    let matches = Args::command().try_get_matches_from(args);
    let mut args = matches
        .and_then(|mut matches| Args::from_arg_matches_mut(&mut matches))
        .map_err(unsupported::explain)?;
    if args.print_capabilities {
        return Ok(Action::PrintCapabilities);
    }
    let refuse = |kind, why: String| Args::command().error(kind, why);
    for list in std::mem::take(&mut args.legacy) {
        legacy::apply(&list, &mut args).map_err(|why| refuse(ErrorKind::InvalidValue, why))?;
    }
    if args.writeback && matches!(args.cache, Cache::Never | Cache::Metadata) {
        let why = "--writeback needs --cache auto or always: with never and metadata no data is \
                   kept that could be written later";
        return Err(refuse(ErrorKind::ArgumentConflict, why.to_owned()));
    }
    let map = |option: &str, rules: &[Rule]| {
        let map = IdMap::new(rules);
        map.map_err(|why| refuse(ErrorKind::ArgumentConflict, format!("{option}: {why}")))
    };
    let ids = Ids {
        users: map("--translate-uid", &args.translate_uid)?,
        groups: map("--translate-gid", &args.translate_gid)?,
    };
    let missing = |what: &str| refuse(ErrorKind::MissingRequiredArgument, what.to_owned());
    let shared_dir = args
        .shared_dir
        .ok_or_else(|| missing("no volume is given: use --shared-dir PATH"))?;
    let socket = match (args.socket_path, args.fd) {
        (Some(path), _) => Socket::Path {
            path,
            group: args.socket_group,
        },
        (None, Some(fd)) => Socket::Fd(fd),
        (None, None) => {
            return Err(missing(
                "nowhere to listen is given: use --socket-path PATH or --fd FD",
            ))
        }
    };
    let log_level = match args.debug {
        true => LevelFilter::Debug,
        false => args.log_level.into(),
    };
    Ok(Action::Serve(Box::new(Options {
        shared_dir,
        socket,
        tag: args.tag,
        cache: args.cache.into(),
        writeback: args.writeback,
        entry_timeout: args.entry_timeout,
        attr_timeout: args.attr_timeout,
        xattr: !args.no_xattr,
        posix_acl: !args.no_xattr && !args.no_posix_acl,
        ids,
        readonly: args.readonly,
        posix_lock: !args.no_posix_lock,
        flock: !args.no_flock,
        sandbox: args.sandbox,
        thread_pool_size: args.thread_pool_size,
        poll_limit: Duration::from_micros(args.poll_us.into()),
        rlimit_nofile: args.rlimit_nofile,
        log_level,
        state_fd: args.state_fd,
        inflight_fd: args.inflight_fd,
    })))
}

#[cfg(test)]
mod tests;
