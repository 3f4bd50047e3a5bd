//! The session: nodes, handles, locks and the negotiation's result as fixed-size records.
//!
//! All that a session knows and a restart must find again lives in one [`SessionStore`]: memory
//! of fixed-size, versioned records that name no address. Private memory serves a daemon that
//! nobody restarts; a passed memfd outlives its process, and live migration sends the same
//! records.
//!
//! A record's id is its slot and the slot's generation. A slot is given out again only under a
//! new generation, and never once those are used up, so no id is ever used twice.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::mm::{mmap, mmap_anonymous, munmap, MapFlags, ProtFlags};

/// `PFSSESS1`.
const MAGIC: u64 = u64::from_le_bytes(*b"PFSSESS1");
/// Changes with the meaning of any record.
const VERSION: u64 = 2;
/// Room for the header, in bytes.
const HEADER_BYTES: usize = 4096;
/// Words of a record: tag, count, two of the owner's, and the identity.
const RECORD_WORDS: usize = 10;
/// Bytes of an identity that a record can hold.
pub const IDENTITY_MAX: usize = (RECORD_WORDS - 4) * 8;
/// Slot of the root node; slot 0 is none.
const ROOT_SLOT: u32 = 1;

/// A session's memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot map session memory of {bytes} bytes: {source}")]
    Map {
        bytes: usize,
        #[source]
        source: Errno,
    },
    #[error("cannot size the session memfd to {bytes} bytes: {source}")]
    Resize {
        bytes: usize,
        #[source]
        source: Errno,
    },
    #[error("the session memory was written by another version (layout {found:#x}, expected {VERSION:#x}); start the guest anew")]
    Version { found: u64 },
}

/// What FUSE_INIT negotiated.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitRecord {
    pub major: u32,
    pub minor: u32,
    pub flags: u64,
    pub max_write: u32,
    pub max_readahead: u32,
    pub max_pages: u32,
    pub reserved: u32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Node = 1,
    File = 2,
    Dir = 3,
    Lock = 4,
}

/// A record without its id and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    /// For the record's owner: an inode number; a handle's or a lock's node.
    pub a: u64,
    /// For the record's owner: a device number; a handle's open flags; a lock's owner.
    pub b: u64,
    pub identity: Identity,
}

/// How an engine finds an inode again, such as a kernel file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    len: u8,
    bytes: [u8; IDENTITY_MAX],
}

impl Identity {
    /// No identity: the inode cannot be found again without a descriptor of it.
    pub const NONE: Identity = Identity {
        len: 0,
        bytes: [0; IDENTITY_MAX],
    };

    /// An identity of up to [`IDENTITY_MAX`] bytes.
    pub fn new(bytes: &[u8]) -> Option<Identity> {
        let mut identity = Identity::NONE;
        identity
            .bytes
            .get_mut(..bytes.len())?
            .copy_from_slice(bytes);
        identity.len = bytes.len() as u8;
        Some(identity)
    }

    /// The bytes; empty where there is no identity.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.len == 0
    }
}

/// The header's words.
mod header {
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    /// Slots ever given out; the next is fresh.
    pub const FRESH: usize = 2;
    /// 1 when the words from INIT on are a negotiation's result.
    pub const INIT_VALID: usize = 3;
    pub const INIT: usize = 4;
}

/// A record's first word: generation, kind and length of the identity.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag(u64);

impl Tag {
    fn new(generation: u32, kind: u8, identity_len: u8) -> Tag {
        Tag(u64::from(generation) << 32 | u64::from(identity_len) << 8 | u64::from(kind))
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn kind(self) -> Option<Kind> {
        match self.0 as u8 {
            1 => Some(Kind::Node),
            2 => Some(Kind::File),
            3 => Some(Kind::Dir),
            4 => Some(Kind::Lock),
            _ => None,
        }
    }

    fn identity_len(self) -> u8 {
        ((self.0 >> 8) as u8).min(IDENTITY_MAX as u8)
    }
}

/// Free slots, oldest first, so that generations wear evenly. Linked through the count word.
#[derive(Default)]
struct Free {
    first: u32,
    last: u32,
}

/// See the [module](self).
pub struct SessionStore {
    words: *const AtomicU64,
    map_bytes: usize,
    slots_max: u32,
    shared: bool,
    free: Mutex<Free>,
}

// SAFETY: the mapping is only accessed as atomics and lives as long as the store.
unsafe impl Send for SessionStore {}
// SAFETY: as above.
unsafe impl Sync for SessionStore {}

impl SessionStore {
    /// A store of up to `slots_max` records in memory of this process alone. Memory is taken as
    /// records are.
    pub fn private(slots_max: u32) -> Result<SessionStore, Error> {
        let bytes = map_bytes(slots_max);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let map = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
            )
        }
        .map_err(|source| Error::Map { bytes, source })?;
        let store = SessionStore::over(map.cast(), bytes, slots_max, false);
        store.format();
        Ok(store)
    }

    /// A store in `memfd`: the one that is there, or a new one where the file is empty.
    pub fn shared(memfd: OwnedFd, slots_max: u32) -> Result<SessionStore, Error> {
        let bytes = map_bytes(slots_max);
        let resize = |source| Error::Resize { bytes, source };
        let is_new = rustix::fs::fstat(&memfd).map_err(resize)?.st_size == 0;
        rustix::fs::ftruncate(&memfd, bytes as u64).map_err(resize)?;
        // SAFETY: a new mapping touches nothing that exists; the file's size covers it.
        let map = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                memfd.as_fd(),
                0,
            )
        }
        .map_err(|source| Error::Map { bytes, source })?;
        let store = SessionStore::over(map.cast(), bytes, slots_max, true);
        if is_new {
            store.format();
        } else {
            let version = store.word(header::VERSION).load(Ordering::Relaxed);
            if store.word(header::MAGIC).load(Ordering::Relaxed) != MAGIC
                || version != layout_version()
            {
                return Err(Error::Version { found: version });
            }
            store.rebuild_free();
        }
        Ok(store)
    }

    fn over(words: *const AtomicU64, map_bytes: usize, slots_max: u32, shared: bool) -> Self {
        SessionStore {
            words,
            map_bytes,
            slots_max,
            shared,
            free: Mutex::default(),
        }
    }

    /// Whether the records outlive this process.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// What the session negotiated, if it has begun.
    pub fn init(&self) -> Option<InitRecord> {
        if self.word(header::INIT_VALID).load(Ordering::Acquire) == 0 {
            return None;
        }
        let word = |index: usize| self.word(header::INIT + index).load(Ordering::Relaxed);
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        let (major, minor) = halves(word(0));
        let (max_write, max_readahead) = halves(word(2));
        let (max_pages, reserved) = halves(word(3));
        Some(InitRecord {
            major,
            minor,
            flags: word(1),
            max_write,
            max_readahead,
            max_pages,
            reserved,
        })
    }

    /// Records what the session negotiated, or that it has ended.
    pub fn set_init(&self, init: Option<InitRecord>) {
        self.word(header::INIT_VALID).store(0, Ordering::Release);
        let Some(init) = init else { return };
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let words = [
            join(init.major, init.minor),
            init.flags,
            join(init.max_write, init.max_readahead),
            join(init.max_pages, init.reserved),
        ];
        for (index, word) in words.into_iter().enumerate() {
            self.word(header::INIT + index)
                .store(word, Ordering::Relaxed);
        }
        self.word(header::INIT_VALID).store(1, Ordering::Release);
    }

    /// Adds a record with a count of 1 and answers its id; `ENFILE` when the store is full.
    pub fn insert(&self, record: &Record) -> Result<u64, Errno> {
        let slot = self.take_slot().ok_or(Errno::NFILE)?;
        let generation = self.tag(slot).generation();
        let words = self.slot(slot);
        words[1].store(1, Ordering::Relaxed);
        words[2].store(record.a, Ordering::Relaxed);
        words[3].store(record.b, Ordering::Relaxed);
        self.write_identity(slot, &record.identity);
        let tag = Tag::new(generation, record.kind as u8, record.identity.len);
        words[0].store(tag.0, Ordering::Release);
        Ok(u64::from(generation) << 32 | u64::from(slot))
    }

    /// The record `id`, if it is there.
    pub fn get(&self, id: u64) -> Option<Record> {
        let (slot, tag) = self.find(id)?;
        let words = self.slot(slot);
        let mut identity = Identity {
            len: tag.identity_len(),
            bytes: [0; IDENTITY_MAX],
        };
        for (chunk, word) in identity.bytes.chunks_exact_mut(8).zip(&words[4..]) {
            chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let record = Record {
            kind: tag.kind()?,
            a: words[2].load(Ordering::Relaxed),
            b: words[3].load(Ordering::Relaxed),
            identity,
        };
        // The slot may have been given back while it was read.
        std::sync::atomic::fence(Ordering::Acquire);
        (self.tag(slot) == tag).then_some(record)
    }

    /// The id and the owner's two words of the record that is in `slot` now: what a search looks
    /// at, without the rest.
    pub fn words_of_slot(&self, slot: u32) -> Option<(u64, u64, u64)> {
        if slot < ROOT_SLOT || slot >= self.fresh() {
            return None;
        }
        let tag = self.tag(slot);
        tag.kind()?;
        let words = self.slot(slot);
        let (a, b) = (
            words[2].load(Ordering::Relaxed),
            words[3].load(Ordering::Relaxed),
        );
        // As in `get`.
        std::sync::atomic::fence(Ordering::Acquire);
        let id = u64::from(tag.generation()) << 32 | u64::from(slot);
        (self.tag(slot) == tag).then_some((id, a, b))
    }

    /// Records how `id` can be found again.
    pub fn set_identity(&self, id: u64, identity: &Identity) {
        if let Some((slot, tag)) = self.find(id) {
            self.write_identity(slot, identity);
            let tag = Tag::new(tag.generation(), tag.0 as u8, identity.len);
            self.slot(slot)[0].store(tag.0, Ordering::Release);
        }
    }

    /// Adds to the count of `id`. The caller makes sure that it is there.
    pub fn add_count(&self, id: u64, add: u64) {
        self.slot(id as u32)[1].fetch_add(add, Ordering::Relaxed);
    }

    /// Takes from the count of `id`, down to 0; answers what is left.
    pub fn sub_count(&self, id: u64, sub: u64) -> u64 {
        let count = &self.slot(id as u32)[1];
        let before = count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(sub))
            })
            .unwrap_or(0);
        before.saturating_sub(sub)
    }

    /// The count of `id`.
    pub fn count(&self, id: u64) -> u64 {
        self.find(id)
            .map_or(0, |(slot, _)| self.slot(slot)[1].load(Ordering::Relaxed))
    }

    /// Removes the record `id`; its id is never used again. The root stays.
    pub fn remove(&self, id: u64) {
        if let Some((slot, tag)) = self.find(id) {
            if slot != ROOT_SLOT {
                self.give_slot(slot, tag.generation());
            }
        }
    }

    /// The ids and kinds of all records.
    pub fn ids(&self) -> impl Iterator<Item = (u64, Kind)> + '_ {
        self.tags()
    }

    fn tags(&self) -> impl Iterator<Item = (u64, Kind)> + '_ {
        (ROOT_SLOT..self.fresh()).filter_map(|slot| {
            let tag = self.tag(slot);
            let id = u64::from(tag.generation()) << 32 | u64::from(slot);
            tag.kind().map(|kind| (id, kind))
        })
    }

    fn format(&self) {
        self.word(header::FRESH)
            .store(u64::from(ROOT_SLOT), Ordering::Relaxed);
        self.word(header::VERSION)
            .store(layout_version(), Ordering::Relaxed);
        self.word(header::MAGIC).store(MAGIC, Ordering::Release);
    }

    fn rebuild_free(&self) {
        for slot in ROOT_SLOT..self.fresh() {
            let tag = self.tag(slot);
            if tag.kind().is_none() && slot != ROOT_SLOT && tag.generation() != u32::MAX {
                self.push_free(slot);
            }
        }
    }

    fn fresh(&self) -> u32 {
        (self.word(header::FRESH).load(Ordering::Acquire) as u32).min(self.slots_max)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < HEADER_BYTES / 8);
        // SAFETY: the header is inside the mapping, which lives as long as self.
        unsafe { &*self.words.add(index) }
    }

    fn slot(&self, slot: u32) -> &[AtomicU64; RECORD_WORDS] {
        assert!(slot < self.slots_max, "a slot is checked before it is used");
        let at = HEADER_BYTES / 8 + slot as usize * RECORD_WORDS;
        // SAFETY: `map_bytes` made room for `slots_max` records, and slot is below that.
        unsafe { &*self.words.add(at).cast() }
    }

    fn tag(&self, slot: u32) -> Tag {
        Tag(self.slot(slot)[0].load(Ordering::Acquire))
    }

    fn find(&self, id: u64) -> Option<(u32, Tag)> {
        let slot = id as u32;
        if slot < ROOT_SLOT || slot >= self.fresh() {
            return None;
        }
        let tag = self.tag(slot);
        (tag.generation() == (id >> 32) as u32 && tag.kind().is_some()).then_some((slot, tag))
    }

    fn write_identity(&self, slot: u32, identity: &Identity) {
        for (chunk, word) in identity.bytes.chunks_exact(8).zip(&self.slot(slot)[4..]) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }

    fn take_slot(&self) -> Option<u32> {
        let mut free = self.lock_free();
        if free.first != 0 {
            let slot = free.first;
            free.first = self.slot(slot)[1].load(Ordering::Relaxed) as u32;
            if free.first == 0 {
                free.last = 0;
            }
            return Some(slot);
        }
        let fresh = self.fresh();
        if fresh >= self.slots_max {
            return None;
        }
        self.word(header::FRESH)
            .store(u64::from(fresh) + 1, Ordering::Release);
        Some(fresh)
    }

    fn give_slot(&self, slot: u32, generation: u32) {
        let next = generation.saturating_add(1);
        self.slot(slot)[0].store(Tag::new(next, 0, 0).0, Ordering::Release);
        // The last generation is never given out: such a slot retires.
        if next != u32::MAX {
            self.push_free(slot);
        }
    }

    fn push_free(&self, slot: u32) {
        let mut free = self.lock_free();
        self.slot(slot)[1].store(0, Ordering::Relaxed);
        match free.last {
            0 => free.first = slot,
            last => self.slot(last)[1].store(u64::from(slot), Ordering::Relaxed),
        }
        free.last = slot;
    }

    fn lock_free(&self) -> std::sync::MutexGuard<'_, Free> {
        crate::sync::lock(&self.free)
    }
}

impl Drop for SessionStore {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and nothing refers to it any more.
        let _ = unsafe { munmap(self.words.cast_mut().cast(), self.map_bytes) };
    }
}

fn map_bytes(slots_max: u32) -> usize {
    HEADER_BYTES + slots_max as usize * RECORD_WORDS * 8
}

fn layout_version() -> u64 {
    VERSION << 32 | RECORD_WORDS as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(a: u64) -> Record {
        Record {
            kind: Kind::Node,
            a,
            b: 0,
            identity: Identity::NONE,
        }
    }

    #[test]
    fn ids_are_never_used_again() {
        let store = SessionStore::private(4).unwrap();
        assert_eq!(
            store.insert(&node(0)),
            Ok(1),
            "the first record is the root"
        );
        let mut seen = std::collections::HashSet::new();
        for round in 0..100 {
            let (x, y) = (
                store.insert(&node(round)).unwrap(),
                store.insert(&node(7)).unwrap(),
            );
            assert!(seen.insert(x) && seen.insert(y));
            assert_eq!(store.insert(&node(8)), Err(Errno::NFILE));
            assert_eq!(store.get(x).unwrap().a, round);
            store.remove(x);
            assert_eq!(store.get(x), None);
            store.remove(x);
            store.remove(y);
        }
        store.remove(1);
        assert!(store.get(1).is_some(), "the root stays");
    }

    #[test]
    fn a_worn_out_slot_retires() {
        let store = SessionStore::private(3).unwrap();
        store.insert(&node(0)).unwrap();
        let id = store.insert(&node(1)).unwrap();
        store.slot(id as u32)[0].store(Tag::new(u32::MAX - 1, 1, 0).0, Ordering::Relaxed);
        store.remove(u64::from(u32::MAX - 1) << 32 | id);
        assert_eq!(store.insert(&node(2)), Err(Errno::NFILE));
    }

    #[test]
    fn a_shared_store_outlives_its_mapping() {
        let memfd = rustix::fs::memfd_create("session", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let init = InitRecord {
            major: 7,
            minor: 41,
            flags: 1 << 33,
            max_pages: 256,
            ..Default::default()
        };
        let identity = Identity::new(b"handle").unwrap();
        let store = SessionStore::shared(memfd.try_clone().unwrap(), 16).unwrap();
        store.insert(&node(0)).unwrap();
        let gone = store.insert(&node(5)).unwrap();
        let kept = store.insert(&node(6)).unwrap();
        store.set_identity(kept, &identity);
        store.add_count(kept, 4);
        store.remove(gone);
        store.set_init(Some(init));
        drop(store);

        let store = SessionStore::shared(memfd.try_clone().unwrap(), 16).unwrap();
        assert_eq!(store.init(), Some(init));
        assert_eq!(store.get(kept).unwrap().identity, identity);
        assert_eq!(store.words_of_slot(kept as u32), Some((kept, 6, 0)));
        assert_eq!(store.words_of_slot(gone as u32), None);
        assert_eq!((store.count(kept), store.get(gone)), (5, None));
        assert_eq!(store.sub_count(kept, 2), 3);
        assert_eq!(store.sub_count(kept, 9), 0);
        let fresh = store.insert(&node(9)).unwrap();
        assert!(fresh != gone && fresh as u32 == gone as u32);
        assert_eq!(store.ids().count(), 3);
        store.set_init(None);
        assert_eq!(store.init(), None);

        rustix::fs::ftruncate(&memfd, 0).unwrap();
        rustix::io::pwrite(&memfd, b"something else", 0).unwrap();
        assert!(matches!(
            SessionStore::shared(memfd, 16),
            Err(Error::Version { .. })
        ));
    }
}
