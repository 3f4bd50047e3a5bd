//! getdents64(2) and statx(2) of each entry.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};

use rustix::fs::{open, statx, AtFlags, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;

use super::steps::Bare;
use super::Floor;
use crate::workloads::steps::{Job, Step};

/// What libc's readdir(3) takes at once, in bytes.
const BUFFER_LEN: usize = 32 << 10;

/// See the [module](self).
pub struct DirsFloor {
    entries: u32,
    folder: PathBuf,
    buffer: Vec<MaybeUninit<u8>>,
}

impl DirsFloor {
    pub fn new(entries: u32) -> DirsFloor {
        DirsFloor {
            entries,
            folder: PathBuf::new(),
            buffer: vec![MaybeUninit::uninit(); BUFFER_LEN],
        }
    }
}

impl Floor for DirsFloor {
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno> {
        self.folder = folder.to_owned();
        let mut bare = Bare::new(folder, 0)?;
        for file in 0..self.entries {
            bare.run(Job::new(&[Step::Create, Step::Close], file, 0), None)?;
        }
        Ok(())
    }

    fn operation(&mut self) -> Result<u64, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(&self.folder, flags, Mode::empty())?;
        let mut entries = RawDir::new(&dir, &mut self.buffer);
        let mut seen = 0;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            statx(&dir, entry.file_name(), flags, StatxFlags::BASIC_STATS)?;
            seen += 1;
        }
        Ok(seen)
    }
}
