//! `bench`: measures virtiofs daemons at their ring. `docs/performance.md` says how, and what the
//! numbers are.

mod backend;
mod cli;
mod compare;
mod cpu;
mod error;
mod floor;
mod report;
mod rows;
mod slice;
mod stats;
mod workloads;

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use backend::Backend;
use cli::{Cli, Command, Compare, Run};
use error::Error;
use rows::{Row, ROWS};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Compare(args) => compare(&args),
        Command::Run(args) => run(&args),
        Command::List => list(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {}", explain(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn compare(args: &Compare) -> Result<(), Error> {
    warn_of_debug_build();
    let rows = rows_named(&args.workload)?;
    let setup = args.common.setup();
    let pace = args.common.pace(args.seconds);
    let start = |&kind| Backend::start(kind, &setup);
    let mut backends: Vec<_> = args.backend.iter().map(start).collect::<Result<_, _>>()?;
    let mut measured = Vec::new();
    for row in rows {
        eprintln!("{}", row.name);
        measured.push(compare::row(&mut backends, row, &setup, pace, args.rounds)?);
    }
    print(&report::table::render(&measured))?;
    if let Some(path) = &args.json {
        let text = format!("{:#}\n", report::json::render(&measured));
        fs::write(path, text).map_err(Error::file("write", path))?;
    }
    Ok(())
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
    let slice = slice::run(&mut backend, &mut *workload, row, pace)?;
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

fn list() -> Result<(), Error> {
    ROWS.iter().try_for_each(|row| print(row.name))
}

fn rows_named(names: &[String]) -> Result<Vec<&'static Row>, Error> {
    let matches = |name: &String| ROWS.iter().any(|row| row.name.contains(name.as_str()));
    if let Some(name) = names.iter().find(|name| !matches(name)) {
        return Err(Error::NoRow(name.clone()));
    }
    let wanted = |row: &&Row| names.is_empty() || names.iter().any(|n| row.name.contains(n));
    Ok(ROWS.iter().filter(wanted).collect())
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
