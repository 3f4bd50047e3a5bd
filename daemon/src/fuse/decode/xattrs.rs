//! Requests about extended attributes.

use pfs_core::fs::{Errno, Result, XattrName, XATTR_SIZE_MAX};

use super::Bytes;
use crate::fuse::abi::{GetxattrIn, SetxattrIn};
use crate::fuse::opcodes::Opcode;

/// A request about an extended attribute of the node that the header names.
#[derive(Debug)]
pub enum Xattrs<'a> {
    Set {
        name: &'a XattrName,
        value: &'a [u8],
        flags: u32,
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

pub(super) fn decode<'a>(code: Opcode, body: &mut Bytes<'a>) -> Result<Xattrs<'a>> {
    let request = match code {
        Opcode::Setxattr => {
            // Without SETXATTR_EXT, which is not taken, the structure ends after its flags.
            let set: SetxattrIn = body.take()?;
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
                flags: set.flags,
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
