//! Changing a descriptor in its place.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::descriptor::limits_table;
use super::{Descriptor, Engine, Error, DESCRIPTOR_NAME};

/// Puts the limits of `new` into the descriptor of the volume at `path`, whole or not at all.
/// Everything else in it, comments too, stays as it is.
pub(crate) fn rewrite_limits(path: &Path, new: &Descriptor) -> Result<(), Error> {
    let file = match path.is_dir() {
        true => path.join(DESCRIPTOR_NAME),
        false => path.to_owned(),
    };
    let old = std::fs::read_to_string(&file).map_err(|e| Error::io("read", &file, e))?;
    let Engine::Striped(striped) = &new.engine else {
        return Ok(());
    };
    let edited = with_table(&old, &limits_table(&striped.limits));
    // What another laid out in an unusual way is written anew.
    let text = match Descriptor::parse(&edited, &file) {
        Ok(parsed) if parsed == *new => edited,
        _ => new.to_toml(),
    };
    replace(&file, &text)
}

/// `text` with `table` in place of its table of limits.
fn with_table(text: &str, table: &str) -> String {
    let mut kept = Vec::new();
    let mut in_limits = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            in_limits = line.trim() == "[limits]";
        }
        if !in_limits {
            kept.push(line);
        }
    }
    let at = kept
        .iter()
        .position(|line| line.trim_start().starts_with("[[target]]"))
        .unwrap_or(kept.len());
    let (before, after) = kept.split_at(at);
    let before = before.join("\n");
    format!("{}\n{table}\n{}\n", before.trim_end(), after.join("\n"))
}

fn replace(file: &Path, text: &str) -> Result<(), Error> {
    let folder = file
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    let new = folder.join(".volume.toml.new");
    let write = || {
        let mode = file.metadata()?.permissions().mode() & 0o7777;
        let mut options = OpenOptions::new();
        let mut made = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        made.write_all(text.as_bytes())?;
        made.sync_all()?;
        std::fs::rename(&new, file)?;
        File::open(&folder)?.sync_all()
    };
    write().map_err(|source| Error::io("rewrite", file, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_put_taken_and_changed() {
        let plain =
            "# mine\nformat = 2\n\n[layout]\nmdt_size = 0 # none\n\n[[target]]\npath = \"a\"\n";
        let table = "\n[limits]\ncapacity = \"1G\"\n";
        let limited = with_table(plain, table);
        assert_eq!(
            limited,
            "# mine\nformat = 2\n\n[layout]\nmdt_size = 0 # none\n\n[limits]\ncapacity = \"1G\"\n\n\
             [[target]]\npath = \"a\"\n"
        );
        assert_eq!(with_table(&limited, table), limited);
        let other = with_table(&limited, "\n[limits]\ninodes = 5\n");
        assert!(other.contains("inodes = 5") && !other.contains("capacity"));
        let none = with_table(&limited, "");
        assert!(!none.contains("limits") && none.contains("# mine") && none.contains("[[target]]"));
    }
}
