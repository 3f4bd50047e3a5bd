//! `pfsctl put`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use crate::interrupt::{self, Interruptible};
use crate::{files, open, Failure};

/// Write a file into a volume
///
/// Data comes from the local file FROM, or from standard input where FROM is left out or "-".
/// PATH is the file's name in the volume; a file that is there is replaced at once when all is
/// written and synced, and stays as it was if the put fails.
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    volume: PathBuf,
    /// The file in the volume
    path: PathBuf,
    /// The local file to read; standard input if left out or "-"
    from: Option<PathBuf>,
    /// Make the directories of PATH that are not there
    #[arg(short, long)]
    parents: bool,
}

/// Runs the command.
pub fn put(args: &Args) -> Result<(), Failure> {
    let from = args
        .from
        .as_deref()
        .filter(|_| !files::is_stream(args.from.as_deref()));
    // Before the engine sets the umask to 0.
    let umask = rustix::process::umask(Mode::empty());
    rustix::process::umask(umask);
    let mut source = Source::open(from, 0o666 & !umask.as_raw_mode())?;
    let mut client = open::client(&args.volume)?;
    if let (true, Some(parent)) = (args.parents, args.path.parent()) {
        client.mkdir_all(parent)?;
    }
    interrupt::prepare();
    let bar = files::bar(source.bytes);
    let mut data = bar.wrap_read(Interruptible(&mut source.data));
    client.put(&args.path, source.mode, &mut data)?;
    bar.finish_and_clear();
    Ok(())
}

/// What to put.
struct Source {
    data: Box<dyn Read>,
    /// Permissions that the file gets.
    mode: u32,
    /// Bytes to expect, where that is known.
    bytes: Option<u64>,
}

impl Source {
    /// The local file `from`, or standard input. What has no permissions to give gets `mode`.
    fn open(from: Option<&Path>, mode: u32) -> Result<Source, Failure> {
        let Some(path) = from else {
            return Ok(Source {
                data: Box::new(std::io::stdin().lock()),
                mode,
                bytes: None,
            });
        };
        let file = File::open(path).map_err(files::about("open", path))?;
        let found = file.metadata().map_err(files::about("look at", path))?;
        if found.is_dir() {
            return Err(format!("{} is a directory", path.display()).into());
        }
        let (mode, bytes) = match found.is_file() {
            true => (found.permissions().mode() & 0o777, Some(found.len())),
            false => (mode, None),
        };
        Ok(Source {
            data: Box::new(file),
            mode,
            bytes,
        })
    }
}
