//! `pfsctl ls`.

use std::ffi::CString;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pfs_core::client::Client;
use pfs_core::fs::{Attr, Errno, Name, NodeId};

use crate::{open, Failure};

/// List a directory of a volume
///
/// Names come in byte order. On a terminal, control characters in them are shown as "?".
#[derive(clap::Args)]
pub struct Args {
    /// The volume
    volume: PathBuf,
    /// What to list
    #[arg(default_value = "/")]
    path: PathBuf,
    /// One line for each with type, permissions, links, owner, group, size and time (UTC)
    #[arg(short)]
    long: bool,
    /// List what is below, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

struct Listing<'a> {
    client: Client,
    args: &'a Args,
    out: std::io::BufWriter<std::io::StdoutLock<'static>>,
    terminal: bool,
}

/// Runs the command.
pub fn ls(args: &Args) -> Result<(), Failure> {
    let mut listing = Listing {
        client: open::client(&args.volume)?,
        args,
        out: std::io::BufWriter::new(std::io::stdout().lock()),
        terminal: std::io::stdout().is_terminal(),
    };
    let node = listing.client.lookup_path(&args.path)?;
    if !node.is_dir() {
        listing.line(node.id, &node.attr, args.path.as_os_str().as_bytes())?;
    } else {
        listing.directories(&args.path)?;
    }
    Ok(listing.out.flush()?)
}

impl Listing<'_> {
    /// Lists the directory at `top` and, where asked for, those below. A stack of its own:
    /// trees may be deeper than a thread's.
    fn directories(&mut self, top: &Path) -> Result<(), Failure> {
        let mut todo = vec![top.to_owned()];
        let mut first = true;
        while let Some(path) = todo.pop() {
            if self.args.recursive {
                let gap = if std::mem::take(&mut first) { "" } else { "\n" };
                write!(self.out, "{gap}")?;
                self.name(path.as_os_str().as_bytes())?;
                writeln!(self.out, ":")?;
            }
            let below = match self.directory(&path) {
                // Removed while we were at it.
                Err(error) if path != top && is_gone(&*error) => Vec::new(),
                below => below?,
            };
            todo.extend(
                below
                    .into_iter()
                    .rev()
                    .map(|name| path.join(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())))),
            );
        }
        Ok(())
    }

    /// Lists one directory; answers the directories in it.
    fn directory(&mut self, path: &Path) -> Result<Vec<CString>, Failure> {
        let node = self.client.lookup_path(path)?;
        let mut items = self.client.read_dir(path)?;
        items.sort_by(|a, b| a.name.cmp(&b.name));
        for item in &items {
            if !self.args.long {
                self.name(item.name.to_bytes())?;
                writeln!(self.out)?;
                continue;
            }
            match self.client.lookup(node.id, Name::new(&item.name)?) {
                Ok(found) => self.line(found.id, &found.attr, item.name.to_bytes())?,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let dirs = items.into_iter().filter(|item| item.is_dir());
        Ok(match self.args.recursive {
            true => dirs.map(|item| item.name).collect(),
            false => Vec::new(),
        })
    }

    fn line(&mut self, node: NodeId, attr: &Attr, name: &[u8]) -> Result<(), Failure> {
        if self.args.long {
            let size = match attr.mode & libc::S_IFMT {
                libc::S_IFCHR | libc::S_IFBLK => {
                    format!("{}, {}", attr.rdev_major, attr.rdev_minor)
                }
                _ => attr.size.to_string(),
            };
            write!(
                self.out,
                "{} {:>3} {:>5} {:>5} {size:>13} {} ",
                mode_text(attr.mode),
                attr.nlink,
                attr.uid,
                attr.gid,
                time_text(attr.mtime.sec),
            )?;
        }
        self.name(name)?;
        if self.args.long && attr.mode & libc::S_IFMT == libc::S_IFLNK {
            let target = self
                .client
                .call(|fs, req, reply| fs.readlink(req, node, reply))?;
            write!(self.out, " -> ")?;
            self.name(&target)?;
        }
        Ok(writeln!(self.out)?)
    }

    /// Names are a guest's: on a terminal they must not steer it.
    fn name(&mut self, name: &[u8]) -> std::io::Result<()> {
        if !self.terminal {
            return self.out.write_all(name);
        }
        let shown = String::from_utf8_lossy(name);
        write!(self.out, "{}", shown.replace(char::is_control, "?"))
    }
}

fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<pfs_core::client::Error>();
    error.and_then(pfs_core::client::Error::errno) == Some(Errno::NOENT)
}

/// A mode as `ls -l` shows it.
fn mode_text(mode: u32) -> String {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => 'd',
        libc::S_IFLNK => 'l',
        libc::S_IFCHR => 'c',
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        libc::S_IFSOCK => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Seconds since the epoch as date and time, UTC (Howard Hinnant's `civil_from_days`).
fn time_text(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told() {
        assert_eq!(time_text(0), "1970-01-01 00:00");
        assert_eq!(time_text(951_827_696), "2000-02-29 12:34");
        assert_eq!(time_text(-1), "1969-12-31 23:59");
        assert_eq!(time_text(4_102_444_800), "2100-01-01 00:00");
    }

    #[test]
    fn modes_are_told() {
        assert_eq!(mode_text(libc::S_IFREG | 0o644), "-rw-r--r--");
        assert_eq!(mode_text(libc::S_IFDIR | 0o1777), "drwxrwxrwt");
        assert_eq!(mode_text(libc::S_IFREG | 0o6744), "-rwsr-Sr--");
    }
}
