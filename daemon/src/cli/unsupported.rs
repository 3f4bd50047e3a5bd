//! Options of virtiofsd that this daemon does not have, and why. Each is refused by name:
//! accepting one without doing what it says would be worse.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::CommandFactory;

use super::Args;

const MIGRATION: &str = "live migration is not there yet";
const IDS: &str = "users and groups are not mapped yet: a guest's ids are the volume's";

/// The option's name without dashes in front, and why it is refused.
const TABLE: &[(&str, &str)] = &[
    (
        "security-label",
        "SELinux labels of guests are not stored yet",
    ),
    ("xattrmap", "extended attributes are not renamed"),
    (
        "seccomp",
        "system calls are not filtered yet; only \"none\" is true",
    ),
    (
        "announce-submounts",
        "a volume is one file system to the guest",
    ),
    (
        "inode-file-handles",
        "inodes are found again by file handle where that is possible; only \"prefer\" is true",
    ),
    (
        "allow-mmap",
        "guests with Linux 6.6 or newer can map files shared under every --cache; older ones \
         under auto and always",
    ),
    (
        "no-readdirplus",
        "the guest decides when it wants attributes with names",
    ),
    (
        "allow-direct-io",
        "O_DIRECT skips the guest's cache and not the host's, whose alignment rules a guest \
         does not know",
    ),
    (
        "modcaps",
        "the daemon keeps only the capabilities that it needs",
    ),
    (
        "syslog",
        "the log is standard error: whoever starts the daemon can send it on",
    ),
    (
        "no-killpriv-v2",
        "a write by others always clears setuid and setgid, at the guest's word",
    ),
    ("uid-map", IDS),
    ("gid-map", IDS),
    ("preserve-noatime", "O_NOATIME is not passed on"),
    ("migration-mode", MIGRATION),
    ("migration-on-error", MIGRATION),
    ("migration-verify-handles", MIGRATION),
    ("migration-confirm-paths", MIGRATION),
    ("timeout", "use --entry-timeout and --attr-timeout"),
];

/// Why the option `name`, without dashes in front, is refused.
pub(super) fn why(name: &str) -> Option<&'static str> {
    let found = TABLE.iter().find(|(known, _)| *known == name);
    found.map(|(_, why)| *why)
}

/// Adds the reason to an error about an option of virtiofsd.
pub(super) fn explain(error: clap::Error) -> clap::Error {
    if !matches!(
        error.kind(),
        ErrorKind::UnknownArgument | ErrorKind::InvalidValue
    ) {
        return error;
    }
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    // "--seccomp <none>", "--uid-map=…"
    let name = shown.split([' ', '=']).next().unwrap_or(shown);
    match why(name.trim_start_matches('-')) {
        Some(why) => Args::command().error(error.kind(), format!("{name} is not supported: {why}")),
        None => error,
    }
}
