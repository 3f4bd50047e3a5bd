//! Finding inodes again by a look at the whole tree: for a process that takes up a session and may
//! not open inodes by their file handles.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{openat, Dir, FileType, Mode, OFlags};

use crate::fs::Result;

/// Directories within each other that are looked at: each holds a descriptor meanwhile.
const DEPTH_MAX: usize = 512;

/// Has `found` look at each name below `dir`: the directory that it is in, itself, and its inode
/// number. It answers whether to go on.
///
/// What cannot be read is passed over: others may be at work in the tree.
pub(super) fn each_name(
    dir: impl AsFd,
    mut found: impl FnMut(&OwnedFd, &CStr, u64) -> bool,
) -> Result<()> {
    let mut above = vec![Level::open(dir, c".")?];
    while let Some(level) = above.last_mut() {
        let Some(Ok(entry)) = level.entries.next() else {
            above.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if !found(&level.dir, name, entry.ino()) {
            return Ok(());
        }
        let below = match entry.file_type() {
            FileType::Directory | FileType::Unknown => Level::open(&level.dir, name).ok(),
            _ => None,
        };
        match below {
            Some(level) if above.len() < DEPTH_MAX => above.push(level),
            _ => {}
        }
    }
    Ok(())
}

/// A directory that is being read.
struct Level {
    dir: OwnedFd,
    entries: Dir,
}

impl Level {
    fn open(dir: impl AsFd, name: &CStr) -> Result<Level> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(dir, name, flags, Mode::empty())?;
        let entries = Dir::read_from(&dir)?;
        Ok(Level { dir, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_until_enough() {
        let temp = tempfile::tempdir().unwrap();
        let mut path = temp.path().to_owned();
        for depth in 0..50 {
            std::fs::write(path.join(format!("f{depth}")), "").unwrap();
            path.push(format!("d{depth}"));
            std::fs::create_dir(&path).unwrap();
        }
        std::os::unix::fs::symlink(temp.path(), path.join("loop")).unwrap();
        let top = std::fs::File::open(temp.path()).unwrap();
        let count = |enough: usize| {
            let mut names = std::collections::BTreeSet::new();
            each_name(&top, |_, name, _| {
                assert!(names.insert(name.to_owned()), "{name:?} twice");
                names.len() < enough
            })
            .unwrap();
            names.len()
        };
        assert_eq!(count(usize::MAX), 101);
        assert_eq!(count(7), 7);
    }
}
