//! Requests about extended attributes.

use pfs_core::fs::{Errno, Result, SetXattr, XattrName, XATTR_SIZE_MAX};

use super::{Bytes, Raw};
use crate::fuse::abi::{init, GetxattrIn, SetxattrIn, SetxattrInExt, SETXATTR_ACL_KILL_SGID};
use crate::fuse::opcodes::Opcode;

/// A request about an extended attribute of the node that the header names.
#[derive(Debug)]
pub enum Xattrs<'a> {
    Set {
        name: &'a XattrName,
        value: &'a [u8],
        how: SetXattr,
    },
    Get {
        name: &'a XattrName,
        /// Room for the value; 0 asks for its size.
        size: u32,
    },
    List {
        /// Room for the names; 0 asks for their size.
        size: u32,
    },
    Remove {
        name: &'a XattrName,
    },
}

pub(super) fn decode<'a>(raw: &Raw<'_>, body: &mut Bytes<'a>) -> Result<Xattrs<'a>> {
    let request = match raw.op.code {
        Opcode::Setxattr => {
            let set = set_in(raw, body)?;
            if set.flags & !((libc::XATTR_CREATE | libc::XATTR_REPLACE) as u32) != 0 {
                return Err(Errno::INVAL);
            }
            let size = set.size as usize;
            if size > XATTR_SIZE_MAX {
                return Err(Errno::TOOBIG);
            }
            Xattrs::Set {
                name: XattrName::new(body.c_str()?)?,
                value: body.split(size)?,
                how: SetXattr {
                    flags: set.flags,
                    acl_kill_sgid: set.setxattr_flags & SETXATTR_ACL_KILL_SGID != 0,
                },
            }
        }
        Opcode::Getxattr => {
            let get: GetxattrIn = body.take()?;
            Xattrs::Get {
                name: XattrName::new(body.c_str()?)?,
                size: get.size,
            }
        }
        Opcode::Listxattr => {
            let list: GetxattrIn = body.take()?;
            Xattrs::List { size: list.size }
        }
        Opcode::Removexattr => Xattrs::Remove {
            name: XattrName::new(body.c_str()?)?,
        },
        _ => return Err(Errno::NOSYS),
    };
    body.end()?;
    Ok(request)
}

/// The structure, which without SETXATTR_EXT ends after its flags.
fn set_in(raw: &Raw<'_>, body: &mut Bytes<'_>) -> Result<SetxattrInExt> {
    if raw.flags & init::SETXATTR_EXT != 0 {
        return body.take();
    }
    let set: SetxattrIn = body.take()?;
    Ok(SetxattrInExt {
        size: set.size,
        flags: set.flags,
        ..SetxattrInExt::default()
    })
}
