//! `pfsctl volume show`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use comfy_table::{presets, CellAlignment, Table};
use pfs_core::target;
use pfs_core::volume::size::Size;
use pfs_core::volume::{Engine, Limits, Ownership, Usage, Volume, VolumeKind};
use serde::Serialize;
use uuid::Uuid;

use crate::{files, open, set, Failure};

/// Show a volume: its engine, layout, and what each target holds
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    path: PathBuf,
    /// As JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    path: PathBuf,
    engine: &'static str,
    /// `None` for a plain directory.
    uuid: Option<Uuid>,
    ownership: &'static str,
    /// What a guest's `df` counts.
    capacity_bytes: u64,
    available_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<PathBuf>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    striped: Option<Striped>,
}

#[derive(Serialize)]
struct Striped {
    layout: Layout,
    limits: Limited,
    meta: PathBuf,
    targets: Vec<Target>,
}

#[derive(Serialize)]
struct Layout {
    stripe_unit: u64,
    stripe_count: u32,
    object_size: u64,
    mdt_size: u64,
}

/// The limits in force, and what is counted where there are any.
#[derive(Serialize)]
struct Limited {
    capacity_bytes: Option<u64>,
    inodes: Option<u64>,
    used_bytes: Option<u64>,
    used_inodes: Option<u64>,
}

impl Limited {
    fn of(usage: &Usage) -> Limited {
        let (limits, used) = (usage.limits(), usage.used());
        Limited {
            capacity_bytes: limits.capacity_bytes,
            inodes: limits.inodes,
            used_bytes: used.map(|used| used.bytes),
            used_inodes: used.map(|used| used.inodes),
        }
    }
}

#[derive(Serialize)]
struct Target {
    index: usize,
    path: PathBuf,
    objects: u64,
    bytes: u64,
    capacity_bytes: u64,
    available_bytes: u64,
}

/// Runs the command.
pub fn show(args: &Args) -> Result<(), Failure> {
    let shown = look(&args.path)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else {
        print(&shown);
    }
    Ok(())
}

fn look(path: &Path) -> Result<Shown, Failure> {
    let volume = Volume::open(path)?;
    let (path, descriptor) = (volume.path.clone(), volume.descriptor.clone());
    let (striped, source) = match (&descriptor.engine, &volume.kind) {
        (Engine::Striped(striped), VolumeKind::Striped { targets, usage, .. }) => {
            let places = striped.targets.iter().zip(targets);
            let shown = places.enumerate().map(|(index, (place, objects))| {
                let place = path.join(place);
                let usage = target::usage(objects.as_fd())
                    .map_err(files::about("count the objects of", &place))?;
                Ok::<_, Failure>(Target {
                    index,
                    path: place,
                    objects: usage.objects,
                    bytes: usage.bytes,
                    capacity_bytes: usage.capacity_bytes,
                    available_bytes: usage.available_bytes,
                })
            });
            let layout = Layout {
                stripe_unit: striped.layout.stripe_unit_bytes(),
                stripe_count: striped.layout.stripe_count(),
                object_size: striped.layout.object_size_bytes(),
                mdt_size: striped.mdt_size_bytes,
            };
            let striped = Striped {
                layout,
                limits: Limited::of(usage),
                meta: path.join(&striped.meta),
                targets: shown.collect::<Result<_, _>>()?,
            };
            (Some(striped), None)
        }
        (Engine::Posix { path: source }, _) => (None, Some(path.join(source))),
        _ => (None, None),
    };
    let whole = open::client_of(volume)?.statfs()?;
    let bytes = |blocks: u64| blocks.saturating_mul(u64::from(whole.block_size));
    Ok(Shown {
        path,
        engine: descriptor.engine.name(),
        uuid: descriptor.uuid,
        ownership: match descriptor.ownership {
            Ownership::Native => "native",
            Ownership::Mapped => "mapped",
        },
        capacity_bytes: bytes(whole.blocks),
        available_bytes: bytes(whole.blocks_available),
        source,
        striped,
    })
}

fn print(shown: &Shown) {
    let uuid = match shown.uuid {
        Some(uuid) => uuid.to_string(),
        None => "none: a plain directory".to_owned(),
    };
    println!("volume    {}", shown.path.display());
    println!("engine    {}", shown.engine);
    println!("uuid      {uuid}");
    println!("ownership {}", shown.ownership);
    if let Some(source) = &shown.source {
        println!("serves    {}", source.display());
    }
    if let Some(striped) = &shown.striped {
        let layout = &striped.layout;
        println!(
            "layout    stripe unit {}, stripe count {}, mdt size {}",
            Size(layout.stripe_unit),
            layout.stripe_count,
            Size(layout.mdt_size)
        );
        println!("metadata  {}", striped.meta.display());
        print_limits(&striped.limits);
    }
    println!(
        "capacity  {}, {} available",
        human(shown.capacity_bytes),
        human(shown.available_bytes)
    );
    if let Some(striped) = &shown.striped {
        for line in table(&striped.targets).lines() {
            println!("{}", line.trim_end());
        }
    }
}

fn print_limits(limited: &Limited) {
    let limits = Limits {
        capacity_bytes: limited.capacity_bytes,
        inodes: limited.inodes,
    };
    let used = match (limited.used_bytes, limited.used_inodes) {
        (Some(bytes), Some(inodes)) => format!("; used {}, {inodes} inodes", human(bytes)),
        _ => String::new(),
    };
    println!("limits    {}{used}", set::told(&limits));
}

fn table(targets: &[Target]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "target",
        "objects",
        "bytes",
        "capacity",
        "available",
        "path",
    ]);
    for target in targets {
        table.add_row([
            target.index.to_string(),
            target.objects.to_string(),
            human(target.bytes),
            human(target.capacity_bytes),
            human(target.available_bytes),
            target.path.display().to_string(),
        ]);
    }
    for column in table.column_iter_mut().take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
