//! Whole files and directory trees by path, for tests that set a scene or look at one.
//!
//! Paths start at the root and are split at slashes; symbolic links are not followed. Lookups
//! that a helper needs on the way are forgotten again.

use super::abi::{Attr, EntryOut, Opcode, ROOT_ID};
use super::client::Client;
use super::error::Error;
use super::ops::Handle;
use super::request::DirEntry;
use rustix::io::Errno;

/// Bytes asked for by one READDIR.
const READDIR_LEN: usize = 32 << 10;

impl Client {
    /// Looks a path up. The entry's one lookup is the caller's to [`forget`](Client::forget);
    /// the root has none.
    pub fn resolve(&mut self, path: &str) -> Result<EntryOut, Error> {
        let mut entry = self.root()?;
        for name in components(path) {
            let parent = entry;
            let found = self.lookup(parent.nodeid, name);
            self.forget_one(parent.nodeid)?;
            entry = found?;
            if entry.nodeid == 0 {
                // A negative entry that the guest may cache.
                return Err(Error::Errno {
                    opcode: Opcode::Lookup as u32,
                    errno: Errno::NOENT,
                });
            }
        }
        Ok(entry)
    }

    /// The attributes of what is at `path`.
    pub fn attr(&mut self, path: &str) -> Result<Attr, Error> {
        let entry = self.resolve(path)?;
        self.forget_one(entry.nodeid)?;
        Ok(entry.attr)
    }

    /// Makes a directory and those above it. The entry's lookup is the caller's, as with
    /// [`resolve`](Self::resolve).
    pub fn mkdir_all(&mut self, path: &str) -> Result<EntryOut, Error> {
        let mut entry = self.root()?;
        for name in components(path) {
            let parent = entry;
            let made = match self.mkdir(parent.nodeid, name, 0o755) {
                Err(e) if e == Errno::EXIST => self.lookup(parent.nodeid, name),
                other => other,
            };
            self.forget_one(parent.nodeid)?;
            entry = made?;
        }
        Ok(entry)
    }

    /// Makes or replaces a file, mode 0644.
    pub fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let (parent, name) = split(path)?;
        let parent = self.resolve(parent)?;
        let flags = libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY;
        let created = self.create(parent.nodeid, name, 0o644, flags);
        self.forget_one(parent.nodeid)?;
        let (entry, handle) = created?;
        let written = self.write_all(handle, 0, bytes);
        let released = self.release(handle);
        self.forget_one(entry.nodeid)?;
        written.and(released)
    }

    /// All bytes of a file.
    pub fn read_file(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        let entry = self.resolve(path)?;
        let result = self.open(entry.nodeid, libc::O_RDONLY).and_then(|handle| {
            let bytes = self.read_to_end(handle);
            self.release(handle)?;
            bytes
        });
        self.forget_one(entry.nodeid)?;
        result
    }

    /// Writes all of `bytes`, in WRITEs as large as they can be.
    pub fn write_all(
        &mut self,
        handle: Handle,
        mut offset: u64,
        mut bytes: &[u8],
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let len = bytes.len().min(self.limits.io_len);
            let written = self.write(handle, offset, &bytes[..len])?;
            if written == 0 || written > len {
                return Err(Error::WriteCount { len, written });
            }
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Reads from the start until a READ comes back empty.
    pub fn read_to_end(&mut self, handle: Handle) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        loop {
            let part = self.read(handle, bytes.len() as u64, self.limits.io_len)?;
            if part.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&part);
        }
    }

    /// All entries of a directory but `.` and `..`, in the daemon's order.
    pub fn list(&mut self, path: &str) -> Result<Vec<DirEntry>, Error> {
        let entry = self.resolve(path)?;
        let entries = self.list_node(entry.nodeid);
        self.forget_one(entry.nodeid)?;
        entries
    }

    /// [`list`](Self::list) of a node.
    pub fn list_node(&mut self, nodeid: u64) -> Result<Vec<DirEntry>, Error> {
        let handle = self.opendir(nodeid)?;
        let mut entries: Vec<DirEntry> = Vec::new();
        let result = loop {
            let offset = entries.last().map_or(0, |last| last.offset);
            match self.readdir(handle, offset, READDIR_LEN) {
                Ok(part) if part.is_empty() => break Ok(()),
                Ok(part) => entries.extend(part),
                Err(e) => break Err(e),
            }
        };
        self.releasedir(handle)?;
        result?;
        entries.retain(|entry| entry.name != b"." && entry.name != b"..");
        Ok(entries)
    }

    /// Removes a file, or a directory with all that is in it.
    pub fn remove_tree(&mut self, path: &str) -> Result<(), Error> {
        let (parent, name) = split(path)?;
        let parent = self.resolve(parent)?;
        let result = self.remove_in(parent.nodeid, name.as_bytes());
        self.forget_one(parent.nodeid)?;
        result
    }

    fn remove_in(&mut self, parent: u64, name: &[u8]) -> Result<(), Error> {
        let entry = self.lookup(parent, name)?;
        let is_dir = entry.attr.mode & libc::S_IFMT == libc::S_IFDIR;
        let result = if is_dir {
            self.empty(entry.nodeid)
                .and_then(|()| self.rmdir(parent, name))
        } else {
            self.unlink(parent, name)
        };
        self.forget_one(entry.nodeid)?;
        result
    }

    fn empty(&mut self, nodeid: u64) -> Result<(), Error> {
        for entry in self.list_node(nodeid)? {
            self.remove_in(nodeid, &entry.name)?;
        }
        Ok(())
    }

    fn root(&mut self) -> Result<EntryOut, Error> {
        Ok(EntryOut {
            nodeid: ROOT_ID,
            attr: self.getattr(ROOT_ID)?.attr,
            ..EntryOut::default()
        })
    }

    fn forget_one(&mut self, nodeid: u64) -> Result<(), Error> {
        if nodeid == ROOT_ID || nodeid == 0 {
            return Ok(());
        }
        self.forget(nodeid, 1)
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

fn split(path: &str) -> Result<(&str, &str), Error> {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/')
        .filter(|(_, name)| !name.is_empty())
        .ok_or_else(|| Error::Path(path.to_owned()))
}
