//! The system calls of a sequence.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{fstat, open, openat, statat, unlinkat, AtFlags, Mode, OFlags};
use rustix::io::{pread, pwrite, Errno};

use crate::workloads::steps::{FileName, Job, Step};

const RDWR: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);
const MODE: Mode = Mode::from_raw_mode(0o644);

/// A directory in which jobs run, without a daemon.
pub struct Bare {
    dir: OwnedFd,
    buffer: Vec<u8>,
}

impl Bare {
    /// Reads are of `data_len` bytes, writes of at most as many.
    pub fn new(folder: &Path, data_len: usize) -> Result<Bare, Errno> {
        Ok(Bare {
            dir: open(folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?,
            buffer: vec![1; data_len],
        })
    }

    /// A descriptor for a file's inode: one that is known is one that is open.
    pub fn inode(&self, file: u32) -> Result<OwnedFd, Errno> {
        openat(&self.dir, FileName::new(file).c_str(), OFlags::PATH, MODE)
    }

    /// Runs a job and gives it back as it is when it is done.
    pub fn run(&mut self, mut job: Job, inode: Option<&OwnedFd>) -> Result<Job, Errno> {
        let name = FileName::new(job.file);
        let name = name.c_str();
        let mut file: Option<OwnedFd> = None;
        for step in job.steps {
            let opened = || file.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF);
            match step {
                Step::Create => {
                    let flags = RDWR | OFlags::CREATE | OFlags::EXCL;
                    file = Some(openat(&self.dir, name, flags, MODE)?);
                }
                Step::Lookup => {
                    statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Step::Getattr => {
                    fstat(inode.ok_or(Errno::BADF)?)?;
                }
                Step::Open => file = Some(openat(&self.dir, name, RDWR, MODE)?),
                Step::Write => {
                    let written = pwrite(opened()?, &self.buffer[..job.write_len], job.end)?;
                    job.end += written as u64;
                }
                Step::Read => {
                    pread(opened()?, &mut self.buffer, 0)?;
                }
                Step::Close => file = None,
                Step::Unlink => unlinkat(&self.dir, name, AtFlags::empty())?,
            }
        }
        Ok(job)
    }
}
