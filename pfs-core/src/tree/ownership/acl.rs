//! POSIX ACLs (`posix_acl(5)`, `acl(5)`) as values: what the kernel does for its own file systems.

use crate::fs::{Errno, Result};

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// Bytes of the version.
const HEAD_BYTES: usize = 4;
/// Bytes of an entry: tag, permissions, id.
const ENTRY_BYTES: usize = 8;
/// The id of an entry that has none.
const NO_ID: u32 = u32::MAX;
const PERMISSIONS: u32 = 0o777;

/// Whom an entry is about; in the order in which they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObj = 0x01,
    User = 0x02,
    GroupObj = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    fn from_raw(raw: u16) -> Option<Tag> {
        use Tag::{Group, GroupObj, Mask, Other, User, UserObj};
        let all = [UserObj, User, GroupObj, Group, Mask, Other];
        all.into_iter().find(|tag| *tag as u16 == raw)
    }

    fn has_id(self) -> bool {
        matches!(self, Tag::User | Tag::Group)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// `rwx` as 0 to 7.
    perm: u32,
    id: u32,
}

/// A valid ACL: the entries that there must be, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Reads an ACL as `setxattr(2)` takes it, with its errors; none in one without entries.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>> {
        let (head, body) = bytes
            .split_first_chunk::<HEAD_BYTES>()
            .ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*head) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        if body.len() % ENTRY_BYTES != 0 {
            return Err(Errno::INVAL);
        }
        let entries: Option<Vec<Entry>> = body.chunks_exact(ENTRY_BYTES).map(entry).collect();
        match entries.ok_or(Errno::INVAL)? {
            entries if entries.is_empty() => Ok(None),
            entries if is_valid(&entries) => Ok(Some(Acl(entries))),
            _ => Err(Errno::INVAL),
        }
    }

    /// The ACL as `getxattr(2)` gives it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.0.len() * ENTRY_BYTES);
        bytes.extend(VERSION.to_le_bytes());
        for entry in &self.0 {
            bytes.extend((entry.tag as u16).to_le_bytes());
            bytes.extend((entry.perm as u16).to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// Whether a mode says the same.
    pub fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// `mode` with the permissions that the ACL stands for: the mask is the group's.
    pub fn mode(&self, mode: u32) -> u32 {
        let bits = self.perm(Tag::UserObj) << 6 | self.group_class() << 3 | self.perm(Tag::Other);
        mode & !PERMISSIONS | bits
    }

    /// Makes the ACL follow a `chmod(2)` to `mode`.
    pub fn chmod(&mut self, mode: u32) {
        self.set_classes(|_, class| class, mode);
    }

    /// Makes of a directory's default ACL the access ACL of what is made in it with `mode`;
    /// answers the mode that it gets. Neither permits what the other does not.
    pub fn inherit(&mut self, mode: u32) -> u32 {
        self.set_classes(|perm, class| perm & class, mode);
        self.mode(mode)
    }

    /// Whether `uid` of group `gid`, and of no other, has all of `want` (`rwx` as 0 to 7) on what
    /// belongs to `owner` (user, group).
    pub fn permits(&self, owner: (u32, u32), uid: u32, gid: u32, want: u32) -> bool {
        let granted = |perm: u32| want & !perm == 0;
        let masked = |perm: u32| granted(perm & self.find(Tag::Mask).map_or(7, |mask| mask.perm));
        if uid == owner.0 {
            return granted(self.perm(Tag::UserObj));
        }
        let named = |tag, id| move |entry: &&Entry| entry.tag == tag && entry.id == id;
        if let Some(user) = self.0.iter().find(named(Tag::User, uid)) {
            return masked(user.perm);
        }
        let own = (gid == owner.1).then(|| self.perm(Tag::GroupObj));
        let groups = self
            .0
            .iter()
            .filter(named(Tag::Group, gid))
            .map(|group| group.perm);
        let mut groups = own.into_iter().chain(groups).peekable();
        match groups.peek() {
            Some(_) => groups.any(masked),
            None => granted(self.perm(Tag::Other)),
        }
    }

    fn set_classes(&mut self, set: impl Fn(u32, u32) -> u32, mode: u32) {
        let group_class = self.group_class_tag();
        for entry in &mut self.0 {
            let class = match entry.tag {
                Tag::UserObj => mode >> 6,
                Tag::Other => mode,
                tag if tag == group_class => mode >> 3,
                _ => continue,
            };
            entry.perm = set(entry.perm, class & 7);
        }
    }

    /// What the group's bits of the mode stand for.
    fn group_class_tag(&self) -> Tag {
        match self.find(Tag::Mask) {
            Some(_) => Tag::Mask,
            None => Tag::GroupObj,
        }
    }

    fn group_class(&self) -> u32 {
        self.perm(self.group_class_tag())
    }

    fn find(&self, tag: Tag) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.tag == tag)
    }

    fn perm(&self, tag: Tag) -> u32 {
        self.find(tag).map_or(0, |entry| entry.perm)
    }
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let (tag, rest) = bytes.split_first_chunk::<2>()?;
    let (perm, id) = rest.split_first_chunk::<2>()?;
    let tag = Tag::from_raw(u16::from_le_bytes(*tag))?;
    let id = u32::from_le_bytes(id.try_into().ok()?);
    let entry = Entry {
        tag,
        perm: u16::from_le_bytes(*perm).into(),
        id: if tag.has_id() { id } else { NO_ID },
    };
    let id_is_good = !tag.has_id() || id != NO_ID;
    (entry.perm <= 7 && id_is_good).then_some(entry)
}

/// As `posix_acl_valid` of the kernel: one owner, one group, one other, named ones between them,
/// and a mask where there are named ones.
fn is_valid(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
    let named = entries.iter().any(|entry| entry.tag.has_id());
    [Tag::UserObj, Tag::GroupObj, Tag::Other]
        .into_iter()
        .all(|tag| count(tag) == 1)
        && count(Tag::Mask) <= 1
        && (!named || count(Tag::Mask) == 1)
        && entries.is_sorted_by_key(|entry| entry.tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn entry(tag: Tag, perm: u32, id: u32) -> Entry {
        Entry { tag, perm, id }
    }

    /// `u::U,u:1000:rw,g::G,g:50:rwx,m::M,o::O`
    fn full(user: u32, group: u32, mask: u32, other: u32) -> Acl {
        Acl(vec![
            entry(Tag::UserObj, user, NO_ID),
            entry(Tag::User, 6, 1000),
            entry(Tag::GroupObj, group, NO_ID),
            entry(Tag::Group, 7, 50),
            entry(Tag::Mask, mask, NO_ID),
            entry(Tag::Other, other, NO_ID),
        ])
    }

    fn minimal(mode: u32) -> Acl {
        Acl(vec![
            entry(Tag::UserObj, mode >> 6 & 7, NO_ID),
            entry(Tag::GroupObj, mode >> 3 & 7, NO_ID),
            entry(Tag::Other, mode & 7, NO_ID),
        ])
    }

    #[test]
    fn bytes_round_trip() {
        for acl in [full(7, 4, 6, 0), minimal(0o640)] {
            assert_eq!(Acl::parse(&acl.to_bytes()), Ok(Some(acl)));
        }
        assert_eq!(Acl::parse(&VERSION.to_le_bytes()), Ok(None));
        assert_eq!(Acl::parse(&3_u32.to_le_bytes()), Err(Errno::OPNOTSUPP));
        let bytes = full(7, 4, 6, 0).to_bytes();
        for len in (0..bytes.len()).filter(|len| *len != HEAD_BYTES) {
            assert_eq!(Acl::parse(&bytes[..len]), Err(Errno::INVAL), "{len}");
        }
    }

    #[test]
    fn what_is_no_acl() {
        let base = full(7, 4, 6, 0);
        let without = |index: usize| {
            let mut acl = base.clone();
            acl.0.remove(index);
            acl
        };
        let with = |at: usize, new: Entry| {
            let mut acl = base.clone();
            acl.0.insert(at, new);
            acl
        };
        let mut swapped = base.clone();
        swapped.0.swap(0, 5);
        let bad = [
            without(0),
            without(2),
            without(4),
            without(5),
            with(0, entry(Tag::UserObj, 0, NO_ID)),
            with(4, entry(Tag::Mask, 0, NO_ID)),
            with(1, entry(Tag::User, 8, 5)),
            with(1, entry(Tag::User, 7, NO_ID)),
            with(0, entry(Tag::User, 7, 5)),
            swapped,
        ];
        for acl in bad {
            assert_eq!(Acl::parse(&acl.to_bytes()), Err(Errno::INVAL), "{acl:?}");
        }
        // Named ones may stand in any order, and a mask alone is allowed.
        assert!(Acl::parse(&with(1, entry(Tag::User, 7, 2000)).to_bytes()).is_ok());
        let mut mask_alone = minimal(0o640);
        mask_alone.0.insert(2, entry(Tag::Mask, 7, NO_ID));
        assert!(Acl::parse(&mask_alone.to_bytes()).is_ok());
        assert!(!mask_alone.is_minimal());
    }

    #[test]
    fn mode_and_mask_follow_each_other() {
        let mut acl = full(7, 4, 6, 1);
        assert_eq!(acl.mode(0o104755), 0o104761);
        acl.chmod(0o104250);
        assert_eq!(acl, full(2, 4, 5, 0));
        let mut acl = minimal(0o777);
        acl.chmod(0o640);
        assert_eq!((acl.mode(0o1000), acl), (0o1640, minimal(0o640)));
    }

    #[test]
    fn what_is_made_gets_no_more_than_both_allow() {
        let mut acl = full(7, 5, 7, 5);
        assert_eq!(acl.inherit(0o100662), 0o100660);
        assert_eq!(acl, full(6, 5, 6, 0));
        let mut acl = minimal(0o750);
        assert_eq!(acl.inherit(0o42777), 0o42750);
        assert!(acl.is_minimal());
    }

    #[test]
    fn who_may_do_what() {
        let acl = full(6, 4, 5, 1);
        let owner = (5, 6);
        for (uid, gid, permitted) in [
            (5, 50, 6),
            // Named, under the mask.
            (1000, 6, 4),
            (77, 6, 4),
            (77, 50, 5),
            (77, 77, 1),
        ] {
            for want in 0..8 {
                let may = acl.permits(owner, uid, gid, want);
                assert_eq!(may, want & !permitted == 0, "{uid} {gid} {want}");
            }
        }
    }
}
