//! `pfsctl get`.

use std::io::Write;
use std::path::{Path, PathBuf};

use pfs_core::client::{Client, Node};

use crate::interrupt::{self, Interruptible};
use crate::{files, open, Failure};

/// Read a file out of a volume
///
/// Data goes to the local file TO, or to standard output where TO is left out or "-". A local
/// file that is there is replaced when all is read, and stays as it was if the get fails.
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    volume: PathBuf,
    /// The file in the volume
    path: PathBuf,
    /// The local file to write; standard output if left out or "-"
    to: Option<PathBuf>,
}

/// Runs the command.
pub fn get(args: &Args) -> Result<(), Failure> {
    // An engine may change its thread's working directory.
    let to = match args.to.as_deref() {
        Some(to) if !files::is_stream(Some(to)) => Some(std::path::absolute(to)?),
        _ => None,
    };
    // The new file gets the user's umask, which the engine sets to 0 for its own.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let mut client = open::client(&args.volume)?;
    rustix::process::umask(umask);
    let node = client.lookup_path(&args.path)?;
    interrupt::prepare();
    match &to {
        Some(to) => {
            let mut file = files::NewFile::begin(to, node.attr.mode & 0o777)?;
            transfer(&mut client, &node, &args.path, &mut file)?;
            file.finish()?;
        }
        None => {
            let mut out = std::io::stdout().lock();
            transfer(&mut client, &node, &args.path, &mut out)?;
            out.flush()?;
        }
    }
    Ok(())
}

fn transfer(
    client: &mut Client,
    node: &Node,
    path: &Path,
    to: &mut dyn Write,
) -> Result<(), Failure> {
    let bar = files::bar(Some(node.attr.size));
    let mut to = bar.wrap_write(Interruptible(to));
    client.get_node(node, path, &mut to)?;
    bar.finish_and_clear();
    Ok(())
}
