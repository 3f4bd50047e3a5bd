//! Sequences of operations on names and inodes, as a program's system calls are one.

use std::ffi::CStr;
use std::ops::Range;
use std::time::Duration;

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::abi::{EntryOut, OpenOut};
use guest_tests::ring::fuse::{ops, Answer, Client, Errno, Error, Handle, Pump};

use super::{make_dir, Workload};
use crate::floor::files::FilesFloor;
use crate::floor::Floor;

/// What is done to a file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Create,
    Lookup,
    Getattr,
    Open,
    Write,
    Read,
    /// close(2): Linux sends FLUSH, unless the daemon once said that it has none, then RELEASE.
    Close,
    /// And forgets the inode, as a guest's kernel does with one that has no name.
    Unlink,
}

/// To which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// A new one each time. Those left over are removed after the slice.
    New,
    /// Any of so many that are there.
    Any(u32),
    /// Each of so many that are made before the slice, once.
    Each(u32),
}

/// Requests at once where nothing is measured.
const PREPARING_DEPTH: usize = 32;
const MODE: u32 = 0o644;
const UMASK: u32 = 0o022;

/// `f0000000000`, without allocation.
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

    pub fn bytes(&self) -> &[u8] {
        &self.0[..11]
    }

    pub fn c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// One operation that goes on.
#[derive(Debug, Clone, Copy)]
struct Operation {
    step: usize,
    file: u32,
    node: u64,
    lookups: u64,
    handle: Handle,
    /// Whether FLUSH was answered and RELEASE is due.
    flushed: bool,
}

impl Operation {
    const NONE: Operation = Operation {
        step: 0,
        file: 0,
        node: 0,
        lookups: 0,
        handle: Handle {
            nodeid: 0,
            fh: 0,
            open_flags: 0,
        },
        flushed: false,
    };
}

/// See the [module](self).
pub struct Sequence {
    steps: &'static [Step],
    files: Files,
    data_len: usize,
    dir: u64,
    /// Nodes of the files that are there, by number.
    nodes: Vec<u64>,
    /// The next new file, or the next of each.
    next: u32,
    operations: Vec<Operation>,
    noise: Noise,
    no_flush: bool,
}

impl Sequence {
    pub fn new(steps: &'static [Step], files: Files, data_len: usize) -> Sequence {
        Sequence {
            steps,
            files,
            data_len,
            dir: 0,
            nodes: Vec::new(),
            next: 0,
            operations: Vec::new(),
            noise: Noise::new(1),
            no_flush: false,
        }
    }

    /// Runs steps on some files, for what is not measured.
    fn all(
        &mut self,
        client: &mut Client,
        steps: &'static [Step],
        files: Files,
        numbers: Range<u32>,
    ) -> Result<(), Error> {
        let measured = (self.steps, self.files, self.next);
        (self.steps, self.files, self.next) = (steps, files, numbers.start);
        let mut pump = Pump::new(client, PREPARING_DEPTH, self.data_len, Duration::ZERO)?;
        let mut left = numbers.len();
        for slot in 0..PREPARING_DEPTH.min(left) {
            self.start(&mut pump, slot)?;
            left -= 1;
        }
        while pump.in_flight() > 0 {
            let answer = pump.next_answer()?;
            if self.answered(&mut pump, answer)?.is_some() && left > 0 {
                self.start(&mut pump, answer.slot)?;
                left -= 1;
            }
        }
        (self.steps, self.files, self.next) = measured;
        Ok(())
    }

    fn make_files(&mut self, client: &mut Client, count: u32) -> Result<(), Error> {
        self.nodes.clear();
        self.nodes.resize(count as usize, 0);
        const STEPS: &[Step] = &[Step::Create, Step::Write, Step::Close];
        self.all(client, STEPS, Files::New, 0..count)
    }

    fn remove_files(&mut self, client: &mut Client, files: Range<u32>) -> Result<(), Error> {
        self.all(client, &[Step::Unlink], Files::Each(files.end), files)?;
        self.nodes.clear();
        Ok(())
    }

    /// Sends the request of the operation's step.
    fn send(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        let operation = self.operations[slot];
        let name = FileName::new(operation.file);
        let (node, handle) = (operation.node, operation.handle);
        match self.steps[operation.step] {
            Step::Create => {
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let request =
                    ops::create(self.dir, name.bytes(), libc::S_IFREG | MODE, flags, UMASK);
                pump.send(slot, &request)
            }
            Step::Lookup => pump.send(slot, &ops::lookup(self.dir, name.bytes())),
            Step::Getattr => pump.send(slot, &ops::getattr(node, None)),
            Step::Open => pump.send(slot, &ops::open(node, libc::O_RDWR)),
            Step::Write => {
                let request = ops::write(handle, 0, pump.data(slot));
                pump.send(slot, &request)
            }
            Step::Read => {
                let request = ops::read(handle, 0, pump.data(slot));
                pump.send(slot, &request)
            }
            Step::Close if operation.flushed || self.no_flush => {
                pump.send(slot, &ops::release(handle, libc::O_RDWR))
            }
            Step::Close => pump.send(slot, &ops::flush(handle, slot as u64)),
            Step::Unlink => pump.send(slot, &ops::unlink(self.dir, name.bytes())),
        }
    }

    /// Takes what the answer says; whether the step is done.
    fn take(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<bool, Error> {
        let operation = &mut self.operations[answer.slot];
        let step = self.steps[operation.step];
        if step == Step::Close && !operation.flushed && !self.no_flush {
            self.no_flush = answer.errno == Some(Errno::NOSYS);
            operation.flushed = true;
            if !self.no_flush {
                answer.success()?;
            }
            return Ok(false);
        }
        let answer = answer.success()?;
        match step {
            Step::Create => {
                let (entry, open): (EntryOut, OpenOut) = pump.decode(answer)?;
                operation.node = entry.nodeid;
                operation.lookups += 1;
                operation.handle = Handle::new(entry.nodeid, &open);
                if let Some(node) = self.nodes.get_mut(operation.file as usize) {
                    *node = entry.nodeid;
                } else if self.files == Files::New {
                    // Answers may come out of order.
                    self.nodes.resize(operation.file as usize + 1, 0);
                    self.nodes[operation.file as usize] = entry.nodeid;
                }
            }
            Step::Lookup => {
                let entry: EntryOut = pump.decode(answer)?;
                operation.node = entry.nodeid;
                operation.lookups += 1;
            }
            Step::Open => {
                operation.handle = Handle::new(operation.node, &pump.decode(answer)?);
                operation.flushed = false;
            }
            Step::Unlink => pump.client().forget(operation.node, operation.lookups)?,
            Step::Getattr | Step::Write | Step::Read | Step::Close => {}
        }
        Ok(true)
    }

    fn removes_its_files(&self) -> bool {
        self.steps.last() == Some(&Step::Unlink)
    }
}

impl Workload for Sequence {
    fn prepare(&mut self, client: &mut Client, name: &str) -> Result<(), Error> {
        self.operations = vec![Operation::NONE; PREPARING_DEPTH];
        self.dir = make_dir(client, name)?;
        match self.files {
            Files::Any(count) => self.make_files(client, count),
            _ => Ok(()),
        }
    }

    fn before(&mut self, client: &mut Client) -> Result<(), Error> {
        self.next = 0;
        match self.files {
            Files::Each(count) => self.make_files(client, count),
            _ => Ok(()),
        }
    }

    fn start(&mut self, pump: &mut Pump<'_>, slot: usize) -> Result<(), Error> {
        if self.operations.len() < pump.depth() {
            self.operations.resize(pump.depth(), Operation::NONE);
        }
        let file = match self.files {
            Files::Any(count) => self.noise.below(u64::from(count)) as u32,
            Files::Each(count) if self.next == count => return Ok(()),
            Files::Each(_) | Files::New => {
                self.next += 1;
                self.next - 1
            }
        };
        let node = match self.files {
            Files::New => 0,
            _ => self.nodes[file as usize],
        };
        self.operations[slot] = Operation {
            file,
            node,
            // That of its creation.
            lookups: u64::from(node != 0),
            ..Operation::NONE
        };
        self.send(pump, slot)
    }

    fn answered(&mut self, pump: &mut Pump<'_>, answer: Answer) -> Result<Option<u64>, Error> {
        if self.take(pump, answer)? {
            let operation = &mut self.operations[answer.slot];
            operation.step += 1;
            if operation.step == self.steps.len() {
                return Ok(Some(1));
            }
        }
        self.send(pump, answer.slot)?;
        Ok(None)
    }

    fn after(&mut self, client: &mut Client) -> Result<(), Error> {
        match self.files {
            Files::New if !self.removes_its_files() => {
                let count = self.next;
                self.remove_files(client, 0..count)
            }
            // The slice was over before each file had its turn.
            Files::Each(count) if self.removes_its_files() && self.next < count => {
                let first = self.next;
                self.remove_files(client, first..count)
            }
            _ => Ok(()),
        }
    }

    fn floor(&self) -> Box<dyn Floor> {
        Box::new(FilesFloor::new(self.steps, self.files, self.data_len))
    }
}
