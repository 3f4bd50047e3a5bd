//! `pfsctl volume check`.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use pfs_core::engine::striped::check::{self, At, Error, Report, Step};
use pfs_core::volume::{Engine, Volume};
use pfs_virtiofsd::report::explain;
use serde::Serialize;

use crate::{interrupt, Failure};

/// Exit codes, as `fsck(8)` has them.
const CLEAN: u8 = 0;
const CORRECTED: u8 = 1;
const UNCORRECTED: u8 = 4;
const FAILED: u8 = 8;
const USAGE: u8 = 16;
const CANCELLED: u8 = 32;

/// Find, and repair, what a crash can leave of a volume
///
/// Best run while no daemon serves the volume. It can be run while some do; what only a look
/// without them can tell is then left for one. Exit codes as fsck(8) has them: 0 clean, 1
/// corrected, 4 left uncorrected, 8 failed, 16 wrong usage, 32 cancelled.
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    path: PathBuf,
    /// Repair what can be
    #[arg(long)]
    repair: bool,
    /// Leave files without a name that lost it less than so many seconds ago: a daemon that died and
    /// will go on with its session may still have them open. 0 where none will
    #[arg(long, value_name = "SECONDS", default_value_t = check::ORPHAN_AGE.as_secs())]
    orphan_age: u64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Json {
    /// No daemon served the volume meanwhile.
    alone: bool,
    files: u64,
    directories: u64,
    objects: u64,
    /// Files without a name that were left for a daemon that may be restarted.
    young_orphans: u64,
    corrected: u64,
    uncorrected: u64,
    problems: Vec<JsonProblem>,
}

#[derive(Serialize)]
struct JsonProblem {
    kind: &'static str,
    at: PathBuf,
    outcome: String,
}

/// Runs the command; answers with its exit code.
pub fn check(args: &Args) -> ExitCode {
    interrupt::prepare();
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pfsctl: {}", explain(&*error));
            let cancelled = matches!(error.downcast_ref(), Some(Error::Cancelled));
            ExitCode::from(if cancelled { CANCELLED } else { FAILED })
        }
    }
}

/// Prints what is wrong with a command line. `volume check` has its own code for it.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // Where standard error is closed there is nobody to tell.
    let _ = error.print();
    let is_check = std::env::args().skip(1).take(2).eq(["volume", "check"]);
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_check => ExitCode::from(USAGE),
        code => ExitCode::from(u8::try_from(code).unwrap_or(USAGE)),
    }
}

fn run(args: &Args) -> Result<u8, Failure> {
    let volume = Volume::locate(&args.path)?;
    let Engine::Striped(striped) = &volume.descriptor.engine else {
        let engine = volume.descriptor.engine.name();
        // What it is made of is there, or that is the error.
        volume.open_places()?;
        if args.json {
            print_json(&Report::default())?;
        } else {
            println!("a {engine} volume keeps nothing beside its files: nothing to check");
        }
        return Ok(CLEAN);
    };
    let opened = volume.open_to_check(striped, true)?;
    let bar = bar()?;
    let options = check::Options {
        repair: args.repair,
        orphan_age: Duration::from_secs(args.orphan_age),
    };
    let report = check::check(opened, &options, &mut |at| {
        advance(&bar, at);
        match interrupt::is_interrupted() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    bar.finish_and_clear();
    match args.json {
        true => print_json(&report)?,
        false => print(&report, args),
    }
    Ok(match (report.uncorrected, report.corrected) {
        (0, 0) => CLEAN,
        (0, _) => CORRECTED,
        _ => UNCORRECTED,
    })
}

/// Steps of a bar.
const BAR_STEPS: u64 = 1000;

/// How far it is, on the terminal, where standard error is one.
pub fn bar() -> Result<ProgressBar, Failure> {
    let style = ProgressStyle::with_template("{msg:>7} {bar:30} {percent:>3}% {prefix} {elapsed}")?;
    Ok(ProgressBar::new(BAR_STEPS).with_style(style))
}

/// Shows on `bar` how far it is.
pub fn advance(bar: &ProgressBar, at: At) {
    bar.set_message(match at.step {
        Step::Objects => "objects",
        Step::Names => "names",
    });
    bar.set_prefix(HumanCount(at.seen).to_string());
    bar.set_position((at.done * BAR_STEPS as f64) as u64);
}

fn print_json(report: &Report) -> Result<(), Failure> {
    let problems = report.problems.iter().map(|problem| JsonProblem {
        kind: problem.kind.name(),
        at: problem.at.clone(),
        outcome: problem.outcome.to_string(),
    });
    let json = Json {
        alone: report.alone,
        files: report.files,
        directories: report.directories,
        objects: report.objects,
        young_orphans: report.young_orphans,
        corrected: report.corrected,
        uncorrected: report.uncorrected,
        problems: problems.collect(),
    };
    println!("{}", serde_json::to_string_pretty(&json)?);
    Ok(())
}

fn print(report: &Report, args: &Args) {
    for problem in &report.problems {
        // Guests choose names: none may speak to the terminal.
        let at = problem.at.display().to_string();
        let at = at.escape_debug();
        println!("{at}: {} ({})", problem.kind, problem.outcome);
    }
    let named = report.problems.len() as u64;
    let all = report.corrected + report.uncorrected;
    if named < all {
        println!("and {} more", all - named);
    }
    let verdict = match (report.corrected, report.uncorrected) {
        (0, 0) => "clean".to_owned(),
        (corrected, 0) => format!("{corrected} repaired"),
        (0, left) => format!("{left} to repair"),
        (corrected, left) => format!("{corrected} repaired, {left} left"),
    };
    println!(
        "{verdict}: {} files, {} directories, {} objects",
        report.files, report.directories, report.objects
    );
    if report.young_orphans > 0 {
        println!(
            "{} files without a name for less than {} seconds are left: they may belong to a daemon \
             that is being restarted",
            report.young_orphans, args.orphan_age
        );
    }
    if !report.alone {
        println!("checked while in use: counters were not compared");
    }
    if report.uncorrected > 0 && !args.repair {
        println!("run with --repair to repair what can be");
    }
}
