//! The daemon: one that the bridge starts, or one that listens already.

use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use guest_tests::binaries;
use guest_tests::ring::process::{Daemon, DaemonCommand};
use tempfile::TempDir;

use crate::error::Error;

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

/// Reads `UID` or `UID:GID`.
pub fn parse_user(text: &str) -> Result<User, String> {
    let number = |text: &str| {
        let parsed = text.parse::<u32>();
        parsed.map_err(|_| format!("{text:?} is no number; UID or UID:GID is wanted"))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Ok(User {
        uid: number(uid)?,
        gid: number(gid)?,
    })
}

/// A daemon to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// pfs-virtiofsd if none is given.
    pub program: Option<&'a Path>,
    pub volume: &'a Path,
    pub user: Option<User>,
    /// Where its standard error goes; else to a temporary file.
    pub log: Option<&'a Path>,
    /// More arguments.
    pub args: &'a [OsString],
}

/// The daemon that serves.
#[derive(Debug)]
pub enum Backend {
    Started {
        // First: it is ended before its folder goes.
        daemon: Daemon,
        _folder: TempDir,
    },
    Connected,
}

impl Backend {
    /// Starts one, and connects to it.
    pub fn start(options: &Start<'_>) -> Result<(Backend, UnixStream), Error> {
        let program = match options.program {
            Some(program) => program.to_owned(),
            None => binaries::pfs_virtiofsd()?,
        };
        let folder = tempfile::Builder::new().prefix("pfs-bridge-").tempdir();
        let folder = folder.map_err(Error::Folder)?;
        let socket = folder.path().join("daemon.sock");
        let args = ["--socket-path".into(), socket.clone().into()];
        let shared: [OsString; 2] = ["--shared-dir".into(), options.volume.into()];
        let mut command = DaemonCommand::new(program, socket).args::<OsString>(args);
        command = command.args(shared).args(options.args);
        if let Some(log) = options.log {
            command = command.log(log);
        }
        if let Some(User { uid, gid }) = options.user {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).map_err(Error::Folder)?;
            command = command.user(uid, gid);
        }
        let mut daemon = command.spawn()?;
        let stream = daemon.connect()?;
        let backend = Backend::Started {
            daemon,
            _folder: folder,
        };
        Ok((backend, stream))
    }

    /// Connects to one that listens.
    pub fn connect(socket: &Path) -> Result<(Backend, UnixStream), Error> {
        let failed = |source| Error::Connect(PathBuf::from(socket), source);
        let stream = UnixStream::connect(socket).map_err(failed)?;
        Ok((Backend::Connected, stream))
    }

    /// Ends one that was started; one that was connected to sees the connection closed.
    pub fn end(self) -> Result<(), Error> {
        if let Backend::Started { mut daemon, .. } = self {
            // It may have ended by itself when the connection was closed.
            if daemon.try_wait()?.is_none() {
                daemon.terminate()?;
            }
        }
        Ok(())
    }

    /// What is known of a daemon that hung up: its last words go to standard error.
    pub fn post_mortem(&mut self) -> Error {
        let Backend::Started { daemon, .. } = self else {
            return Error::DaemonGone(None);
        };
        // The socket is closed a little before the process has ended.
        let status = daemon.wait().ok();
        eprint!("{}", daemon.log());
        Error::DaemonGone(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users() {
        assert_eq!(parse_user("7"), Ok(User { uid: 7, gid: 7 }));
        assert_eq!(parse_user("7:8"), Ok(User { uid: 7, gid: 8 }));
        assert!(parse_user("7:").is_err());
        assert!(parse_user("root").unwrap_err().contains("root"));
    }
}
