//! The system calls of a sequence of operations on names and inodes.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use guest_tests::fixture::Noise;
use rustix::fs::{fstat, open, openat, statat, unlinkat, AtFlags, Mode, OFlags};
use rustix::io::{pread, pwrite, Errno};

use super::Floor;
use crate::workloads::files::{FileName, Files, Step};

const RDWR: OFlags = OFlags::RDWR.union(OFlags::CLOEXEC);
const MODE: Mode = Mode::from_raw_mode(0o644);

/// See the [module](self).
pub struct FilesFloor {
    steps: &'static [Step],
    files: Files,
    buffer: Vec<u8>,
    dir: Option<OwnedFd>,
    /// Descriptors of files that are there: an inode that is known is one that is open.
    inodes: Vec<OwnedFd>,
    next: u32,
    noise: Noise,
}

impl FilesFloor {
    pub fn new(steps: &'static [Step], files: Files, data_len: usize) -> FilesFloor {
        FilesFloor {
            steps,
            files,
            buffer: vec![1; data_len],
            dir: None,
            inodes: Vec::new(),
            next: 0,
            noise: Noise::new(1),
        }
    }

    fn dir(&self) -> Result<&OwnedFd, Errno> {
        self.dir.as_ref().ok_or(Errno::BADF)
    }

    fn make_files(&mut self, count: u32) -> Result<(), Errno> {
        let dir = self.dir()?;
        let make = |number| {
            let file = openat(
                dir,
                FileName::new(number).c_str(),
                RDWR | OFlags::CREATE,
                MODE,
            )?;
            pwrite(&file, &self.buffer, 0)?;
            openat(dir, FileName::new(number).c_str(), OFlags::PATH, MODE)
        };
        self.inodes = (0..count).map(make).collect::<Result<_, Errno>>()?;
        Ok(())
    }

    fn remove_files(&mut self, first: u32, end: u32) -> Result<(), Errno> {
        for number in first..end {
            unlinkat(self.dir()?, FileName::new(number).c_str(), AtFlags::empty())?;
        }
        Ok(())
    }

    fn run(&mut self, number: u32) -> Result<(), Errno> {
        let name = FileName::new(number);
        let name: &CStr = name.c_str();
        let mut file = None;
        for step in self.steps {
            let dir = self.dir()?;
            match step {
                Step::Create => {
                    let flags = RDWR | OFlags::CREATE | OFlags::EXCL;
                    file = Some(openat(dir, name, flags, MODE)?);
                }
                Step::Lookup => {
                    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                Step::Getattr => {
                    fstat(self.inodes.get(number as usize).ok_or(Errno::BADF)?)?;
                }
                Step::Open => file = Some(openat(dir, name, RDWR, MODE)?),
                Step::Write => {
                    pwrite(file.as_ref().ok_or(Errno::BADF)?, &self.buffer, 0)?;
                }
                Step::Read => {
                    pread(file.as_ref().ok_or(Errno::BADF)?, &mut self.buffer, 0)?;
                }
                Step::Close => file = None,
                Step::Unlink => unlinkat(dir, name, AtFlags::empty())?,
            }
        }
        Ok(())
    }
}

impl Floor for FilesFloor {
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno> {
        self.dir = Some(open(
            folder,
            OFlags::PATH | OFlags::DIRECTORY,
            Mode::empty(),
        )?);
        match self.files {
            Files::Any(count) => self.make_files(count),
            _ => Ok(()),
        }
    }

    fn before(&mut self) -> Result<(), Errno> {
        self.next = 0;
        match self.files {
            Files::Each(count) => {
                self.make_files(count)?;
                self.inodes.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn operation(&mut self) -> Result<u64, Errno> {
        let number = match self.files {
            Files::Any(count) => self.noise.below(u64::from(count)) as u32,
            Files::Each(count) if self.next == count => return Ok(0),
            Files::Each(_) | Files::New => {
                self.next += 1;
                self.next - 1
            }
        };
        self.run(number)?;
        Ok(1)
    }

    fn after(&mut self) -> Result<(), Errno> {
        let removes_its_files = self.steps.last() == Some(&Step::Unlink);
        match (self.files, removes_its_files) {
            (Files::New, false) => self.remove_files(0, self.next),
            (Files::Each(count), true) => self.remove_files(self.next, count),
            (Files::Each(count), false) => self.remove_files(0, count),
            _ => Ok(()),
        }
    }
}
