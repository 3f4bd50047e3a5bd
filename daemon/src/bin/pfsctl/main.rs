//! `pfsctl`: volumes from the host, without a VM, through the engines that the daemon uses.

mod check;
mod files;
mod get;
mod interrupt;
mod layout;
mod ls;
mod open;
mod put;
mod rm;
mod set;
mod show;
mod volume;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pfs_virtiofsd::report::explain;

/// Makes and shows volumes of pfs-virtiofsd, and moves files in and out of them.
///
/// Works while VMs have the volume mounted. A volume is named by its folder, its volume.toml, or
/// a plain directory. Paths in it start at its root; symbolic links are not followed.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, show, limit or check a volume
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Show or set how files are striped
    #[command(subcommand)]
    Layout(LayoutCommand),
    Put(put::Args),
    Get(get::Args),
    Ls(ls::Args),
    Rm(rm::Args),
}

#[derive(Subcommand)]
enum VolumeCommand {
    Create(Box<volume::Args>),
    Show(show::Args),
    Set(set::Args),
    Check(check::Args),
}

#[derive(Subcommand)]
enum LayoutCommand {
    Get(layout::GetArgs),
    Set(layout::SetArgs),
}

/// What a command fails with: told to the user, who can do nothing but read it.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .parse_default_env()
        .init();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return check::usage_error(&error),
    };
    let done = match &args.command {
        Command::Volume(VolumeCommand::Create(args)) => volume::create(args),
        Command::Volume(VolumeCommand::Show(args)) => show::show(args),
        Command::Volume(VolumeCommand::Set(args)) => set::set(args),
        Command::Volume(VolumeCommand::Check(args)) => return check::check(args),
        Command::Layout(LayoutCommand::Get(args)) => layout::get(args),
        Command::Layout(LayoutCommand::Set(args)) => layout::set(args),
        Command::Put(args) => put::put(args),
        Command::Get(args) => get::get(args),
        Command::Ls(args) => ls::ls(args),
        Command::Rm(args) => rm::rm(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pfsctl: {}", explain(&*error));
            ExitCode::FAILURE
        }
    }
}
