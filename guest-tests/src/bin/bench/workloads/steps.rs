//! Sequences of requests on one file, as the system calls of a program make them.

use std::ffi::CStr;
use std::time::Duration;

use guest_tests::ring::fuse::abi::{EntryOut, OpenOut};
use guest_tests::ring::fuse::{ops, Answer, Client, Errno, Error, Handle, Pump};

/// What is done to a file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Lookup,
    Getattr,
    Open,
    /// After what the sequence wrote before.
    Write,
    /// From the start.
    Read,
    /// close(2): Linux sends FLUSH, unless the daemon once said that it has none, then RELEASE.
    Close,
    /// And forgets the inode, as a guest's kernel does with one that has no name.
    Unlink,
}

/// Requests at once where nothing is measured.
const UNMEASURED_DEPTH: usize = 32;
const MODE: u32 = libc::S_IFREG | 0o644;
const UMASK: u32 = 0o022;
const CREATE_FLAGS: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

/// The name of a file by its number, made without allocation: `f0000000000`.
#[derive(Debug, Clone, Copy)]
pub struct FileName([u8; 12]);

impl FileName {
    pub fn new(number: u32) -> FileName {
        let mut name = *b"f0000000000\0";
        let mut left = number;
        for digit in name[1..11].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        FileName(name)
    }

    /// Without the NUL.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..11]
    }

    pub fn c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// One sequence on one file.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub steps: &'static [Step],
    /// The file's number.
    pub file: u32,
    /// Its node, 0 if that is not known yet.
    pub node: u64,
    /// How often the daemon gave the node out.
    pub lookups: u64,
    /// Where the next write goes.
    pub end: u64,
    /// Bytes of one write.
    pub write_len: usize,
}

impl Job {
    /// For a file that is there, or is not yet.
    pub fn new(steps: &'static [Step], file: u32, write_len: usize) -> Job {
        Job {
            steps,
            file,
            node: 0,
            lookups: 0,
            end: 0,
            write_len,
        }
    }

    /// Something else with the same file.
    pub fn then(self, steps: &'static [Step]) -> Job {
        Job { steps, ..self }
    }
}

/// A job that goes on.
#[derive(Debug, Clone, Copy)]
struct Running {
    job: Job,
    /// Steps that are done.
    done: usize,
    handle: Handle,
    /// Whether FLUSH was answered and RELEASE is due.
    flushed: bool,
}

/// Runs jobs in one directory, one in each slot of a pump.
#[derive(Debug, Default)]
pub struct Runner {
    dir: u64,
    running: Vec<Option<Running>>,
    no_flush: bool,
}

impl Runner {
    /// For files in the directory with this node.
    pub fn new(dir: u64) -> Runner {
        Runner {
            dir,
            ..Runner::default()
        }
    }

    /// Sends the first request of a job.
    pub fn start(&mut self, pump: &mut Pump<'_>, slot: usize, job: Job) -> Result<(), Error> {
        if self.running.len() <= slot {
            self.running.resize(slot + 1, None);
        }
        let running = Running {
            job,
            done: 0,
            handle: Handle {
                nodeid: 0,
                fh: 0,
                open_flags: 0,
            },
            flushed: false,
        };
        self.running[slot] = Some(running);
        self.send(pump, slot, &running)
    }

    /// Takes an answer. Sends the next request, or gives the job back if it is done.
    pub fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<Job>, Error> {
        let slot = answer.slot;
        let running = self.running.get_mut(slot).and_then(Option::take);
        let mut running = running.ok_or(Error::Idle)?;
        if self.take(pump, answer, &mut running)? {
            running.done += 1;
            if running.done == running.job.steps.len() {
                return Ok(Some(running.job));
            }
        }
        self.running[slot] = Some(running);
        self.send(pump, slot, &running)?;
        Ok(None)
    }

    /// Runs all jobs, for what is not measured.
    pub fn run_all(
        &mut self,
        client: &mut Client,
        data_len: usize,
        mut jobs: impl Iterator<Item = Job>,
        mut done: impl FnMut(Job),
    ) -> Result<(), Error> {
        let mut pump = Pump::new(client, UNMEASURED_DEPTH, data_len, Duration::ZERO)?;
        for (slot, job) in (0..UNMEASURED_DEPTH).zip(&mut jobs) {
            self.start(&mut pump, slot, job)?;
        }
        while pump.in_flight() > 0 {
            let answer = pump.next_answer()?;
            let Some(job) = self.answered(&mut pump, answer)? else {
                continue;
            };
            done(job);
            if let Some(job) = jobs.next() {
                self.start(&mut pump, answer.slot, job)?;
            }
        }
        Ok(())
    }

    fn send(&self, pump: &mut Pump<'_>, slot: usize, running: &Running) -> Result<(), Error> {
        let Running { job, handle, .. } = *running;
        let name = FileName::new(job.file);
        match job.steps[running.done] {
            Step::Create => {
                let request = ops::create(self.dir, name.bytes(), MODE, CREATE_FLAGS, UMASK);
                pump.send(slot, &request)
            }
            Step::Lookup => pump.send(slot, &ops::lookup(self.dir, name.bytes())),
            Step::Getattr => pump.send(slot, &ops::getattr(job.node, None)),
            Step::Open => pump.send(slot, &ops::open(job.node, libc::O_RDWR)),
            Step::Write => {
                let data = pump.data(slot).slice(0, job.write_len);
                pump.send(slot, &ops::write(handle, job.end, &data))
            }
            Step::Read => {
                let request = ops::read(handle, 0, pump.data(slot));
                pump.send(slot, &request)
            }
            Step::Close if running.flushed || self.no_flush => {
                pump.send(slot, &ops::release(handle, libc::O_RDWR))
            }
            Step::Close => pump.send(slot, &ops::flush(handle, slot as u64)),
            Step::Unlink => pump.send(slot, &ops::unlink(self.dir, name.bytes())),
        }
    }

    /// Takes what the answer says; whether the step is done.
    fn take(
        &mut self,
        pump: &mut Pump<'_>,
        answer: Answer,
        running: &mut Running,
    ) -> Result<bool, Error> {
        let step = running.job.steps[running.done];
        if step == Step::Close && !running.flushed && !self.no_flush {
            running.flushed = true;
            self.no_flush = answer.errno == Some(Errno::NOSYS);
            if !self.no_flush {
                answer.success()?;
            }
            return Ok(false);
        }
        let answer = answer.success()?;
        let job = &mut running.job;
        match step {
            Step::Create => {
                let (entry, open): (EntryOut, OpenOut) = pump.decode(answer)?;
                job.node = entry.nodeid;
                job.lookups += 1;
                running.handle = Handle::new(entry.nodeid, &open);
            }
            Step::Lookup => {
                let entry: EntryOut = pump.decode(answer)?;
                job.node = entry.nodeid;
                job.lookups += 1;
            }
            Step::Open => running.handle = Handle::new(job.node, &pump.decode(answer)?),
            Step::Write => job.end += job.write_len as u64,
            Step::Close => running.flushed = false,
            Step::Unlink => pump.client().forget(job.node, job.lookups)?,
            Step::Getattr | Step::Read => {}
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decimal() {
        assert_eq!(FileName::new(1_234_567_890).bytes(), b"f1234567890");
        assert_eq!(FileName::new(7).c_str(), c"f0000000007");
    }
}
