//! `bench`: measures virtiofs daemons at their ring. `docs/performance.md` says how, and what the
//! numbers are.

mod backend;
mod ceph;
mod check;
mod cli;
mod compare;
mod cpu;
mod error;
mod floor;
mod footprint;
mod queues;
mod report;
mod rows;
mod scale;
mod slice;
mod stats;
mod workloads;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use guest_tests::vm::steps::chain;

use backend::{Backend, Kind};
use cli::{Check, Cli, Command, Common, Compare, Footprint, Output, Queues, Run, Scale};
use compare::{Measured, Settings};
use error::Error;
use rows::{Row, ROWS};
use slice::Pace;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(args) => compare(&args),
        Command::Check(args) => check(&args),
        Command::Run(args) => run(&args),
        Command::Footprint(args) => footprint(&args),
        Command::Scale(args) => scale(&args),
        Command::Queues(args) => queues(&args),
        Command::List => list(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Compare) -> Result<(), Error> {
    let rows = rows::named(&args.workload)?;
    let pace = args.common.pace(args.seconds);
    let measured = measure(&rows, &args.backend, args.rounds, pace, &args.common)?;
    measured.write(&args.output)
}

fn check(args: &Check) -> Result<(), Error> {
    const BACKENDS: [Kind; 3] = [Kind::Striped(4), Kind::Posix, Kind::Virtiofsd];
    let mut rows: Vec<_> = ROWS.iter().filter(|row| row.goal.is_some()).collect();
    let pace = args.common.pace(args.seconds);
    let mut lost = None;
    for _ in 0..args.tries {
        let measured = measure(&rows, &BACKENDS, args.rounds, pace, &args.common)?;
        match lost.is_none() {
            true => measured.write(&args.output)?,
            false => print(&report::table::render(&measured.rows))?,
        }
        let verdicts = check::verdicts(&measured.rows);
        let still = check::lost(verdicts, args.percent, lost.as_deref());
        rows.retain(|row| still.iter().any(|verdict| verdict.row == row.name));
        lost = Some(still);
        if rows.is_empty() {
            break;
        }
    }
    check::judge(&lost.unwrap_or_default(), args.percent)
}

struct Comparison {
    rows: Vec<Measured>,
    settings: Settings,
}

impl Comparison {
    fn write(&self, output: &Output) -> Result<(), Error> {
        print(&report::table::render(&self.rows))?;
        let write =
            |path: &PathBuf, text| fs::write(path, text).map_err(Error::file("write", path));
        if let Some(path) = &output.json {
            let value = report::json::render(&self.rows, &self.settings);
            write(path, format!("{value:#}\n"))?;
        }
        if let Some(path) = &output.svg {
            write(path, report::svg::render(&self.rows))?;
        }
        Ok(())
    }
}

fn measure(
    rows: &[&'static Row],
    kinds: &[Kind],
    rounds: u32,
    pace: Pace,
    common: &Common,
) -> Result<Comparison, Error> {
    warn_of_debug_build();
    let setup = common.setup();
    let settings = Settings {
        rounds,
        pace,
        pinning: setup.pinning,
        in_memory: setup.is_in_memory()?,
    };
    let start = |&kind| Backend::start(kind, &setup);
    let mut backends: Vec<_> = kinds.iter().map(start).collect::<Result<_, _>>()?;
    let mut measured = Vec::new();
    for row in rows {
        if row.needs_disk && settings.in_memory {
            eprintln!("{}: left out, --dir is in memory", row.name);
            continue;
        }
        eprintln!("{}", row.name);
        measured.push(compare::row(&mut backends, row, &setup, &settings)?);
    }
    Ok(Comparison {
        rows: measured,
        settings,
    })
}

fn run(args: &Run) -> Result<(), Error> {
    warn_of_debug_build();
    let row = ROWS.iter().find(|row| row.name == args.workload);
    let row = row.ok_or_else(|| Error::NoRow(args.workload.clone()))?;
    let mut backend = Backend::start(args.backend, &args.common.setup())?;
    let mut workload = (row.make)();
    let prepared = workload.prepare(backend.client(), row.name);
    prepared.map_err(|source| backend.failed(row.name, source))?;
    print(&format!("pid {}", backend.pid()))?;
    let pace = args.common.pace(args.seconds);
    let slice = slice::run_for(&mut backend, &mut *workload, row, pace)?;
    let latency = slice.latency_us();
    let latency = latency.map_or(String::new(), |us| format!(", median latency {us:.1} us"));
    print(&format!(
        "{} on {}: {:.0} per second, CPU {:.3} us each, {:.2} context switches each{latency}",
        row.name,
        args.backend,
        slice.rate(),
        slice.cpu_us(),
        slice.context_switches as f64 / slice.units as f64,
    ))
}

fn footprint(args: &Footprint) -> Result<(), Error> {
    warn_of_debug_build();
    print(&report::footprint::render(&footprint::measure(args)?))
}

fn scale(args: &Scale) -> Result<(), Error> {
    warn_of_debug_build();
    let points = scale::measure(args)?;
    print(&report::scale::render(&points))?;
    scale::judge(&points, args.at_least)
}

fn queues(args: &Queues) -> Result<(), Error> {
    warn_of_debug_build();
    print(&report::queues::render(&queues::measure(args)?))
}

fn list() -> Result<(), Error> {
    ROWS.iter().try_for_each(|row| print(row.name))
}

fn print(text: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    written.map_err(Error::file("write to", "standard output".as_ref()))
}

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build, and the daemon beside it too: add --release");
    }
}
