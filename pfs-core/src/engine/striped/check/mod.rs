//! Finding, and repairing, what a crash can leave of a striped volume.
//!
//! Objects are listed first, then the names are walked; each file takes its objects off the list.
//! What stays on it has no file. Alone with the volume, that is certain. While daemons serve it a
//! rename may hide a file from the walk, so what is left is looked for again, and an object is
//! never deleted; whatever only a look without others could prove is left for one.
//!
//! - [`report`]: what is found and what became of it.
//! - [`walk`]: the namespace, name by name, at any depth with one descriptor.
//! - [`objects`]: the list of objects. [`files`]: one file against its objects. [`tail`]: sizes past
//!   the data. [`counters`]: the page that daemons share. [`orphans`]: files without a name.

mod counters;
mod files;
mod objects;
mod orphans;
mod report;
mod tail;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use uuid::Uuid;

pub use report::{Kind, Outcome, Problem, Report};

use super::file_layout::FileLayout;
use super::orphans::limit_of;
pub use super::reaper::MIN_AGE as ORPHAN_AGE;
use crate::fs::Errno;
use crate::volume::{self, CheckedVolume, Used};

/// How often names are walked for objects that seem to have no file, while daemons serve.
const WALKS_MAX: u32 = 6;
/// Others get so long, and each time twice as long, to finish what hides a file.
const PAUSE: Duration = Duration::from_millis(20);
/// Hears of progress after so many names or objects.
const PROGRESS_EVERY: u64 = 256;

/// A check cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        errno: Errno,
    },
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error("the check was cancelled")]
    Cancelled,
}

impl Error {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(Errno) -> Error {
        let path = path.into();
        move |errno| Error::Io { doing, path, errno }
    }
}

/// What a check looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Objects,
    Names,
}

/// How far a check is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    pub step: Step,
    /// Objects or names seen.
    pub seen: u64,
    /// The part of the step that is done, from 0 to 1.
    pub done: f64,
}

/// Hears how far a check is; says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(At) -> ControlFlow<()>;

/// How a volume is checked.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Repair what can be.
    pub repair: bool,
    /// Files that lost their last name more lately than this are left, since they may belong to a
    /// daemon that is being restarted: [`ORPHAN_AGE`], unless it is known that none is.
    pub orphan_age: Duration,
}

/// Checks a striped volume.
pub fn check(
    volume: CheckedVolume,
    options: &Options,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    let mut checker = Checker::new(volume, options, progress);
    checker.list_objects()?;
    checker.walk_all()?;
    checker.mend_ends()?;
    checker.judge_objects()?;
    checker.judge_counters()?;
    Ok(checker.report)
}

/// Counts what is in a striped volume that nobody else uses.
pub(super) fn count(
    volume: CheckedVolume,
    progress: Progress<'_>,
) -> Result<(CheckedVolume, Used), Error> {
    let options = Options {
        repair: false,
        orphan_age: ORPHAN_AGE,
    };
    let mut checker = Checker::new(volume, &options, progress);
    checker.walk(walk::Look::Count)?;
    checker.check_orphans(walk::Look::Count)?;
    Ok((checker.volume, checker.used))
}

/// A check under way.
struct Checker<'a> {
    volume: CheckedVolume,
    repair: bool,
    /// See [`limit_of`].
    orphans_until: Option<SystemTime>,
    progress: Progress<'a>,
    report: Report,
    /// Objects whose file was not met yet: the targets that have one of this id.
    objects: HashMap<Uuid, Vec<u32>>,
    /// Files with objects that were met, and their inodes.
    ids: HashMap<Uuid, u64>,
    /// Objects that several files have.
    shared: HashSet<Uuid>,
    /// Objects with data beyond their files' ends.
    beyond: Vec<files::Beyond>,
    /// Inodes with several names that were met.
    linked: HashSet<u64>,
    /// Files of which it is not known what objects they have.
    unreadable: u64,
    /// The smallest mdt_size of a layout that was met, if any was.
    mdt_size_min_bytes: Option<u64>,
    used: Used,
    seen: u64,
    /// The part of the step that is done.
    done: f64,
}

impl<'a> Checker<'a> {
    fn new(volume: CheckedVolume, options: &Options, progress: Progress<'a>) -> Checker<'a> {
        let report = Report {
            alone: volume.alone,
            ..Report::default()
        };
        Checker {
            volume,
            repair: options.repair,
            orphans_until: limit_of(options.orphan_age),
            progress,
            report,
            objects: HashMap::new(),
            ids: HashMap::new(),
            shared: HashSet::new(),
            beyond: Vec::new(),
            linked: HashSet::new(),
            unreadable: 0,
            mdt_size_min_bytes: None,
            used: Used::default(),
            seen: 0,
            done: 0.0,
        }
    }

    /// One more name or object was seen.
    fn tick(&mut self, step: Step) -> Result<(), Error> {
        self.seen += 1;
        if self.seen % PROGRESS_EVERY == 0 {
            self.tell(step)?;
        }
        Ok(())
    }

    fn begin(&mut self, step: Step) -> Result<(), Error> {
        (self.seen, self.done) = (0, 0.0);
        self.tell(step)
    }

    fn tell(&mut self, step: Step) -> Result<(), Error> {
        let at = At {
            step,
            seen: self.seen,
            done: self.done,
        };
        match (self.progress)(at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Cancelled),
        }
    }

    fn targets(&self) -> &[OwnedFd] {
        &self.volume.targets
    }

    fn default_layout(&self) -> FileLayout {
        FileLayout {
            layout: self.volume.striped.layout,
            mdt_size_bytes: self.volume.striped.mdt_size_bytes,
        }
    }

    /// Notes a problem that nothing is done about.
    fn leave(&mut self, kind: Kind, at: impl AsRef<Path>, why: &'static str) {
        self.report.add(kind, at.as_ref(), Outcome::Left { why });
    }

    /// Notes a problem, and mends it where that was asked for.
    fn mend(&mut self, kind: Kind, at: impl AsRef<Path>, mend: impl FnOnce() -> Result<(), Errno>) {
        let outcome = match self.repair {
            false => Outcome::Found,
            true => match mend() {
                Ok(()) => Outcome::Corrected,
                Err(errno) => Outcome::Failed { errno },
            },
        };
        self.report.add(kind, at.as_ref(), outcome);
    }

    /// Like [`mend`](Self::mend) for what only one who is alone may mend.
    fn mend_alone(
        &mut self,
        kind: Kind,
        at: impl AsRef<Path>,
        mend: impl FnOnce() -> Result<(), Errno>,
    ) {
        match self.volume.alone {
            true => self.mend(kind, at, mend),
            false => self.leave(kind, at, report::NOT_ALONE),
        }
    }

    /// Walks all names, and again for objects without a file that others may be moving about.
    fn walk_all(&mut self) -> Result<(), Error> {
        self.walk(walk::Look::All)?;
        self.check_orphans(walk::Look::All)?;
        for again in 1..WALKS_MAX {
            if self.volume.alone || self.drop_gone_objects()? {
                break;
            }
            std::thread::sleep(PAUSE * (1 << again));
            self.walk(walk::Look::ForObjects)?;
            self.check_orphans(walk::Look::ForObjects)?;
        }
        Ok(())
    }
}
