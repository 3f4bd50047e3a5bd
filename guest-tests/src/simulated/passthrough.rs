//! A file system that is a directory, and answers reads and writes as late as a server would.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::clock::{Answers, Clock};
use super::Speed;

/// Most bytes of one request: what the kernel has pages for.
const REQUEST_LEN_MAX: u32 = 1 << 20;
/// Nobody else changes the directory: names and attributes stay known.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// A directory and its pace. Inodes stay open once they are known: there are few.
#[derive(Debug)]
pub struct Passthrough {
    inodes: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next_file: AtomicU64,
    clock: Mutex<Clock>,
    answers: Answers,
}

impl Passthrough {
    pub fn new(dir: &Path, speed: Speed) -> io::Result<Passthrough> {
        let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Passthrough {
            inodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, Arc::new(root))])),
            files: Mutex::default(),
            next_file: AtomicU64::new(0),
            clock: Mutex::new(Clock::new(speed)),
            answers: Answers::new()?,
        })
    }

    fn inode(&self, ino: INodeNo) -> io::Result<Arc<OwnedFd>> {
        let found = lock(&self.inodes).get(&ino.0).cloned();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, fh: FileHandle) -> io::Result<Arc<File>> {
        let found = lock(&self.files).get(&fh.0).cloned();
        found.ok_or_else(|| rustix::io::Errno::BADF.into())
    }

    fn keep_file(&self, file: File) -> FileHandle {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        lock(&self.files).insert(number, Arc::new(file));
        FileHandle(number)
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(self.inode(parent)?, name, flags, Mode::empty())?;
        let attr = attr_of(&found)?;
        lock(&self.inodes)
            .entry(attr.ino.0)
            .or_insert_with(|| Arc::new(found));
        Ok(attr)
    }

    fn open_inode(&self, ino: INodeNo) -> io::Result<File> {
        let path = path_of(&*self.inode(ino)?);
        File::options().read(true).write(true).open(path)
    }

    fn make(&self, parent: INodeNo, name: &OsStr, mode: u32) -> io::Result<(FileAttr, File)> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = rustix::fs::openat(self.inode(parent)?, name, flags, mode)?;
        Ok((self.find(parent, name)?, file.into()))
    }

    fn list(&self, ino: INodeNo) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            Ok((metadata.ino(), kind_of(&metadata), entry.file_name()))
        };
        fs::read_dir(path_of(&*self.inode(ino)?))?
            .map(entry)
            .collect()
    }

    /// Gives `answer` when the server would have moved `len` bytes.
    fn answer(&self, len: usize, answer: impl FnOnce() + Send + 'static) {
        // Answers are in order because the clock is locked meanwhile.
        let mut clock = lock(&self.clock);
        let time = clock.answer_at(Instant::now(), len);
        self.answers.at(time, answer);
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |_| io::Error::from(io::ErrorKind::Unsupported);
        config.set_max_write(REQUEST_LEN_MAX).map_err(refused)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent, name) {
            Ok(attr) => reply.entry(&FOREVER, &attr, Generation(0)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.inode(ino).and_then(|fd| attr_of(&*fd)) {
            Ok(attr) => reply.attr(&FOREVER, &FileAttr { ino, ..attr }),
            Err(error) => reply.error(error.into()),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Objects have one owner and one mode: only their size is ever set.
        let Some(size) = size else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let set = self.open_inode(ino).and_then(|file| {
            file.set_len(size)?;
            attr_of(&file)
        });
        match set {
            Ok(attr) => reply.attr(&FOREVER, &FileAttr { ino, ..attr }),
            Err(error) => reply.error(error.into()),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self
            .inode(parent)
            .and_then(|parent| Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?));
        done(removed, reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, mode) {
            Ok((attr, file)) => {
                let fh = self.keep_file(file);
                reply.created(&FOREVER, &attr, Generation(0), fh, UNCACHED);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_inode(ino) {
            Ok(file) => reply.opened(self.keep_file(file), UNCACHED),
            Err(error) => reply.error(error.into()),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.files).remove(&fh.0);
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self
            .file(fh)
            .and_then(|file| fill(&file, &mut bytes, offset))
        {
            Ok(len) => self.answer(len, move || reply.data(&bytes[..len])),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .file(fh)
            .and_then(|file| file.write_all_at(data, offset));
        let len = data.len();
        match written {
            Ok(()) => self.answer(len, move || reply.written(len as u32)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.file(fh).and_then(|file| file.sync_all()), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self
            .inode(ino)
            .and_then(|fd| File::open(path_of(&*fd))?.sync_all());
        done(synced, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.list(ino) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error.into()),
        };
        for (index, (ino, kind, name)) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(*ino), index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let stat = self.inode(ino).and_then(|fd| Ok(rustix::fs::fstatvfs(fd)?));
        match stat {
            Ok(stat) => reply.statfs(
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                stat.f_bsize as u32,
                stat.f_namemax as u32,
                stat.f_frsize as u32,
            ),
            Err(error) => reply.error(error.into()),
        }
    }
}

/// Each read and write comes here, also several of one file at once.
const UNCACHED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

/// Reads until `bytes` are full or the file ends.
fn fill(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], offset + len as u64)? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

fn path_of(fd: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn kind_of(metadata: &fs::Metadata) -> FileType {
    match metadata.is_dir() {
        true => FileType::Directory,
        false => FileType::RegularFile,
    }
}

fn attr_of(fd: impl AsFd) -> io::Result<FileAttr> {
    let metadata = File::from(fd.as_fd().try_clone_to_owned()?).metadata()?;
    let time = |s: i64, ns: i64| UNIX_EPOCH + Duration::new(s as u64, ns as u32);
    Ok(FileAttr {
        ino: INodeNo(metadata.ino()),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind_of(&metadata),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: metadata.blksize() as u32,
        flags: 0,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
