//! Removing names of files that have objects, or are open: they become orphans first.
//!
//! Names of other files are just removed. Should another daemon have put a file with objects in
//! such a name's place since it was looked at, one system call ago, those objects are left to
//! `pfsctl volume check`.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    fgetxattr, openat, renameat_with, statat, unlinkat, AtFlags, Mode, OFlags, RenameFlags,
};

use super::lock::{try_lock, wait_lock, Byte, Kind};
use super::orphans::purge_nameless;
use super::{record, Striped, Volume};
use crate::crash;
use crate::fs::{Errno, Name, Result};
use crate::tree::attrs::{stat_fd, stat_name};
use crate::tree::{Budget, Inode, Stat, Tree};

/// Others may change a name between two looks at it this often.
const TRIES_MAX: usize = 64;

/// What a name that is to go means.
enum Found {
    /// A file that must not be left without a name; with it, its number.
    Victim(Arc<Inode>, u64),
    /// Anything else.
    Plain,
}

impl Striped {
    /// Whether the file that a name in a directory meant, as `stat` describes it, when there were
    /// `purges` in all, must become an orphan, or may have to: another daemon may just have changed
    /// what the name means. Or it is counted.
    pub(super) fn is_victim(
        &self,
        tree: &Tree,
        at: (&Inode, &Name),
        stat: &Stat,
        purges: u64,
    ) -> bool {
        let usage = &self.shared.usage;
        if usage.counts() || !matches!(self.find(tree, at, stat, purges), Ok(Found::Plain)) {
            return true;
        }
        // Another daemon may have it open, and give it objects yet.
        usage.count_purge(stat.ino);
        false
    }

    fn find(
        &self,
        tree: &Tree,
        (dir, name): (&Inode, &Name),
        stat: &Stat,
        purges: u64,
    ) -> Result<Found> {
        if stat.file_type() != libc::S_IFREG || !tree.is_on_root(stat.dev) {
            return Ok(Found::Plain);
        }
        let inode = match tree.held(stat) {
            Some(inode) => inode,
            None => tree.unlisted_at(&dir.fd, name)?,
        };
        if (inode.ino, inode.dev) != (stat.ino, stat.dev) {
            return Err(Errno::AGAIN);
        }
        // In mapped mode anything may be a file to the host.
        if inode.file_type != libc::S_IFREG {
            return Ok(Found::Plain);
        }
        // What is counted is given back by whoever lets go of it last, in whichever process.
        let usage = &self.shared.usage;
        let victim = usage.counts() || self.inodes.is_open(stat.ino);
        if victim || has_record(tree, &inode)? {
            return Ok(Found::Victim(inode, stat.ino));
        }
        // It may have lost its record since, with its name: then the name means another by now.
        let is_same = usage.purges_in_all() == purges || stat_name(&dir.fd, name)?.ino == stat.ino;
        match is_same {
            true => Ok(Found::Plain),
            false => Err(Errno::AGAIN),
        }
    }

    /// Removes `name` in `dir`, whatever it means by now; with `AtFlags::REMOVEDIR`, an empty
    /// directory.
    pub(super) fn remove_name(
        &self,
        tree: &Tree,
        dir: &Inode,
        name: &Name,
        flags: AtFlags,
    ) -> Result<()> {
        let remove = || unlinkat(&dir.fd, name.as_c_str(), flags);
        for _ in 0..TRIES_MAX {
            if flags.contains(AtFlags::REMOVEDIR) {
                return self.remove_plain(dir, name, None, remove);
            }
            let purges = self.shared.usage.purges_in_all();
            let stat = stat_name(&dir.fd, name)?;
            let removed = match self.find(tree, (dir, name), &stat, purges) {
                Ok(Found::Victim(inode, ino)) => self.remove_victim(tree, dir, name, &inode, ino),
                Ok(Found::Plain) => self.remove_plain(dir, name, Some(stat.ino), remove),
                Err(errno) => Err(errno),
            };
            match removed {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::BUSY)
    }

    /// Has `remove` take the name `name` in `dir` from what is no victim. Where inodes are counted,
    /// the one that is gone with it is given back; `EAGAIN` where it is not `ino` by now.
    fn remove_plain(
        &self,
        dir: &Inode,
        name: &Name,
        ino: Option<u64>,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let usage = &self.shared.usage;
        if !usage.counts() {
            return remove();
        }
        // One at a time, or two who remove an inode's last names would each see it gone.
        let _removing = usage.hold_removals()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = openat(&dir.fd, name.as_c_str(), flags, Mode::empty());
        // The turn may have been long in coming, and the name be a victim's.
        let now = stat_name(&dir.fd, name).map(|stat| stat.ino);
        if ino.is_some_and(|ino| now != Ok(ino)) {
            return Err(now.err().unwrap_or(Errno::AGAIN));
        }
        remove()?;
        let Ok(stat) = old.and_then(stat_fd) else {
            return Ok(());
        };
        if stat.attr.nlink == 0 {
            usage.release_inode(match stat.file_type() {
                libc::S_IFREG => stat.attr.size,
                _ => 0,
            });
        }
        Ok(())
    }

    /// Removes one name of `inode`; `EAGAIN` where it is no longer one.
    fn remove_victim(
        &self,
        tree: &Tree,
        dir: &Inode,
        name: &Name,
        inode: &Inode,
        ino: u64,
    ) -> Result<()> {
        let volume = &*self.shared;
        if stat_fd(&inode.fd)?.attr.nlink > 1 {
            let locked = lock_names(tree, inode)?;
            if stat_name(&dir.fd, name)?.ino != ino {
                return Err(Errno::AGAIN);
            }
            if stat_fd(&locked)?.attr.nlink > 1 {
                unlinkat(&dir.fd, name.as_c_str(), AtFlags::empty())?;
                drop(locked);
                // The other may have been an orphan's.
                return settle(volume, ino);
            }
        }
        match volume.orphans.take(&dir.fd, name.as_c_str(), ino) {
            Ok(found) => {
                crash::point("orphan_left");
                settle(volume, found)
            }
            Err(Errno::EXIST | Errno::AGAIN) => Err(Errno::AGAIN),
            Err(Errno::NOENT) => Err(Errno::NOENT),
            Err(errno) => {
                log::debug!("inode {ino} cannot be kept among the orphans: {errno}");
                let file = tree.reopen(inode, OFlags::RDWR)?;
                unlinkat(&dir.fd, name.as_c_str(), AtFlags::empty())?;
                purge_nameless(volume.store(), &file)
            }
        }
    }

    /// Renames `from` over `to`, where a file that must become an orphan may be.
    pub(super) fn rename_over(
        &self,
        tree: &Tree,
        from: (&Inode, &Name),
        to: (&Inode, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        let rename_with = |flags| {
            let (old, new) = (from.1.as_c_str(), to.1.as_c_str());
            renameat_with(&from.0.fd, old, &to.0.fd, new, flags)
        };
        let rename = || rename_with(flags);
        for _ in 0..TRIES_MAX {
            let purges = self.shared.usage.purges_in_all();
            let stat = stat_name(&to.0.fd, to.1);
            let found = match &stat {
                Ok(stat) => self.find(tree, to, stat, purges),
                // Another may put a file there before the rename does.
                Err(Errno::NOENT) => match rename_with(flags | RenameFlags::NOREPLACE) {
                    Err(Errno::EXIST) => Err(Errno::AGAIN),
                    result => return result,
                },
                Err(errno) => Err(*errno),
            };
            let (inode, ino) = match found {
                Ok(Found::Victim(inode, ino)) => (inode, ino),
                Ok(Found::Plain) => {
                    let ino = stat.ok().map(|stat| stat.ino);
                    match self.remove_plain(to.0, to.1, ino, rename) {
                        Err(Errno::AGAIN) => continue,
                        result => return result,
                    }
                }
                Err(Errno::AGAIN | Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            // Another name of the same file: nothing is replaced.
            if stat_name(&from.0.fd, from.1)?.ino == ino {
                return rename();
            }
            match self.replace_victim(tree, to, &inode, ino, rename) {
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        Err(Errno::BUSY)
    }

    /// Has `rename` replace one name of `inode`; `EAGAIN` where it is no longer one.
    fn replace_victim(
        &self,
        tree: &Tree,
        to: (&Inode, &Name),
        inode: &Inode,
        ino: u64,
        rename: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let volume = &*self.shared;
        let locked = lock_names(tree, inode)?;
        if stat_name(&to.0.fd, to.1)?.ino != ino {
            return Err(Errno::AGAIN);
        }
        if let Err(errno) = volume.orphans.link(&volume.proc, &locked, ino) {
            log::debug!("inode {ino} cannot be kept among the orphans: {errno}");
            rename()?;
            try_lock(&locked, Byte::Names, Kind::None)?;
            return purge_nameless(volume.store(), &locked);
        }
        crash::point("orphan_linked");
        let renamed = rename();
        crash::point("orphan_replaced");
        if stat_fd(&locked)?.attr.nlink > 1 {
            volume.orphans.drop_spare(ino)?;
        }
        drop(locked);
        renamed.and_then(|()| settle(volume, ino))
    }

    /// Gives `inode` the name `name` in `dir`. A file without one, other than one made so to be
    /// linked, cannot come back: `ENOENT`, or `EEXIST` where the name is taken.
    pub(super) fn link_name(
        &self,
        tree: &Tree,
        inode: &Inode,
        dir: &Inode,
        name: &CStr,
    ) -> Result<()> {
        match self.link_free_name(tree, inode, dir, name) {
            // Linux looks at the name first.
            Err(Errno::NOENT) if statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {
                Err(Errno::EXIST)
            }
            result => result,
        }
    }

    fn link_free_name(&self, tree: &Tree, inode: &Inode, dir: &Inode, name: &CStr) -> Result<()> {
        if inode.file_type != libc::S_IFREG || !tree.is_on_root(inode.dev) {
            return tree.link_inode(inode, dir, name);
        }
        let orphans = &self.shared.orphans;
        // While the guard is held, an orphan is not purged under way.
        let guarded = guarded(tree, inode)?;
        let links = stat_fd(&guarded)?.attr.nlink;
        if links > 1 || links == 1 && !orphans.holds(inode.ino)? {
            return tree.link_inode(inode, dir, name);
        }
        let open = self.inodes.get(inode.ino).filter(|open| open.is_linkable());
        let open = open.ok_or(Errno::NOENT)?;
        let linked = match orphans.give(inode.ino, &dir.fd, name) {
            Err(Errno::NOENT) => tree.link_inode(inode, dir, name),
            result => result,
        };
        linked.map(|()| open.set_linkable(false))
    }

    /// Completes the removal of a name of `ino` that an earlier try began.
    pub(super) fn complete_removal(&self, ino: u64) {
        let _ = settle(&self.shared, ino);
    }
}

/// Whether the file has, or once had, data in objects.
fn has_record(tree: &Tree, inode: &Inode) -> Result<bool> {
    let name = record::xattr_name();
    let by_opened = |fd: BorrowedFd<'_>| fgetxattr(fd, name.as_c_str(), &mut [0u8; 0][..]);
    let found = match tree.by_opened(inode, by_opened) {
        Some(found) => found.map(drop),
        None => tree.get_xattr(inode, name).map(drop),
    };
    match found {
        Ok(()) => Ok(true),
        Err(Errno::NODATA) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// A descriptor of `inode` with the shared guard: `ENOENT` where it is being deleted.
fn guarded(tree: &Tree, inode: &Inode) -> Result<OwnedFd> {
    let fd = tree.reopen(inode, OFlags::RDONLY)?;
    match try_lock(&fd, Byte::Guard, Kind::Shared) {
        Err(Errno::AGAIN) => Err(Errno::NOENT),
        result => result.map(|()| fd),
    }
}

/// A descriptor of `inode` with the lock that removers of its names take. Blocks.
fn lock_names(tree: &Tree, inode: &Inode) -> Result<OwnedFd> {
    let fd = tree.reopen(inode, OFlags::RDWR)?;
    wait_lock(&fd, Byte::Names, Kind::Exclusive)?;
    Ok(fd)
}

/// Removes what is left of `ino` if it is an orphan that nobody uses. The name is gone either
/// way: what fails now is done later.
fn settle(volume: &Volume, ino: u64) -> Result<()> {
    if let Err(errno) = volume.orphans.purge(volume.store(), ino) {
        log::warn!("inode {ino}, which has no name, cannot be removed yet: {errno}");
    }
    Ok(())
}
