//! The vocabulary of the [`FileSystem`](super::FileSystem) trait.

use std::ffi::CStr;

use super::Errno;

/// An inode, named for as long as the requester holds a lookup on it. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The volume's root, the same in every session (`FUSE_ROOT_ID`).
    pub const ROOT: NodeId = NodeId(1);
}

/// An open file or directory. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// A place in an open file.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub node: NodeId,
    pub handle: Handle,
    /// Byte offset, at most `i64::MAX`.
    pub offset: u64,
}

/// Whose request it is, as the requester's kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
    /// Whether it is the requester's root, whatever number that has here.
    pub is_root: bool,
}

impl Caller {
    /// A caller whose ids are the volume's.
    pub const fn new(uid: u32, gid: u32, pid: u32) -> Caller {
        Caller {
            uid,
            gid,
            pid,
            is_root: uid == 0,
        }
    }
}

/// Longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes (`PATH_MAX` without its NUL).
pub const SYMLINK_MAX: usize = 4095;
/// Longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
pub const XATTR_NAME_MAX: usize = 255;
/// Largest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_SIZE_MAX: usize = 65536;

/// A checked directory entry name: 1 to 255 bytes, no `/`, not `.` or `..`.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Name(CStr);

impl Name {
    /// Checks a name: `EINVAL` for what cannot be one, `ENAMETOOLONG` past [`NAME_MAX`].
    pub fn new(name: &CStr) -> Result<&Name, Errno> {
        let bytes = name.to_bytes();
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        // SAFETY: Name is a transparent wrapper of CStr, so the references are alike.
        Ok(unsafe { &*(name as *const CStr as *const Name) })
    }

    /// The name as the system calls take it.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// A checked extended attribute name: 1 to 255 bytes.
#[derive(Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct XattrName(CStr);

impl XattrName {
    /// Checks a name: `ERANGE` for an empty one or one past [`XATTR_NAME_MAX`], as Linux.
    pub fn new(name: &CStr) -> Result<&XattrName, Errno> {
        if !(1..=XATTR_NAME_MAX).contains(&name.count_bytes()) {
            return Err(Errno::RANGE);
        }
        // SAFETY: XattrName is a transparent wrapper of CStr, so the references are alike.
        Ok(unsafe { &*(name as *const CStr as *const XattrName) })
    }

    /// The name as the system calls take it.
    pub fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    pub sec: i64,
    pub nsec: u32,
}

/// What `statx(2)` knows of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub ino: u64,
    pub size: u64,
    /// Storage used, in units of 512 bytes.
    pub blocks: u64,
    pub blksize: u32,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub atime: Timestamp,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub btime: Timestamp,
}

/// A node found or made, with one lookup taken on it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub node: NodeId,
    pub attr: Attr,
}

/// An opened file or directory.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub handle: Handle,
    /// What the requester has cached of the file is as good as what it would read; told only
    /// where [`OpenFlags::cached`] asked.
    pub keep_cache: bool,
}

impl From<Handle> for Opened {
    fn from(handle: Handle) -> Opened {
        Opened {
            handle,
            keep_cache: false,
        }
    }
}

/// A file made (or found) and opened.
#[derive(Clone, Copy, Debug)]
pub struct Created {
    pub entry: Entry,
    pub opened: Opened,
}

/// How to make an inode.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// Permission bits, and the type for `mknod`.
    pub mode: u32,
    /// The caller's umask, not yet applied to `mode`.
    pub umask: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    Now,
    To(Timestamp),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// The open file through which it is asked, where there is one.
    pub handle: Option<Handle>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// Drop setuid, and setgid of an executable, as a chown or truncate by this caller must.
    pub kill_suidgid: bool,
}

/// How to open.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenFlags {
    /// As in `open(2)`, without the creation flags that the method itself stands for.
    pub flags: i32,
    /// Where it truncates, drop setuid and setgid as a truncation by this caller must.
    pub kill_suidgid: bool,
    /// The requester's cache reads what it writes parts of: where it is opened for writing only,
    /// open it for both if that can be.
    pub read_too: bool,
    /// The requester has a cache that it keeps if nothing has changed: find out.
    pub cached: bool,
}

impl OpenFlags {
    /// The flags with reading too, where [`read_too`](Self::read_too) wants it.
    pub fn widened(&self) -> i32 {
        if self.read_too && self.flags & libc::O_ACCMODE == libc::O_WRONLY {
            self.flags & !libc::O_ACCMODE | libc::O_RDWR
        } else {
            self.flags
        }
    }
}

impl From<i32> for OpenFlags {
    fn from(flags: i32) -> OpenFlags {
        OpenFlags {
            flags,
            kill_suidgid: false,
            read_too: false,
            cached: false,
        }
    }
}

/// What comes with a write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteFlags {
    /// Drop setuid and setgid, as a write by this caller must.
    pub kill_suidgid: bool,
    /// It comes from the requester's page cache, on nobody's behalf.
    pub from_cache: bool,
    /// It goes to the end of the file, wherever that is by now: the offset is where the requester
    /// takes the end to be.
    pub append: bool,
    /// It is `O_DIRECT`: one `write(2)` of the requester may come as several requests in flight at
    /// once, to be told apart and put in order by their offsets.
    pub direct: bool,
}

/// How to set an extended attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetXattr {
    /// As in `setxattr(2)`.
    pub flags: u32,
    /// With an access ACL, drop setgid, as it must be where the caller is not of the group.
    pub acl_kill_sgid: bool,
}

impl From<u32> for SetXattr {
    fn from(flags: u32) -> SetXattr {
        SetXattr {
            flags,
            acl_kill_sgid: false,
        }
    }
}

/// What `statvfs(3)` knows of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    /// Unit of the block counts, in bytes.
    pub block_size: u32,
    pub name_max: u32,
}

/// Kind of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Read,
    Write,
    Unlock,
}

/// A byte-range lock, or with `flock` one on the whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `i64::MAX` is the end of the file.
    pub end: u64,
    /// Whose it is, within the requester.
    pub owner: u64,
    pub pid: u32,
    pub flock: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(Name::new(c"a").is_ok());
        assert!(Name::new(c"...").is_ok());
        assert!(Name::new(c"\xff\n").is_ok());
        for bad in [c"", c".", c"..", c"a/b", c"/"] {
            assert_eq!(Name::new(bad), Err(Errno::INVAL));
        }
        let long = std::ffi::CString::new(vec![b'n'; 256]).unwrap();
        assert_eq!(Name::new(&long), Err(Errno::NAMETOOLONG));
        let most = std::ffi::CString::new(vec![b'n'; 255]).unwrap();
        assert!(Name::new(&most).is_ok());
    }

    #[test]
    fn xattr_names_are_checked() {
        assert!(XattrName::new(c"user.a").is_ok());
        assert_eq!(XattrName::new(c""), Err(Errno::RANGE));
        let long = std::ffi::CString::new(vec![b'n'; 256]).unwrap();
        assert_eq!(XattrName::new(&long), Err(Errno::RANGE));
    }
}
