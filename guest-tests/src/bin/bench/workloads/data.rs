//! Reads and writes of one large file.

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::abi::WriteOut;
use guest_tests::ring::fuse::{ops, Answer, Client, Error, Handle, Pump};

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
    Read,
    /// Over what is there.
    Write,
}

impl Access {
    pub fn is_read(self) -> bool {
        matches!(self, Access::RandomRead | Access::Read)
    }

    /// The place of the next block of `len` bytes; `next` counts blocks.
    pub fn place(self, noise: &mut Noise, next: &mut u64, len: usize) -> u64 {
        let blocks = FILE_LEN / len as u64;
        let block = match self {
            Access::RandomRead | Access::RandomWrite => noise.below(blocks),
            Access::Read | Access::Write => {
                *next += 1;
                (*next - 1) % blocks
            }
        };
        block * len as u64
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
        }
    }

    fn handle(&self) -> Result<Handle, Error> {
        self.handle.ok_or(Error::Idle)
    }
}

impl Workload for Data {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        self.dir = make_dir(client, name)?;
        let (_, handle) = client.create(self.dir, FILE_NAME, 0o644, libc::O_RDWR)?;
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
        Ok(())
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        let handle = self.handle()?;
        let at = self.access.place(&mut self.noise, &mut self.next, self.len);
        match self.access.is_read() {
            true => {
                let request = ops::read(handle, at, pump.data(slot));
                pump.send(slot, &request)
            }
            false => {
                let request = ops::write(handle, at, pump.data(slot));
                pump.send(slot, &request)
            }
        }
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let answer = answer.success()?;
        let done = match self.access.is_read() {
            true => answer.len,
            false => pump.decode::<WriteOut>(answer)?.size as usize,
        };
        match done == self.len {
            true => Ok(Some(1)),
            false => Err(Error::WriteCount {
                len: self.len,
                written: done,
            }),
        }
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
