//! Typed requests from bytes.
//!
//! Works on private copies only. Everything a guest says is checked here, once: sizes, names,
//! offsets, flags. What comes out can be handed to an engine as it is; node ids and handles are
//! the engine's to know.

mod dirs;
mod files;
mod names;
mod whole;
mod xattrs;

use std::ffi::CStr;

use pfs_core::fs::{At, Errno, Handle, Name, NodeId, Result};
use vm_memory::ByteValued;

use super::abi::InHeader;
use super::opcodes::{Body, Op, Opcode};

pub use dirs::Dirs;
pub use files::Files;
pub use names::Names;
pub use whole::{Forgets, Whole};
pub use xattrs::Xattrs;

/// Most bytes of a request that are copied: an xattr of 64 KiB and its name, with room to spare.
pub const MAX_BODY_BYTES: usize = 68 << 10;

/// A request, checked.
#[derive(Debug)]
pub enum Request<'a> {
    Names(Names<'a>),
    Files(Files),
    Dirs(Dirs),
    Xattrs(Xattrs<'a>),
    Whole(Whole<'a>),
}

/// What a request is decoded from.
pub struct Raw<'a> {
    pub op: &'a Op,
    pub head: &'a InHeader,
    /// What follows the header; without the payload, where there is one.
    pub body: &'a [u8],
    /// Bytes of payload.
    pub payload_len: u64,
    /// Most data of one READ or WRITE.
    pub max_write: u32,
    /// The session's flags (`FUSE_*` of INIT).
    pub flags: u64,
}

/// Checks `len` bytes that follow the header against the table; answers how many to copy.
pub fn body_len(op: &Op, len: u64) -> Result<usize> {
    let (fits, copied) = match op.body {
        Body::Exact(bytes) => (len == bytes as u64, bytes),
        Body::AtLeast(bytes) => (
            (bytes as u64..=MAX_BODY_BYTES as u64).contains(&len),
            len as usize,
        ),
        Body::Payload(bytes) => (len >= bytes as u64, bytes),
    };
    match fits {
        true => Ok(copied),
        false => Err(Errno::INVAL),
    }
}

/// Decodes a request.
pub fn decode<'a>(raw: &Raw<'a>) -> Result<Request<'a>> {
    use Opcode as O;
    let mut body = Bytes(raw.body);
    let node = NodeId(raw.head.nodeid);
    match raw.op.code {
        O::Lookup
        | O::Symlink
        | O::Mknod
        | O::Mkdir
        | O::Unlink
        | O::Rmdir
        | O::Rename
        | O::Rename2
        | O::Link
        | O::Readlink => names::decode(raw.op.code, &mut body).map(Request::Names),
        O::Create | O::Tmpfile => names::decode_create(raw.op.code, &mut body).map(Request::Names),
        O::Getattr
        | O::Statx
        | O::Setattr
        | O::Open
        | O::Read
        | O::Write
        | O::Flush
        | O::Release
        | O::Fsync
        | O::Fallocate
        | O::Lseek
        | O::CopyFileRange
        | O::Getlk
        | O::Setlk
        | O::Setlkw => files::decode(raw, node, &mut body).map(Request::Files),
        O::Opendir | O::Readdir | O::Readdirplus | O::Releasedir | O::Fsyncdir => {
            dirs::decode(raw.op.code, &mut body).map(Request::Dirs)
        }
        O::Setxattr | O::Getxattr | O::Listxattr | O::Removexattr => {
            xattrs::decode(raw, &mut body).map(Request::Xattrs)
        }
        O::Init
        | O::Destroy
        | O::Forget
        | O::BatchForget
        | O::Interrupt
        | O::Statfs
        | O::Access
        | O::Syncfs => whole::decode(raw.op.code, node, &mut body).map(Request::Whole),
        O::Bmap
        | O::Ioctl
        | O::Poll
        | O::NotifyReply
        | O::SetupMapping
        | O::RemoveMapping
        | O::CuseInit => Err(Errno::NOSYS),
    }
}

/// The rest of a request's body.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// A structure; `EINVAL` if there is less.
    fn take<T: ByteValued + Default>(&mut self) -> Result<T> {
        let mut value = T::default();
        let bytes = self.split(size_of::<T>())?;
        value.as_mut_slice().copy_from_slice(bytes);
        Ok(value)
    }

    fn split(&mut self, len: usize) -> Result<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(first)
    }

    /// A string up to its NUL; `EINVAL` if there is none.
    fn c_str(&mut self) -> Result<&'a CStr> {
        let text = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.split(text.count_bytes() + 1)?;
        Ok(text)
    }

    /// A name of a directory entry.
    fn name(&mut self) -> Result<&'a Name> {
        Name::new(self.c_str()?)
    }

    /// Nothing may be left.
    fn end(&self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }
}

/// A place in a file: `EINVAL` past what `loff_t` holds.
fn at(node: NodeId, fh: u64, offset: u64) -> Result<At> {
    match i64::try_from(offset) {
        Ok(_) => Ok(At {
            node,
            handle: Handle(fh),
            offset,
        }),
        Err(_) => Err(Errno::INVAL),
    }
}

/// A place and `len` bytes from there: `errno` if they end past what `loff_t` holds.
fn range(node: NodeId, fh: u64, offset: u64, len: u64, errno: Errno) -> Result<At> {
    let place = at(node, fh, offset)?;
    match offset.checked_add(len) {
        Some(end) if i64::try_from(end).is_ok() => Ok(place),
        _ => Err(errno),
    }
}
