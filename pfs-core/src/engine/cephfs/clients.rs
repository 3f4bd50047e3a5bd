//! Which clients of a volume this host has, so that a dead one's hold on the file system ends at once.
//!
//! The metadata server waits a minute for a client that does not answer, with all that it held: locks,
//! and the right to change files. A new client can end that for a dead one whose uuid it knows. So each
//! daemon keeps a file in the volume's folder, named by its uuid and its host, and locked for as long as
//! its process lives: a file of this host that is not locked is a dead client's.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{flock, unlinkat, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

/// The folder of those files in the volume's.
pub const FOLDER: &str = "clients";

/// This process's client.
pub struct Registered {
    pub uuid: Uuid,
    name: String,
    /// `None` where the volume's folder cannot be written.
    file: Option<(OwnedFd, File)>,
}

/// A dead client.
pub struct Dead {
    pub uuid: Uuid,
    name: String,
    /// Locked, so that no other reclaims it meanwhile.
    _file: File,
}

impl Registered {
    /// Makes a client known in `folder`.
    pub fn new(folder: Option<OwnedFd>) -> Registered {
        let uuid = Uuid::new_v4();
        let name = format!("{uuid}@{}", host());
        let file = folder.and_then(|folder| match make(&folder, &name) {
            Ok(file) => Some((folder, file)),
            Err(errno) => {
                log::warn!(
                    "cannot register this client in the volume's folder {FOLDER}: {errno}; should \
                     the daemon be killed, what it holds stays held for about a minute"
                );
                None
            }
        });
        Registered { uuid, name, file }
    }

    /// Takes another uuid; the client of the old one is among the [dead](Self::dead) then.
    pub fn renew(&mut self) {
        let folder = self.file.take().map(|(folder, _)| folder);
        *self = Registered::new(folder);
    }

    /// The dead clients of this host.
    pub fn dead(&self) -> Vec<Dead> {
        let Some((folder, _)) = &self.file else {
            return Vec::new();
        };
        let mine = format!("@{}", host());
        let names = Dir::read_from(folder).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| *name != self.name)
            .filter_map(|name| dead(folder, name, &mine))
            .collect()
    }

    /// A dead client holds nothing any more.
    pub fn bury(&self, dead: &Dead) {
        if let Some((folder, _)) = &self.file {
            remove(folder, &dead.name);
        }
    }

    /// The client is gone in good order.
    pub fn unregister(&self) {
        if let Some((folder, _)) = &self.file {
            remove(folder, &self.name);
        }
    }
}

fn remove(folder: impl AsFd, name: &str) {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => log::warn!("cannot remove {FOLDER}/{name} of the volume: {errno}"),
    }
}

fn make(folder: impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: File = rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(0o600))?.into();
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// The client `name`, if it is one of this host (`mine`) and dead.
fn dead(folder: impl AsFd, name: String, mine: &str) -> Option<Dead> {
    let uuid = name.strip_suffix(mine)?.parse().ok()?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = rustix::fs::openat(folder, name.as_str(), flags, Mode::empty())
        .ok()?
        .into();
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(Dead {
        uuid,
        name,
        _file: file,
    })
}

/// This host, as locks know it: a folder may be on a network file system.
fn host() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.replace(['/', '@'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_whose_lock_is_gone_is_dead() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Some(OwnedFd::from(File::open(dir.path()).unwrap()));
        let one = Registered::new(open());
        let two = Registered::new(open());
        assert!(two.dead().is_empty() && one.dead().is_empty());
        let uuid = one.uuid;
        drop(one);
        let dead = two.dead();
        assert_eq!(
            dead.iter().map(|dead| dead.uuid).collect::<Vec<_>>(),
            [uuid]
        );
        assert!(
            Registered::new(open()).dead().is_empty(),
            "another is at it"
        );
        two.bury(&dead[0]);
        drop(dead);
        // The third died as well.
        assert_eq!(two.dead().len(), 1);
        two.unregister();
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn files_of_others_are_let_be() {
        let dir = tempfile::tempdir().unwrap();
        let uuid = Uuid::new_v4();
        for name in [
            format!("{uuid}@elsewhere"),
            format!("x@{}", host()),
            "y".into(),
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let one = Registered::new(Some(File::open(dir.path()).unwrap().into()));
        assert!(one.dead().is_empty());
    }
}
