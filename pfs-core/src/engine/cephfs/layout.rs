//! Layouts as guests know them: `user.pfs.layout`, and one name for each field, are CephFS's own
//! `ceph.dir.layout` and `ceph.file.layout`. Pools are the operator's: a guest sees and sets none.

use std::ffi::CString;
use std::fmt::Write as _;

use super::nodes::Node;
use crate::fs::{Errno, Result};
use crate::volume::size::Size;

/// The whole layout's name.
const WHOLE: &[u8] = b"user.pfs.layout";
/// The fields, as both call them.
const FIELDS: [&str; 3] = ["stripe_unit", "stripe_count", "object_size"];

/// What an attribute's name stands for: a field by its index, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    One(usize),
}

impl Part {
    /// The part that `name` stands for, if it is an attribute of layouts.
    pub fn of(name: &[u8]) -> Option<Part> {
        match name.strip_prefix(WHOLE)? {
            b"" => Some(Part::Whole),
            rest => {
                let field = rest.strip_prefix(b".")?;
                let index = FIELDS.iter().position(|name| name.as_bytes() == field);
                index.map(Part::One)
            }
        }
    }
}

/// What CephFS calls the layout of `node`, or a field of it.
fn ceph_name(node: &Node, field: Option<usize>) -> Result<CString> {
    let kind = match node.file_type {
        libc::S_IFDIR => "dir",
        libc::S_IFREG => "file",
        _ => return Err(Errno::NODATA),
    };
    let name = match field {
        Some(field) => format!("ceph.{kind}.layout.{}", FIELDS[field]),
        None => format!("ceph.{kind}.layout"),
    };
    CString::new(name).map_err(|_| Errno::INVAL)
}

/// The value of an attribute; `ENODATA` for a directory that has no layout of its own.
pub fn get(node: &Node, part: Part) -> Result<Vec<u8>> {
    let value = |field| node.inode.get_xattr(&ceph_name(node, Some(field))?);
    match part {
        Part::One(field) => value(field),
        Part::Whole => {
            let mut whole = Vec::new();
            for (field, name) in FIELDS.iter().enumerate() {
                let before = if field > 0 { " " } else { "" };
                whole.extend_from_slice(format!("{before}{name}=").as_bytes());
                whole.extend_from_slice(&value(field)?);
            }
            Ok(whole)
        }
    }
}

/// Sets what `part` stands for. A file's is fixed once it has data: `EBUSY`.
pub fn set(node: &Node, part: Part, value: &[u8]) -> Result<()> {
    let text = std::str::from_utf8(value).map_err(|_| Errno::INVAL)?.trim();
    let (name, value) = match part {
        Part::One(field) => (
            ceph_name(node, Some(field)),
            number(field, text)?.to_string(),
        ),
        Part::Whole => (ceph_name(node, None), whole(text)?),
    };
    let name = name.map_err(|_| Errno::INVAL)?;
    match node.inode.set_xattr(&name, value.as_bytes(), 0) {
        Err(Errno::NOTEMPTY) => Err(Errno::BUSY),
        result => result,
    }
}

/// Gives a directory the layout of the one above it again.
pub fn remove(node: &Node, part: Part) -> Result<()> {
    match (node.file_type, part) {
        (libc::S_IFDIR, Part::Whole) => node.inode.remove_xattr(&ceph_name(node, None)?),
        _ => Err(Errno::INVAL),
    }
}

fn number(field: usize, text: &str) -> Result<u64> {
    match FIELDS[field] {
        "stripe_count" => text.parse().map_err(|_| Errno::INVAL),
        _ => text
            .parse::<Size>()
            .map(|size| size.0)
            .map_err(|_| Errno::INVAL),
    }
}

/// A whole layout in CephFS's form.
fn whole(text: &str) -> Result<String> {
    let mut out = String::new();
    for word in text.split_ascii_whitespace() {
        let (name, value) = word.split_once('=').ok_or(Errno::INVAL)?;
        let field = FIELDS.iter().position(|field| *field == name);
        let field = field.ok_or(Errno::INVAL)?;
        let before = if out.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = write!(out, "{before}{name}={}", number(field, value)?);
    }
    match out.is_empty() {
        true => Err(Errno::INVAL),
        false => Ok(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert_eq!(Part::of(b"user.pfs.layout"), Some(Part::Whole));
        assert_eq!(Part::of(b"user.pfs.layout.object_size"), Some(Part::One(2)));
        assert_eq!(Part::of(b"user.pfs.layout.pool"), None);
        assert_eq!(Part::of(b"user.pfs.layoutx"), None);
        let text = whole("stripe_unit=1M  stripe_count=4 object_size=4194304");
        let ours = "stripe_unit=1048576 stripe_count=4 object_size=4194304";
        assert_eq!(text.as_deref(), Ok(ours));
        for bad in [
            "",
            "pool=other",
            "stripe_unit",
            "stripe_count=many",
            "stripe_unit=",
        ] {
            assert_eq!(whole(bad), Err(Errno::INVAL), "{bad}");
        }
    }
}
