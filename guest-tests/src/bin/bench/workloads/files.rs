//! One sequence of operations, again and again, on files of one directory.

use std::ops::Range;
use std::path::Path;

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::{Answer, Client, Error, Pump};

use super::steps::{Job, Runner, Step};
use super::{make_dir, Workload};
use crate::floor::files::FilesFloor;
use crate::floor::Floor;

/// Files that a slice makes at most: a daemon may keep each open that its guest knows.
const NEW_FILES_MAX: u32 = 8000;

/// To which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// A new one each time. Sequences that do not remove them make [`NEW_FILES_MAX`] at most,
    /// which are removed after the slice.
    New,
    /// Any of so many that are there.
    Any(u32),
    /// Each of so many that are made before the slice, once.
    Each(u32),
}

impl Files {
    /// The file for the next sequence of these steps; `next` counts.
    pub fn pick(self, steps: &[Step], noise: &mut Noise, next: &mut u32) -> Option<u32> {
        match self {
            Files::Any(count) => Some(noise.below(u64::from(count)) as u32),
            Files::Each(count) if *next == count => None,
            Files::New if *next == NEW_FILES_MAX && !removes(steps) => None,
            Files::Each(_) | Files::New => {
                *next += 1;
                Some(*next - 1)
            }
        }
    }

    /// What is left of them when sequences with these steps began on `begun`.
    pub fn left(self, steps: &[Step], begun: u32) -> Range<u32> {
        match self {
            Files::New if !removes(steps) => 0..begun,
            Files::Each(count) if removes(steps) => begun..count,
            Files::Each(count) => 0..count,
            Files::New | Files::Any(_) => 0..0,
        }
    }
}

fn removes(steps: &[Step]) -> bool {
    steps.last() == Some(&Step::Unlink)
}

/// See the [module](self).
pub struct Sequence {
    steps: &'static [Step],
    files: Files,
    data_len: usize,
    /// Units of work in one sequence.
    units: u64,
    runner: Runner,
    /// The files, by number, as their last sequences left them.
    known: Vec<Job>,
    next: u32,
    noise: Noise,
}

impl Sequence {
    pub fn new(steps: &'static [Step], files: Files, data_len: usize) -> Sequence {
        Sequence {
            steps,
            files,
            data_len,
            units: 1,
            runner: Runner::default(),
            known: Vec::new(),
            next: 0,
            noise: Noise::new(1),
        }
    }

    /// Counts each sequence as so many units.
    pub fn units(self, units: u64) -> Sequence {
        Sequence { units, ..self }
    }

    fn make_files(&mut self, client: &mut Client, count: u32) -> Result<(), Error> {
        const STEPS: &[Step] = &[Step::Create, Step::Write, Step::Close];
        self.known.clear();
        let (len, known) = (self.data_len, &mut self.known);
        let jobs = (0..count).map(|file| Job::new(STEPS, file, len));
        self.runner
            .run_all(client, len, jobs, |job| keep(known, job))
    }

    fn remove_files(&mut self, client: &mut Client, files: Range<u32>) -> Result<(), Error> {
        let known = &self.known;
        let jobs = files.map(|file| known[file as usize].then(&[Step::Unlink]));
        self.runner.run_all(client, self.data_len, jobs, |_| {})
    }
}

/// Puts a job at the number of its file: they may be done in any order.
fn keep(known: &mut Vec<Job>, job: Job) {
    let at = job.file as usize;
    let none = Job::new(&[], 0, 0);
    known.resize(known.len().max(at + 1), none);
    known[at] = job;
}

impl Workload for Sequence {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        self.runner = Runner::new(make_dir(client, name)?);
        match self.files {
            Files::Any(count) => self.make_files(client, count),
            _ => Ok(()),
        }
    }

    fn before(&mut self, client: &mut Client, _: &Path) -> Result<(), Error> {
        self.next = 0;
        match self.files {
            Files::Each(count) => self.make_files(client, count),
            _ => Ok(()),
        }
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        let Some(file) = self.files.pick(self.steps, &mut self.noise, &mut self.next) else {
            return Ok(());
        };
        let job = match self.files {
            Files::New => Job::new(self.steps, file, self.data_len),
            _ => self.known[file as usize].then(self.steps),
        };
        self.runner.start(pump, slot, job)
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        let Some(job) = self.runner.answered(pump, answer)? else {
            return Ok(None);
        };
        match self.files {
            // Others may be at the same file: what each looked up adds up.
            Files::Any(_) => {
                let looks_up = |step: &&Step| **step == Step::Lookup;
                let lookups = job.steps.iter().filter(looks_up).count() as u64;
                self.known[job.file as usize].lookups += lookups;
            }
            _ => keep(&mut self.known, job),
        }
        Ok(Some(self.units))
    }

    fn after(&mut self, client: &mut Client) -> Result<(), Error> {
        let left = self.files.left(self.steps, self.next);
        self.remove_files(client, left)
    }

    fn finish(&mut self, client: &mut Client) -> Result<(), Error> {
        match self.files {
            Files::Any(count) => self.remove_files(client, 0..count),
            _ => Ok(()),
        }
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(FilesFloor::new(
            self.steps,
            self.files,
            self.data_len,
            self.units,
        ))
    }
}
