//! What a file's inode says of its objects: the xattr `user.pfs.file`.

use rustix::fs::{fgetxattr, fsetxattr, XattrFlags};
use uuid::Uuid;

use super::DAMAGED;
use crate::fs::{Errno, Result, XattrName};
use crate::layout::Layout;

/// Form of the record; another means a newer writer.
const FORMAT: &str = "1";
/// Longest record, in bytes.
const RECORD_MAX_BYTES: usize = 256;

/// The object id and layout of a file with striped bytes, fixed when it got the first.
///
/// As text, so that it can be read with `getfattr`: `1 <object id> <stripe_unit> <stripe_count>
/// <mdt_size> <first target>`, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub object_id: Uuid,
    pub layout: Layout,
    pub mdt_size_bytes: u64,
    /// The target of column 0.
    pub first_target: u32,
}

/// The attribute's name.
pub(super) fn xattr_name() -> &'static XattrName {
    XattrName::new(c"user.pfs.file").expect("a constant within bounds")
}

impl Record {
    /// A record with an object id that no other file has.
    pub fn new(layout: Layout, mdt_size_bytes: u64, targets: u32) -> Record {
        let object_id = Uuid::new_v4();
        let first_target = object_id.as_u64_pair().1 as u32 % targets.max(1);
        Record {
            object_id,
            layout,
            mdt_size_bytes,
            first_target,
        }
    }

    /// The record in an attribute's value.
    pub fn parse(value: &[u8]) -> Result<Record> {
        Record::try_parse(value).ok_or(DAMAGED)
    }

    fn try_parse(value: &[u8]) -> Option<Record> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        if words.next()? != FORMAT {
            return None;
        }
        let object_id = Uuid::try_parse(words.next()?).ok()?;
        let (unit, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let record = Record {
            object_id,
            layout: Layout::new(unit, count, 0).ok()?,
            mdt_size_bytes: words.next()?.parse().ok()?,
            first_target: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(record)
    }

    fn to_text(&self) -> String {
        format!(
            "{FORMAT} {} {} {} {} {}",
            self.object_id.simple(),
            self.layout.stripe_unit_bytes(),
            self.layout.stripe_count(),
            self.mdt_size_bytes,
            self.first_target
        )
    }

    /// The record of the inode behind `meta`, which is not an `O_PATH` descriptor.
    pub fn load(meta: impl std::os::fd::AsFd) -> Result<Option<Record>> {
        let mut value = [0u8; RECORD_MAX_BYTES];
        match fgetxattr(meta, xattr_name().as_c_str(), &mut value[..]) {
            Ok(len) => Record::parse(&value[..len]).map(Some),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Fixes this record on the inode, unless another process was first: answers the one that
    /// holds.
    pub fn fix(self, meta: impl std::os::fd::AsFd) -> Result<Record> {
        let text = self.to_text();
        let name = xattr_name().as_c_str();
        match fsetxattr(&meta, name, text.as_bytes(), XattrFlags::CREATE) {
            Ok(()) => Ok(self),
            Err(Errno::EXIST) => Record::load(meta)?.ok_or(Errno::STALE),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_damage_is_seen() {
        let record = Record::new(Layout::new(65536, 4, 0).unwrap(), 65536, 4);
        let text = record.to_text();
        assert_eq!(Record::parse(text.as_bytes()), Ok(record));
        for bad in [
            "",
            "2 x",
            &text[..text.len() - 2],
            &format!("{text} 1"),
            "1 zz 1 1 1 1",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), Err(DAMAGED), "{bad:?}");
        }
        assert_eq!(Record::parse(b"\xff"), Err(DAMAGED));
    }
}
