//! `pfsctl rm`.

use std::path::PathBuf;

use pfs_core::client::Error;

use crate::{open, Failure};

/// Remove files from a volume
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    volume: PathBuf,
    /// What to remove
    #[arg(required = true)]
    path: Vec<PathBuf>,
    /// Remove directories, with all that is in them
    #[arg(short, long)]
    recursive: bool,
}

/// Runs the command.
pub fn rm(args: &Args) -> Result<(), Failure> {
    let mut client = open::client(&args.volume)?;
    for path in &args.path {
        if !args.recursive {
            client.remove(path).map_err(|error| match error {
                Error::IsADirectory { .. } => format!("{error}: use --recursive").into(),
                error => Failure::from(error),
            })?;
            continue;
        }
        let bar = indicatif::ProgressBar::new_spinner();
        client.remove_tree(path, &mut |path| {
            bar.inc(1);
            bar.set_message(path.display().to_string().escape_debug().to_string());
        })?;
        bar.finish_and_clear();
    }
    Ok(())
}
