//! Attributes: from libcephfs's words to ours, and back.

use std::mem::MaybeUninit;

use super::ffi::{ceph_statx, setattr};
use super::mount::Vino;
use crate::fs::{Attr, SetAttr, SetTime, Timestamp};

/// Spreads the numbers of snapshots over all bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The file type bits of the mode.
pub fn file_type(stx: &ceph_statx) -> u32 {
    u32::from(stx.stx_mode) & libc::S_IFMT
}

/// The inode number that a guest sees: in a snapshot an inode has its live one's number, but a guest
/// takes two of one number for hard links.
pub fn ino(vino: Vino) -> u64 {
    match vino.snap {
        Vino::LIVE => vino.ino,
        snap => vino.ino ^ snap.wrapping_mul(SPREAD) | 1 << 63,
    }
}

fn timestamp(time: libc::timespec) -> Timestamp {
    Timestamp {
        sec: time.tv_sec,
        nsec: time.tv_nsec as u32,
    }
}

/// What `stx` says.
pub fn attr(stx: &ceph_statx) -> Attr {
    Attr {
        ino: ino(Vino::of(stx)),
        size: stx.stx_size,
        blocks: stx.stx_blocks,
        blksize: stx.stx_blksize,
        mode: u32::from(stx.stx_mode),
        nlink: stx.stx_nlink,
        uid: stx.stx_uid,
        gid: stx.stx_gid,
        rdev_major: libc::major(stx.stx_rdev),
        rdev_minor: libc::minor(stx.stx_rdev),
        atime: timestamp(stx.stx_atime),
        mtime: timestamp(stx.stx_mtime),
        ctime: timestamp(stx.stx_ctime),
        btime: timestamp(stx.stx_btime),
    }
}

/// What to set, and the mask that names it. Setuid and setgid, where they are to be dropped, are the
/// caller's to put into `set.mode`.
pub fn to_set(set: &SetAttr) -> (ceph_statx, i32) {
    // SAFETY: plain numbers, for which zeroes are good.
    let mut stx: ceph_statx = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut mask = 0;
    let mut put = |bit: i32, is_set: bool| mask |= if is_set { bit } else { 0 };
    stx.stx_mode = set.mode.map_or(0, |mode| (mode & 0o7777) as u16);
    put(setattr::MODE, set.mode.is_some());
    stx.stx_uid = set.uid.unwrap_or(0);
    put(setattr::UID, set.uid.is_some());
    stx.stx_gid = set.gid.unwrap_or(0);
    put(setattr::GID, set.gid.is_some());
    stx.stx_size = set.size.unwrap_or(0);
    put(setattr::SIZE, set.size.is_some());
    stx.stx_atime = time_to_set(set.atime);
    put(setattr::ATIME, set.atime.is_some());
    stx.stx_mtime = time_to_set(set.mtime);
    put(setattr::MTIME, set.mtime.is_some());
    (stx, mask)
}

fn time_to_set(time: Option<SetTime>) -> libc::timespec {
    let time = match time {
        Some(SetTime::To(time)) => time,
        Some(SetTime::Now) => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
            Timestamp {
                sec: now.tv_sec,
                nsec: now.tv_nsec as u32,
            }
        }
        None => Timestamp::default(),
    };
    libc::timespec {
        tv_sec: time.sec,
        tv_nsec: time.nsec.into(),
    }
}
