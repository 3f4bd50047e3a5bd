//! CPU time of other processes, and where threads run.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use rustix::thread::CpuSet;
use rustix::time::{clock_gettime, ClockId};

use crate::error::Error;

/// CPU time in nanoseconds, user and system, of a process and its children that live.
///
/// It is the process's CPU clock: exact, with threads that have ended and with io_uring's kernel
/// threads, which belong to the process.
pub fn process_ns(pid: u32) -> Result<u64, Error> {
    let mut sum = 0;
    for member in family(pid) {
        let clock = process_clock_ns(member);
        sum += clock.map_err(|source| Error::Cpu { pid, source })?;
    }
    Ok(sum)
}

/// CPU time of this thread, in nanoseconds.
pub fn thread_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How often the threads that live gave their CPU up, or lost it.
pub fn context_switches(pid: u32) -> u64 {
    family(pid).into_iter().flat_map(tasks).map(switches).sum()
}

/// Makes this thread, and those that it starts, run on one CPU.
pub fn pin(cpu: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|errno| Error::Pin {
        cpu,
        source: errno.into(),
    })
}

/// Makes the thread of this name run on one CPU; whether there is one in the process or its
/// children.
pub fn pin_thread(pid: u32, name: &str, cpu: usize) -> Result<bool, Error> {
    let mut set = CpuSet::new();
    set.set(cpu);
    let has_name = |task: &String| {
        let comm = fs::read_to_string(format!("{task}/comm")).unwrap_or_default();
        comm.trim_end() == name
    };
    let Some(task) = family(pid).into_iter().flat_map(tasks).find(has_name) else {
        return Ok(false);
    };
    let id = task.rsplit('/').next().and_then(|id| id.parse().ok());
    let thread = id.and_then(rustix::thread::Pid::from_raw);
    let pinned = rustix::thread::sched_setaffinity(thread, &set);
    pinned.map_err(|errno| Error::Pin {
        cpu,
        source: errno.into(),
    })?;
    Ok(true)
}

/// CPUs that this thread may run on.
pub fn available() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect()
}

fn process_clock_ns(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a place for one id.
    let code = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a place for one timespec.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// A process and its descendants.
fn family(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut left = vec![pid];
    while let Some(pid) = left.pop() {
        if !found.insert(pid) {
            continue;
        }
        for task in tasks(pid) {
            let children = fs::read_to_string(format!("{task}/children")).unwrap_or_default();
            left.extend(
                children
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok()),
            );
        }
    }
    found
}

fn tasks(pid: u32) -> Vec<String> {
    let folder = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
    entries
        .map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy()))
        .collect()
}

fn switches(task: String) -> u64 {
    let status = fs::read_to_string(format!("{task}/status")).unwrap_or_default();
    let lines = status
        .lines()
        .filter(|line| line.contains("_ctxt_switches"));
    lines
        .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_cpu_time() {
        let pid = std::process::id();
        let before = process_ns(pid).unwrap();
        let mut spins = 0_u64;
        while thread_ns() < 5_000_000 {
            spins += 1;
        }
        assert!(spins > 0 && process_ns(pid).unwrap() > before);
        assert!(context_switches(pid) > 0);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Beyond any process id of Linux (PID_MAX_LIMIT).
        assert!(matches!(process_ns(1 << 25), Err(Error::Cpu { .. })));
    }

    #[test]
    fn children_count() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let family = family(std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(family.contains(&child.id()));
    }
}
