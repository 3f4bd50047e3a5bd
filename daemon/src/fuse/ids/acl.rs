//! The value of `system.posix_acl_*`: `linux/posix_acl_xattr.h`, little endian.

use pfs_core::fs::{Errno, Result, XattrName};

const VERSION: [u8; 4] = 2u32.to_le_bytes();
/// `e_tag` and `e_perm`, then `e_id`.
const ENTRY_BYTES: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// Whether the attribute's value has ids in it.
pub fn is_acl(name: &XattrName) -> bool {
    matches!(
        name.as_c_str().to_bytes(),
        b"system.posix_acl_access" | b"system.posix_acl_default"
    )
}

/// Replaces each id; a value that is no ACL is `EINVAL`, as for Linux.
pub(super) fn map(
    value: &mut [u8],
    user: impl Fn(u32) -> Result<u32>,
    group: impl Fn(u32) -> Result<u32>,
) -> Result<()> {
    let (version, entries) = value
        .split_at_mut_checked(VERSION.len())
        .ok_or(Errno::INVAL)?;
    if *version != VERSION || entries.len() % ENTRY_BYTES != 0 {
        return Err(Errno::INVAL);
    }
    for entry in entries.chunks_exact_mut(ENTRY_BYTES) {
        let Some((head, id)) = entry.split_first_chunk_mut::<4>() else {
            return Err(Errno::INVAL);
        };
        let [tag_low, tag_high, ..] = *head;
        let old = u32::from_le_bytes(id.try_into().map_err(|_| Errno::INVAL)?);
        let new = match u16::from_le_bytes([tag_low, tag_high]) {
            ACL_USER => user(old)?,
            ACL_GROUP => group(old)?,
            _ => old,
        };
        id.copy_from_slice(&new.to_le_bytes());
    }
    Ok(())
}
