//! Local files and standard streams at the other end of a transfer.

use std::fs::{File, OpenOptions};
use std::io::{Error, Result, Write};
use std::os::unix::fs::{fchown, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{getegid, geteuid};

/// Adds what was done to which file to an error.
pub fn about(doing: &str, path: &Path) -> impl FnOnce(Error) -> Error {
    let what = format!("cannot {doing} {}", path.display());
    move |error| Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether `path` stands for a standard stream.
pub fn is_stream(path: Option<&Path>) -> bool {
    path.is_none_or(|path| path == Path::new("-"))
}

/// A bar on the terminal, where standard error is one; `bytes` where they are known.
pub fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {binary_bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A local file that is there whole or not at all: written under another name, then renamed.
/// Something there that is no regular file (a pipe, a device) is written to as it is.
pub struct NewFile {
    file: File,
    path: PathBuf,
    /// The name it has until it is whole; `None` once it is, or was never needed.
    new: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file at `path` with permissions `mode`.
    pub fn begin(path: &Path, mode: u32) -> Result<NewFile> {
        if let Ok(found) = path.metadata() {
            let kind = found.file_type();
            if kind.is_dir() {
                let message = format!("{} is a directory", path.display());
                return Err(Error::other(message));
            }
            if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
                let file = OpenOptions::new().write(true).open(path);
                return Ok(NewFile {
                    file: file.map_err(about("open", path))?,
                    path: path.into(),
                    new: None,
                });
            }
        }
        let name = format!(".pfsctl-get-{}", uuid::Uuid::new_v4().simple());
        let new = path.with_file_name(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(mode).open(&new);
        let file = file.map_err(about("make a file beside", path))?;
        // An engine may act for the volume's owner. What cannot be given to its own user is theirs.
        let _ = fchown(&file, Some(geteuid().as_raw()), Some(getegid().as_raw()));
        Ok(NewFile {
            file,
            path: path.into(),
            new: Some(new),
        })
    }

    /// Puts the whole file in its place.
    pub fn finish(mut self) -> Result<()> {
        if let Some(new) = &self.new {
            std::fs::rename(new, &self.path).map_err(about("make", &self.path))?;
            self.new = None;
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(new) = &self.new {
            // The error that made it unfinished is told; there is nothing to do about this one.
            let _ = std::fs::remove_file(new);
        }
    }
}
