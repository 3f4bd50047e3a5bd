//! Having the host drop what it has cached of files.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{fadvise, fdatasync, Advice};

/// Drops the cached contents of all files in a folder, and below.
pub fn forget_contents(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            forget_contents(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            // Only what is on the disk can be dropped.
            fdatasync(&file)?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
