//! One request queue: takes requests from `/dev/fuse` and gives back replies.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_tests::ring::fuse::abi::{InHeader, InitOut, Opcode, OutHeader};
use guest_tests::ring::fuse::Violation;
use guest_tests::ring::queue::{Queue, Segment, Used};
use rustix::io::Errno;
use vm_memory::{ReadVolatile, VolatileMemoryError, WriteVolatile};

use crate::error::Error;
use crate::poller::Poller;
use crate::rooms::room;
use crate::slots::{Slots, DATA_MAX};
use crate::urgent::Urgent;

/// Requests that are taken before replies are looked for again.
const BATCH: usize = 16;

const IN_HEADER: usize = size_of::<InHeader>();
const OUT_HEADER: usize = size_of::<OutHeader>();

/// Why a worker ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The kernel has closed the connection: nothing is mounted any more.
    Unmounted,
    /// It was told to.
    Stopped,
}

/// What `/dev/fuse` had.
enum Taken {
    Request,
    Nothing,
    Unmounted,
}

/// Serves one request queue.
#[derive(Debug)]
pub struct Worker {
    /// Replies go to the descriptor that their requests came from.
    fuse: OwnedFd,
    queue: Queue,
    slots: Slots,
    urgent: Arc<Urgent>,
    poller: Poller,
    initialized: bool,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
}

impl Worker {
    pub fn new(
        fuse: OwnedFd,
        queue: Queue,
        slots: Slots,
        urgent: Arc<Urgent>,
        poller: Poller,
    ) -> Worker {
        Worker {
            fuse,
            queue,
            slots,
            urgent,
            poller,
            initialized: false,
            readable: Vec::new(),
            writable: Vec::new(),
        }
    }

    /// Serves until FUSE_INIT is answered. The kernel sends nothing else before.
    pub fn serve_init(&mut self, timeout: Duration) -> Result<(), Error> {
        let start = Instant::now();
        while !self.initialized {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::NoInit(timeout.as_millis()));
            }
            self.turn(Some(left))?;
        }
        Ok(())
    }

    /// Serves until the end.
    pub fn serve(mut self) -> Result<End, Error> {
        loop {
            if let Some(end) = self.turn(None)? {
                return Ok(end);
            }
        }
    }

    /// Gives back what is done, takes what is there, and sleeps if that was nothing.
    fn turn(&mut self, timeout: Option<Duration>) -> Result<Option<End>, Error> {
        let mut busy = self.complete()?;
        for _ in 0..BATCH {
            match self.take()? {
                Taken::Request => busy = true,
                Taken::Nothing => break,
                Taken::Unmounted => return Ok(Some(End::Unmounted)),
            }
        }
        match busy {
            true => Ok(None),
            false => self.sleep(timeout),
        }
    }

    fn sleep(&mut self, timeout: Option<Duration>) -> Result<Option<End>, Error> {
        if self.queue.enable_calls() {
            self.queue.disable_calls();
            return Ok(None);
        }
        let has_room = self.slots.next().is_some();
        self.poller.take_requests(&self.fuse, has_room)?;
        let woken = self.poller.sleep(timeout);
        self.queue.disable_calls();
        let woken = woken?;
        if woken.stop {
            return Ok(Some(End::Stopped));
        }
        if woken.hangup {
            // What it did before it died is done.
            self.complete()?;
            return Err(Error::DaemonGone(None));
        }
        Ok(None)
    }

    /// Reads one request and offers it to the daemon.
    fn take(&mut self) -> Result<Taken, Error> {
        let Some(next) = self.slots.next() else {
            return Ok(Taken::Nothing);
        };
        let slot = self.slots.get(next);
        let (start, max) = slot.request_range();
        let len = match self
            .fuse
            .read_volatile(&mut slot.memory.volatile(start, max))
        {
            Ok(len) => len,
            Err(e) => return not_read(system_error(e)),
        };
        let bad = Error::BadRequest { len };
        if len < IN_HEADER {
            return Err(bad);
        }
        let header: InHeader = slot.memory.read_obj(start);
        if header.len as usize != len {
            return Err(bad);
        }
        if Urgent::takes(header.opcode) {
            self.urgent.send(&header, &slot.memory, start)?;
            return Ok(Taken::Request);
        }
        let room = room(header.opcode, &slot.memory, start);
        if room.len() > DATA_MAX {
            return Err(bad);
        }
        let index = self.slots.keep(next, len, room);
        let slot = self.slots.get(index);
        slot.opcode = header.opcode;
        slot.unique = header.unique;
        let has_pages = header.opcode == Opcode::Write as u32;
        slot.readable(len, has_pages, &mut self.readable);
        slot.writable(room, &mut self.writable);
        // There are no more slots than descriptors, and chains go indirect.
        self.queue
            .submit(&self.readable, &self.writable, index as u64)?;
        self.queue.kick()?;
        Ok(Taken::Request)
    }

    /// Gives all replies that are there to the kernel. Whether there was one.
    fn complete(&mut self) -> Result<bool, Error> {
        let mut any = false;
        while let Some(used) = self.queue.pop_used()? {
            self.reply(used)?;
            any = true;
        }
        Ok(any)
    }

    fn reply(&mut self, used: Used) -> Result<(), Error> {
        let index = used.token as usize;
        let slot = self.slots.get(index);
        let (opcode, unique, start) = (slot.opcode, slot.unique, slot.reply_start);
        let header: OutHeader = slot.memory.read_obj(start);
        check(&header, &used, unique).map_err(|source| Error::Protocol {
            opcode,
            unique,
            source,
        })?;
        if opcode == Opcode::Init as u32 {
            check_init(&header, &slot.memory.read_obj(start + OUT_HEADER))?;
            self.initialized = true;
        }
        let slot = self.slots.get(index);
        let reply = slot.memory.volatile(start, used.len as usize);
        let written = self.fuse.write_volatile(&reply);
        self.slots.release(index);
        match written.map_err(system_error) {
            Ok(_) => Ok(()),
            // Nobody waits for it any more; or nothing is mounted, which the next read tells.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            Err(source) => Err(Error::WriteReply {
                opcode,
                unique,
                source,
            }),
        }
    }
}

fn not_read(error: io::Error) -> Result<Taken, Error> {
    match Errno::from_io_error(&error) {
        // NOENT: the request was taken back while it was read.
        Some(Errno::AGAIN | Errno::INTR | Errno::NOENT) => Ok(Taken::Nothing),
        Some(Errno::NODEV | Errno::CONNABORTED) => Ok(Taken::Unmounted),
        _ => Err(Error::ReadRequest(error)),
    }
}

/// Whether ring, header and request agree.
fn check(header: &OutHeader, used: &Used, unique: u64) -> Result<(), Violation> {
    let used_len = used.len;
    if (used_len as usize) < OUT_HEADER {
        return Err(Violation::Short { used_len });
    }
    if header.len != used_len {
        let len = header.len;
        return Err(Violation::Length { len, used_len });
    }
    if header.unique != unique {
        return Err(Violation::Unique(header.unique));
    }
    if header.error > 0 || header.error <= -512 {
        return Err(Violation::ErrorRange(header.error));
    }
    Ok(())
}

/// Whether the session can be served.
fn check_init(header: &OutHeader, init: &InitOut) -> Result<(), Error> {
    if header.error != 0 {
        return Err(Error::Init(Errno::from_raw_os_error(-header.error)));
    }
    let max_write = init.max_write as usize;
    match max_write <= DATA_MAX {
        true => Ok(()),
        false => Err(Error::MaxWrite(max_write, DATA_MAX)),
    }
}

fn system_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}
