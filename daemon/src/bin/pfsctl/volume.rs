//! `pfsctl volume create`.

use std::path::PathBuf;

use clap::ValueEnum;
use pfs_core::volume::size::Size;
use pfs_core::volume::{self, CreateOptions, Engine, Limits, NewEngine, NewTargets, Ownership};

use crate::set::{told, Limit};
use crate::Failure;

/// Targets of a volume where nothing is said.
const TARGETS: u32 = 4;

/// Make a volume
///
/// All of it is made or, if anything fails, nothing. PATH must be new or empty, and so must be
/// every target.
#[derive(clap::Args)]
pub struct Args {
    /// The volume's folder
    path: PathBuf,
    /// striped: over storage targets; posix: a directory as it is; null: stores nothing
    #[arg(long, value_name = "NAME", default_value = "striped")]
    engine: EngineName,
    /// Make so many targets in the volume's folder, to try things out [default: 4]
    #[arg(long, value_name = "N", conflicts_with = "target")]
    targets: Option<u32>,
    /// Use this directory as a target: give one for each disk, in order
    #[arg(long, value_name = "DIR")]
    target: Vec<PathBuf>,
    /// Bytes on one target before the next one's turn [default: 1M]
    #[arg(long, value_name = "SIZE")]
    stripe_unit: Option<Size>,
    /// Targets that a file is spread over [default: all]
    #[arg(long, value_name = "N")]
    stripe_count: Option<u32>,
    /// Bytes at the start of a file that stay with its metadata [default: 64K]
    #[arg(long, value_name = "SIZE")]
    mdt_size: Option<Size>,
    /// Most bytes of all files together; a sparse one counts at its full length [default: none]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<Limit>,
    /// Most files, directories and links, a number that may have K or M [default: none]
    #[arg(long, value_name = "N")]
    inodes: Option<Limit>,
    /// For posix: the existing directory to serve [default: "data" in the volume's folder]
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Where owners and modes are kept; with mapped, the daemon can be an ordinary user
    #[arg(long, value_name = "WHERE", default_value = "native")]
    ownership: OwnershipName,
}

#[derive(Clone, Copy, ValueEnum)]
enum OwnershipName {
    /// In the host's inodes
    Native,
    /// In hidden attributes of plain files of the volume's owner
    Mapped,
}

#[derive(Clone, Copy, ValueEnum)]
enum EngineName {
    Striped,
    Posix,
    Null,
}

impl Args {
    fn engine(&self) -> Result<NewEngine, Failure> {
        let for_striped = self.targets.is_some()
            || !self.target.is_empty()
            || self.stripe_unit.is_some()
            || self.stripe_count.is_some()
            || self.mdt_size.is_some();
        if for_striped && !matches!(self.engine, EngineName::Striped) {
            return Err("targets, stripe and mdt sizes are for --engine striped only".into());
        }
        if let Some(refused) = self.refused_limits() {
            return Err(refused.into());
        }
        if self.source.is_some() && !matches!(self.engine, EngineName::Posix) {
            return Err("--source is for --engine posix only".into());
        }
        Ok(match self.engine {
            EngineName::Posix => NewEngine::Posix {
                path: self.source.clone(),
            },
            EngineName::Null => NewEngine::Null,
            EngineName::Striped => self.striped(),
        })
    }

    /// Limits that the engine does not have.
    fn refused_limits(&self) -> Option<volume::Error> {
        let engine = match self.engine {
            EngineName::Striped => return None,
            EngineName::Posix => "posix",
            EngineName::Null => "null",
        };
        let any = self.capacity.is_some() || self.inodes.is_some();
        any.then_some(volume::Error::NoLimits { engine })
    }

    fn striped(&self) -> NewEngine {
        let targets = match self.target.is_empty() {
            true => NewTargets::Inside(self.targets.unwrap_or(TARGETS)),
            false => NewTargets::At(self.target.clone()),
        };
        let mut engine = NewEngine::striped(targets);
        if let NewEngine::Striped {
            stripe_unit_bytes,
            stripe_count,
            mdt_size_bytes,
            limits,
            ..
        } = &mut engine
        {
            *stripe_unit_bytes = self.stripe_unit.map_or(*stripe_unit_bytes, |size| size.0);
            *stripe_count = self.stripe_count;
            *mdt_size_bytes = self.mdt_size.map_or(*mdt_size_bytes, |size| size.0);
            *limits = Limits {
                capacity_bytes: self.capacity.and_then(Limit::get),
                inodes: self.inodes.and_then(Limit::get),
            };
        }
        engine
    }
}

/// Runs the command.
pub fn create(args: &Args) -> Result<(), Failure> {
    let made = volume::create(&CreateOptions {
        path: args.path.clone(),
        ownership: match args.ownership {
            OwnershipName::Native => Ownership::Native,
            OwnershipName::Mapped => Ownership::Mapped,
        },
        engine: args.engine()?,
    })?;
    let about = match &made.descriptor.engine {
        Engine::Striped(striped) => format!(
            ": {} targets, stripe unit {}, stripe count {}, mdt size {}{}",
            striped.targets.len(),
            Size(striped.layout.stripe_unit_bytes()),
            striped.layout.stripe_count(),
            Size(striped.mdt_size_bytes),
            match striped.limits.any() {
                true => format!(", {}", told(&striped.limits)),
                false => String::new(),
            }
        ),
        Engine::Posix { path } => format!(" of {}", made.path.join(path).display()),
        Engine::Null => String::new(),
    };
    let mapped = match made.descriptor.ownership {
        Ownership::Mapped => ", ownership mapped",
        Ownership::Native => "",
    };
    println!(
        "made {} volume {} in {}{about}{mapped}",
        made.descriptor.engine.name(),
        made.descriptor.uuid.unwrap_or_default(),
        made.path.display()
    );
    Ok(())
}
