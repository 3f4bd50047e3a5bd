//! Daemons in turns: A B B A, round after round, so that what else the machine does meets all.

use std::fs;

use crate::backend::{Backend, Kind, Pinning, Setup};
use crate::error::Error;
use crate::rows::Row;
use crate::slice::{self, Pace, Slice};
use crate::stats::{median, Ratio};

/// How it was measured.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub rounds: u32,
    pub pace: Pace,
    /// Which CPUs the driver and the daemons are bound to.
    pub pinning: Option<Pinning>,
    /// Whether volumes are on a file system in memory.
    pub in_memory: bool,
}

/// What was measured of one row.
pub struct Measured {
    pub row: &'static Row,
    pub backends: Vec<Series>,
    pub floor: Vec<Slice>,
}

/// The slices of one daemon. Those with one index were measured one after the other.
pub struct Series {
    pub kind: Kind,
    pub slices: Vec<Slice>,
}

impl Series {
    /// The median of something of each slice.
    pub fn median(&self, value: impl Fn(&Slice) -> f64) -> f64 {
        median_of(&self.slices, value)
    }

    /// The ratios of something to the same of another daemon.
    pub fn ratio(&self, other: &Series, value: impl Fn(&Slice) -> f64) -> Option<Ratio> {
        let values = |series: &Series| series.slices.iter().map(&value).collect::<Vec<_>>();
        Ratio::of_pairs(&values(self), &values(other))
    }
}

/// The median of something of each slice; 0 of none.
pub fn median_of(slices: &[Slice], value: impl Fn(&Slice) -> f64) -> f64 {
    let mut values: Vec<f64> = slices.iter().map(value).collect();
    median(&mut values).unwrap_or_default()
}

impl Measured {
    /// virtiofsd's slices, if they are not what is asked about.
    pub fn peer_of(&self, series: &Series) -> Option<&Series> {
        let mut peers = self.backends.iter().filter(|other| other.kind.is_peer());
        peers.find(|_| !series.kind.is_peer())
    }
}

/// Whether a row says anything of a daemon.
fn fits(row: &Row, backend: &Backend) -> bool {
    let stores_nothing = backend.kind == Kind::Null;
    let is_private = matches!(backend.kind, Kind::Striped(_));
    !(row.needs_storage && stores_nothing || row.needs_namespace && is_private)
}

/// Runs one row on all daemons.
pub fn row(
    backends: &mut [Backend],
    row: &'static Row,
    setup: &Setup,
    settings: &Settings,
) -> Result<Measured, Error> {
    let mut backends: Vec<_> = backends.iter_mut().filter(|b| fits(row, b)).collect();
    let mut workloads = Vec::new();
    for backend in &mut backends {
        let mut workload = (row.make)();
        let prepared = workload.prepare(backend.client(), row.name);
        prepared.map_err(|source| backend.failed(row.name, source))?;
        // The first time, memory and code are touched that nobody touched before.
        slice::run(backend, &mut *workload, row, settings.pace)?;
        workloads.push(workload);
    }
    let mut slices: Vec<Vec<Slice>> = vec![Vec::new(); backends.len()];
    for _ in 0..settings.rounds {
        let forward = 0..backends.len();
        for index in forward.clone().chain(forward.rev()) {
            let (backend, workload) = (&mut backends[index], &mut workloads[index]);
            slices[index].push(slice::run(backend, &mut **workload, row, settings.pace)?);
        }
    }
    for (backend, workload) in backends.iter_mut().zip(&mut workloads) {
        let finished = workload.finish(backend.client());
        finished.map_err(|source| backend.failed(row.name, source))?;
    }
    let series = |(backend, slices): (&&mut Backend, _)| Series {
        kind: backend.kind,
        slices,
    };
    Ok(Measured {
        row,
        backends: backends.iter().zip(slices).map(series).collect(),
        floor: floor(row, setup, settings)?,
    })
}

fn floor(row: &Row, setup: &Setup, settings: &Settings) -> Result<Vec<Slice>, Error> {
    let folder = tempfile::Builder::new()
        .prefix("pfs-bench-floor-")
        .tempdir_in(&setup.dir)
        .map_err(Error::file("make a folder in", &setup.dir))?;
    let mut floor = (row.make)().floor();
    floor
        .prepare(folder.path())
        .map_err(|source| Error::Floor {
            row: row.name,
            source,
        })?;
    let slice = |_| slice::run_floor(&mut *floor, row, settings.pace.duration);
    let slices = (0..settings.rounds).map(slice).collect::<Result<_, _>>()?;
    let path = folder.path().to_owned();
    fs::remove_dir_all(&path).map_err(Error::file("remove", &path))?;
    Ok(slices)
}
