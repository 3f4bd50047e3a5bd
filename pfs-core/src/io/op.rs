//! Operations in flight, and what happens when one completes.

use libc::iovec;
use rustix::io::Errno;

use super::{data_fd, DataFd, Io};
use crate::fs::Reply;

/// What happens with the result of an operation.
pub enum Then {
    /// It answers a request with the bytes moved.
    Count(Reply<u32>),
    /// It answers a request that asks for success only.
    Nothing(Reply<()>),
    /// Something else is to be done.
    Call(Call),
    /// It is a part of a [join](Io::join) that wants `want` bytes; `key` names it there.
    Part { join: JoinId, key: u64, want: u64 },
}

/// What runs when an operation is done.
pub type Call = Box<dyn FnOnce(&mut Io, Result<u32, Errno>)>;

/// What runs when all parts of a join are done: the parts that came out short, or the first
/// error.
pub type Finish = Box<dyn FnOnce(&mut Io, Result<Vec<Short>, Errno>)>;

/// A part of a join of which only the first `got` bytes were there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Which part.
    pub key: u64,
    /// Bytes that it got.
    pub got: u64,
}

/// A join in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinId(u32);

struct Join {
    /// Parts not done, and one for the seal.
    open: u32,
    error: Option<Errno>,
    shorts: Vec<Short>,
    finish: Option<Finish>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Read,
    Write,
    Append,
    Fsync { datasync: bool },
    Fallocate { mode: i32, len: u64 },
}

/// What an operation does, and how far it is.
pub(super) struct Transfer {
    pub(super) kind: Kind,
    offset: u64,
    list: Vec<iovec>,
    /// First entry of `list` that is not done with.
    next: usize,
    moved: u64,
}

/// One operation in flight.
pub(super) struct Op {
    pub(super) fd: DataFd,
    pub(super) transfer: Transfer,
    /// It is left to a thread of the kernel at once.
    pub(super) waits: bool,
    pub(super) then: Then,
}

pub(super) enum Advance {
    /// Submit the rest.
    Again,
    Done(Result<u32, Errno>),
}

/// Bytes from which on a read of a device is done on the spot as far as it is cached, and the rest left
/// to a thread. io_uring itself would go on page by page as they come in, which spoils the kernel's
/// read-ahead; for little, a thread is dear.
const LARGE_READ_BYTES: u64 = 64 << 10;

/// More than the kernel takes in one call.
const IOV_MAX: usize = 1024;

impl Kind {
    /// Whether it is best done on the spot.
    pub(super) fn never_waits(self, fd: &DataFd) -> bool {
        // What is allocated at once may be much.
        fd.is_memory() && !matches!(self, Kind::Fallocate { .. })
    }
}

impl Transfer {
    /// Does all of it on the spot.
    pub(super) fn run(&mut self, fd: &DataFd) -> Result<u32, Errno> {
        loop {
            if let Advance::Done(result) = self.advance(data_fd::call(fd, self)) {
                return result;
            }
        }
    }

    /// Whether it is a read that is [best divided](LARGE_READ_BYTES).
    pub(super) fn is_large_read(&self, fd: &DataFd) -> bool {
        let bytes = || {
            self.list
                .iter()
                .map(|part| part.iov_len as u64)
                .sum::<u64>()
        };
        matches!(self.kind, Kind::Read) && fd.is_device() && bytes() >= LARGE_READ_BYTES
    }

    /// Reads what is cached, on the spot; answers the result if there is nothing to wait for.
    pub(super) fn run_cached(&mut self, fd: &DataFd) -> Option<Result<u32, Errno>> {
        while self.next < self.list.len() {
            match data_fd::read_cached(fd, self) {
                0 => break,
                moved if moved > 0 => {
                    self.moved += moved as u64;
                    self.skip(moved as u64);
                }
                // Not cached; or an error, which whoever waits will meet again.
                _ => return None,
            }
        }
        Some(Ok(self.moved as u32))
    }

    pub(super) fn rest(&self) -> (*const iovec, u32) {
        let rest = &self.list[self.next..];
        (rest.as_ptr(), rest.len().min(IOV_MAX) as u32)
    }

    pub(super) fn at(&self) -> u64 {
        self.offset + self.moved
    }

    /// Takes in a completion.
    pub(super) fn advance(&mut self, result: i32) -> Advance {
        if result < 0 {
            return match Errno::from_raw_os_error(-result) {
                Errno::INTR => Advance::Again,
                errno => Advance::Done(Err(errno)),
            };
        }
        let moved = result as u64;
        self.moved += moved;
        match self.kind {
            Kind::Fsync { .. } | Kind::Fallocate { .. } => Advance::Done(Ok(0)),
            Kind::Read | Kind::Write | Kind::Append => {
                let asked: u64 = self.list[self.next..]
                    .iter()
                    .take(IOV_MAX)
                    .map(|p| p.iov_len as u64)
                    .sum();
                self.skip(moved);
                let whole = self.next == self.list.len();
                match self.kind {
                    _ if whole => Advance::Done(Ok(self.moved as u32)),
                    Kind::Read if moved < asked => Advance::Done(Ok(self.moved as u32)),
                    Kind::Write | Kind::Append if moved == 0 => Advance::Done(Err(Errno::IO)),
                    _ => Advance::Again,
                }
            }
        }
    }

    fn skip(&mut self, mut moved: u64) {
        while let Some(part) = self.list.get_mut(self.next) {
            if moved < part.iov_len as u64 {
                part.iov_base = part
                    .iov_base
                    .cast::<u8>()
                    .wrapping_add(moved as usize)
                    .cast();
                part.iov_len -= moved as usize;
                return;
            }
            moved -= part.iov_len as u64;
            self.next += 1;
        }
    }
}

/// The operations and joins of one [`Io`].
#[derive(Default)]
pub(super) struct Ops {
    ops: Vec<Option<Op>>,
    free_ops: Vec<u32>,
    joins: Vec<Option<Join>>,
    free_joins: Vec<u32>,
    /// Lists of finished operations, for their memory.
    lists: Vec<Vec<iovec>>,
}

impl Ops {
    /// What is to be done with `parts`.
    pub(super) fn transfer(
        &mut self,
        kind: Kind,
        parts: impl Iterator<Item = iovec>,
        offset: u64,
    ) -> Transfer {
        let mut list = self.lists.pop().unwrap_or_default();
        list.extend(parts);
        Transfer {
            kind,
            offset,
            list,
            next: 0,
            moved: 0,
        }
    }

    /// Ends a transfer, keeping its memory.
    pub(super) fn dispose(&mut self, transfer: Transfer) {
        let mut list = transfer.list;
        list.clear();
        self.lists.push(list);
    }

    /// Counts an operation among those in flight; answers its index.
    pub(super) fn insert(&mut self, op: Op) -> u32 {
        put(&mut self.ops, &mut self.free_ops, op)
    }

    /// The operation `index`, which is in flight.
    pub(super) fn get(&self, index: u32) -> &Op {
        self.ops[index as usize]
            .as_ref()
            .expect("an operation in flight has its slot")
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Op {
        self.ops[index as usize]
            .as_mut()
            .expect("an operation in flight has its slot")
    }

    pub(super) fn remove(&mut self, index: u32) -> Then {
        let op = self.ops[index as usize]
            .take()
            .expect("an operation completes once");
        self.free_ops.push(index);
        self.dispose(op.transfer);
        op.then
    }

    pub(super) fn new_join(&mut self, finish: Finish) -> JoinId {
        let join = Join {
            open: 1,
            error: None,
            shorts: Vec::new(),
            finish: Some(finish),
        };
        JoinId(put(&mut self.joins, &mut self.free_joins, join))
    }

    fn join(&mut self, id: JoinId) -> &mut Join {
        self.joins[id.0 as usize]
            .as_mut()
            .expect("a join lives until its last part")
    }

    pub(super) fn add_part(&mut self, id: JoinId) {
        self.join(id).open += 1;
    }

    pub(super) fn part_result(
        &mut self,
        id: JoinId,
        key: u64,
        want: u64,
        result: Result<u32, Errno>,
    ) -> Option<(Finish, Result<Vec<Short>, Errno>)> {
        let join = self.join(id);
        match result {
            Err(errno) => join.error = join.error.or(Some(errno)),
            Ok(got) if u64::from(got) < want => {
                join.shorts.push(Short {
                    key,
                    got: u64::from(got),
                });
            }
            Ok(_) => {}
        }
        self.end_part(id)
    }

    /// Counts one part, or the seal; answers what to run when it was the last.
    pub(super) fn end_part(&mut self, id: JoinId) -> Option<(Finish, Result<Vec<Short>, Errno>)> {
        let join = self.join(id);
        join.open -= 1;
        if join.open > 0 {
            return None;
        }
        let join = self.joins[id.0 as usize].take()?;
        self.free_joins.push(id.0);
        let result = match join.error {
            Some(errno) => Err(errno),
            None => Ok(join.shorts),
        };
        join.finish.map(|finish| (finish, result))
    }
}

fn put<T>(slots: &mut Vec<Option<T>>, free: &mut Vec<u32>, value: T) -> u32 {
    match free.pop() {
        Some(index) => {
            slots[index as usize] = Some(value);
            index
        }
        None => {
            slots.push(Some(value));
            (slots.len() - 1) as u32
        }
    }
}
