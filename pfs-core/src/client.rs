//! A blocking client of an engine, for tools and tests.
//!
//! A [`Client`] owns an [`Io`] and makes one call at a time, from the thread that made it; only
//! [`put`](Client::put) and [`get`](Client::get) keep several requests in flight. Paths start at
//! the volume's root, symbolic links are never followed, and `..` is refused.

mod error;
mod names;
mod transfer;

use std::ffi::CString;
use std::sync::Arc;

pub use error::{Doing, Error};
pub use names::{DirItem, Progress};

use crate::fs::{
    Answer, Attr, Caller, Created, DirList, Done, Entry, Errno, FileSystem, Name, NodeId, Opened,
    Reply, Req, StatFs, Ticket,
};
use crate::io::{self, Io, Pool, Wait};

/// Threads for what can only block: a client waits for one call at a time.
const POOL_THREADS_MAX: usize = 16;

/// A blocking client. It stays on the thread that made it.
pub struct Client {
    fs: Arc<dyn FileSystem>,
    io: Io,
    caller: Caller,
    tickets: u64,
}

/// A node, and the lookup on it, which is given back on drop.
pub struct Node {
    fs: Arc<dyn FileSystem>,
    pub id: NodeId,
    /// Attributes as they were when it was found.
    pub attr: Attr,
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.id != NodeId::ROOT {
            self.fs.forget(self.id, 1);
        }
    }
}

impl Node {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.attr.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.attr.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// A kind of answer.
pub trait Expected: Into<Answer> {
    /// The value in an answer of this kind.
    fn from_answer(answer: Answer) -> Option<Self>;
}

macro_rules! expected {
    ($($kind:ty => $variant:ident),* $(,)?) => {
        $(impl Expected for $kind {
            fn from_answer(answer: Answer) -> Option<$kind> {
                match answer {
                    Answer::$variant(value) => Some(value),
                    _ => None,
                }
            }
        })*
    };
}

expected! {
    Entry => Entry, Attr => Attr, Opened => Opened, Created => Created, u32 => Count,
    u64 => Offset, Vec<u8> => Bytes, DirList => Dir, StatFs => StatFs,
}

impl Expected for () {
    fn from_answer(answer: Answer) -> Option<()> {
        matches!(answer, Answer::Nothing).then_some(())
    }
}

impl Client {
    /// A client of `fs` that acts as `caller`, on the calling thread.
    pub fn new(fs: Arc<dyn FileSystem>, caller: Caller) -> Result<Client, io::Error> {
        let pool = Pool::new(POOL_THREADS_MAX).map_err(io::Error::Setup)?;
        Ok(Client {
            fs,
            io: Io::new(pool)?,
            caller,
            tickets: 0,
        })
    }

    /// Acts as `caller` from now on.
    pub fn act_as(&mut self, caller: Caller) {
        self.caller = caller;
    }

    /// Makes one call and waits for its answer:
    /// `client.call(|fs, req, reply| fs.mkdir(req, parent, name, &make, reply))`.
    pub fn call<T: Expected>(
        &mut self,
        call: impl FnOnce(&dyn FileSystem, &mut Req<'_>, Reply<T>),
    ) -> Result<T, Errno> {
        let ticket = self.ticket();
        self.start(ticket, call);
        let mut done = Vec::new();
        loop {
            self.turn(Wait::Forever, &mut done)?;
            if let Some(answer) = done.drain(..).find(|done| done.ticket == ticket) {
                return T::from_answer(answer.result?).ok_or(Errno::IO);
            }
        }
    }

    /// A ticket for the next call.
    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Makes a call without waiting for its answer.
    fn start<T: Into<Answer>>(
        &mut self,
        ticket: Ticket,
        call: impl FnOnce(&dyn FileSystem, &mut Req<'_>, Reply<T>),
    ) {
        let reply = Reply::new(self.io.mailbox(), ticket);
        let mut req = Req {
            io: &mut self.io,
            caller: self.caller,
            intent: None,
        };
        call(&*self.fs, &mut req, reply);
    }

    /// Moves all I/O on and collects answers.
    fn turn(&mut self, wait: Wait, done: &mut Vec<Done>) -> Result<(), Errno> {
        self.io
            .turn(wait, done, &mut Vec::new())
            .map_err(|error| match error {
                io::Error::Enter(error) => Errno::from_io_error(&error).unwrap_or(Errno::IO),
                _ => Errno::IO,
            })
    }

    /// The volume's root.
    pub fn root(&mut self) -> Result<Node, Errno> {
        let attr = self.call(|fs, req, reply| fs.getattr(req, NodeId::ROOT, None, reply))?;
        Ok(Node {
            fs: self.fs.clone(),
            id: NodeId::ROOT,
            attr,
        })
    }

    /// Finds `name` in `parent`.
    pub fn lookup(&mut self, parent: NodeId, name: &Name) -> Result<Node, Errno> {
        let entry = self.call(|fs, req, reply| fs.lookup(req, parent, name, reply))?;
        Ok(self.node(entry))
    }

    fn node(&self, entry: Entry) -> Node {
        Node {
            fs: self.fs.clone(),
            id: entry.node,
            attr: entry.attr,
        }
    }

    /// Size and use of the volume.
    pub fn statfs(&mut self) -> Result<StatFs, Errno> {
        self.call(|fs, req, reply| fs.statfs(req, NodeId::ROOT, reply))
    }
}

/// The components of a path, checked.
fn components(path: &[u8]) -> Result<Vec<CString>, Errno> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !matches!(*part, b"" | b"."))
        .map(|part| {
            let part = CString::new(part).map_err(|_| Errno::INVAL)?;
            Name::new(&part)?;
            Ok(part)
        })
        .collect()
}

#[cfg(test)]
mod tests;
