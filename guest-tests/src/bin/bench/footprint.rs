//! What a daemon takes while it does nothing, and for what its guest knows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use guest_tests::ring::fuse::abi::ROOT_ID;

use crate::backend::Backend;
use crate::cli::Footprint;
use crate::cpu;
use crate::error::Error;
use crate::stats::median;
use crate::workloads::steps::{FileName, Job, Runner, Step};

/// Each so manieth inode is asked for its attributes once all have been looked up.
const ASKED_EVERY: usize = 1000;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// From the start of the process to the answer of INIT: the median.
    pub start_ms: f64,
    /// CPU time while nothing is asked.
    pub idle_cpu_ms: f64,
    pub idle_memory: Memory,
    /// Inodes that were looked up, none of them forgotten.
    pub inodes: u32,
    /// CPU time of each of these lookups.
    pub lookup_cpu_us: f64,
    pub memory: Memory,
    /// Descriptors held, and how many may be.
    pub fds: (u64, u64),
    /// Inodes that were then asked for their attributes, and gave them.
    pub asked: u32,
}

impl Measured {
    /// Memory for each inode.
    pub fn bytes_per_inode(&self) -> f64 {
        let more = self.memory.own.saturating_sub(self.idle_memory.own);
        more as f64 / f64::from(self.inodes.max(1))
    }
}

/// Memory of a process that no other one has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub own: u64,
    /// Of it, what is of no file; the rest is mostly the program itself.
    pub anonymous: u64,
}

/// Starts daemons, watches the last one do nothing, and looks up many files.
pub fn measure(args: &Footprint) -> Result<Measured, Error> {
    let setup = args.common.setup();
    let mut starts_ms = Vec::new();
    let mut backend = Backend::start(args.backend, &setup)?;
    for _ in 1..args.starts {
        starts_ms.push(backend.started_in.as_secs_f64() * 1e3);
        drop(backend);
        backend = Backend::start(args.backend, &setup)?;
    }
    starts_ms.push(backend.started_in.as_secs_f64() * 1e3);

    let pid = backend.pid();
    // What a start leaves to do is done after a second.
    thread::sleep(Duration::from_secs(1));
    let cpu_before = cpu::process_ns(pid)?;
    thread::sleep(args.idle);
    let idle_cpu_ns = cpu::process_ns(pid)? - cpu_before;
    let idle_memory = memory(pid)?;

    make_files(&backend.namespace(), args.inodes)?;
    let cpu_before = cpu::process_ns(pid)?;
    let nodes = look_up(&mut backend, args.inodes)?;
    let lookup_cpu_ns = cpu::process_ns(pid)? - cpu_before;
    let (memory, fds) = (memory(pid)?, (open_files(pid)?, open_files_max(pid)?));
    Ok(Measured {
        start_ms: median(&mut starts_ms).unwrap_or_default(),
        idle_cpu_ms: idle_cpu_ns as f64 / 1e6,
        idle_memory,
        inodes: args.inodes,
        lookup_cpu_us: lookup_cpu_ns as f64 / 1e3 / f64::from(args.inodes),
        memory,
        fds,
        asked: ask(&mut backend, &nodes)?,
    })
}

/// Files of their own inodes, made behind the daemon's back.
fn make_files(folder: &Path, count: u32) -> Result<(), Error> {
    for number in 0..count {
        let name = FileName::new(number);
        let path = folder.join(String::from_utf8_lossy(name.bytes()).as_ref());
        fs::File::create(&path).map_err(Error::file("make", &path))?;
    }
    Ok(())
}

/// Looks each file up once; answers the nodes.
fn look_up(backend: &mut Backend, count: u32) -> Result<Vec<u64>, Error> {
    let mut nodes = Vec::with_capacity(count as usize);
    let jobs = (0..count).map(|file| Job::new(&[Step::Lookup], file, 0));
    let mut runner = Runner::new(ROOT_ID);
    let done = runner.run_all(backend.client(), 0, jobs, |job| nodes.push(job.node));
    done.map_err(|source| backend.failed("lookups", source))?;
    Ok(nodes)
}

/// Asks some nodes for their attributes: those whose descriptors were let go are found again.
fn ask(backend: &mut Backend, nodes: &[u64]) -> Result<u32, Error> {
    let mut asked = 0;
    for &node in nodes.iter().step_by(ASKED_EVERY) {
        let attr = backend.client().getattr(node);
        attr.map_err(|source| backend.failed("GETATTR", source))?;
        asked += 1;
    }
    Ok(asked)
}

fn memory(pid: u32) -> Result<Memory, Error> {
    let path = proc(pid, "smaps_rollup");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let bytes = |key: &str| kib(&text, key).map(|kib| kib << 10);
    let own = bytes("Private_Clean:").zip(bytes("Private_Dirty:"));
    own.zip(bytes("Anonymous:"))
        .map(|((clean, dirty), anonymous)| Memory {
            own: clean + dirty,
            anonymous,
        })
        .ok_or_else(|| Error::file("understand", &path)(io::ErrorKind::InvalidData))
}

/// The value of a line such as `Anonymous:  12 kB`.
fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn open_files(pid: u32) -> Result<u64, Error> {
    let path = proc(pid, "fd");
    let entries = fs::read_dir(&path).map_err(Error::file("read", &path))?;
    Ok(entries.count() as u64)
}

fn open_files_max(pid: u32) -> Result<u64, Error> {
    let path = proc(pid, "limits");
    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| Error::file("understand", &path)(io::ErrorKind::InvalidData))
}

fn proc(pid: u32, file: &str) -> PathBuf {
    format!("/proc/{pid}/{file}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let pid = std::process::id();
        let block = vec![1_u8; 64 << 20];
        let with = memory(pid).unwrap();
        assert!(with.anonymous >= block.len() as u64 && with.own >= with.anonymous);
        drop(block);
        assert!(memory(pid).unwrap().own < with.own);
        assert!((1..=open_files_max(pid).unwrap()).contains(&open_files(pid).unwrap()));
    }

    #[test]
    fn each_inode_has_its_share() {
        let memory = |own| Memory { own, anonymous: 0 };
        let measured = Measured {
            start_ms: 0.0,
            idle_cpu_ms: 0.0,
            idle_memory: memory(1000),
            inodes: 10,
            lookup_cpu_us: 0.0,
            memory: memory(1900),
            fds: (0, 0),
            asked: 0,
        };
        assert_eq!(measured.bytes_per_inode(), 90.0);
    }
}
