//! A request before it is on a ring: what is sent, and the shape of its reply.
//!
//! [`ops`](super::ops) makes the requests; a [`Client`](super::Client) sends them.

use std::marker::PhantomData;

use vm_memory::ByteValued;

use super::abi::{
    AttrOut, Dirent, Direntplus, EntryOut, GetxattrOut, InitOut, LkOut, LseekOut, OpenOut,
    StatfsOut, StatxOut, WriteOut,
};
use super::error::Violation;
use crate::ring::memory::Buffer;

/// Bytes of the largest `fuse_*_in` structure (`fuse_setattr_in`).
const BODY_MAX: usize = 88;

/// One FUSE request that is answered with an `R`. Holds no heap memory.
#[derive(Debug, Clone)]
pub struct Request<'a, R> {
    pub(super) opcode: u32,
    pub(super) nodeid: u64,
    body: [u8; BODY_MAX],
    body_len: usize,
    /// Sent with a NUL after each.
    names: [Option<&'a [u8]>; 2],
    /// Sent last, as it is.
    tail: &'a [u8],
    /// Data that the device reads in place.
    pub(super) payload: Option<Buffer>,
    /// Where the device puts the reply's body; a slot's reply area if none.
    pub(super) sink: Option<Buffer>,
    /// Bytes of the reply's body.
    pub(super) room: u32,
    /// Whether a successful reply must fill the room.
    pub(super) exact: bool,
    reply: PhantomData<fn() -> R>,
}

impl<'a, R: Reply> Request<'a, R> {
    /// A request with the reply's own room.
    pub fn new(opcode: u32, nodeid: u64) -> Self {
        Request {
            opcode,
            nodeid,
            body: [0; BODY_MAX],
            body_len: 0,
            names: [None; 2],
            tail: &[],
            payload: None,
            sink: None,
            room: R::ROOM,
            exact: R::EXACT,
            reply: PhantomData,
        }
    }

    /// Sends `body` after the header.
    pub fn body(mut self, body: &impl ByteValued) -> Self {
        let bytes = body.as_slice();
        self.body[..bytes.len()].copy_from_slice(bytes);
        self.body_len = bytes.len();
        self
    }

    /// Sends a name and a NUL after what is there; at most two.
    pub fn name(mut self, name: &'a [u8]) -> Self {
        let free = self.names.iter_mut().find(|name| name.is_none());
        *free.expect("a request has at most two names") = Some(name);
        self
    }

    /// Sends bytes after everything else.
    pub fn tail(mut self, tail: &'a [u8]) -> Self {
        self.tail = tail;
        self
    }

    /// Sends the bytes of `data` without copying them.
    pub fn payload(mut self, data: &Buffer) -> Self {
        self.payload = Some(data.clone());
        self
    }

    /// Receives the reply's body in `data`, without copying it.
    pub fn sink(mut self, data: &Buffer) -> Self {
        self.room = data.len() as u32;
        self.sink = Some(data.clone());
        self
    }

    /// Receives at most `room` bytes of body.
    pub fn room(mut self, room: u32) -> Self {
        self.room = room;
        self
    }

    /// The same request with a reply of which only the length is looked at.
    pub fn length_only(self) -> Request<'a, usize> {
        Request {
            opcode: self.opcode,
            nodeid: self.nodeid,
            body: self.body,
            body_len: self.body_len,
            names: self.names,
            tail: self.tail,
            payload: self.payload,
            sink: self.sink,
            room: self.room,
            exact: self.exact,
            reply: PhantomData,
        }
    }

    /// Bytes between the header and the payload.
    pub(super) fn args_len(&self) -> usize {
        let names: usize = self.names.iter().flatten().map(|name| name.len() + 1).sum();
        self.body_len + names + self.tail.len()
    }

    /// Copies the arguments into `area` at `offset`; they fit.
    pub(super) fn write_args(&self, area: &Buffer, mut offset: usize) {
        let mut put = |bytes: &[u8]| {
            if !bytes.is_empty() {
                area.write(offset, bytes);
                offset += bytes.len();
            }
        };
        put(&self.body[..self.body_len]);
        for name in self.names.iter().flatten() {
            put(name);
            put(&[0]);
        }
        put(self.tail);
    }
}

/// The body of a successful reply, where the device put it.
#[derive(Debug)]
pub struct Body<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Body<'_> {
    /// Bytes of the body.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies it out.
    pub fn to_vec(&self) -> Vec<u8> {
        self.buffer.to_vec(self.offset, self.len)
    }

    fn object<T: ByteValued + Default>(&self, at: usize) -> T {
        self.buffer.read_obj(self.offset + at)
    }
}

/// What a reply's body decodes to.
pub trait Reply: Sized {
    /// Bytes of body to make room for, if the request does not say otherwise.
    const ROOM: u32;
    /// Whether a successful reply must have exactly that many.
    const EXACT: bool;

    /// Decodes a body whose length was checked against the room.
    fn decode(body: &Body<'_>) -> Result<Self, Violation>;
}

impl Reply for () {
    const ROOM: u32 = 0;
    const EXACT: bool = true;

    fn decode(_: &Body<'_>) -> Result<Self, Violation> {
        Ok(())
    }
}

macro_rules! fixed_replies {
    ($($reply:ty),*) => {$(
        impl Reply for $reply {
            const ROOM: u32 = size_of::<$reply>() as u32;
            const EXACT: bool = true;

            fn decode(body: &Body<'_>) -> Result<Self, Violation> {
                Ok(body.object(0))
            }
        }
    )*};
}

fixed_replies!(
    AttrOut,
    EntryOut,
    GetxattrOut,
    LkOut,
    LseekOut,
    OpenOut,
    StatfsOut,
    StatxOut,
    WriteOut
);

/// CREATE and TMPFILE.
impl Reply for (EntryOut, OpenOut) {
    const ROOM: u32 = (size_of::<EntryOut>() + size_of::<OpenOut>()) as u32;
    const EXACT: bool = true;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        Ok((body.object(0), body.object(size_of::<EntryOut>())))
    }
}

/// INIT: older daemons answer with less (`out_argvar` in `fuse_send_init`).
impl Reply for InitOut {
    const ROOM: u32 = size_of::<InitOut>() as u32;
    const EXACT: bool = false;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        let mut out = InitOut::default();
        body.buffer
            .read(body.offset, &mut out.as_mut_slice()[..body.len]);
        Ok(out)
    }
}

/// READLINK, GETXATTR, LISTXATTR: the bytes, copied out.
impl Reply for Vec<u8> {
    const ROOM: u32 = 4096;
    const EXACT: bool = false;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        Ok(body.to_vec())
    }
}

/// READ and what else fills a sink: the number of bytes in it.
impl Reply for usize {
    const ROOM: u32 = 0;
    const EXACT: bool = false;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        Ok(body.len)
    }
}

/// One entry of READDIR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Inode number.
    pub ino: u64,
    /// Offset from which the next READDIR goes on behind this entry.
    pub offset: u64,
    /// `DT_*`.
    pub kind: u32,
    /// Name, without NUL.
    pub name: Vec<u8>,
}

impl Reply for Vec<DirEntry> {
    const ROOM: u32 = 4096;
    const EXACT: bool = false;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < body.len {
            let (entry, next) = dir_entry(body, at)?;
            entries.push(entry);
            at = next;
        }
        Ok(entries)
    }
}

/// READDIRPLUS: a node id of 0 in the entry means that nothing was looked up.
impl Reply for Vec<(EntryOut, DirEntry)> {
    const ROOM: u32 = 4096;
    const EXACT: bool = false;

    fn decode(body: &Body<'_>) -> Result<Self, Violation> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < body.len {
            if body.len - at < size_of::<Direntplus>() {
                return Err(Violation::Malformed("half a direntplus"));
            }
            let entry: EntryOut = body.object(at);
            let (dir_entry, next) = dir_entry(body, at + size_of::<EntryOut>())?;
            entries.push((entry, dir_entry));
            at = next;
        }
        Ok(entries)
    }
}

/// The `fuse_dirent` at `at`, and where the next record is: records are padded to 8 bytes.
fn dir_entry(body: &Body<'_>, at: usize) -> Result<(DirEntry, usize), Violation> {
    let left = body.len - at;
    if left < size_of::<Dirent>() {
        return Err(Violation::Malformed("half a dirent"));
    }
    let dirent: Dirent = body.object(at);
    let name_len = dirent.namelen as usize;
    if name_len == 0 || name_len > 255 {
        return Err(Violation::Malformed(
            "a dirent's name of 0 or over 255 bytes",
        ));
    }
    let record_len = (size_of::<Dirent>() + name_len).next_multiple_of(8);
    if record_len > left {
        return Err(Violation::Malformed("a dirent that ends behind the reply"));
    }
    let name_at = body.offset + at + size_of::<Dirent>();
    let name = body.buffer.to_vec(name_at, name_len);
    if name.iter().any(|&b| b == 0 || b == b'/') {
        return Err(Violation::Malformed("a NUL or slash in a dirent's name"));
    }
    let entry = DirEntry {
        ino: dirent.ino,
        offset: dirent.off,
        kind: dirent.type_,
        name,
    };
    Ok((entry, at + record_len))
}
