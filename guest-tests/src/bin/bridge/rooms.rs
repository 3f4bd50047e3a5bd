//! How much room a reply gets: what Linux's virtiofs driver gives it.
//!
//! `/dev/fuse` does not say: a reader there only sees the request. The driver has the sizes of
//! `args->out_args`, which follow from the opcode and a size within the request.

use guest_tests::ring::fuse::abi::{
    AttrOut, EntryOut, GetxattrOut, InHeader, InitOut, Kstatfs, LkOut, LseekOut, Opcode, OpenOut,
    StatxOut, WriteOut, STATX, TMPFILE,
};
use guest_tests::ring::memory::{Buffer, PAGE_SIZE};

/// Offset of `size` in `struct fuse_read_in`.
const READ_SIZE_AT: usize = 16;
/// Offset of `out_size` in `struct fuse_ioctl_in`.
const IOCTL_OUT_SIZE_AT: usize = 28;
/// Bytes of `struct fuse_ioctl_out`.
const IOCTL_OUT_LEN: usize = 16;
/// Bytes of `struct fuse_bmap_out`, `struct fuse_poll_out` and `struct fuse_copy_file_range_out`.
const WORD: usize = 8;
/// FUSE_COPY_FILE_RANGE_64, since 7.45.
const COPY_FILE_RANGE_64: u32 = 53;

/// Bytes for what follows the header of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// In one piece.
    Args(usize),
    /// In pages.
    Pages(usize),
}

impl Room {
    /// Bytes.
    pub fn len(self) -> usize {
        match self {
            Room::Args(len) | Room::Pages(len) => len,
        }
    }
}

/// The room of the reply to a request, which lies in `request` from `start` on. An opcode that is
/// not known here gets none: a daemon can still refuse it.
pub fn room(opcode: u32, request: &Buffer, start: usize) -> Room {
    const COMMON: [(Opcode, usize); 16] = [
        (Opcode::Lookup, size_of::<EntryOut>()),
        (Opcode::Mknod, size_of::<EntryOut>()),
        (Opcode::Mkdir, size_of::<EntryOut>()),
        (Opcode::Symlink, size_of::<EntryOut>()),
        (Opcode::Link, size_of::<EntryOut>()),
        (Opcode::Getattr, size_of::<AttrOut>()),
        (Opcode::Setattr, size_of::<AttrOut>()),
        (Opcode::Open, size_of::<OpenOut>()),
        (Opcode::Opendir, size_of::<OpenOut>()),
        (Opcode::Create, size_of::<EntryOut>() + size_of::<OpenOut>()),
        (Opcode::Write, size_of::<WriteOut>()),
        (Opcode::CopyFileRange, size_of::<WriteOut>()),
        (Opcode::Statfs, size_of::<Kstatfs>()),
        (Opcode::Getlk, size_of::<LkOut>()),
        (Opcode::Lseek, size_of::<LseekOut>()),
        (Opcode::Init, size_of::<InitOut>()),
    ];
    let body = start + size_of::<InHeader>();
    let word_at = |at: usize| request.read_obj::<u32>(body + at) as usize;
    let is = |wanted: Opcode| opcode == wanted as u32;
    if let Some(&(_, len)) = COMMON.iter().find(|(common, _)| is(*common)) {
        return Room::Args(len);
    }
    if is(Opcode::Read) || is(Opcode::Readdir) || is(Opcode::Readdirplus) {
        return Room::Pages(word_at(READ_SIZE_AT));
    }
    if is(Opcode::Readlink) {
        return Room::Pages(PAGE_SIZE - 1);
    }
    if is(Opcode::Getxattr) || is(Opcode::Listxattr) {
        return Room::Args(match word_at(0) {
            0 => size_of::<GetxattrOut>(),
            size => size,
        });
    }
    if is(Opcode::Ioctl) {
        return Room::Args(IOCTL_OUT_LEN + word_at(IOCTL_OUT_SIZE_AT));
    }
    Room::Args(match opcode {
        STATX => size_of::<StatxOut>(),
        TMPFILE => size_of::<EntryOut>() + size_of::<OpenOut>(),
        COPY_FILE_RANGE_64 => WORD,
        _ if is(Opcode::Bmap) || is(Opcode::Poll) => WORD,
        _ => 0,
    })
}
