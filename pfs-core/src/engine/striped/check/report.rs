//! What a check finds, and what became of it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::fs::Errno;

/// Problems that a report names one by one; more are only counted.
const NAMED_MAX: usize = 10_000;

/// Why what is found while daemons serve is left.
pub(super) const NOT_ALONE: &str = "run again when no daemon serves the volume";
/// Why what was never the volume's is left.
pub(super) const NOT_OURS: &str = "not the volume's: remove it by hand";

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An object that no file has.
    LostObject,
    /// A file lacks an object that was made: its bytes read as zeros.
    MissingObject,
    /// An object has data beyond its file's end: a truncation was cut off.
    DataBeyondEnd,
    /// A file is longer than its data: its last write was cut off.
    SizePastData,
    /// A removed file that nobody uses any more.
    HalfRemoved,
    /// It cannot be read which objects a file has.
    DamagedRecord,
    /// A layout is none, or does not fit on the targets.
    DamagedLayout,
    /// Two files have the same objects: one was copied on the host.
    SharedObjects,
    /// A folder of a target is missing.
    MissingFolder,
    /// Something that is not the volume's is in a place of its own.
    Foreign,
    /// The page that daemons share is damaged.
    DamagedUsage,
    /// The page that daemons share counts wrong.
    WrongCounter,
    /// The limits in force are not those of `volume.toml`.
    WrongLimits,
    /// Daemons would not look for layouts that are there.
    UnknownLayouts,
}

impl Kind {
    /// A short name that does not change.
    pub fn name(self) -> &'static str {
        match self {
            Kind::LostObject => "lost-object",
            Kind::MissingObject => "missing-object",
            Kind::DataBeyondEnd => "data-beyond-end",
            Kind::SizePastData => "size-past-data",
            Kind::HalfRemoved => "half-removed",
            Kind::DamagedRecord => "damaged-record",
            Kind::DamagedLayout => "damaged-layout",
            Kind::SharedObjects => "shared-objects",
            Kind::MissingFolder => "missing-folder",
            Kind::Foreign => "foreign",
            Kind::DamagedUsage => "damaged-usage",
            Kind::WrongCounter => "wrong-counter",
            Kind::WrongLimits => "wrong-limits",
            Kind::UnknownLayouts => "unknown-layouts",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::LostObject => "object without a file",
            Kind::MissingObject => "file lacks an object, and reads as zeros there",
            Kind::DataBeyondEnd => "object has data beyond its file's end",
            Kind::SizePastData => "file is longer than its data, and reads as zeros there",
            Kind::HalfRemoved => "removed file is still there",
            Kind::DamagedRecord => "record of a file's objects cannot be read",
            Kind::DamagedLayout => "layout is none that can be",
            Kind::SharedObjects => "file has the objects of another",
            Kind::MissingFolder => "folder is missing",
            Kind::Foreign => "foreign thing",
            Kind::DamagedUsage => "page of limits and counters is damaged",
            Kind::WrongCounter => "counter is wrong",
            Kind::WrongLimits => "limits in force are not those of volume.toml",
            Kind::UnknownLayouts => "layouts are there that daemons do not look for",
        })
    }
}

/// What became of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It can be repaired; that was not asked for.
    Found,
    Corrected,
    Failed {
        errno: Errno,
    },
    Left {
        why: &'static str,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Found => f.write_str("can be repaired"),
            Outcome::Corrected => f.write_str("repaired"),
            Outcome::Failed { errno } => write!(f, "cannot be repaired: {errno}"),
            Outcome::Left { why } => write!(f, "left: {why}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    /// Where: a path in the volume, or one on the host below the volume's places.
    pub at: PathBuf,
    pub outcome: Outcome,
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// No daemon served the volume meanwhile, so all was checked.
    pub alone: bool,
    pub files: u64,
    pub directories: u64,
    pub objects: u64,
    /// Files without a name that a daemon which is being restarted may still have open.
    pub young_orphans: u64,
    /// The first problems; the counts below are of all.
    pub problems: Vec<Problem>,
    pub corrected: u64,
    pub uncorrected: u64,
}

impl Report {
    pub(super) fn add(&mut self, kind: Kind, at: &Path, outcome: Outcome) {
        match outcome {
            Outcome::Corrected => self.corrected += 1,
            _ => self.uncorrected += 1,
        }
        if self.problems.len() < NAMED_MAX {
            self.problems.push(Problem {
                kind,
                at: at.into(),
                outcome,
            });
        }
    }
}
