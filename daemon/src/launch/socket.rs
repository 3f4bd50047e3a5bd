//! The socket that the VMM connects to: made, guarded by a lock, removed at the end.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::sandbox::{self, Sandbox};

/// Connections that may wait: one VMM comes.
const BACKLOG: i32 = 1;
/// `SO_ACCEPTCON` in the flags of /proc/net/unix: the socket listens.
const LISTENS: u32 = 1 << 16;

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: Errno,
    },
    #[error("{path} is not a path for a socket: it names no file")]
    NoName { path: PathBuf },
    #[error("the path of the socket is too long: {path} has more than 107 bytes")]
    TooLong { path: PathBuf },
    #[error("{path} is there and is no socket: choose another path, or remove it")]
    NotASocket { path: PathBuf },
    #[error("{path} is in use by another daemon{owner}: end that one, or choose another path")]
    InUse { path: PathBuf, owner: String },
    #[error("there is no group \"{0}\": give a group's name or number to --socket-group")]
    NoGroup(String),
    #[error(transparent)]
    Sandbox(#[from] sandbox::Error),
}

/// A socket that was made. On drop it is removed, with the lock beside it.
pub(super) struct Made {
    dir: OwnedFd,
    /// `None` until it is there: what was there before is never ours to remove.
    name: Option<OsString>,
    lock_name: OsString,
    /// Held until the end of the process.
    _lock: File,
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in self.name.iter().chain([&self.lock_name]) {
            if let Err(errno) = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
                log::warn!("cannot remove {}: {errno}", name.to_string_lossy());
            }
        }
    }
}

/// Makes the socket at `path`, which `group` may connect to, and listens. A stale one is
/// replaced; one that another daemon listens on is left alone.
pub(super) fn make(
    path: &Path,
    group: Option<&str>,
    sandbox: &Sandbox,
) -> Result<(UnixListener, Made), Error> {
    let io = |doing| {
        let path = path.to_owned();
        move |source| Error::Io {
            doing,
            path,
            source,
        }
    };
    let group = group.map(find_group).transpose()?;
    let name = path
        .file_name()
        .ok_or_else(|| Error::NoName { path: path.into() })?
        .to_owned();
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(parent, flags, Mode::empty())
        .map_err(io("open the directory of socket"))?;

    let mut lock_name = name.clone();
    lock_name.push(".pid");
    let lock = take_lock(&dir, &lock_name, path)?;
    // From here on, a failure removes what was made.
    let mut made = Made {
        dir: sandbox.confine(&dir)?,
        name: None,
        lock_name,
        _lock: lock,
    };
    remove_stale(&dir, &name, path)?;

    let address = SocketAddrUnix::new(path).map_err(|errno| match errno {
        Errno::NAMETOOLONG => Error::TooLong { path: path.into() },
        errno => io("make socket")(errno),
    })?;
    let listener = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io("make socket"))?;
    let mask = if group.is_some() { 0o007 } else { 0o077 };
    let umask = rustix::process::umask(Mode::from_raw_mode(mask));
    let bound = rustix::net::bind(&listener, &address);
    rustix::process::umask(umask);
    bound.map_err(io("make socket"))?;
    let name = &*made.name.insert(name);
    if group.is_some() {
        rustix::fs::chownat(&dir, name, None, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io("give its group to socket"))?;
    }
    rustix::net::listen(&listener, BACKLOG).map_err(io("listen on socket"))?;
    Ok((listener.into(), made))
}

/// Takes the lock `name` in `dir`, which says that the socket beside it is ours. virtiofsd uses
/// the same file in the same way.
fn take_lock(dir: &OwnedFd, name: &OsStr, socket: &Path) -> Result<File, Error> {
    let io = |doing| {
        move |source| Error::Io {
            doing,
            path: socket.into(),
            source,
        }
    };
    loop {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io("make the lock of socket"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                let read = File::from(lock).take(20).read_to_string(&mut pid);
                let owner = match (read, pid.trim().parse::<u32>()) {
                    (Ok(_), Ok(pid)) => format!(" (process {pid})"),
                    _ => String::new(),
                };
                let path = socket.into();
                return Err(Error::InUse { path, owner });
            }
            Err(errno) => return Err(io("lock socket")(errno)),
        }
        // Its last owner may have removed it between our opening and our locking it.
        let held = rustix::fs::fstat(&lock).map_err(io("lock socket"))?;
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => {
                let mut lock = File::from(lock);
                // Only for people who look.
                let _ = lock.set_len(0).and_then(|()| {
                    let pid = std::process::id();
                    lock.write_all(format!("{pid}\n").as_bytes())
                });
                return Ok(lock);
            }
            _ => continue,
        }
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(dir: impl AsFd, name: &OsStr, path: &Path) -> Result<(), Error> {
    let io = |doing| {
        move |source| Error::Io {
            doing,
            path: path.into(),
            source,
        }
    };
    let found = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(io("look at socket"))?,
    };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(Error::NotASocket { path: path.into() });
    }
    if is_listening(path) {
        return Err(Error::InUse {
            path: path.into(),
            owner: String::new(),
        });
    }
    log::info!("replacing the stale socket {}", path.display());
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(io("remove the stale socket"))
}

/// Whether a program listens on `path`, as the kernel lists it. Trying to connect would be seen
/// by that program as its one VMM.
fn is_listening(path: &Path) -> bool {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    table.split(|&byte| byte == b'\n').any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path
        let mut fields = line
            .splitn(8, |&byte| byte == b' ')
            .filter(|field| !field.is_empty());
        let flags = fields.nth(3).and_then(|flags| {
            let text = std::str::from_utf8(flags).ok()?;
            u32::from_str_radix(text, 16).ok()
        });
        let bound = line
            .iter()
            .position(|&byte| byte == b'/')
            .map(|at| Path::new(OsStr::from_bytes(&line[at..])));
        flags.is_some_and(|flags| flags & LISTENS != 0)
            && bound.is_some_and(|bound| bound == absolute || bound == path)
    })
}

/// A group by name or number.
fn find_group(name: &str) -> Result<Gid, Error> {
    let none = || Error::NoGroup(name.to_owned());
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    let c_name = CString::new(name).map_err(|_| none())?;
    // SAFETY: no other thread runs yet that could change what it answers; the result is read
    // before any other call.
    let gid = unsafe {
        libc::getgrnam(c_name.as_ptr())
            .as_ref()
            .map(|group| group.gr_gid)
    };
    gid.map(Gid::from_raw).ok_or_else(none)
}
