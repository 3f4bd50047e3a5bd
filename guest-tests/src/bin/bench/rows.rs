//! The rows of the table: which workload, how many operations at once, and what is to be reached.

use crate::error::Error;
use crate::workloads::data::{Access, Data};
use crate::workloads::dirs::Listing;
use crate::workloads::files::{Files, Sequence};
use crate::workloads::postmark::Postmark;
use crate::workloads::steps::Step;
use crate::workloads::unseen::Unseen;
use crate::workloads::Workload;

/// Bytes of a small block.
const BLOCK_LEN: usize = 4 << 10;
/// Bytes of a large block: the longest request of a guest.
const LARGE_BLOCK_LEN: usize = 1 << 20;
/// Large requests at once: a guest reads ahead and writes back a few.
const LARGE_DEPTH: usize = 4;
/// As many as there can be at a program's own hand (`O_DIRECT`, several files).
const LARGE_DEPTH_MAX: usize = 16;
/// Large blocks of a new file.
const NEW_FILE_BLOCKS: usize = 16;
/// Bytes that are read of a mail.
const MAIL_LEN: usize = 16 << 10;
const POSTMARK_DEPTH: usize = 16;
/// Files in a directory that is listed.
const LISTED_FILES: u32 = 10_000;
/// Files that are made to be removed.
const REMOVED_FILES: u32 = 5_000;
/// Files that another client makes.
const UNSEEN_FILES: u32 = 2000;
/// Files among which one is picked.
const KNOWN_FILES: u32 = 1000;

/// What most rows count.
pub const OPERATION: &str = "operation";

/// One row.
pub struct Row {
    pub name: &'static str,
    /// Operations at once.
    pub depth: usize,
    /// Bytes of data of one request.
    pub data_len: usize,
    /// What is counted.
    pub unit: &'static str,
    /// Whether it says nothing of a daemon that stores nothing.
    pub needs_storage: bool,
    /// Whether others must be able to make files in what the daemon serves.
    pub needs_namespace: bool,
    /// Whether it says nothing of a file system that is a cache.
    pub needs_disk: bool,
    /// Highest ratio of our CPU time to virtiofsd's that is wanted.
    pub goal: Option<f64>,
    /// The highest that `check` allows for, where the goal is not reached yet.
    pub reached: Option<f64>,
    pub make: fn() -> Box<dyn Workload>,
}

impl Row {
    const fn new(name: &'static str, depth: usize, make: fn() -> Box<dyn Workload>) -> Row {
        Row {
            name,
            depth,
            data_len: BLOCK_LEN,
            unit: OPERATION,
            needs_storage: false,
            needs_namespace: false,
            needs_disk: false,
            goal: None,
            reached: None,
            make,
        }
    }

    /// One of large requests.
    const fn large(name: &'static str, make: fn() -> Box<dyn Workload>) -> Row {
        Row {
            data_len: LARGE_BLOCK_LEN,
            unit: "MiB",
            ..Row::new(name, LARGE_DEPTH, make)
        }
    }

    const fn goal(self, ratio: f64) -> Row {
        Row {
            goal: Some(ratio),
            ..self
        }
    }

    const fn reached(self, ratio: f64) -> Row {
        Row {
            reached: Some(ratio),
            ..self
        }
    }

    /// What `check` holds it to.
    pub fn held_to(&self) -> Option<f64> {
        self.reached.or(self.goal)
    }
}

fn sequential_read() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Read, LARGE_BLOCK_LEN))
}

fn sequential_write() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Write, LARGE_BLOCK_LEN))
}

fn sequential_read_direct() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Read, LARGE_BLOCK_LEN).direct())
}

fn sequential_write_direct() -> Box<dyn Workload> {
    Box::new(Data::new(Access::Write, LARGE_BLOCK_LEN).direct())
}

fn sequential_read_cold() -> Box<dyn Workload> {
    Box::new(Data::new(Access::ReadCold, LARGE_BLOCK_LEN))
}

fn sequential_write_new() -> Box<dyn Workload> {
    const LIFE: &[Step] = {
        let mut steps = [Step::Write; NEW_FILE_BLOCKS + 3];
        steps[0] = Step::Create;
        steps[NEW_FILE_BLOCKS + 1] = Step::Close;
        steps[NEW_FILE_BLOCKS + 2] = Step::Unlink;
        &{ steps }
    };
    let sequence = Sequence::new(LIFE, Files::New, LARGE_BLOCK_LEN);
    Box::new(sequence.units(NEW_FILE_BLOCKS as u64))
}

fn random_read() -> Box<dyn Workload> {
    Box::new(Data::new(Access::RandomRead, BLOCK_LEN))
}

fn random_write() -> Box<dyn Workload> {
    Box::new(Data::new(Access::RandomWrite, BLOCK_LEN))
}

fn write_fsync() -> Box<dyn Workload> {
    Box::new(Data::new(Access::RandomWriteSync, BLOCK_LEN))
}

fn readdirplus() -> Box<dyn Workload> {
    Box::new(Listing::new(LISTED_FILES))
}

fn postmark() -> Box<dyn Workload> {
    Box::new(Postmark::new(POSTMARK_DEPTH, MAIL_LEN))
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

fn lookup_unseen() -> Box<dyn Workload> {
    Box::new(Unseen::new(UNSEEN_FILES))
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
    Row::large("sequential-read-1m", sequential_read).goal(1.0),
    Row {
        needs_disk: true,
        ..Row::large("sequential-read-cold-1m", sequential_read_cold)
    },
    Row::large("sequential-write-1m", sequential_write).goal(1.0),
    Row::large("sequential-write-new-1m", sequential_write_new),
    Row {
        depth: LARGE_DEPTH_MAX,
        ..Row::large("sequential-read-1m-direct-d16", sequential_read_direct)
    },
    Row {
        depth: LARGE_DEPTH_MAX,
        ..Row::large("sequential-write-1m-direct-d16", sequential_write_direct)
    },
    Row::new("random-read-4k-d1", 1, random_read),
    Row::new("random-read-4k-d16", 16, random_read).goal(0.70),
    Row::new("random-read-4k-d64", 64, random_read),
    Row::new("random-write-4k-d1", 1, random_write),
    Row::new("random-write-4k-d16", 16, random_write).goal(0.70),
    Row::new("random-write-4k-d64", 64, random_write),
    Row::new("write-fsync-4k-d1", 1, write_fsync),
    Row::new("write-fsync-4k-d16", 16, write_fsync),
    Row::new("getattr-d1", 1, getattr),
    Row::new("getattr-d16", 16, getattr).goal(0.45),
    Row::new("lookup-getattr-d16", 16, lookup_getattr).goal(0.55),
    Row::new("lookup-d16", 16, lookup),
    Row {
        needs_namespace: true,
        needs_storage: true,
        ..Row::new("lookup-unseen-d16", 16, lookup_unseen)
    },
    Row {
        unit: "entry",
        needs_storage: true,
        goal: Some(0.40),
        reached: Some(0.50),
        ..Row::new("readdirplus", 1, readdirplus)
    },
    Row::new("open-close-d16", 16, open_close),
    Row::new("create-close-d16", 16, create_close)
        .goal(0.60)
        .reached(0.80),
    Row::new("unlink-d16", 16, unlink),
    Row::new("small-file-d16", 16, small_file)
        .goal(0.55)
        .reached(0.76),
    Row {
        data_len: MAIL_LEN,
        needs_storage: true,
        ..Row::new("postmark-d16", POSTMARK_DEPTH, postmark)
    },
];

/// Those with one of the names, or with it in their name if none has exactly that; all of them
/// for no name.
pub fn named(names: &[String]) -> Result<Vec<&'static Row>, Error> {
    let mut wanted = vec![names.is_empty(); ROWS.len()];
    for name in names {
        let is_a_name = ROWS.iter().any(|row| row.name == name);
        let matches = |row: &Row| match is_a_name {
            true => row.name == name,
            false => row.name.contains(name.as_str()),
        };
        if !ROWS.iter().any(matches) {
            return Err(Error::NoRow(name.clone()));
        }
        for (row, wanted) in ROWS.iter().zip(&mut wanted) {
            *wanted |= matches(row);
        }
    }
    let rows = ROWS.iter().zip(wanted).filter(|(_, wanted)| *wanted);
    Ok(rows.map(|(row, _)| row).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_differ() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }

    #[test]
    fn a_whole_name_is_one_row_and_a_part_is_all_that_have_it() {
        let named = |names: &[&str]| -> Vec<&str> {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            named(&names).unwrap().iter().map(|row| row.name).collect()
        };
        assert_eq!(named(&["getattr-d1"]), ["getattr-d1"]);
        assert!(named(&["getattr"]).contains(&"lookup-getattr-d16"));
        assert_eq!(
            named(&["getattr-d16", "getattr-d1"]),
            ["getattr-d1", "getattr-d16"]
        );
        assert_eq!(named(&[]).len(), ROWS.len());
    }
}
