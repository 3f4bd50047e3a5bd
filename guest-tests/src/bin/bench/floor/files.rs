//! One sequence of system calls, again and again, on files of one directory.

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use guest_tests::fixture::Noise;
use rustix::io::Errno;

use super::steps::Bare;
use super::Floor;
use crate::workloads::files::Files;
use crate::workloads::steps::{Job, Step};

/// See the [module](self).
pub struct FilesFloor {
    steps: &'static [Step],
    files: Files,
    data_len: usize,
    units: u64,
    bare: Option<Bare>,
    inodes: Vec<OwnedFd>,
    next: u32,
    noise: Noise,
}

impl FilesFloor {
    pub fn new(steps: &'static [Step], files: Files, data_len: usize, units: u64) -> FilesFloor {
        FilesFloor {
            steps,
            files,
            data_len,
            units,
            bare: None,
            inodes: Vec::new(),
            next: 0,
            noise: Noise::new(1),
        }
    }

    fn run(&mut self, steps: &'static [Step], files: Range<u32>) -> Result<(), Errno> {
        let bare = self.bare.as_mut().ok_or(Errno::BADF)?;
        for file in files {
            let job = Job::new(steps, file, self.data_len);
            bare.run(job, self.inodes.get(file as usize))?;
        }
        Ok(())
    }

    fn make_files(&mut self, count: u32) -> Result<(), Errno> {
        self.run(&[Step::Create, Step::Write, Step::Close], 0..count)
    }
}

impl Floor for FilesFloor {
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno> {
        self.bare = Some(Bare::new(folder, self.data_len)?);
        let Files::Any(count) = self.files else {
            return Ok(());
        };
        self.make_files(count)?;
        let bare = self.bare.as_ref().ok_or(Errno::BADF)?;
        self.inodes = (0..count)
            .map(|file| bare.inode(file))
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn before(&mut self) -> Result<(), Errno> {
        self.next = 0;
        match self.files {
            Files::Each(count) => self.make_files(count),
            _ => Ok(()),
        }
    }

    fn operation(&mut self) -> Result<u64, Errno> {
        let Some(file) = self.files.pick(self.steps, &mut self.noise, &mut self.next) else {
            return Ok(0);
        };
        self.run(self.steps, file..file + 1)?;
        Ok(self.units)
    }

    fn after(&mut self) -> Result<(), Errno> {
        let left = self.files.left(self.steps, self.next);
        self.run(&[Step::Unlink], left)
    }
}
