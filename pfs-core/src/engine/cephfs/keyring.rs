//! The secret key of a Ceph user, from a keyring file that only few can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest keyring that is read, in bytes.
const FILE_MAX_BYTES: u64 = 64 << 10;
/// Others may not read it, nor the group write it.
const FORBIDDEN_MODE: u32 = 0o027;

/// A keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the keyring {path}: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the keyring {path} is open to others (mode {mode:04o}): chmod 0600 it")]
    Mode { path: PathBuf, mode: u32 },
    #[error("the keyring {path} belongs to user {owner}: it must be root's or the daemon's own")]
    Owner { path: PathBuf, owner: u32 },
    #[error("the keyring {path} has no key of client.{user}: see ceph auth get client.{user}")]
    NoKey { path: PathBuf, user: String },
}

/// A secret. It is printed nowhere.
pub struct Key(pub(super) String);

/// Reads the key of `client.user` from the keyring `path`.
pub fn read(path: &Path, user: &str) -> Result<Key, Error> {
    let failed = |source| Error::Read {
        path: path.into(),
        source,
    };
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != 0 && about.uid() != own {
        return Err(Error::Owner {
            path: path.into(),
            owner: about.uid(),
        });
    }
    if about.mode() & FORBIDDEN_MODE != 0 {
        return Err(Error::Mode {
            path: path.into(),
            mode: about.mode() & 0o7777,
        });
    }
    let mut text = String::new();
    let mut limited = file.take(FILE_MAX_BYTES);
    limited.read_to_string(&mut text).map_err(failed)?;
    find(&text, user).map(Key).ok_or_else(|| Error::NoKey {
        path: path.into(),
        user: user.into(),
    })
}

/// The key in the section `[client.user]`.
fn find(text: &str, user: &str) -> Option<String> {
    let head = format!("[client.{user}]");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != head);
    lines.next()?;
    let section = lines.take_while(|line| !line.starts_with('['));
    let mut entries = section.filter_map(|line| line.split_once('='));
    let (_, key) = entries.find(|(name, _)| name.trim() == "key")?;
    Some(key.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = "[client.a]\n\tkey = one==\n\tcaps mds = \"allow\"\n[client.ab]\nkey=two\n";

    #[test]
    fn the_users_own_key() {
        assert_eq!(find(TEXT, "a").as_deref(), Some("one=="));
        assert_eq!(find(TEXT, "ab").as_deref(), Some("two"));
        assert_eq!(find(TEXT, "b"), None);
        assert_eq!(find("[client.a]\n[client.b]\nkey = x", "a"), None);
    }

    #[test]
    fn a_keyring_that_others_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        let mode = |mode| std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode));
        for bad in [0o644, 0o660, 0o604] {
            mode(bad).unwrap();
            let refused = read(file.path(), "a").err();
            assert!(matches!(refused, Some(Error::Mode { .. })), "{bad:o}");
        }
        mode(0o640).unwrap();
        assert_eq!(read(file.path(), "a").unwrap().0, "one==");
        let missing = read(file.path(), "c").err();
        assert!(matches!(missing, Some(Error::NoKey { .. })));
    }
}
