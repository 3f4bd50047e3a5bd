//! Answers on their way to the guest.

mod convert;

use pfs_core::fs::{Answer, DirList, Errno, NodeId, Opened};
use vm_memory::ByteValued;

use super::abi::{
    fopen, AttrOut, GetxattrOut, LkOut, LseekOut, OpenOut, OutHeader, StatfsOut, WriteOut,
    OUT_HEADER_BYTES,
};
use super::config::Caching;
use crate::chain::Chain;
use convert::{attr, entry_out, file_lock, kstatfs, negative_out, statx_out};

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// A header alone.
    #[default]
    Empty,
    /// `fuse_entry_out`, for a name that may not be there.
    Lookup,
    /// `fuse_entry_out`.
    Entry,
    /// `fuse_attr_out`.
    Attr,
    /// `fuse_statx_out`.
    Statx,
    /// `fuse_open_out` of a file.
    Open,
    /// `fuse_open_out` of a directory.
    OpenDir,
    /// `fuse_entry_out` and `fuse_open_out`.
    Create,
    /// Data that is in place already.
    Read { size: u32 },
    /// `fuse_write_out`.
    Write { size: u32 },
    /// A symbolic link's target, without NUL.
    Readlink,
    /// `fuse_getxattr_out`: how large the value is.
    ValueSize,
    /// The value, where it is no larger.
    Value { size: u32 },
    /// `fuse_dirent`s, or `fuse_direntplus`es.
    List { plus: bool },
    /// `fuse_statfs_out`.
    StatFs,
    /// `fuse_lseek_out`.
    Lseek,
    /// `fuse_lk_out`.
    Lock,
}

/// Where one reply goes.
pub struct ReplyTo<'a> {
    pub chain: &'a Chain,
    pub unique: u64,
    /// Bytes of [`Chain::writable`].
    pub room: u64,
}

impl ReplyTo<'_> {
    /// Whether there is room for a header.
    pub fn is_possible(&self) -> bool {
        self.room >= OUT_HEADER_BYTES as u64
    }

    /// Answers an error; answers the reply's length.
    pub fn error(&self, errno: Errno) -> u32 {
        // Linux takes errors up to 511; what is beyond is the kernel's own, such as ERESTARTSYS.
        let code = match errno.raw_os_error() {
            code @ 1..=511 => code,
            _ => Errno::IO.raw_os_error(),
        };
        self.header(-code, OUT_HEADER_BYTES as u64)
    }

    /// Answers a structure.
    pub fn value<T: ByteValued>(&self, value: &T) -> Sent {
        self.bytes(&[value.as_slice()])
    }

    /// Answers the given pieces, all or nothing.
    fn bytes(&self, pieces: &[&[u8]]) -> Sent {
        let len = OUT_HEADER_BYTES + pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if len as u64 > self.room {
            return Err(NoRoom);
        }
        let mut writer = self.chain.writer();
        writer.skip(OUT_HEADER_BYTES as u64);
        for piece in pieces {
            writer.write(piece);
        }
        Ok(self.header(0, len as u64))
    }

    /// Answers `len` bytes that are in place already.
    fn in_place(&self, len: u32) -> Sent {
        match OUT_HEADER_BYTES as u64 + u64::from(len) {
            len if len <= self.room => Ok(self.header(0, len)),
            _ => Err(NoRoom),
        }
    }

    /// Writes the header, last of all. Answers the reply's length, 0 where not even it fits.
    fn header(&self, error: i32, len: u64) -> u32 {
        let Ok(len) = u32::try_from(len) else {
            return 0;
        };
        if !self.is_possible() {
            return 0;
        }
        let header = OutHeader {
            len,
            error,
            unique: self.unique,
        };
        self.chain.writer().write(header.as_slice());
        len
    }
}

/// A reply has no room for its answer.
#[derive(Debug)]
pub struct NoRoom;

/// The length of a reply that was written.
pub type Sent = Result<u32, NoRoom>;

/// Encodes an answer. `NoRoom` also where the answer is none of `shape`: both cannot be, since a
/// request's room is checked before it is executed and an engine's replies are typed.
pub fn encode(to: &ReplyTo<'_>, shape: Shape, answer: &Answer, caching: &Caching) -> Sent {
    match (shape, answer) {
        (Shape::Empty, Answer::Nothing) => to.bytes(&[]),
        (Shape::Lookup | Shape::Entry, Answer::Entry(entry)) => {
            to.value(&entry_out(entry, caching))
        }
        (Shape::Attr, Answer::Attr(found)) => to.value(&AttrOut {
            attr_valid: caching.attr.as_secs(),
            attr_valid_nsec: caching.attr.subsec_nanos(),
            dummy: 0,
            attr: attr(found),
        }),
        (Shape::Statx, Answer::Attr(found)) => to.value(&statx_out(found, caching)),
        (Shape::Open, Answer::Opened(opened)) => to.value(&file_out(opened, caching)),
        (Shape::OpenDir, Answer::Opened(opened)) => {
            to.value(&open_out(opened.handle.0, caching.dir_flags))
        }
        (Shape::Create, Answer::Created(created)) => {
            let entry = entry_out(&created.entry, caching);
            let open = file_out(&created.opened, caching);
            to.bytes(&[entry.as_slice(), open.as_slice()])
        }
        (Shape::Read { size }, Answer::Count(count)) => to.in_place(size.min(*count)),
        (Shape::Write { size }, Answer::Count(count)) => to.value(&WriteOut {
            size: size.min(*count),
            padding: 0,
        }),
        (Shape::Lseek, Answer::Offset(offset)) => to.value(&LseekOut { offset: *offset }),
        (Shape::StatFs, Answer::StatFs(stat)) => to.value(&StatfsOut { st: kstatfs(stat) }),
        (Shape::Lock, Answer::Lock(lock)) => to.value(&LkOut {
            lk: file_lock(lock),
        }),
        (_, Answer::Bytes(bytes)) => encode_bytes(to, shape, bytes),
        _ => Err(NoRoom),
    }
}

/// Answers that a name is not there, in a way that the guest keeps.
pub fn encode_negative(to: &ReplyTo<'_>, valid: std::time::Duration) -> Sent {
    to.value(&negative_out(valid))
}

fn encode_bytes(to: &ReplyTo<'_>, shape: Shape, bytes: &[u8]) -> Sent {
    match shape {
        Shape::Readlink => to.bytes(&[bytes]),
        Shape::ValueSize => to.value(&GetxattrOut {
            size: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            padding: 0,
        }),
        Shape::Value { size } if bytes.len() <= size as usize => {
            // The guest says that it has the room, but has it not: also too small.
            to.bytes(&[bytes])
                .or_else(|NoRoom| Ok(to.error(Errno::RANGE)))
        }
        Shape::Value { .. } => Ok(to.error(Errno::RANGE)),
        _ => Err(NoRoom),
    }
}

/// Encodes a listing; nodes whose entry had no room go to `lost`, since the guest will never
/// give back their lookups.
pub fn encode_list(
    to: &ReplyTo<'_>,
    plus: bool,
    list: &DirList,
    caching: &Caching,
    mut lost: impl FnMut(NodeId),
) -> u32 {
    let mut writer = to.chain.writer();
    writer.skip(OUT_HEADER_BYTES as u64);
    let mut len = OUT_HEADER_BYTES as u64;
    let mut full = false;
    for item in list.iter() {
        let head = convert::dirent(&item);
        let padding = [0u8; 8];
        let used = head.as_slice().len() + item.name.len();
        let padding = padding
            .get(..used.next_multiple_of(8) - used)
            .unwrap_or_default();
        let entry = plus.then(|| match &item.entry {
            Some(entry) => entry_out(entry, caching),
            None => Default::default(),
        });
        let entry = entry.as_ref().map(ByteValued::as_slice).unwrap_or_default();
        let cost = (entry.len() + used + padding.len()) as u64;
        full |= len + cost > to.room;
        if full {
            item.entry.iter().for_each(|entry| lost(entry.node));
            continue;
        }
        for piece in [entry, head.as_slice(), item.name, padding] {
            writer.write(piece);
        }
        len += cost;
    }
    to.header(0, len)
}

fn file_out(opened: &Opened, caching: &Caching) -> OpenOut {
    let keep = if opened.keep_cache {
        fopen::KEEP_CACHE
    } else {
        0
    };
    open_out(opened.handle.0, caching.file_flags | keep)
}

fn open_out(fh: u64, open_flags: u32) -> OpenOut {
    OpenOut {
        fh,
        open_flags,
        passthrough: 0,
    }
}
