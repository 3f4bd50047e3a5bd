//! Listings of a large directory.

use std::path::Path;

use guest_tests::ring::fuse::abi::OpenOut;
use guest_tests::ring::fuse::abi::{EntryOut, Opcode};
use guest_tests::ring::fuse::{ops, Answer, Client, DirEntry, Error, Handle, Pump};

use super::steps::{Job, Runner, Step};
use super::{make_dir, Workload};
use crate::floor::dirs::DirsFloor;
use crate::floor::Floor;

/// OPENDIR, READDIRPLUS until there is no more, RELEASEDIR. Its units are entries.
pub struct Listing {
    entries: u32,
    dir: u64,
    /// Of the files that are listed.
    nodes: Vec<u64>,
    /// How often each node was given out.
    lookups: u64,
    handle: Option<Handle>,
    /// Entries seen in this listing.
    seen: u64,
}

impl Listing {
    pub fn new(entries: u32) -> Listing {
        Listing {
            entries,
            dir: 0,
            nodes: Vec::new(),
            lookups: 1,
            handle: None,
            seen: 0,
        }
    }

    fn read(&self, pump: &mut Pump<'_>, slot: usize, offset: u64) -> Result<(), Error> {
        let handle = self.handle.ok_or(Error::Idle)?;
        let request = ops::readdirplus(handle, offset, pump.data(slot));
        pump.send(slot, &request)
    }
}

impl Workload for Listing {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        const STEPS: &[Step] = &[Step::Create, Step::Close];
        self.dir = make_dir(client, name)?;
        let mut runner = Runner::new(self.dir);
        let jobs = (0..self.entries).map(|file| Job::new(STEPS, file, 0));
        runner.run_all(client, 0, jobs, |job| self.nodes.push(job.node))
    }

    fn before(&mut self, _: &mut Client, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        self.seen = 0;
        pump.send(slot, &ops::opendir(self.dir, libc::O_RDONLY))
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let answer = answer.success()?;
        if answer.opcode == Opcode::Opendir as u32 {
            let open: OpenOut = pump.decode(answer)?;
            self.handle = Some(Handle::new(self.dir, &open));
            return self.read(pump, answer.slot, 0).map(|()| None);
        }
        if answer.opcode == Opcode::Releasedir as u32 {
            self.lookups += 1;
            return Ok(Some(self.seen));
        }
        let entries: Vec<(EntryOut, DirEntry)> = pump.decode(answer)?;
        self.seen += entries.len() as u64;
        match entries.last() {
            Some((_, last)) => self.read(pump, answer.slot, last.offset)?,
            None => {
                let handle = self.handle.take().ok_or(Error::Idle)?;
                pump.send(answer.slot, &ops::releasedir(handle, libc::O_RDONLY))?;
            }
        }
        Ok(None)
    }

    fn finish(&mut self, client: &mut Client) -> Result<(), Error> {
        for node in self.nodes.drain(..) {
            client.forget(node, self.lookups)?;
        }
        client.drain_hiprio()
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(DirsFloor::new(self.entries))
    }
}
