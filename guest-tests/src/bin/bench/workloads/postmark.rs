//! A mail server's work, after PostMark: files are made, removed, read and appended to.
//!
//! Each slot has files of its own, so nothing is removed under another's hands.

use std::path::Path;

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::{Answer, Client, Error, Pump};

use super::steps::{Job, Runner, Step};
use super::{make_dir, Workload};
use crate::floor::postmark::PostmarkFloor;
use crate::floor::Floor;

/// Files of each slot at the start.
pub const FILES_PER_SLOT: u32 = 64;
/// Most bytes of a write.
const WRITE_MAX: u64 = 4 << 10;
/// Fewest bytes of a write.
const WRITE_MIN: u64 = 512;

const CREATE: &[Step] = &[Step::Create, Step::Write, Step::Close];
const DELETE: &[Step] = &[Step::Unlink];
const READ: &[Step] = &[Step::Lookup, Step::Open, Step::Read, Step::Close];
const APPEND: &[Step] = &[Step::Lookup, Step::Open, Step::Write, Step::Close];

/// The files of one slot, and what is done to them next.
#[derive(Debug)]
pub struct Mailbox {
    noise: Noise,
    /// As their last jobs left them.
    files: Vec<Job>,
    /// Number of the next new file: those of a slot are `slot` modulo `slots`.
    next: u32,
    slots: u32,
}

impl Mailbox {
    pub fn new(slot: u32, slots: u32) -> Mailbox {
        Mailbox {
            noise: Noise::new(u64::from(slot)),
            files: Vec::with_capacity(4 * FILES_PER_SLOT as usize),
            next: slot,
            slots,
        }
    }

    /// A new file.
    pub fn create(&mut self) -> Job {
        let file = self.next;
        self.next += self.slots;
        let len = WRITE_MIN + self.noise.below(WRITE_MAX - WRITE_MIN + 1);
        Job::new(CREATE, file, len as usize)
    }

    /// Any of the four. A file that is removed is taken out; others are put back by
    /// [`done`](Self::done).
    pub fn pick(&mut self) -> Job {
        let kind = self.noise.below(4);
        // Neither grows nor shrinks for long.
        let few = self.files.len() < FILES_PER_SLOT as usize / 2;
        let many = self.files.len() > FILES_PER_SLOT as usize * 2;
        if self.files.is_empty() || few && kind == 1 || kind == 0 && !many {
            return self.create();
        }
        let at = self.noise.below(self.files.len() as u64) as usize;
        let file = self.files.swap_remove(at);
        let steps = match kind {
            0 | 1 => DELETE,
            2 => READ,
            _ => APPEND,
        };
        file.then(steps)
    }

    /// A job came to its end.
    pub fn done(&mut self, job: Job) {
        if job.steps != DELETE {
            self.files.push(job);
        }
    }
}

/// See the [module](self).
pub struct Postmark {
    runner: Runner,
    mailboxes: Vec<Mailbox>,
    data_len: usize,
}

impl Postmark {
    /// `data_len` bytes are read at once.
    pub fn new(slots: usize, data_len: usize) -> Postmark {
        let slots = slots as u32;
        Postmark {
            runner: Runner::default(),
            mailboxes: (0..slots).map(|slot| Mailbox::new(slot, slots)).collect(),
            data_len,
        }
    }
}

impl Workload for Postmark {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        self.runner = Runner::new(make_dir(client, name)?);
        for mailbox in &mut self.mailboxes {
            let jobs: Vec<Job> = (0..FILES_PER_SLOT).map(|_| mailbox.create()).collect();
            let keep = |job| mailbox.done(job);
            self.runner
                .run_all(client, self.data_len, jobs.into_iter(), keep)?;
        }
        Ok(())
    }

    fn before(&mut self, _: &mut Client, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        let job = self.mailboxes[slot].pick();
        self.runner.start(pump, slot, job)
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let Some(job) = self.runner.answered(pump, answer)? else {
            return Ok(None);
        };
        self.mailboxes[answer.slot].done(job);
        Ok(Some(1))
    }

    fn finish(&mut self, client: &mut Client) -> Result<(), Error> {
        for mailbox in &mut self.mailboxes {
            let jobs = mailbox.files.drain(..).map(|file| file.then(DELETE));
            self.runner.run_all(client, self.data_len, jobs, |_| {})?;
        }
        Ok(())
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(PostmarkFloor::new(self.data_len))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_mailbox_neither_runs_dry_nor_overflows() {
        let mut mailbox = Mailbox::new(3, 16);
        let mut there = BTreeSet::new();
        let mut kinds = [0; 4];
        for _ in 0..20_000 {
            let job = mailbox.pick();
            let kind = [CREATE, DELETE, READ, APPEND]
                .iter()
                .position(|&k| k == job.steps);
            kinds[kind.unwrap()] += 1;
            match kind {
                Some(0) => assert!(there.insert(job.file) && job.file % 16 == 3),
                Some(1) => assert!(there.remove(&job.file)),
                _ => assert!(there.contains(&job.file)),
            }
            mailbox.done(job);
            assert!(there.len() <= 2 * FILES_PER_SLOT as usize + 1);
        }
        assert!(kinds.iter().all(|&count| count > 2000), "{kinds:?}");
    }
}
