//! What a mapped inode is to the guest: the hidden attribute `user.pfs.owner`.

use std::ffi::CStr;
use std::fmt;

use super::super::Stat;

/// The attribute's name.
pub(super) const NAME: &CStr = c"user.pfs.owner";
/// The attribute without which a file has not its [privileges](Owner::is_privileged). A write
/// drops them by removing it, whatever changes of owner and mode are made at the same moment.
pub(super) const PRIVILEGED_NAME: &CStr = c"user.pfs.privileged";
/// The attribute that a symbolic link's target is in, unless it is too long for one.
pub(super) const TARGET_NAME: &CStr = c"user.pfs.target";
/// Longest value of [`NAME`], in bytes.
pub(super) const VALUE_MAX_BYTES: usize = 64;

/// Owner, type and permissions of an inode.
///
/// As text: `<uid> <gid> <mode>`, and for a device ` <major>:<minor>`. The mode is octal, with
/// the file type, as `stat(2)` has it; all else is decimal. `1000 100 100644` is a regular file
/// with permissions 644. Setuid and setgid of a file are in force only with [`PRIVILEGED_NAME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// With the file type.
    pub mode: u32,
    /// Of a device: major and minor number.
    pub rdev: (u32, u32),
}

impl Owner {
    /// What an inode is that says nothing of itself, since the host made it, or a crash came
    /// before it could be said: root's, with the host's permissions, and never privileged.
    pub fn unsaid(host: &Stat) -> Owner {
        Owner {
            uid: 0,
            gid: 0,
            mode: host.attr.mode & (libc::S_IFMT | 0o777),
            rdev: (0, 0),
        }
    }

    /// The owner in an attribute's value.
    pub fn parse(value: &[u8]) -> Option<Owner> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let mut owner = Owner {
            uid: words.next()?.parse().ok()?,
            gid: words.next()?.parse().ok()?,
            mode: u32::from_str_radix(words.next()?, 8).ok()?,
            rdev: (0, 0),
        };
        if let Some(rdev) = words.next() {
            let (major, minor) = rdev.split_once(':')?;
            owner.rdev = (major.parse().ok()?, minor.parse().ok()?);
        }
        let is_mode = owner.mode & !(libc::S_IFMT | 0o7777) == 0;
        (is_mode && words.next().is_none()).then_some(owner)
    }

    /// The inode's attributes with this in them. A directory of the host is one, and nothing
    /// else is: the kernel lists in it and links below it.
    pub fn complete(&self, mut host: Stat) -> Stat {
        let host_type = host.file_type();
        let (attr, said) = (&mut host.attr, self.mode & libc::S_IFMT);
        attr.mode = match host_type {
            libc::S_IFREG if said != libc::S_IFDIR && said != 0 => self.mode,
            host_type => host_type | self.mode & 0o7777,
        };
        (attr.uid, attr.gid) = (self.uid, self.gid);
        (attr.rdev_major, attr.rdev_minor) = self.rdev;
        host
    }

    /// Whether there is setuid, or setgid, for a write to drop. Directories keep theirs.
    pub fn is_privileged(&self) -> bool {
        let is_dir = self.mode & libc::S_IFMT == libc::S_IFDIR;
        !is_dir && without_suidgid(self.mode) != self.mode
    }

    /// Drops setuid, and setgid of what its group may execute.
    pub fn kill_suidgid(&mut self) {
        self.mode = without_suidgid(self.mode);
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner {
            uid,
            gid,
            mode,
            rdev,
        } = self;
        write!(f, "{uid} {gid} {mode:o}")?;
        match rdev {
            (0, 0) => Ok(()),
            (major, minor) => write!(f, " {major}:{minor}"),
        }
    }
}

/// `mode` without setuid, and without setgid where its group may execute.
pub(super) fn without_suidgid(mode: u32) -> u32 {
    match mode & libc::S_IXGRP {
        0 => mode & !libc::S_ISUID,
        _ => mode & !(libc::S_ISUID | libc::S_ISGID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Attr;

    fn stat(mode: u32) -> Stat {
        Stat {
            dev: 1,
            ino: 2,
            attr: Attr {
                mode,
                uid: 65534,
                gid: 65534,
                ..Attr::default()
            },
        }
    }

    #[test]
    fn text_round_trips_and_damage_is_seen() {
        for (uid, gid, mode, rdev, text) in [
            (1000, 100, 0o100644, (0, 0), "1000 100 100644"),
            (0, 0, 0o42755, (0, 0), "0 0 42755"),
            (0, 6, 0o60660, (8, 1), "0 6 60660 8:1"),
            (
                u32::MAX,
                u32::MAX,
                0o177777,
                (u32::MAX, u32::MAX),
                "4294967295 4294967295 177777 4294967295:4294967295",
            ),
        ] {
            let owner = Owner {
                uid,
                gid,
                mode,
                rdev,
            };
            assert_eq!(owner.to_string(), text);
            assert_eq!(Owner::parse(text.as_bytes()), Some(owner));
            assert!(text.len() <= VALUE_MAX_BYTES);
        }
        for bad in [
            "",
            "1 2",
            "1 2 9",
            "-1 2 644",
            "1 2 644 8",
            "1 2 644 8:1 x",
            "1 2 200000",
            "1  2 644",
            "1 2 644 ",
            "x",
        ] {
            assert_eq!(Owner::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Owner::parse(b"\xff 0 644"), None);
    }

    #[test]
    fn the_kind_is_never_at_odds_with_the_hosts() {
        let seen = |said: u32, host: u32| {
            let owner = Owner {
                uid: 5,
                gid: 6,
                mode: said,
                rdev: (0, 0),
            };
            let seen = owner.complete(stat(host)).attr;
            assert_eq!((seen.uid, seen.gid), (5, 6));
            seen.mode
        };
        assert_eq!(seen(0o104755, 0o100600), 0o104755);
        assert_eq!(seen(0o120777, 0o100600), 0o120777);
        assert_eq!(seen(0o20660, 0o100600), 0o20660);
        assert_eq!(seen(0o41777, 0o40700), 0o41777);
        assert_eq!(seen(0o100644, 0o40700), 0o40644);
        assert_eq!(seen(0o40755, 0o100600), 0o100755);
        assert_eq!(seen(0o100644, 0o120777), 0o120644);
    }

    #[test]
    fn what_says_nothing_is_roots_and_not_privileged() {
        let owner = Owner::unsaid(&stat(0o106755));
        let seen = owner.complete(stat(0o106755)).attr;
        assert_eq!((seen.uid, seen.gid, seen.mode), (0, 0, 0o100755));
    }
}
