//! The rows of the table: which workload, how many operations at once, and what is to be reached.

use crate::workloads::data::{Access, Data};
use crate::workloads::files::{Files, Sequence, Step};
use crate::workloads::Workload;

/// Bytes of a small block.
const BLOCK_LEN: usize = 4 << 10;
/// Bytes of a large block: the longest request of a guest.
const LARGE_BLOCK_LEN: usize = 1 << 20;
/// Large requests at once: a guest reads ahead and writes back a few.
const LARGE_DEPTH: usize = 4;
/// Files that are made to be removed.
const REMOVED_FILES: u32 = 10_000;
/// Files among which one is picked.
const KNOWN_FILES: u32 = 1000;

/// One row.
pub struct Row {
    pub name: &'static str,
    /// Operations at once.
    pub depth: usize,
    /// Bytes of data of one request.
    pub data_len: usize,
    /// What is counted.
    pub unit: &'static str,
    /// Highest ratio of our CPU time to virtiofsd's that is wanted.
    pub goal: Option<f64>,
    pub make: fn() -> Box<dyn Workload>,
}

impl Row {
    const fn new(name: &'static str, depth: usize, make: fn() -> Box<dyn Workload>) -> Row {
        Row {
            name,
            depth,
            data_len: BLOCK_LEN,
            unit: "operation",
            goal: None,
            make,
        }
    }

    const fn data_len(self, data_len: usize) -> Row {
        Row { data_len, ..self }
    }

    const fn goal(self, ratio: f64) -> Row {
        Row {
            goal: Some(ratio),
            ..self
        }
    }
}

fn sequential_read() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Read, LARGE_BLOCK_LEN))
}

fn sequential_write() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Write, LARGE_BLOCK_LEN))
}

fn random_read() -> Box<dyn Workload> {
    Box::new(Data::new(Access::RandomRead, BLOCK_LEN))
}

fn random_write() -> Box<dyn Workload> {
    Box::new(Data::new(Access::RandomWrite, BLOCK_LEN))
}

fn getattr() -> Box<dyn Workload> {
    sequence(&[Step::Getattr], Files::Any(KNOWN_FILES))
}

fn lookup_getattr() -> Box<dyn Workload> {
    sequence(&[Step::Lookup, Step::Getattr], Files::Any(KNOWN_FILES))
}

fn create_close() -> Box<dyn Workload> {
    sequence(&[Step::Create, Step::Close], Files::New)
}

fn lookup() -> Box<dyn Workload> {
    sequence(&[Step::Lookup], Files::Any(KNOWN_FILES))
}

fn open_close() -> Box<dyn Workload> {
    sequence(&[Step::Open, Step::Close], Files::Any(KNOWN_FILES))
}

fn unlink() -> Box<dyn Workload> {
    sequence(&[Step::Unlink], Files::Each(REMOVED_FILES))
}

fn small_file() -> Box<dyn Workload> {
    const LIFE: &[Step] = &[
        Step::Create,
        Step::Write,
        Step::Close,
        Step::Lookup,
        Step::Open,
        Step::Read,
        Step::Close,
        Step::Unlink,
    ];
    sequence(LIFE, Files::New)
}

fn sequence(steps: &'static [Step], files: Files) -> Box<dyn Workload> {
    Box::new(Sequence::new(steps, files, BLOCK_LEN))
}

/// All of them, in the order of the table.
pub const ROWS: &[Row] = &[
    Row::new("sequential-read-1m", LARGE_DEPTH, sequential_read)
        .data_len(LARGE_BLOCK_LEN)
        .goal(1.0),
    Row::new("sequential-write-1m", LARGE_DEPTH, sequential_write)
        .data_len(LARGE_BLOCK_LEN)
        .goal(1.0),
    Row::new("random-read-4k-d1", 1, random_read),
    Row::new("random-read-4k-d16", 16, random_read).goal(0.70),
    Row::new("random-read-4k-d64", 64, random_read),
    Row::new("random-write-4k-d1", 1, random_write),
    Row::new("random-write-4k-d16", 16, random_write).goal(0.70),
    Row::new("random-write-4k-d64", 64, random_write),
    Row::new("getattr-d1", 1, getattr),
    Row::new("getattr-d16", 16, getattr).goal(0.45),
    Row::new("lookup-getattr-d16", 16, lookup_getattr).goal(0.55),
    Row::new("lookup-d16", 16, lookup),
    Row::new("open-close-d16", 16, open_close),
    Row::new("create-close-d16", 16, create_close).goal(0.60),
    Row::new("unlink-d16", 16, unlink),
    Row::new("small-file-d16", 16, small_file).goal(0.55),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }
}
