//! Whole files in and out, with several large requests in flight.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use libc::iovec;

use super::names::{checked, failed};
use super::{Client, Doing, Error, Node};
use crate::fs::{
    Answer, At, Created, Done, Errno, Make, NodeId, Result as FsResult, Slices, Ticket, WriteFlags,
};
use crate::io::Wait;

/// Bytes of one request.
const REQUEST_BYTES: usize = 1 << 20;
/// Requests in flight at once.
const DEPTH: usize = 8;

/// Memory that is lent to one request at a time.
struct Buffer {
    bytes: Box<[u8]>,
    list: Box<[iovec; 1]>,
    ticket: Ticket,
    result: Option<FsResult<u32>>,
}

impl Buffer {
    fn new() -> Buffer {
        Buffer {
            bytes: vec![0; REQUEST_BYTES].into(),
            list: Box::new([iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            }]),
            ticket: Ticket(0),
            result: None,
        }
    }
}

/// The requests in flight, oldest first, with their buffers.
#[derive(Default)]
struct Flight {
    sent: VecDeque<Buffer>,
    free: Vec<Buffer>,
    made: usize,
}

impl Flight {
    /// A buffer for one more request, if there may be one.
    fn spare(&mut self) -> Option<Buffer> {
        self.free.pop().or_else(|| {
            (self.made < DEPTH).then(|| {
                self.made += 1;
                Buffer::new()
            })
        })
    }

    /// Counts `buffer` among those in flight, as `ticket`, and lends its first `len` bytes.
    fn send(&mut self, mut buffer: Buffer, ticket: Ticket, len: usize) -> (Ticket, Slices) {
        buffer.ticket = ticket;
        buffer.result = None;
        buffer.list[0] = iovec {
            iov_base: buffer.bytes[..len].as_mut_ptr().cast(),
            iov_len: len,
        };
        // SAFETY: the list and the bytes are boxed and stay where they are; until the request is
        // answered the buffer stays in `sent`, where nothing touches it and nothing frees it.
        let slices = unsafe { Slices::new(&*buffer.list) };
        self.sent.push_back(buffer);
        (ticket, slices)
    }

    fn answer(&mut self, done: Done) {
        let asked = self
            .sent
            .iter_mut()
            .find(|buffer| buffer.ticket == done.ticket);
        if let Some(buffer) = asked {
            buffer.result = Some(match done.result {
                Ok(Answer::Count(count)) => Ok(count),
                Ok(_) => Err(Errno::IO),
                Err(errno) => Err(errno),
            });
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Only after a panic or a broken ring: an engine may still use this memory.
        for buffer in self.sent.drain(..).filter(|b| b.result.is_none()) {
            std::mem::forget(buffer);
        }
    }
}

/// A file open for a transfer.
#[derive(Clone, Copy)]
struct Open {
    node: NodeId,
    handle: crate::fs::Handle,
}

impl Open {
    fn at(&self, offset: u64) -> At {
        At {
            node: self.node,
            handle: self.handle,
            offset,
        }
    }
}

impl Client {
    /// Makes `path` a file with all that `from` gives and permissions `mode`, replacing a file
    /// that is there. Until all is written and synced, nothing is seen under that name; a failed
    /// put leaves nothing. Answers the bytes written.
    pub fn put(&mut self, path: &Path, mode: u32, from: &mut dyn Read) -> Result<u64, Error> {
        let (parent, name) = self
            .parent(path)
            .map_err(failed(Doing::Make, path))?
            .ok_or(Error::Root)?;
        match self.lookup(parent.id, checked(&name)) {
            Ok(node) if node.is_dir() => return Err(Error::IsADirectory { path: path.into() }),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(Doing::Find, path)(errno)),
        }
        let (made, new) = self
            .make_new(&parent, mode)
            .map_err(failed(Doing::Make, path))?;
        let node = self.node(made.entry);
        let open = Open {
            node: node.id,
            handle: made.opened.handle,
        };
        let written = self.write_all(open, path, from);
        let released = self.call(|fs, req, reply| fs.release(req, open.handle, None, reply));
        let placed = written.and_then(|len| {
            released.map_err(failed(Doing::Write, path))?;
            self.call(|fs, req, reply| {
                let (from, to) = (checked(&new), checked(&name));
                fs.rename(req, (parent.id, from), (parent.id, to), 0, reply)
            })
            .and_then(|()| self.sync_dir(parent.id))
            .map_err(failed(Doing::Rename, path))?;
            Ok(len)
        });
        if placed.is_err() {
            // The error that is told is the first one.
            let _ = self.call(|fs, req, reply| fs.unlink(req, parent.id, checked(&new), reply));
        }
        placed
    }

    /// A new file in `parent` under a name that nobody uses.
    fn make_new(&mut self, parent: &Node, mode: u32) -> FsResult<(Created, CString)> {
        let make = Make { mode, umask: 0 };
        let flags = libc::O_WRONLY | libc::O_EXCL;
        loop {
            let name = format!(".pfsctl-put-{}", uuid::Uuid::new_v4().simple());
            let name = CString::new(name).map_err(|_| Errno::INVAL)?;
            match self.call(|fs, req, reply| {
                fs.create(req, parent.id, checked(&name), &make, flags.into(), reply)
            }) {
                Ok(made) => return Ok((made, name)),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn sync_dir(&mut self, node: NodeId) -> FsResult<()> {
        let opened = self.call(|fs, req, reply| fs.opendir(req, node, reply))?;
        let handle = opened.handle;
        let synced = self.call(|fs, req, reply| fs.fsyncdir(req, node, handle, false, reply));
        self.call(|fs, req, reply| fs.releasedir(req, handle, reply))?;
        match synced {
            // Engines without directories to sync have nothing to lose there.
            Err(Errno::NOSYS) => Ok(()),
            synced => synced,
        }
    }

    fn write_all(&mut self, open: Open, path: &Path, from: &mut dyn Read) -> Result<u64, Error> {
        let mut flight = Flight::default();
        let written = self.pump_in(&mut flight, open, path, from);
        self.drain(&mut flight)
            .map_err(failed(Doing::Write, path))?;
        let len = written?;
        for buffer in &flight.sent {
            check_written(buffer).map_err(failed(Doing::Write, path))?;
        }
        self.call(|fs, req, reply| fs.flush(req, open.handle, 0, reply))
            .or_else(|errno| match errno {
                Errno::NOSYS => Ok(()),
                errno => Err(errno),
            })
            .and_then(|()| {
                self.call(|fs, req, reply| fs.fsync(req, open.node, open.handle, false, reply))
            })
            .map_err(failed(Doing::Sync, path))?;
        Ok(len)
    }

    fn pump_in(
        &mut self,
        flight: &mut Flight,
        open: Open,
        path: &Path,
        from: &mut dyn Read,
    ) -> Result<u64, Error> {
        let mut offset = 0;
        loop {
            let mut buffer = match flight.spare() {
                Some(buffer) => buffer,
                None => self
                    .oldest(flight)
                    .and_then(|buffer| check_written(&buffer).map(|()| buffer))
                    .map_err(failed(Doing::Write, path))?,
            };
            let len = fill(from, &mut buffer.bytes).map_err(Error::Source)?;
            if len == 0 {
                return Ok(offset);
            }
            let flags = WriteFlags::default();
            let (ticket, slices) = flight.send(buffer, self.ticket(), len);
            self.start(ticket, |fs, req, reply| {
                fs.write(req, open.at(offset), slices, flags, reply)
            });
            offset += len as u64;
            self.move_on(flight, Wait::No)
                .map_err(failed(Doing::Write, path))?;
        }
    }

    /// Writes the file at `path` to `to`. Answers its bytes.
    pub fn get(&mut self, path: &Path, to: &mut dyn Write) -> Result<u64, Error> {
        let node = self.lookup_path(path)?;
        self.get_node(&node, path, to)
    }

    /// Writes file `node` to `to`; `path` is for messages. Answers its bytes.
    pub fn get_node(&mut self, node: &Node, path: &Path, to: &mut dyn Write) -> Result<u64, Error> {
        match () {
            _ if node.is_dir() => return Err(Error::IsADirectory { path: path.into() }),
            _ if !node.is_file() => return Err(Error::NotAFile { path: path.into() }),
            _ => {}
        }
        let handle = self
            .call(|fs, req, reply| fs.open(req, node.id, libc::O_RDONLY.into(), reply))
            .map_err(failed(Doing::Open, path))?
            .handle;
        let open = Open {
            node: node.id,
            handle,
        };
        let mut flight = Flight::default();
        let got = self
            .call(|fs, req, reply| fs.getattr(req, node.id, Some(handle), reply))
            .map_err(failed(Doing::Read, path))
            .and_then(|attr| self.pump_out(&mut flight, open, path, attr.size, to));
        let drained = self.drain(&mut flight).map_err(failed(Doing::Read, path));
        let released = self.call(|fs, req, reply| fs.release(req, handle, None, reply));
        let got = got?;
        drained?;
        released.map_err(failed(Doing::Read, path))?;
        Ok(got)
    }

    fn pump_out(
        &mut self,
        flight: &mut Flight,
        open: Open,
        path: &Path,
        size: u64,
        to: &mut dyn Write,
    ) -> Result<u64, Error> {
        let (mut asked, mut got) = (0, 0);
        loop {
            while asked < size {
                let Some(buffer) = flight.spare() else {
                    break;
                };
                let offset = asked;
                let len = (size - asked).min(REQUEST_BYTES as u64);
                let (ticket, slices) = flight.send(buffer, self.ticket(), len as usize);
                self.start(ticket, |fs, req, reply| {
                    fs.read(req, open.at(offset), slices, reply)
                });
                asked += len;
            }
            if flight.sent.is_empty() {
                return Ok(got);
            }
            let buffer = self.oldest(flight).map_err(failed(Doing::Read, path))?;
            let len = match buffer.result {
                Some(Ok(len)) => len as usize,
                Some(Err(errno)) => return Err(failed(Doing::Read, path)(errno)),
                None => return Err(failed(Doing::Read, path)(Errno::IO)),
            };
            to.write_all(&buffer.bytes[..len]).map_err(Error::Sink)?;
            got += len as u64;
            if len < buffer.list[0].iov_len {
                let path = path.into();
                return Err(Error::CutShort { path, got, size });
            }
            flight.free.push(buffer);
        }
    }

    /// Moves all I/O on and takes in what was answered.
    fn move_on(&mut self, flight: &mut Flight, wait: Wait) -> FsResult<()> {
        let mut done = Vec::new();
        self.turn(wait, &mut done)?;
        done.into_iter().for_each(|done| flight.answer(done));
        Ok(())
    }

    /// Takes the oldest request's buffer, once it is answered.
    fn oldest(&mut self, flight: &mut Flight) -> FsResult<Buffer> {
        loop {
            match flight.sent.front() {
                Some(buffer) if buffer.result.is_some() => {}
                Some(_) => {
                    self.move_on(flight, Wait::Forever)?;
                    continue;
                }
                None => return Err(Errno::IO),
            }
            return flight.sent.pop_front().ok_or(Errno::IO);
        }
    }

    /// Waits until every request is answered.
    fn drain(&mut self, flight: &mut Flight) -> FsResult<()> {
        while flight.sent.iter().any(|buffer| buffer.result.is_none()) {
            self.move_on(flight, Wait::Forever)?;
        }
        Ok(())
    }
}

fn check_written(buffer: &Buffer) -> FsResult<()> {
    match buffer.result {
        Some(Ok(len)) if len as usize == buffer.list[0].iov_len => Ok(()),
        Some(Err(errno)) => Err(errno),
        // A short write breaks the contract of `FileSystem::write`.
        _ => Err(Errno::IO),
    }
}

/// Reads until `buffer` is full or `from` ends.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
