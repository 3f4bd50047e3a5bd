//! Ids of the guest to ids of the volume, and back, as virtiofsd's `--translate-uid` has it.
//!
//! - [`IdMap`]: users or groups, both directions, which need not be each other's inverse.
//! - [`rule`]: one option's rule, as it is written.
//! - `acl`: ids in the value of a POSIX ACL.
//!
//! Everything below the service knows the volume's ids only.

mod acl;
pub mod rule;

use std::fmt;

use pfs_core::fs::{Attr, Caller, Errno, Result, SetAttr};

pub use acl::is_acl;
pub use rule::Rule;

/// Who a caller is whose own id may not be used (`nobody`): only for what makes no files.
const NOBODY: u32 = 65534;

/// What becomes of a range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// A range as long, from here on.
    Range(u32),
    /// This one id.
    One(u32),
    /// They may not be used.
    Forbidden,
}

/// A range of ids, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    base: u32,
    count: u32,
    to: To,
}

impl Range {
    fn end(&self) -> u64 {
        u64::from(self.base) + u64::from(self.count)
    }
}

/// One direction: ranges that do not overlap, by base.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Direction(Vec<Range>);

impl Direction {
    /// Adds a range; answers whether it overlaps none.
    fn add(&mut self, range: Range) -> bool {
        let at = self.0.partition_point(|known| known.base < range.base);
        let before = at.checked_sub(1).and_then(|index| self.0.get(index));
        let after = self.0.get(at);
        let overlaps = before.is_some_and(|known| known.end() > range.base.into())
            || after.is_some_and(|known| range.end() > known.base.into());
        if !overlaps {
            self.0.insert(at, range);
        }
        !overlaps
    }

    /// What becomes of `id`: itself, where nothing is said of it. `None` is forbidden.
    fn map(&self, id: u32) -> Option<u32> {
        let at = self.0.partition_point(|range| range.base <= id);
        let range = at.checked_sub(1).and_then(|index| self.0.get(index));
        match range.filter(|range| u64::from(id) < range.end()) {
            None => Some(id),
            Some(range) => match range.to {
                To::Range(base) => Some(base + (id - range.base)),
                To::One(id) => Some(id),
                To::Forbidden => None,
            },
        }
    }
}

/// Users, or groups, of the guest and of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap {
    to_host: Direction,
    to_guest: Direction,
}

/// Two rules say something of the same id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" overlaps a rule before it")]
pub struct Overlap(Rule);

impl IdMap {
    /// A map by rules; ids of which none says anything stay what they are.
    pub fn new(rules: &[Rule]) -> std::result::Result<IdMap, Overlap> {
        let mut map = IdMap::default();
        for rule in rules {
            let (to_host, to_guest) = rule.ranges();
            let fits = to_host.is_none_or(|range| map.to_host.add(range))
                && to_guest.is_none_or(|range| map.to_guest.add(range));
            if !fits {
                return Err(Overlap(*rule));
            }
        }
        Ok(map)
    }

    fn is_identity(&self) -> bool {
        self.to_host.0.is_empty() && self.to_guest.0.is_empty()
    }

    /// The volume's id for one of the guest's; `EPERM` where it is forbidden.
    fn to_host(&self, id: u32) -> Result<u32> {
        self.to_host.map(id).ok_or(Errno::PERM)
    }

    /// The guest's id for one of the volume's, none of which is ever forbidden.
    fn to_guest(&self, id: u32) -> u32 {
        self.to_guest.map(id).unwrap_or(NOBODY)
    }
}

/// Users and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub users: IdMap,
    pub groups: IdMap,
}

impl Ids {
    /// Whether every id stays what it is.
    pub fn is_identity(&self) -> bool {
        self.users.is_identity() && self.groups.is_identity()
    }

    /// Whose request it is, in the volume's ids. Where `owns`, the caller will own what the
    /// request makes: `EPERM` for one that may not.
    pub fn caller(&self, uid: u32, gid: u32, pid: u32, owns: bool) -> Result<Caller> {
        let mapped = |map: &IdMap, id| match map.to_host(id) {
            Err(_) if !owns => Ok(NOBODY),
            mapped => mapped,
        };
        Ok(Caller {
            uid: mapped(&self.users, uid)?,
            gid: mapped(&self.groups, gid)?,
            pid,
            is_root: uid == 0,
        })
    }

    /// Attributes to set, in the volume's ids.
    pub fn set_attr(&self, set: &mut SetAttr) -> Result<()> {
        set.uid = set.uid.map(|id| self.users.to_host(id)).transpose()?;
        set.gid = set.gid.map(|id| self.groups.to_host(id)).transpose()?;
        Ok(())
    }

    /// Attributes as the guest sees them.
    pub fn attr(&self, attr: &mut Attr) {
        attr.uid = self.users.to_guest(attr.uid);
        attr.gid = self.groups.to_guest(attr.gid);
    }

    /// An ACL's value in the volume's ids.
    pub fn acl_to_host(&self, value: &mut [u8]) -> Result<()> {
        acl::map(
            value,
            |id| self.users.to_host(id),
            |id| self.groups.to_host(id),
        )
    }

    /// An ACL's value as the guest sees it.
    pub fn acl_to_guest(&self, value: &mut [u8]) -> Result<()> {
        let (users, groups) = (&self.users, &self.groups);
        acl::map(
            value,
            |id| Ok(users.to_guest(id)),
            |id| Ok(groups.to_guest(id)),
        )
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |map: &IdMap| map.to_host.0.len() + map.to_guest.0.len();
        let (users, groups) = (count(&self.users), count(&self.groups));
        write!(f, "{users} ranges of users, {groups} of groups")
    }
}

#[cfg(test)]
mod tests;
