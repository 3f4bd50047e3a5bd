//! Extended attributes.

use std::ffi::{CStr, CString};

use rustix::fs::{getxattr, listxattr, removexattr, setxattr, XattrFlags};

use super::replay::Making;
use super::{Inode, Tree};
use crate::fs::{Caller, Errno, Intent, IntentLog, Result, XattrName, XATTR_SIZE_MAX};

/// Largest list of names that Linux hands out, in bytes (`XATTR_LIST_MAX`).
const XATTR_LIST_MAX: usize = 65536;

/// A change of an attribute that an engine answers itself.
#[derive(Clone, Debug)]
pub struct XattrChange {
    pub caller: Caller,
    name: CString,
    /// The new value; `None` removes the attribute.
    pub value: Option<Vec<u8>>,
    pub flags: XattrFlags,
    /// An earlier, unfinished try may have done it.
    pub may_be_done: bool,
}

impl XattrChange {
    /// A change of attribute `name` of `inode`, recorded before it is made. `flags` as in
    /// `setxattr(2)`.
    pub fn new(
        (caller, log): (Caller, Option<&dyn IntentLog>),
        inode: &Inode,
        name: &XattrName,
        value: Option<&[u8]>,
        flags: u32,
    ) -> Result<XattrChange> {
        let known = XattrFlags::CREATE | XattrFlags::REPLACE;
        let flags = XattrFlags::from_bits_retain(flags);
        if !known.contains(flags) {
            return Err(Errno::INVAL);
        }
        let intent = Intent::Victim { ino: inode.ino };
        let may_be_done = log.and_then(IntentLog::replayed) == Some(intent);
        if let Some(log) = log.filter(|_| !may_be_done) {
            log.record(intent);
        }
        Ok(XattrChange {
            caller,
            name: name.as_c_str().to_owned(),
            value: value.map(<[u8]>::to_vec),
            flags,
            may_be_done,
        })
    }

    /// The attribute's name.
    pub fn name(&self) -> Result<&XattrName> {
        XattrName::new(&self.name)
    }
}

impl Tree {
    /// Sets an attribute; `flags` as in `setxattr(2)`. With `XATTR_CREATE`, `log` tells an
    /// attribute that an earlier try made from another's.
    pub fn set_xattr(
        &self,
        log: Option<&dyn IntentLog>,
        inode: &Inode,
        name: &XattrName,
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let log = log.filter(|_| flags.contains(XattrFlags::CREATE));
        self.with_xattr_path(inode, |path| {
            let making = Making::begin(log, || is_set(path, name) == Err(Errno::NODATA));
            making.finish(setxattr(path, name.as_c_str(), value, flags))
        })
    }

    /// Reads an attribute's value.
    pub fn get_xattr(&self, inode: &Inode, name: &XattrName) -> Result<Vec<u8>> {
        self.with_xattr_path(inode, |path| read_value(path, name.as_c_str()))
    }

    /// Lists attribute names, each ended by a NUL.
    pub fn list_xattrs(&self, inode: &Inode) -> Result<Vec<u8>> {
        self.with_xattr_path(inode, |path| {
            let mut names = vec![0u8; 1024];
            let len = match listxattr(path, &mut names[..]) {
                Err(Errno::RANGE) => {
                    names.resize(XATTR_LIST_MAX, 0);
                    listxattr(path, &mut names[..])?
                }
                result => result?,
            };
            names.truncate(len);
            Ok(names)
        })
    }

    /// Removes an attribute; `log` tells one that an earlier try removed from one never there.
    pub fn remove_xattr(
        &self,
        log: Option<&dyn IntentLog>,
        inode: &Inode,
        name: &XattrName,
    ) -> Result<()> {
        let victim = Intent::Victim { ino: inode.ino };
        let may_be_done = log.and_then(IntentLog::replayed) == Some(victim);
        self.with_xattr_path(inode, |path| {
            if let Some(log) = log.filter(|_| !may_be_done) {
                if is_set(path, name).is_ok() {
                    log.record(victim);
                }
            }
            match removexattr(path, name.as_c_str()) {
                Err(Errno::NODATA) if may_be_done => Ok(()),
                result => result,
            }
        })
    }

    fn with_xattr_path<T>(
        &self,
        inode: &Inode,
        call: impl FnOnce(&CStr) -> Result<T>,
    ) -> Result<T> {
        self.proc.with_path(&inode.fd, call)
    }
}

/// Whether the attribute is there: `ENODATA` where it is not.
fn is_set(path: &CStr, name: &XattrName) -> Result<()> {
    getxattr(path, name.as_c_str(), &mut [0u8; 0][..]).map(drop)
}

/// The value of attribute `name` of the inode at `path`.
pub(super) fn read_value(path: &CStr, name: &CStr) -> Result<Vec<u8>> {
    let mut small = [0u8; 256];
    match getxattr(path, name, &mut small[..]) {
        Ok(len) => Ok(small[..len].to_vec()),
        Err(Errno::RANGE) => {
            let mut value = vec![0u8; XATTR_SIZE_MAX];
            let len = getxattr(path, name, &mut value[..])?;
            value.truncate(len);
            Ok(value)
        }
        Err(errno) => Err(errno),
    }
}
