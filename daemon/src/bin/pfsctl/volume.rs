//! `pfsctl volume create`.

use std::path::PathBuf;

use clap::ValueEnum;
use pfs_core::volume::size::Size;
use pfs_core::volume::{
    self, Cephfs, CreateOptions, Engine, Limits, NewEngine, NewTargets, Ownership,
};

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
    /// striped: over storage targets; cephfs: a CephFS; posix: a directory as it is; null: stores
    /// nothing
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
    #[command(flatten)]
    ceph: CephArgs,
    /// Where owners and modes are kept; with mapped, the daemon can be an ordinary user
    #[arg(long, value_name = "WHERE", default_value = "native")]
    ownership: OwnershipName,
}

/// Where the CephFS of a new volume is.
#[derive(clap::Args)]
#[command(next_help_heading = "For --engine cephfs")]
struct CephArgs {
    /// The cluster's ceph.conf [default: /etc/ceph/ceph.conf, unless --mon-host is given]
    #[arg(long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Addresses of monitors, as in ceph.conf
    #[arg(long, value_name = "ADDRESSES")]
    mon_host: Option<String>,
    /// The Ceph user, without "client."
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A keyring file with that user's key; nobody else may read it [default: as ceph.conf says]
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// The file system [default: the cluster's default one]
    #[arg(long, value_name = "NAME")]
    fs: Option<String>,
    /// The directory to serve; nothing above it can be reached [default: /]
    #[arg(long, value_name = "PATH")]
    fs_path: Option<PathBuf>,
    /// Let the client cache data: slower for streams
    #[arg(long)]
    client_oc: bool,
    /// Let requests fail that the cluster does not answer in time [default: they wait]
    #[arg(long, value_name = "SECONDS")]
    timeout_s: Option<u32>,
    /// Set an option of the client, as in ceph.conf; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = option)]
    ceph_option: Vec<(String, String)>,
}

fn option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("an option is NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl CephArgs {
    fn any(&self) -> bool {
        let paths = [&self.conf, &self.keyring, &self.fs_path];
        let texts = [&self.mon_host, &self.user, &self.fs];
        paths.iter().any(|path| path.is_some())
            || texts.iter().any(|text| text.is_some())
            || self.client_oc
            || self.timeout_s.is_some()
            || !self.ceph_option.is_empty()
    }

    fn engine(&self) -> Result<NewEngine, Failure> {
        let user = self.user.clone().ok_or("--engine cephfs needs --user")?;
        let absolute =
            |path: &Option<PathBuf>| path.as_deref().map(std::path::absolute).transpose();
        let conf = match (&self.conf, &self.mon_host) {
            (None, None) => Some(PathBuf::from("/etc/ceph/ceph.conf")),
            (conf, _) => absolute(conf)?,
        };
        Ok(NewEngine::Cephfs(Cephfs {
            conf,
            mon_host: self.mon_host.clone(),
            user,
            keyring: absolute(&self.keyring)?,
            fs: self.fs.clone(),
            path: self.fs_path.clone().unwrap_or("/".into()),
            client_oc: self.client_oc,
            timeout_s: self.timeout_s,
            options: self.ceph_option.iter().cloned().collect(),
        }))
    }
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
    Cephfs,
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
        if self.ceph.any() && !matches!(self.engine, EngineName::Cephfs) {
            return Err("what says where a CephFS is, is for --engine cephfs only".into());
        }
        if self.source.is_some() && !matches!(self.engine, EngineName::Posix) {
            return Err("--source is for --engine posix only".into());
        }
        Ok(match self.engine {
            EngineName::Posix => NewEngine::Posix {
                path: self.source.clone(),
            },
            EngineName::Cephfs => self.ceph.engine()?,
            EngineName::Null => NewEngine::Null,
            EngineName::Striped => self.striped(),
        })
    }

    /// Limits that the engine does not have.
    fn refused_limits(&self) -> Option<volume::Error> {
        let engine = match self.engine {
            EngineName::Striped => return None,
            EngineName::Posix => "posix",
            EngineName::Cephfs => "cephfs",
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

/// Mounts a CephFS as its volume will, before there is one; says what it found.
#[cfg(feature = "ceph")]
fn look(engine: &NewEngine) -> Result<Option<String>, Failure> {
    let NewEngine::Cephfs(settings) = engine else {
        return Ok(None);
    };
    let found = pfs_core::engine::cephfs::look(settings)?;
    let bytes = |blocks: u64| Size(blocks.saturating_mul(u64::from(found.size.block_size)));
    let namespace = match &found.namespace {
        Some(name) => format!("data in RADOS namespace {name}"),
        None => {
            "note: no RADOS namespace of its own was found, so a key for it may read the objects \
                 of others in the same pool (docs/ceph.md, Tenants)"
                .to_owned()
        }
    };
    Ok(Some(format!(
        "mounted it by libcephfs {}: {} of {} free, {} files and directories\n{namespace}",
        found.version,
        bytes(found.size.blocks_available),
        bytes(found.size.blocks),
        found.entries,
    )))
}

#[cfg(not(feature = "ceph"))]
fn look(_: &NewEngine) -> Result<Option<String>, Failure> {
    Ok(None)
}

/// Runs the command.
pub fn create(args: &Args) -> Result<(), Failure> {
    let engine = args.engine()?;
    let found = look(&engine)?;
    let made = volume::create(&CreateOptions {
        path: args.path.clone(),
        ownership: match args.ownership {
            OwnershipName::Native => Ownership::Native,
            OwnershipName::Mapped => Ownership::Mapped,
        },
        engine,
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
        Engine::Cephfs(cephfs) => {
            format!(" of {} as client.{}", cephfs.path.display(), cephfs.user)
        }
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
    if let Some(found) = found {
        println!("{found}");
    }
    Ok(())
}
