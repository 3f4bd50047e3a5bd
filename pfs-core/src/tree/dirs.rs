//! Reading directories.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags};

use super::attrs::stat_name;
use super::cache::Names;
use super::proc::last_errno;
use super::Tree;
use crate::fs::{DirEntry, DirList, Entry, Errno, Name, NodeId, Result};
use crate::io::DataFd;
use crate::sync::lock;

/// What one `getdents64(2)` is asked for, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes of `struct linux_dirent64` before the name.
const DIRENT_HEAD: usize = 19;

/// An open directory.
pub struct OpenDir {
    pub node: NodeId,
    pub fd: DataFd,
    stream: Mutex<Stream>,
    names: Names,
}

/// Entries read from the kernel and not yet given out.
#[derive(Default)]
struct Stream {
    chunk: Vec<u8>,
    at: usize,
    /// The cookie after which `chunk[at..]` goes on; `None` before the first read.
    cookie: Option<u64>,
}

/// One `struct linux_dirent64`.
struct RawEntry<'a> {
    ino: u64,
    cookie: u64,
    kind: u8,
    name: &'a CStr,
    len: usize,
}

impl Tree {
    /// Opens a directory.
    pub fn open_dir(&self, node: NodeId) -> Result<OpenDir> {
        let inode = self.inode(node)?;
        if inode.file_type != libc::S_IFDIR {
            return Err(Errno::NOTDIR);
        }
        let fd = self.reopen(&inode, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(OpenDir {
            node,
            fd: DataFd::new(fd, self.storage_of(&inode)),
            stream: Mutex::default(),
            names: Names::default(),
        })
    }

    /// Fills `list` with the entries after cookie `offset`; see
    /// [`FileSystem::readdir`](crate::fs::FileSystem::readdir).
    pub fn read_dir(
        &self,
        dir: &OpenDir,
        offset: u64,
        plus: bool,
        list: &mut DirList,
    ) -> Result<()> {
        let mut stream = lock(&dir.stream);
        if stream.cookie != Some(offset) {
            rustix::fs::seek(&dir.fd, rustix::fs::SeekFrom::Start(offset))?;
            *stream = Stream {
                cookie: Some(offset),
                ..Stream::default()
            };
        }
        loop {
            if stream.at >= stream.chunk.len() && !stream.fill(&dir.fd)? {
                return Ok(());
            }
            let Some(raw) = parse(&stream.chunk[stream.at..]) else {
                return Err(Errno::IO);
            };
            match self.push(dir, &raw, plus, list) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Gone since the kernel listed it.
                Err(Errno::NOENT) => {}
                Err(errno) if list.is_empty() => return Err(errno),
                Err(_) => return Ok(()),
            }
            let (len, cookie) = (raw.len, raw.cookie);
            stream.at += len;
            stream.cookie = Some(cookie);
        }
    }

    /// The kind of `name` in `dir` as in `d_type`.
    fn kind_of(&self, dir: &OpenDir, name: &CStr) -> Result<u8> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir.fd, name, flags, Mode::empty())?;
        Ok((self.stat(&fd)?.file_type() >> 12) as u8)
    }

    /// Takes one lookup on `name` in `dir`. A listing, of which a guest may never use most, takes no
    /// descriptors from others for inodes that are known.
    fn listed(&self, dir: &OpenDir, name: &Name) -> Result<Entry> {
        if !self.ownership.is_native() || !self.inodes.is_full() {
            return self.find(&dir.fd, name, &dir.names);
        }
        let stat = stat_name(&dir.fd, name)?;
        match self.inodes.known_at(&dir.fd, name, &stat) {
            Some(node) => Ok(Entry {
                node,
                attr: self.seen(&stat),
            }),
            None => self.enter(&dir.fd, name),
        }
    }

    /// Adds one entry; answers false where there is no room.
    fn push(
        &self,
        dir: &OpenDir,
        raw: &RawEntry<'_>,
        plus: bool,
        list: &mut DirList,
    ) -> Result<bool> {
        let bytes = raw.name.to_bytes();
        if !list.fits(bytes.len()) {
            return Ok(false);
        }
        let entry = match Name::new(raw.name) {
            Ok(name) if plus => Some(self.listed(dir, name)?),
            _ => None,
        };
        let ino = entry.map_or(raw.ino, |entry| entry.attr.ino);
        let kind = match (&entry, raw.kind) {
            (Some(entry), _) => (entry.attr.mode >> 12) as u8,
            // Any kind but a directory is a regular file there.
            (None, libc::DT_REG) if !self.ownership.is_native() => self.kind_of(dir, raw.name)?,
            (None, kind) => kind,
        };
        list.push(DirEntry {
            ino,
            cookie: raw.cookie,
            kind,
            name: bytes,
            entry,
        });
        Ok(true)
    }
}

impl Stream {
    /// Reads the next entries; answers false at the end.
    fn fill(&mut self, fd: &DataFd) -> Result<bool> {
        self.at = 0;
        self.chunk.clear();
        self.chunk.reserve(CHUNK_BYTES);
        // SAFETY: the kernel writes at most CHUNK_BYTES into memory that was just reserved.
        let len = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                fd.as_fd().as_raw_fd(),
                self.chunk.as_mut_ptr(),
                CHUNK_BYTES,
            )
        };
        if len < 0 {
            return Err(last_errno());
        }
        // SAFETY: that many bytes were written, and there is room for CHUNK_BYTES.
        unsafe { self.chunk.set_len((len as usize).min(CHUNK_BYTES)) };
        Ok(len > 0)
    }
}

fn parse(bytes: &[u8]) -> Option<RawEntry<'_>> {
    let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let len = usize::from(u16::from_ne_bytes(bytes.get(16..18)?.try_into().ok()?));
    let name = CStr::from_bytes_until_nul(bytes.get(DIRENT_HEAD..len)?).ok()?;
    Some(RawEntry {
        ino: word(0)?,
        cookie: word(8)?,
        kind: *bytes.get(18)?,
        name,
        len,
    })
}
