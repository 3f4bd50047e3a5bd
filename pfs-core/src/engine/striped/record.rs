//! What a file's inode says of its objects: the xattr `user.pfs.file`.

use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, fsetxattr, XattrFlags};
use uuid::Uuid;

use super::file_layout::FileLayout;
use super::DAMAGED;
use crate::fs::{Errno, Result, XattrName};
use crate::layout::{Layout, STRIPE_COUNT_MAX};

/// Form of the record; another means a newer writer.
const FORMAT: &str = "2";
/// Longest record, in bytes.
const RECORD_MAX_BYTES: usize = 512;

/// The object id and layout of a file with striped bytes, fixed when it got the first.
///
/// As text, so that it can be read with `getfattr`: `2 <object id> <stripe_unit> <stripe_count>
/// <mdt_size> <first target> <objects made>`, sizes in bytes. It is kept short: a small inode has
/// room for about 60 bytes before an attribute takes a block of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub object_id: Uuid,
    pub layout: Layout,
    pub mdt_size_bytes: u64,
    /// The target of column 0.
    pub first_target: u32,
    /// Objects that had been made when this was read. Daemons that make objects of one file at
    /// once may lose each other's; none adds one that was not made.
    pub made: ObjectMask,
}

/// The attribute's name.
pub(super) fn xattr_name() -> &'static XattrName {
    XattrName::new(c"user.pfs.file").expect("a constant within bounds")
}

impl Record {
    /// A record with an object id that no other file has.
    pub fn new(of: &FileLayout, targets: u32) -> Record {
        let object_id = Uuid::new_v4();
        let first_target = object_id.as_u64_pair().1 as u32 % targets.max(1);
        Record {
            object_id,
            layout: of.layout,
            mdt_size_bytes: of.mdt_size_bytes,
            first_target,
            made: ObjectMask::default(),
        }
    }

    /// What the file was made with.
    pub fn file_layout(&self) -> FileLayout {
        FileLayout {
            layout: self.layout,
            mdt_size_bytes: self.mdt_size_bytes,
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
            made: ObjectMask::parse(words.next()?)?,
        };
        words.next().is_none().then_some(record)
    }

    /// The record as an attribute's value.
    pub fn to_text(&self) -> String {
        format!(
            "{FORMAT} {} {} {} {} {} {}",
            self.object_id.simple(),
            self.layout.stripe_unit_bytes(),
            self.layout.stripe_count(),
            self.mdt_size_bytes,
            self.first_target,
            self.made.to_text()
        )
    }

    /// The record of the inode behind `meta`, which is not an `O_PATH` descriptor.
    pub fn load(meta: impl AsFd) -> Result<Option<Record>> {
        let mut value = [0u8; RECORD_MAX_BYTES];
        match fgetxattr(meta, xattr_name().as_c_str(), &mut value[..]) {
            Ok(len) => Record::parse(&value[..len]).map(Some),
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Fixes this record on the inode, unless another process was first: answers the one that
    /// holds.
    pub fn fix(self, meta: impl AsFd) -> Result<Record> {
        let text = self.to_text();
        let name = xattr_name().as_c_str();
        match fsetxattr(&meta, name, text.as_bytes(), XattrFlags::CREATE) {
            Ok(()) => Ok(self),
            Err(Errno::EXIST) => Record::load(meta)?.ok_or(Errno::STALE),
            Err(errno) => Err(errno),
        }
    }

    /// Notes on the inode that the object of `column` was made. The caller holds the guard, so the
    /// record is there.
    pub fn set_made(&self, meta: impl AsFd, column: u32) -> Result<()> {
        let mut record = Record::load(&meta)?.ok_or(Errno::STALE)?;
        if record.made.has(column) {
            return Ok(());
        }
        record.made.add(column);
        let text = record.to_text();
        let name = xattr_name().as_c_str();
        fsetxattr(meta, name, text.as_bytes(), XattrFlags::REPLACE)
    }
}

/// Which columns' objects were made. What tells a lost object from one that was never written.
///
/// As text hexadecimal digits, the lowest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ObjectMask(Vec<u8>);

impl ObjectMask {
    fn parse(text: &str) -> Option<ObjectMask> {
        if text.is_empty() || text.len() > (STRIPE_COUNT_MAX as usize).div_ceil(4) {
            return None;
        }
        let digit = |c: char| c.to_digit(16).map(|digit| digit as u8);
        let digits = text.trim_start_matches('0').chars().rev();
        let digits: Option<Vec<u8>> = digits.map(digit).collect();
        digits.map(ObjectMask)
    }

    fn to_text(&self) -> String {
        let digits = self.0.iter().rev().map(|digit| u32::from(*digit));
        let text: String = digits
            .filter_map(|digit| char::from_digit(digit, 16))
            .collect();
        match text.is_empty() {
            true => "0".to_owned(),
            false => text,
        }
    }

    /// Whether the object of `column` was made.
    pub fn has(&self, column: u32) -> bool {
        let digit = self.0.get(column as usize / 4).copied().unwrap_or(0);
        digit & 1 << (column % 4) != 0
    }

    /// Forgets that the object of `column` was made.
    pub fn remove(&mut self, column: u32) {
        if let Some(digit) = self.0.get_mut(column as usize / 4) {
            *digit &= !(1 << (column % 4));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn add(&mut self, column: u32) {
        let at = column as usize / 4;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (column % 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_with(stripe_count: u32) -> FileLayout {
        FileLayout {
            layout: Layout::new(65536, stripe_count, 0).unwrap(),
            mdt_size_bytes: 65536,
        }
    }

    #[test]
    fn text_round_trips_and_damage_is_seen() {
        let record = Record::new(&made_with(4), 4);
        let text = record.to_text();
        assert_eq!(Record::parse(text.as_bytes()), Ok(record));
        for bad in [
            "",
            "3 x",
            &text[..text.len() - 2],
            &format!("{text} 1"),
            &format!("{text}g"),
            "2 zz 1 1 1 1 0",
        ] {
            assert_eq!(Record::parse(bad.as_bytes()), Err(DAMAGED), "{bad:?}");
        }
        assert_eq!(Record::parse(b"\xff"), Err(DAMAGED));
    }

    #[test]
    fn made_objects_are_told() {
        let file = tempfile::tempfile().unwrap();
        let new = Record::new(&made_with(80), 80);
        let record = new.clone().fix(&file).unwrap();
        let mut made = Vec::new();
        for column in [1, 0, 70, 5, 70] {
            record.set_made(&file, column).unwrap();
            made.push(column);
            let now = Record::load(&file).unwrap().unwrap();
            assert!((0..100).all(|at| now.made.has(at) == made.contains(&at)));
            assert_eq!(
                Record {
                    made: ObjectMask::default(),
                    ..now.clone()
                },
                new
            );
            assert!(now.to_text().len() <= RECORD_MAX_BYTES);
        }
        assert_eq!(
            Record::load(&file).unwrap().unwrap().made.to_text(),
            "400000000000000023"
        );
        assert_eq!(ObjectMask::parse("3x"), None);
    }
}
