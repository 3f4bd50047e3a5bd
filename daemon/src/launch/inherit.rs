//! Descriptors that whoever started the daemon passed on.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::fs::FileType;
use rustix::io::FdFlags;

use crate::cli::{Options, Socket};

/// A descriptor is not what its option says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("descriptor {fd} is not open: whoever starts the daemon must pass it on")]
    NotOpen { fd: RawFd },
    #[error("descriptor {fd} is standard input, output or error, and cannot be {option}")]
    Standard { fd: RawFd, option: &'static str },
    #[error("descriptor {fd} is given to two options; each needs its own")]
    Twice { fd: RawFd },
    #[error("descriptor {fd} of --fd is not a listening Unix socket")]
    NotListening { fd: RawFd },
    #[error("descriptor {fd} of {option} is not a memfd or a regular file")]
    NotMemory { fd: RawFd, option: &'static str },
}

/// What was passed on, each with its one owner.
pub(super) struct Inherited {
    pub listener: Option<UnixListener>,
    pub state: Option<OwnedFd>,
    pub inflight: Option<OwnedFd>,
}

impl Inherited {
    /// Takes what the options name. To be called before this process has opened anything whose
    /// number could be one of them.
    pub(super) fn take(options: &Options) -> Result<Inherited, Error> {
        let socket = match options.socket {
            Socket::Fd(fd) => Some(fd),
            Socket::Path { .. } => None,
        };
        let all = [
            (socket, "--fd"),
            (options.state_fd, "--state-fd"),
            (options.inflight_fd, "--inflight-fd"),
        ];
        let given: Vec<_> = all
            .iter()
            .filter_map(|(fd, option)| Some(((*fd)?, *option)))
            .collect();
        for (index, &(fd, option)) in given.iter().enumerate() {
            if given[..index].iter().any(|(other, _)| *other == fd) {
                return Err(Error::Twice { fd });
            }
            check(fd, option)?;
        }
        let [listener, state, inflight] = all.map(|(fd, _)| {
            // SAFETY: `check` saw it open, nobody in this process has opened it, and no other
            // option names it: this is its only owner.
            fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        });
        Ok(Inherited {
            listener: listener.map(UnixListener::from),
            state,
            inflight,
        })
    }
}

/// Checks that `fd` is what `option` needs, and keeps it from programs that this one might start.
fn check(fd: RawFd, option: &'static str) -> Result<(), Error> {
    if (0..=2).contains(&fd) {
        return Err(Error::Standard { fd, option });
    }
    // SAFETY: fcntl on any number is harmless.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(Error::NotOpen { fd });
    }
    // SAFETY: it was seen open, and nothing closes it meanwhile: no other thread runs yet.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    // Fails for closed descriptors only.
    let _ = rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC);
    let fits = match option {
        "--fd" => is_listening(borrowed),
        _ => is_memory(borrowed),
    };
    match (fits, option) {
        (true, _) => Ok(()),
        (false, "--fd") => Err(Error::NotListening { fd }),
        (false, option) => Err(Error::NotMemory { fd, option }),
    }
}

fn is_listening(fd: BorrowedFd<'_>) -> bool {
    use rustix::net::{sockopt, AddressFamily};
    sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && sockopt::socket_acceptconn(fd) == Ok(true)
}

fn is_memory(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
}
