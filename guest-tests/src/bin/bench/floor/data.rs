//! pread(2), pwrite(2) and fsync(2) of one large file.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use guest_tests::fixture::Noise;
use rustix::fs::{fsync, open, Mode, OFlags};
use rustix::io::{pread, pwrite, Errno};

use super::Floor;
use crate::workloads::cold::forget_contents;
use crate::workloads::data::{Access, FILE_LEN};

/// See the [module](self).
pub struct DataFloor {
    access: Access,
    buffer: Vec<u8>,
    folder: PathBuf,
    file: Option<OwnedFd>,
    noise: Noise,
    next: u64,
}

impl DataFloor {
    pub fn new(access: Access, len: usize) -> DataFloor {
        DataFloor {
            access,
            buffer: Noise::new(2).bytes(len),
            folder: PathBuf::new(),
            file: None,
            noise: Noise::new(1),
            next: 0,
        }
    }
}

impl Floor for DataFloor {
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = open(folder.join("file"), flags, Mode::from_raw_mode(0o644))?;
        for at in (0..FILE_LEN).step_by(self.buffer.len()) {
            pwrite(&file, &self.buffer, at)?;
        }
        self.file = Some(file);
        self.folder = folder.to_owned();
        Ok(())
    }

    fn before(&mut self) -> Result<(), Errno> {
        if self.access == Access::ReadCold {
            self.next = 0;
            let dropped = forget_contents(&self.folder);
            dropped.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        }
        Ok(())
    }

    fn operation(&mut self) -> Result<u64, Errno> {
        let file = self.file.as_ref().ok_or(Errno::BADF)?;
        let len = self.buffer.len();
        let Some(at) = self.access.place(&mut self.noise, &mut self.next, len) else {
            return Ok(0);
        };
        let done = match self.access.is_read() {
            true => pread(file, &mut self.buffer, at)?,
            false => pwrite(file, &self.buffer, at)?,
        };
        if self.access == Access::RandomWriteSync {
            fsync(file)?;
        }
        match done == len {
            true => Ok(1),
            false => Err(Errno::IO),
        }
    }
}
