//! Directory entries on their way out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Attr, Entry, NodeId};

/// One entry of a [`DirList`].
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    pub ino: u64,
    /// Where to go on after this entry.
    pub cookie: u64,
    /// File type as in `d_type` of `getdents64(2)`.
    pub kind: u8,
    pub name: &'a [u8],
    /// The node and its attributes, for `readdirplus`; `None` for `.` and `..`.
    pub entry: Option<Entry>,
}

struct Head {
    ino: u64,
    cookie: u64,
    kind: u8,
    name_len: u8,
    entry: Option<u32>,
}

/// Entries collected for one reply of bounded size, in few allocations that can be reused.
///
/// The list does not know how its reader encodes an entry, only what one costs: a header of
/// `header_bytes` and the name, rounded up to 8 bytes.
#[derive(Default)]
pub struct DirList {
    heads: Vec<Head>,
    names: Vec<u8>,
    entries: Vec<Entry>,
    header_bytes: usize,
    room_bytes: usize,
}

impl DirList {
    /// An empty list for a reply of at most `room_bytes`.
    pub fn new(room_bytes: usize, header_bytes: usize) -> Self {
        let mut list = DirList::default();
        list.clear(room_bytes, header_bytes);
        list
    }

    /// Empties the list for another reply, keeping its memory.
    pub fn clear(&mut self, room_bytes: usize, header_bytes: usize) {
        self.heads.clear();
        self.names.clear();
        self.entries.clear();
        self.room_bytes = room_bytes;
        self.header_bytes = header_bytes;
    }

    /// Whether an entry with a name of `name_len` bytes still fits. To be asked before an
    /// entry's node is looked up: a lookup taken must be pushed.
    pub fn fits(&self, name_len: usize) -> bool {
        self.cost(name_len) <= self.room_bytes
    }

    /// Adds an entry; answers false, and adds nothing, where there is no room for it.
    pub fn push(&mut self, entry: DirEntry<'_>) -> bool {
        if entry.name.len() > super::NAME_MAX || !self.fits(entry.name.len()) {
            return false;
        }
        self.room_bytes -= self.cost(entry.name.len());
        let plus = entry.entry.map(|found| {
            self.entries.push(found);
            (self.entries.len() - 1) as u32
        });
        self.names.extend_from_slice(entry.name);
        self.heads.push(Head {
            ino: entry.ino,
            cookie: entry.cookie,
            kind: entry.kind,
            name_len: entry.name.len() as u8,
            entry: plus,
        });
        true
    }

    /// The entries in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = DirEntry<'_>> {
        let mut at = 0;
        self.heads.iter().map(move |head| {
            let name = &self.names[at..at + head.name_len as usize];
            at += head.name_len as usize;
            DirEntry {
                ino: head.ino,
                cookie: head.cookie,
                kind: head.kind,
                name,
                entry: head.entry.map(|index| self.entries[index as usize]),
            }
        })
    }

    /// Lets an engine complete the attributes of the nodes in the list.
    pub fn complete(&mut self, complete: impl Fn(NodeId, &mut Attr)) {
        for entry in &mut self.entries {
            complete(entry.node, &mut entry.attr);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    fn cost(&self, name_len: usize) -> usize {
        (self.header_bytes + name_len).next_multiple_of(8)
    }
}

impl std::fmt::Debug for DirList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|entry| OsStr::from_bytes(entry.name).to_owned()),
            )
            .finish()
    }
}

impl Attr {
    /// The `d_type` of `getdents64(2)` for this inode.
    pub fn dirent_kind(&self) -> u8 {
        ((self.mode & libc::S_IFMT) >> 12) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> DirEntry<'_> {
        DirEntry {
            ino: 1,
            cookie: 2,
            kind: 8,
            name,
            entry: None,
        }
    }

    #[test]
    fn takes_what_fits_and_no_more() {
        let mut list = DirList::new(64, 24);
        assert!(list.push(entry(b"12345678")));
        assert!(list.push(entry(b"a")));
        assert!(!list.push(entry(b"")), "64 bytes are used up");
        let names: Vec<_> = list.iter().map(|e| e.name.to_vec()).collect();
        assert_eq!(names, [b"12345678".to_vec(), b"a".to_vec()]);
        list.clear(32, 24);
        assert!(list.is_empty() && list.push(entry(b"b")));
    }
}
