//! The model's names: as Linux has them, with its errors and the order in which it finds them.

use std::collections::BTreeMap;

use guest_tests::ring::fuse::Errno;

use super::tree::{Id, Kind, Owner, Result, Tree};

/// A place for a name.
pub type Place<'a> = (Id, &'a [u8]);

impl Tree {
    /// The entries of a directory that is not removed.
    pub fn entries(&self, dir: Id) -> Result<&BTreeMap<Vec<u8>, Id>> {
        match &self.get(dir).kind {
            Kind::Dir(_) if self.get(dir).links == 0 => Err(Errno::NOENT),
            Kind::Dir(entries) => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.get_mut(dir).kind {
            Kind::Dir(entries) => entries,
            _ => panic!("no directory"),
        }
    }

    /// What has a name.
    pub fn lookup(&self, (dir, name): Place<'_>) -> Result<Id> {
        self.entries(dir)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Makes something.
    pub fn make(&mut self, at: Place<'_>, kind: Kind, mode: u32, owner: Owner) -> Result<Id> {
        match self.lookup(at) {
            Ok(_) => return Err(Errno::EXIST),
            Err(_) => self.entries(at.0)?,
        };
        let id = self.add_in(at.0, kind, mode, owner);
        self.insert(at, id);
        Ok(id)
    }

    /// Makes a file without a name.
    pub fn make_unnamed(&mut self, dir: Id, mode: u32, owner: Owner, linkable: bool) -> Result<Id> {
        self.entries(dir)?;
        let id = self.add_in(dir, Kind::File(Default::default()), mode, owner);
        let inode = self.get_mut(id);
        inode.links = 0;
        inode.linkable = linkable;
        Ok(id)
    }

    /// A setgid directory gives its group to what is made in it, and setgid to directories.
    fn add_in(&mut self, dir: Id, kind: Kind, mut mode: u32, mut owner: Owner) -> Id {
        if self.get(dir).mode & libc::S_ISGID != 0 {
            owner.gid = self.get(dir).owner.gid;
            if matches!(kind, Kind::Dir(_)) {
                mode |= libc::S_ISGID;
            }
        }
        self.add(kind, mode, owner, dir)
    }

    /// Removes a name of what is no directory.
    pub fn unlink(&mut self, at: Place<'_>) -> Result<Id> {
        let id = self.lookup(at)?;
        if self.get(id).is_dir() {
            return Err(Errno::ISDIR);
        }
        self.remove(at);
        self.drop_link(id);
        Ok(id)
    }

    /// Removes an empty directory.
    pub fn rmdir(&mut self, at: Place<'_>) -> Result<Id> {
        let id = self.lookup(at)?;
        if !self.get(id).is_dir() {
            return Err(Errno::NOTDIR);
        }
        if !self.entries(id)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove(at);
        self.drop_link(id);
        Ok(id)
    }

    /// Gives an inode another name.
    pub fn link(&mut self, id: Id, at: Place<'_>) -> Result<()> {
        match self.lookup(at) {
            Ok(_) => return Err(Errno::EXIST),
            Err(_) => self.entries(at.0)?,
        };
        let inode = self.get_mut(id);
        if inode.is_dir() {
            return Err(Errno::PERM);
        }
        if inode.links == 0 && !inode.linkable {
            return Err(Errno::NOENT);
        }
        inode.linkable = false;
        inode.links += 1;
        inode.times.change.set();
        self.insert(at, id);
        Ok(())
    }

    /// Renames, with the flags of renameat2(2).
    pub fn rename(&mut self, from: Place<'_>, to: Place<'_>, flags: u32) -> Result<()> {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        if exchange && flags & libc::RENAME_NOREPLACE != 0 {
            return Err(Errno::INVAL);
        }
        let source = self.lookup(from)?;
        let target = match self.lookup(to) {
            Ok(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EXIST),
            Err(_) if exchange => return Err(Errno::NOENT),
            found => found.ok(),
        };
        self.entries(to.0)?;
        if self.holds(source, to.0) {
            return Err(Errno::INVAL);
        }
        if target.is_some_and(|target| self.holds(target, from.0)) {
            return Err(if exchange {
                Errno::INVAL
            } else {
                Errno::NOTEMPTY
            });
        }
        if target == Some(source) {
            return Ok(());
        }
        if let Some(target) = target.filter(|_| !exchange) {
            self.may_replace(source, target)?;
            self.remove(to);
            self.drop_link(target);
        }
        self.remove(from);
        if let Some(target) = target.filter(|_| exchange) {
            self.remove(to);
            self.insert(from, target);
            self.get_mut(target).times.change.set();
        }
        self.insert(to, source);
        self.get_mut(source).times.change.set();
        Ok(())
    }

    /// Whether `dir` is `id`, or lies in it.
    fn holds(&self, id: Id, mut dir: Id) -> bool {
        loop {
            if dir == id {
                return true;
            }
            let parent = self.get(dir).parent;
            if parent == dir {
                return false;
            }
            dir = parent;
        }
    }

    fn may_replace(&self, source: Id, target: Id) -> Result<()> {
        match (self.get(source).is_dir(), self.get(target).is_dir()) {
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.entries(target)?.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Puts an entry; a directory's `..` counts as a link to its parent.
    fn insert(&mut self, (dir, name): Place<'_>, id: Id) {
        self.entries_mut(dir).insert(name.to_vec(), id);
        self.get_mut(dir).times.modified();
        if self.get(id).is_dir() {
            self.get_mut(id).parent = dir;
            self.get_mut(dir).links += 1;
        }
    }

    fn remove(&mut self, (dir, name): Place<'_>) {
        let id = self.entries_mut(dir).remove(name);
        self.get_mut(dir).times.modified();
        if id.is_some_and(|id| self.get(id).is_dir()) {
            self.get_mut(dir).links -= 1;
        }
    }

    fn drop_link(&mut self, id: Id) {
        let inode = self.get_mut(id);
        inode.links = if inode.is_dir() { 0 } else { inode.links - 1 };
        inode.times.change.set();
    }
}
