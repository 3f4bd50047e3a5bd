//! The engine's types as FUSE structures.

use std::time::Duration;

use pfs_core::fs::{self, DirEntry, Entry, Lock, LockKind, StatFs, Timestamp};

use crate::fuse::abi::{Attr, Dirent, EntryOut, FileLock, Kstatfs, Statx, StatxOut, SxTime};
use crate::fuse::config::Caching;

/// `new_encode_dev` of Linux: how a device number fits 32 bits.
fn encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

pub fn attr(attr: &fs::Attr) -> Attr {
    Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        // Two's complement, as the kernel reads them.
        atime: attr.atime.sec as u64,
        mtime: attr.mtime.sec as u64,
        ctime: attr.ctime.sec as u64,
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_dev(attr.rdev_major, attr.rdev_minor),
        blksize: attr.blksize,
        flags: 0,
    }
}

pub fn entry_out(entry: &Entry, caching: &Caching) -> EntryOut {
    let valid = caching.entry_of(entry.attr.mode);
    EntryOut {
        nodeid: entry.node.0,
        // Node ids are never reused, so one generation serves them all.
        generation: 0,
        entry_valid: valid.as_secs(),
        attr_valid: caching.attr.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        attr_valid_nsec: caching.attr.subsec_nanos(),
        attr: attr(&entry.attr),
    }
}

/// Node id 0: the name is not there, which the guest may keep for so long.
pub fn negative_out(valid: Duration) -> EntryOut {
    EntryOut {
        entry_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        ..EntryOut::default()
    }
}

pub fn statx_out(attr: &fs::Attr, caching: &Caching) -> StatxOut {
    let mut mask = libc::STATX_BASIC_STATS;
    if attr.btime != Timestamp::default() {
        mask |= libc::STATX_BTIME;
    }
    StatxOut {
        attr_valid: caching.attr.as_secs(),
        attr_valid_nsec: caching.attr.subsec_nanos(),
        stat: Statx {
            mask,
            blksize: attr.blksize,
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            mode: attr.mode as u16,
            ino: attr.ino,
            size: attr.size,
            blocks: attr.blocks,
            atime: sx_time(attr.atime),
            btime: sx_time(attr.btime),
            ctime: sx_time(attr.ctime),
            mtime: sx_time(attr.mtime),
            rdev_major: attr.rdev_major,
            rdev_minor: attr.rdev_minor,
            ..Statx::default()
        },
        ..StatxOut::default()
    }
}

fn sx_time(time: Timestamp) -> SxTime {
    SxTime {
        tv_sec: time.sec,
        tv_nsec: time.nsec,
        reserved: 0,
    }
}

pub fn dirent(entry: &DirEntry<'_>) -> Dirent {
    Dirent {
        ino: entry.ino,
        off: entry.cookie,
        namelen: entry.name.len() as u32,
        type_: u32::from(entry.kind),
    }
}

pub fn kstatfs(stat: &StatFs) -> Kstatfs {
    Kstatfs {
        blocks: stat.blocks,
        bfree: stat.blocks_free,
        bavail: stat.blocks_available,
        files: stat.files,
        ffree: stat.files_free,
        bsize: stat.block_size,
        namelen: stat.name_max,
        frsize: stat.block_size,
        ..Kstatfs::default()
    }
}

pub fn file_lock(lock: &Lock) -> FileLock {
    let kind = match lock.kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
        LockKind::Unlock => libc::F_UNLCK,
    };
    FileLock {
        start: lock.start,
        end: lock.end,
        type_: kind as u32,
        pid: lock.pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_as_the_kernel_encodes_them() {
        assert_eq!(encode_dev(8, 1), 0x801);
        assert_eq!(encode_dev(259, 0x12345), 0x1231_0345);
        assert_eq!(encode_dev(0xfff, 0xf_ffff), 0xffff_ffff);
    }
}
