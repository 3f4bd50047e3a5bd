//! Reads and writes of one large file.

use std::path::Path;

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::abi::{Opcode, WriteOut};
use guest_tests::ring::fuse::{ops, Answer, Client, Error, Handle, Pump};

use super::cold::forget_contents;
use super::{make_dir, Workload};
use crate::floor::data::DataFloor;
use crate::floor::Floor;

/// Bytes of the file.
pub const FILE_LEN: u64 = 64 << 20;
/// Its name.
const FILE_NAME: &str = "file";
/// Bytes of one write where the file is made.
const FILL_LEN: usize = 1 << 20;

/// What is done to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    RandomRead,
    RandomWrite,
    /// A random write and an FSYNC.
    RandomWriteSync,
    Read,
    /// Once through the file in each slice, after the host has dropped what it had cached.
    ReadCold,
    /// Over what is there.
    Write,
}

impl Access {
    pub fn is_read(self) -> bool {
        matches!(self, Access::RandomRead | Access::Read | Access::ReadCold)
    }

    /// The place of the next block of `len` bytes; `next` counts blocks. None at the end of a
    /// file that is gone through once.
    pub fn place(self, noise: &mut Noise, next: &mut u64, len: usize) -> Option<u64> {
        let blocks = FILE_LEN / len as u64;
        let block = match self {
            Access::RandomRead | Access::RandomWrite | Access::RandomWriteSync => {
                noise.below(blocks)
            }
            Access::ReadCold if *next == blocks => return None,
            Access::Read | Access::ReadCold | Access::Write => {
                *next += 1;
                (*next - 1) % blocks
            }
        };
        Some(block * len as u64)
    }
}

/// See the [module](self).
pub struct Data {
    access: Access,
    len: usize,
    dir: u64,
    handle: Option<Handle>,
    noise: Noise,
    next: u64,
    /// Past the caches of the host.
    direct: bool,
}

impl Data {
    pub fn new(access: Access, len: usize) -> Data {
        Data {
            access,
            len,
            dir: 0,
            handle: None,
            noise: Noise::new(1),
            next: 0,
            direct: false,
        }
    }

    /// Opens the file with `O_DIRECT`.
    pub fn direct(self) -> Data {
        Data {
            direct: true,
            ..self
        }
    }

    fn handle(&self) -> Result<Handle, Error> {
        self.handle.ok_or(Error::Idle)
    }

    fn check_len(&self, done: usize) -> Result<(), Error> {
        match done == self.len {
            true => Ok(()),
            false => Err(Error::WriteCount {
                len: self.len,
                written: done,
            }),
        }
    }
}

impl Workload for Data {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        self.dir = make_dir(client, name)?;
        let (entry, handle) = client.create(self.dir, FILE_NAME, 0o644, libc::O_RDWR)?;
        self.handle = Some(handle);
        let bytes = Noise::new(2).bytes(FILL_LEN);
        for at in (0..FILE_LEN).step_by(FILL_LEN) {
            let written = client.write(handle, at, &bytes)?;
            if written != FILL_LEN {
                return Err(Error::WriteCount {
                    len: FILL_LEN,
                    written,
                });
            }
        }
        if self.direct {
            client.fsync(handle, false)?;
            client.release(handle)?;
            self.handle = Some(client.open(entry.nodeid, libc::O_RDWR | libc::O_DIRECT)?);
        }
        Ok(())
    }

    fn before(&mut self, client: &mut Client, folder: &Path) -> Result<(), Error> {
        if self.access == Access::ReadCold {
            self.next = 0;
            client.fsync(self.handle()?, false)?;
            forget_contents(folder).map_err(Error::Wait)?;
        }
        Ok(())
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        let handle = self.handle()?;
        let place = self.access.place(&mut self.noise, &mut self.next, self.len);
        let Some(at) = place else {
            return Ok(());
        };
        let data = pump.data(slot).slice(0, self.len);
        match self.access.is_read() {
            true => pump.send(slot, &ops::read(handle, at, &data)),
            false => pump.send(slot, &ops::write(handle, at, &data)),
        }
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let answer = answer.success()?;
        if answer.opcode == Opcode::Fsync as u32 {
            return Ok(Some(1));
        }
        match self.access.is_read() {
            true => self.check_len(answer.len)?,
            false => self.check_len(pump.decode::<WriteOut>(answer)?.size as usize)?,
        }
        if self.access == Access::RandomWriteSync {
            pump.send(answer.slot, &ops::fsync(self.handle()?, false))?;
            return Ok(None);
        }
        Ok(Some(1))
    }

    fn finish(&mut self, client: &mut Client) -> Result<(), Error> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        client.release(handle)?;
        client.unlink(self.dir, FILE_NAME)?;
        client.forget(handle.nodeid, 1)
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(DataFloor::new(self.access, self.len))
    }
}
