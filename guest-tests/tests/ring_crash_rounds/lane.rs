//! One file, with its successor: made, written, cut, moved over the old one, removed. One request
//! at a time, so that only the last can be half done when the daemon dies.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use guest_tests::fixture::Noise;
use guest_tests::ring::fuse::abi::{
    AttrOut, EntryOut, OpenOut, SetattrIn, SetattrValid, WriteOut, ROOT_ID,
};
use guest_tests::ring::fuse::{ops, Client, Completion, Errno, Error, Handle};

use crate::content::{bytes, Expected, HOLE, WORD};

/// Words of the largest file.
const WORDS_MAX: u64 = 12 << 10;
/// Words of the largest write.
const WRITE_MAX: u64 = 4 << 10;

/// What is known of the file, and of its successor.
pub type Pair<T> = [Option<T>; 2];

/// Numbers of files, never used again.
static FILES: AtomicU32 = AtomicU32::new(1);

/// A file that is there.
struct File {
    number: u32,
    /// Of each word, the write that it is of.
    generations: Vec<u16>,
    /// The last write's: never used again, lest old bytes pass for new ones.
    generation: u16,
    handle: Option<Handle>,
}

/// A request in flight.
enum Op {
    Create,
    Write {
        range: Range<usize>,
        generation: u16,
    },
    Punch {
        range: Range<usize>,
    },
    Truncate {
        words: usize,
    },
    Sync,
    Unlink,
    /// The successor takes the file's place.
    Replace,
    /// Of a file that is removed.
    Release,
}

pub struct Lane {
    name: String,
    files: Pair<File>,
    /// What is in flight, and for which of the two.
    pending: Option<(usize, Op)>,
    /// Files that were removed, and are open.
    removed: Vec<Handle>,
}

impl Lane {
    pub fn new(number: usize) -> Lane {
        Lane {
            name: format!("lane{number}"),
            files: [None, None],
            pending: None,
            removed: Vec::new(),
        }
    }

    pub fn names(&self) -> [String; 2] {
        [self.name.clone(), format!("{}.new", self.name)]
    }

    /// The names that are there.
    pub fn present(&self) -> Vec<String> {
        let names = self.names().into_iter().zip(&self.files);
        names
            .filter(|(_, file)| file.is_some())
            .map(|(name, _)| name)
            .collect()
    }

    /// Opens what is there, in a new session.
    pub fn open(&mut self, fs: &mut Client) {
        self.removed.clear();
        for (name, file) in self.names().iter().zip(&mut self.files) {
            if let Some(file) = file {
                let entry = fs
                    .resolve(&format!("/{name}"))
                    .expect("a file that was there");
                file.handle = Some(fs.open(entry.nodeid, libc::O_RDWR).expect("a file to open"));
            }
        }
    }

    /// Sends the next request, if none is in flight.
    pub fn send(&mut self, fs: &mut Client, tag: u64, noise: &mut Noise) {
        if self.pending.is_some() {
            return;
        }
        let (slot, op) = self.choose(noise);
        let [name, new] = self.names();
        let own = if slot == 0 {
            name.as_bytes()
        } else {
            new.as_bytes()
        };
        let sent = match &op {
            Op::Create => {
                let flags = libc::O_RDWR | libc::O_EXCL;
                fs.enqueue(&ops::create(ROOT_ID, own, 0o600, flags, 0), tag)
                    .map(drop)
            }
            Op::Unlink => fs.enqueue(&ops::unlink(ROOT_ID, own), tag).map(drop),
            Op::Replace => {
                let (from, to) = (new.as_bytes(), name.as_bytes());
                fs.enqueue(&ops::rename(ROOT_ID, from, ROOT_ID, to), tag)
                    .map(drop)
            }
            Op::Release => {
                let handle = self.removed[self.removed.len() - 1];
                fs.enqueue(&ops::release(handle, 0), tag).map(drop)
            }
            on_file => self.send_on_file(fs, tag, slot, on_file),
        };
        sent.expect("room for a request");
        self.pending = Some((slot, op));
    }

    fn send_on_file(&self, fs: &mut Client, tag: u64, slot: usize, op: &Op) -> Result<(), Error> {
        let file = self.files[slot].as_ref().expect("a file");
        let handle = file.handle.expect("an open file");
        match op {
            Op::Write { range, generation } => {
                let data = fs.memory().alloc_pages(range.len() * WORD)?;
                data.write(0, &bytes(file.number, *generation, range.clone()));
                let request = ops::write(handle, (range.start * WORD) as u64, &data);
                fs.enqueue(&request, tag).map(drop)
            }
            Op::Punch { range } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let (at, len) = (range.start * WORD, range.len() * WORD);
                fs.enqueue(&ops::fallocate(handle, mode, at as u64, len as u64), tag)
                    .map(drop)
            }
            Op::Truncate { words } => {
                let set = SetattrIn {
                    valid: SetattrValid::SIZE.bits(),
                    size: (words * WORD) as u64,
                    ..SetattrIn::default()
                };
                fs.enqueue(&ops::setattr(handle.nodeid, &set), tag)
                    .map(drop)
            }
            _ => fs.enqueue(&ops::fsync(handle, false), tag).map(drop),
        }
    }

    fn choose(&self, noise: &mut Noise) -> (usize, Op) {
        if !self.removed.is_empty() && noise.below(3) == 0 {
            return (0, Op::Release);
        }
        let slot = noise.below(2) as usize;
        let Some(file) = &self.files[slot] else {
            return (slot, Op::Create);
        };
        let start = noise.below(WORDS_MAX) as usize;
        let len = 1 + noise.below(WRITE_MAX) as usize;
        let range = start..(start + len).min(WORDS_MAX as usize);
        let op = match noise.below(20) {
            0 => Op::Unlink,
            1 if slot == 1 => Op::Replace,
            2..=4 => Op::Truncate { words: start },
            5 | 6 => Op::Punch { range },
            7 => Op::Sync,
            _ => Op::Write {
                range,
                generation: file.generation + 1,
            },
        };
        (slot, op)
    }

    /// Takes an answer, which must be a success.
    pub fn take(&mut self, fs: &mut Client, done: Completion) {
        let (slot, op) = self.pending.take().expect("a request in flight");
        let what = format!("{}, file {slot}, {}", self.name, done.opcode);
        let file = self.files[slot].as_mut();
        match op {
            Op::Create => {
                let (entry, open): (EntryOut, OpenOut) = answer(fs, done, &what);
                let mut file = File::new();
                file.handle = Some(Handle::new(entry.nodeid, &open));
                self.files[slot] = Some(file);
            }
            Op::Write { range, generation } => {
                let written: WriteOut = answer(fs, done, &what);
                assert_eq!(written.size as usize, range.len() * WORD, "{what}");
                file.expect("a file").write(range, generation);
            }
            Op::Punch { range } => {
                answer::<()>(fs, done, &what);
                file.expect("a file").punch(range);
            }
            Op::Truncate { words } => {
                let _: AttrOut = answer(fs, done, &what);
                file.expect("a file").generations.resize(words, HOLE);
            }
            Op::Sync => answer(fs, done, &what),
            Op::Unlink => {
                answer::<()>(fs, done, &what);
                self.remove(slot);
            }
            Op::Replace => {
                answer::<()>(fs, done, &what);
                self.remove(0);
                self.files.swap(0, 1);
            }
            Op::Release => {
                answer::<()>(fs, done, &what);
                self.removed.pop();
            }
        }
    }

    fn remove(&mut self, slot: usize) {
        let handle = self.files[slot].take().and_then(|file| file.handle);
        self.removed.extend(handle);
    }

    /// What may be there: the first if the request in flight was not done.
    fn outcomes(&self) -> Vec<Pair<Expected>> {
        let now = || [0, 1].map(|slot| self.files[slot].as_ref().map(File::expected));
        let with = |slot: usize, expected: Option<Expected>| {
            let mut pair = now();
            pair[slot] = expected;
            pair
        };
        let Some((slot, op)) = &self.pending else {
            return vec![now()];
        };
        let mut begun = now()[*slot].clone();
        match (op, &mut begun) {
            (Op::Sync | Op::Release, _) => vec![now()],
            (Op::Create, _) => vec![now(), with(*slot, Some(File::new().expected()))],
            (Op::Unlink, _) => vec![now(), with(*slot, None)],
            (Op::Replace, _) => {
                let [_, new] = now();
                vec![now(), [new, None]]
            }
            (Op::Write { range, generation }, Some(begun)) => {
                let size = begun.generations.len();
                begun.size = size..=size.max(range.end);
                begun.or = (range.clone(), *generation);
                vec![with(*slot, Some(begun.clone()))]
            }
            (Op::Punch { range }, Some(begun)) => {
                begun.or = (range.clone(), HOLE);
                vec![with(*slot, Some(begun.clone()))]
            }
            (Op::Truncate { words }, Some(begun)) => {
                let mut done = begun.generations.clone();
                done.resize(*words, HOLE);
                let done = Expected::just(begun.file, &done);
                // What is to be cut off may be gone before the size is.
                begun.or = (*words..begun.generations.len().max(*words), HOLE);
                vec![with(*slot, Some(begun.clone())), with(*slot, Some(done))]
            }
            (_, None) => panic!("{}: no file", self.name),
        }
    }

    /// Compares with what is found after a death, and goes on with that.
    pub fn settle(&mut self, found: &Pair<Vec<u8>>) {
        let mut faults = Vec::new();
        for outcome in self.outcomes() {
            let both: Result<Vec<Option<File>>, String> = outcome
                .iter()
                .zip(found)
                .map(|(expected, found)| File::found(expected.as_ref(), found.as_deref()))
                .collect();
            match both.map(TryInto::<Pair<File>>::try_into) {
                Ok(Ok(files)) => {
                    let used = self
                        .files
                        .iter()
                        .flatten()
                        .map(|file| (file.number, file.generation));
                    let used: Vec<(u32, u16)> = used.collect();
                    self.files = files;
                    for file in self.files.iter_mut().flatten() {
                        let of_it = used.iter().find(|(number, _)| *number == file.number);
                        file.generation = of_it.map_or(HOLE, |(_, used)| used + 1);
                    }
                    self.pending = None;
                    return;
                }
                Ok(Err(_)) => unreachable!("a pair"),
                Err(fault) => faults.push(fault),
            }
        }
        panic!("{}: {}", self.name, faults.join("; or "));
    }
}

impl File {
    fn new() -> File {
        File {
            number: FILES.fetch_add(1, Ordering::Relaxed),
            generations: Vec::new(),
            generation: HOLE,
            handle: None,
        }
    }

    fn expected(&self) -> Expected {
        Expected::just(self.number, &self.generations)
    }

    fn found(expected: Option<&Expected>, found: Option<&[u8]>) -> Result<Option<File>, String> {
        match (expected, found) {
            (None, None) => Ok(None),
            (Some(_), None) => Err("a file is missing".to_owned()),
            (None, Some(_)) => Err("a file is there".to_owned()),
            (Some(expected), Some(found)) => {
                let generations = expected.read(found)?;
                Ok(Some(File {
                    number: expected.file,
                    generation: HOLE,
                    generations,
                    handle: None,
                }))
            }
        }
    }

    fn write(&mut self, range: Range<usize>, generation: u16) {
        let size = self.generations.len().max(range.end);
        self.generations.resize(size, HOLE);
        self.generations[range].fill(generation);
        self.generation = generation;
    }

    fn punch(&mut self, range: Range<usize>) {
        let size = self.generations.len();
        self.generations[range.start.min(size)..range.end.min(size)].fill(HOLE);
    }
}

fn answer<R: guest_tests::ring::fuse::Reply>(fs: &mut Client, done: Completion, what: &str) -> R {
    fs.wait(done.ticket())
        .unwrap_or_else(|e| panic!("{what}: {e}"))
}

/// What cannot be read must not be there.
pub fn absent<T>(name: &str, error: &Error) -> Option<T> {
    assert!(*error == Errno::NOENT, "{name}: {error}");
    None
}
