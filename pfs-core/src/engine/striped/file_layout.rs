//! What a file is made with: how it will be striped, and how much of it stays in its inode.
//!
//! Guests read and set it as extended attributes, in the manner of CephFS's `ceph.dir.layout`:
//! `user.pfs.layout` is all of it, `user.pfs.layout.stripe_unit` and so on one field each.

use std::fmt;

use crate::fs::{Errno, Result, XattrName};
use crate::layout::Layout;
use crate::volume::size::Size;
use crate::volume::{MDT_SIZE_MAX_BYTES, MDT_SIZE_STEP_BYTES};

/// The whole layout's name.
const WHOLE: &[u8] = b"user.pfs.layout";

/// The layout of a file, and the size of its part in the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileLayout {
    pub layout: Layout,
    pub mdt_size_bytes: u64,
}

/// A part of a layout that has a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    StripeUnit,
    StripeCount,
    MdtSize,
}

/// What an attribute's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    One(Field),
}

impl Field {
    const ALL: [Field; 3] = [Field::StripeUnit, Field::StripeCount, Field::MdtSize];

    fn name(self) -> &'static str {
        match self {
            Field::StripeUnit => "stripe_unit",
            Field::StripeCount => "stripe_count",
            Field::MdtSize => "mdt_size",
        }
    }

    fn named(name: &[u8]) -> Option<Field> {
        Field::ALL
            .into_iter()
            .find(|field| field.name().as_bytes() == name)
    }
}

impl Part {
    /// The part that `name` stands for, if it is an attribute of layouts.
    pub fn of(name: &XattrName) -> Option<Part> {
        match name.as_c_str().to_bytes().strip_prefix(WHOLE)? {
            b"" => Some(Part::Whole),
            rest => Field::named(rest.strip_prefix(b".")?).map(Part::One),
        }
    }
}

/// The name under which an inode keeps a layout that is not the volume's.
pub(super) fn xattr_name() -> &'static XattrName {
    XattrName::new(c"user.pfs.layout").expect("a constant within bounds")
}

impl FileLayout {
    /// The value of one field.
    pub fn get(&self, field: Field) -> u64 {
        match field {
            Field::StripeUnit => self.layout.stripe_unit_bytes(),
            Field::StripeCount => u64::from(self.layout.stripe_count()),
            Field::MdtSize => self.mdt_size_bytes,
        }
    }

    /// This layout with `part` of it as in `other`.
    pub fn reset(&self, part: Part, other: &FileLayout) -> FileLayout {
        let mut new = *self;
        let layout = |unit: u64, count: u32| Layout::new(unit, count, 0);
        match part {
            Part::Whole => new = *other,
            Part::One(Field::MdtSize) => new.mdt_size_bytes = other.mdt_size_bytes,
            Part::One(Field::StripeUnit) => {
                let both = layout(other.layout.stripe_unit_bytes(), self.layout.stripe_count());
                new.layout = both.unwrap_or(other.layout);
            }
            Part::One(Field::StripeCount) => {
                let both = layout(self.layout.stripe_unit_bytes(), other.layout.stripe_count());
                new.layout = both.unwrap_or(other.layout);
            }
        }
        new
    }

    fn checked([unit, count, mdt_size]: [u64; 3], targets: u32) -> Result<FileLayout> {
        let count = u32::try_from(count).map_err(|_| Errno::INVAL)?;
        let layout = Layout::new(unit, count, 0).map_err(|_| Errno::INVAL)?;
        let fits = count <= targets
            && mdt_size % MDT_SIZE_STEP_BYTES == 0
            && mdt_size <= MDT_SIZE_MAX_BYTES;
        fits.then_some(FileLayout {
            layout,
            mdt_size_bytes: mdt_size,
        })
        .ok_or(Errno::INVAL)
    }

    /// The value of an attribute: what a requester reads.
    pub fn to_value(self, part: Part) -> Vec<u8> {
        match part {
            Part::Whole => self.to_string(),
            Part::One(field) => self.get(field).to_string(),
        }
        .into_bytes()
    }

    /// This layout changed as an attribute's new value says. Fields that a whole layout does not
    /// name stay; `EINVAL` for what is no layout on `targets` targets.
    pub fn changed(&self, part: Part, value: &[u8], targets: u32) -> Result<FileLayout> {
        let text = std::str::from_utf8(value).map_err(|_| Errno::INVAL)?.trim();
        let fields = match part {
            Part::One(field) => {
                let mut fields = [None; 3];
                fields[field as usize] = Some(number(field, text)?);
                fields
            }
            Part::Whole => parse_whole(text)?,
        };
        let now = Field::ALL.map(|field| self.get(field));
        FileLayout::checked(
            std::array::from_fn(|at| fields[at].unwrap_or(now[at])),
            targets,
        )
    }

    /// The layout in an inode's attribute; `None` for one that is damaged, or does not fit on
    /// `targets` targets.
    pub fn parse(value: &[u8], targets: u32) -> Option<FileLayout> {
        match parse_whole(std::str::from_utf8(value).ok()?).ok()? {
            [Some(unit), Some(count), Some(mdt_size)] => {
                FileLayout::checked([unit, count, mdt_size], targets).ok()
            }
            _ => None,
        }
    }
}

/// As an inode keeps it and a requester reads it: all fields, sizes in bytes.
impl fmt::Display for FileLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in Field::ALL.into_iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}={}", field.name(), self.get(field))?;
        }
        Ok(())
    }
}

/// The fields that a text of `name=value` words names: at least one, none twice.
fn parse_whole(text: &str) -> Result<[Option<u64>; 3]> {
    let mut fields = [None; 3];
    for word in text.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').ok_or(Errno::INVAL)?;
        let field = Field::named(name.as_bytes()).ok_or(Errno::INVAL)?;
        if fields[field as usize]
            .replace(number(field, value)?)
            .is_some()
        {
            return Err(Errno::INVAL);
        }
    }
    match fields {
        [None, None, None] => Err(Errno::INVAL),
        fields => Ok(fields),
    }
}

/// A field's value: sizes with or without a unit, a count without.
fn number(field: Field, text: &str) -> Result<u64> {
    let value = match field {
        Field::StripeCount => text.parse().ok(),
        Field::StripeUnit | Field::MdtSize => text.parse().ok().map(|Size(bytes)| bytes),
    };
    value.ok_or(Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: u32 = 4;

    fn usual() -> FileLayout {
        FileLayout {
            layout: Layout::new(1 << 20, 4, 0).unwrap(),
            mdt_size_bytes: 65536,
        }
    }

    #[test]
    fn names_are_told_apart() {
        let part = |name: &std::ffi::CStr| Part::of(XattrName::new(name).unwrap());
        assert_eq!(part(c"user.pfs.layout"), Some(Part::Whole));
        assert_eq!(
            part(c"user.pfs.layout.mdt_size"),
            Some(Part::One(Field::MdtSize))
        );
        for other in [
            c"user.pfs.layout.",
            c"user.pfs.layout.object_size",
            c"user.pfs.layouts",
            c"user.pfs.file",
            c"user.pfs.layout.stripe_unit.x",
        ] {
            assert_eq!(part(other), None, "{other:?}");
        }
    }

    #[test]
    fn text_round_trips() {
        let text = usual().to_string();
        assert_eq!(text, "stripe_unit=1048576 stripe_count=4 mdt_size=65536");
        assert_eq!(FileLayout::parse(text.as_bytes(), TARGETS), Some(usual()));
        assert_eq!(
            FileLayout::parse(text.as_bytes(), 3),
            None,
            "too few targets"
        );
        for bad in ["", "stripe_unit=1048576 stripe_count=4", "x", "\u{e4}"] {
            assert_eq!(FileLayout::parse(bad.as_bytes(), TARGETS), None, "{bad:?}");
        }
        assert_eq!(usual().to_value(Part::One(Field::StripeCount)), b"4");
    }

    #[test]
    fn values_change_what_they_name() {
        let whole = |text: &str| usual().changed(Part::Whole, text.as_bytes(), TARGETS);
        let changed = whole("mdt_size=4K stripe_unit=64KiB").unwrap();
        assert_eq!(
            changed.to_string(),
            "stripe_unit=65536 stripe_count=4 mdt_size=4096"
        );
        assert_eq!(whole("stripe_count=2\n").unwrap().layout.stripe_count(), 2);
        let one = |field, text: &str| usual().changed(Part::One(field), text.as_bytes(), TARGETS);
        assert_eq!(one(Field::MdtSize, "0").unwrap().mdt_size_bytes, 0);
        assert_eq!(
            one(Field::StripeUnit, "2M").unwrap().get(Field::StripeUnit),
            2 << 20
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            "",
            " ",
            "4",
            "stripe_unit",
            "stripe_unit=",
            "stripe_unit=0",
            "stripe_unit=4097",
            "stripe_unit=2G",
            "stripe_unit=64K stripe_unit=64K",
            "stripe_count=0",
            "stripe_count=5",
            "stripe_count=1K",
            "stripe_count=-1",
            "stripe_count=4294967297",
            "mdt_size=1",
            "mdt_size=32M",
            "mdt_size=99999999999999999999",
            "object_size=4M",
            "stripe_unit = 64K",
        ] {
            let result = usual().changed(Part::Whole, bad.as_bytes(), TARGETS);
            assert_eq!(result, Err(Errno::INVAL), "{bad:?}");
        }
        let part = Part::One(Field::StripeCount);
        assert_eq!(usual().changed(part, b"\xff", TARGETS), Err(Errno::INVAL));
        assert_eq!(
            usual().changed(part, b"stripe_count=2", TARGETS),
            Err(Errno::INVAL)
        );
    }
}
