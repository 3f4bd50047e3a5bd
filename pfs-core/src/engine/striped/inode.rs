//! The inode of a striped file in use by this process: what all its open files share.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::fs::{fallocate, fsetxattr, FallocateFlags, OFlags, XattrFlags};
use rustix::time::{clock_gettime, ClockId};

use super::file_layout::{self, FileLayout};
use super::lock::{try_lock, wait_lock, Byte, Kind};
use super::prepare::Look;
use super::record::Record;
use super::Volume;
use crate::fs::{Attr, Errno, Result, Timestamp};
use crate::io::DataFd;
use crate::tree::attrs::{size_fd, stat_fd};
use crate::tree::Budget;

/// Blocks that only carry the size are freed after so many extensions, and at the last close.
const FREE_EVERY: u32 = 256;
/// A time of change younger than this may come again, in seconds: clocks of file systems are
/// coarse.
const CTIME_SETTLES_S: i64 = 2;
/// How long a daemon may stand still that changes a record, before it is taken to be stopped.
const RECORD_WAIT: Duration = Duration::from_secs(1);

/// What all open files of one inode share.
pub(super) struct StripedInode {
    pub volume: Arc<Volume>,
    /// Its number; as requesters see it, which tells inodes of other mounts apart.
    pub ino: u64,
    /// It is on the metadata target itself, not on something mounted in the tree.
    pub can_be_orphan: bool,
    /// It was made without a name and may be given one.
    linkable: AtomicBool,
    /// Open files that hold the guard, and so keep a purge away.
    holders: AtomicU32,
    orphan: AtomicBool,
    /// Time of change up to which `orphan` holds.
    orphan_as_of: AtomicU64,
    /// 1 more than [`Usage::purges`](crate::volume::Usage::purges) was when it was seen to have a
    /// name, or 0.
    named_as_of: AtomicU64,
    stripe: OnceLock<Stripe>,
    /// Where a file without a record is looked at for a layout of its own.
    pin: OnceLock<Pin>,
    /// Held while the pin is made, the layout changed, or an object noted.
    changing: Mutex<()>,
    /// How often the size was extended, each time with a block in the inode to carry it.
    pub extended: AtomicU32,
    /// What a write last found.
    pub last_look: Mutex<Option<Look>>,
    /// When a read was last made known to the inode's access time, in seconds.
    access_noted_s: AtomicI64,
}

/// What holds the layout of a file without a record as it is.
struct Pin {
    /// A descriptor of the inode, with a shared lock against changes of its layout.
    fd: OwnedFd,
    mdt_size_bytes: AtomicU64,
}

/// The objects of a file that has striped bytes.
pub(super) struct Stripe {
    pub record: Record,
    /// By column; opened when first used.
    objects: Box<[OnceLock<DataFd>]>,
    /// An object was made here, and its name has not been synced since.
    pub made_object: AtomicBool,
}

impl StripedInode {
    pub fn new(volume: Arc<Volume>, ino: u64, can_be_orphan: bool) -> StripedInode {
        StripedInode {
            volume,
            ino,
            can_be_orphan,
            linkable: AtomicBool::new(false),
            holders: AtomicU32::new(0),
            orphan: AtomicBool::new(false),
            orphan_as_of: AtomicU64::new(0),
            named_as_of: AtomicU64::new(0),
            stripe: OnceLock::new(),
            pin: OnceLock::new(),
            changing: Mutex::new(()),
            extended: AtomicU32::new(0),
            last_look: Mutex::new(None),
            access_noted_s: AtomicI64::new(0),
        }
    }

    /// Bytes at the start of the file that are in the inode. `meta` is a descriptor of it.
    pub fn mdt_size_bytes(&self, meta: impl AsFd) -> Result<u64> {
        if let Some(stripe) = self.stripe.get() {
            return Ok(stripe.record.mdt_size_bytes);
        }
        if !self.volume.usage.has_layouts() {
            return Ok(self.volume.default.mdt_size_bytes);
        }
        let pin = self.pin(meta)?;
        Ok(pin.mdt_size_bytes.load(Ordering::Relaxed))
    }

    /// The pin, made now if there is none.
    fn pin(&self, meta: impl AsFd) -> Result<&Pin> {
        if let Some(pin) = self.pin.get() {
            return Ok(pin);
        }
        let _changing = crate::sync::lock(&self.changing);
        self.pin_locked(meta)
    }

    fn pin_locked(&self, meta: impl AsFd) -> Result<&Pin> {
        if let Some(pin) = self.pin.get() {
            return Ok(pin);
        }
        let fd = open_again(&self.volume, meta)?;
        wait_lock(&fd, Byte::Layout, Kind::Shared)?;
        let layout = self.volume.own_layout(&fd)?.unwrap_or(self.volume.default);
        Ok(self.pin.get_or_init(|| Pin {
            fd,
            mdt_size_bytes: AtomicU64::new(layout.mdt_size_bytes),
        }))
    }

    /// Changes the layout of a file that has no data and no record: `EBUSY` for any other, and
    /// while another process has it open. `meta` is a descriptor of the inode.
    pub fn set_layout(
        &self,
        meta: impl AsFd,
        change: impl FnOnce(FileLayout) -> Result<FileLayout>,
    ) -> Result<()> {
        let _changing = crate::sync::lock(&self.changing);
        let pin = self.pin_locked(meta)?;
        match try_lock(&pin.fd, Byte::Layout, Kind::Exclusive) {
            Err(Errno::AGAIN) => return Err(Errno::BUSY),
            locked => locked?,
        }
        let done = self.set_layout_alone(pin, change);
        // Others may have it open again; a failure would only keep them waiting.
        let shared = try_lock(&pin.fd, Byte::Layout, Kind::Shared);
        done.and(shared)
    }

    fn set_layout_alone(
        &self,
        pin: &Pin,
        change: impl FnOnce(FileLayout) -> Result<FileLayout>,
    ) -> Result<()> {
        let now = self.volume.own_layout(&pin.fd)?;
        let new = change(now.unwrap_or(self.volume.default))?;
        if Record::load(&pin.fd)?.is_some() || size_fd(&pin.fd)? > 0 {
            return Err(Errno::BUSY);
        }
        self.volume.usage.add_layout(new.mdt_size_bytes);
        let name = file_layout::xattr_name().as_c_str();
        fsetxattr(
            &pin.fd,
            name,
            new.to_string().as_bytes(),
            XattrFlags::empty(),
        )?;
        pin.mdt_size_bytes
            .store(new.mdt_size_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The objects, if the file has striped bytes. `meta` is a descriptor of the inode.
    pub fn stripe(&self, meta: impl AsFd) -> Result<Option<&Stripe>> {
        if let Some(stripe) = self.stripe.get() {
            return Ok(Some(stripe));
        }
        Ok(Record::load(meta)?.map(|record| self.put(record)))
    }

    /// The objects; the layout is fixed now where the file had no striped byte.
    pub fn stripe_for_write(&self, meta: impl AsFd) -> Result<&Stripe> {
        if let Some(stripe) = self.stripe(&meta)? {
            return Ok(stripe);
        }
        let volume = &self.volume;
        let layout = match volume.usage.has_layouts() {
            true => {
                // From here on no other process changes it.
                self.pin(&meta)?;
                volume.own_layout(&meta)?.unwrap_or(volume.default)
            }
            false => volume.default,
        };
        let record = Record::new(&layout, volume.targets.count()).fix(meta)?;
        Ok(self.put(record))
    }

    /// The objects, if this process has used them.
    pub fn loaded(&self) -> Option<&Stripe> {
        self.stripe.get()
    }

    fn put(&self, record: Record) -> &Stripe {
        self.stripe.get_or_init(|| Stripe {
            objects: (0..record.layout.stripe_count())
                .map(|_| OnceLock::new())
                .collect(),
            record,
            made_object: AtomicBool::new(false),
        })
    }

    /// An object to read; none where it was never written.
    pub fn object<'a>(&self, stripe: &'a Stripe, object: u64) -> Result<Option<&'a DataFd>> {
        let (column, slot) = stripe.slot(object);
        if let Some(fd) = slot.get() {
            return Ok(Some(fd));
        }
        let opened = self.volume.targets.open(&stripe.record, column, false)?;
        Ok(opened.map(|fd| slot.get_or_init(|| fd)))
    }

    /// An object to write. `meta` is a descriptor of the inode.
    pub fn object_for_write<'a>(
        &self,
        meta: impl AsFd,
        stripe: &'a Stripe,
        object: u64,
    ) -> Result<&'a DataFd> {
        if let Some(fd) = self.object(stripe, object)? {
            return Ok(fd);
        }
        let (column, slot) = stripe.slot(object);
        let made = self.volume.targets.open(&stripe.record, column, true)?;
        stripe.made_object.store(true, Ordering::Release);
        let _changing = crate::sync::lock(&self.changing);
        alone(&meta, || stripe.record.set_made(&meta, column))?;
        Ok(slot.get_or_init(|| made.unwrap_or_else(|| unreachable!("it was to be made"))))
    }

    /// How an [`extend`](Self::extend) is to hold [`Byte::Resize`]: where sizes are counted, alone,
    /// so that what is charged is what the file grows by.
    pub fn extends_with(&self) -> Kind {
        match self.volume.usage.counts() {
            true => Kind::Exclusive,
            false => Kind::Shared,
        }
    }

    /// Extends the size to at least `end`: never shrinks it, whatever others do meanwhile. Where
    /// sizes are counted, charges for that: `ENOSPC` at the limit.
    pub fn extend(&self, meta: impl AsFd, end: u64) -> Result<()> {
        let extend = || fallocate(&meta, FallocateFlags::empty(), end - 1, 1);
        match self.volume.usage.counts() {
            true => {
                let growth = end.saturating_sub(size_fd(&meta)?);
                if growth == 0 {
                    return Ok(());
                }
                self.volume.usage.charged(growth, extend)?;
            }
            false => extend()?,
        }
        // A long file written in one go must not fill the metadata target.
        if self.extended.fetch_add(1, Ordering::Relaxed) % FREE_EVERY == FREE_EVERY - 1 {
            let mdt_size = self.mdt_size_bytes(&meta)?;
            free_size_blocks(meta, mdt_size);
        }
        Ok(())
    }

    /// Whether a read is to be made known to the inode's access time: once a second, and after
    /// [`was_changed`](Self::was_changed).
    pub fn notes_access(&self) -> bool {
        let now = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
        self.access_noted_s.load(Ordering::Relaxed) != now
            && self.access_noted_s.swap(now, Ordering::Relaxed) != now
    }

    /// The file was opened or changed, so that the next read counts.
    pub fn was_changed(&self) {
        self.access_noted_s.store(0, Ordering::Relaxed);
    }

    /// How often files were truncated or given attributes, this one among them.
    pub fn changes(&self) -> u64 {
        self.volume.usage.changes(self.ino)
    }

    /// Whether the file has no name that a requester could know. `attr` are its attributes now.
    pub fn is_nameless(&self, attr: &Attr) -> bool {
        attr.nlink == 0 || attr.nlink == 1 && self.can_be_orphan && self.is_orphan(attr.ctime)
    }

    /// It was seen to have a name when its [purges](crate::volume::Usage::purges) were so many.
    pub fn was_named_at(&self, purges: Option<u64>) {
        let as_of = purges.map_or(0, |purges| purges.wrapping_add(1));
        self.named_as_of.fetch_max(as_of, Ordering::AcqRel);
    }

    /// As of when it had a name.
    pub fn named_at(&self) -> Option<u64> {
        self.named_as_of.load(Ordering::Acquire).checked_sub(1)
    }

    /// Whether it is known to have a name, or to have lost it so lately that its remover has yet to
    /// look for users.
    pub fn is_named(&self) -> bool {
        self.named_at()
            .is_some_and(|purges| purges == self.volume.usage.purges(self.ino))
    }

    /// Whether it is among the orphans. Its coming and going changes its time of change.
    fn is_orphan(&self, ctime: Timestamp) -> bool {
        if self.is_named() {
            return false;
        }
        let purges = self.volume.usage.purges(self.ino);
        let stamp = (ctime.sec as u64) << 30 | u64::from(ctime.nsec);
        if self.orphan_as_of.load(Ordering::Acquire) == stamp {
            return self.orphan.load(Ordering::Relaxed);
        }
        let held = self.volume.orphans.holds(self.ino);
        if held == Ok(false) {
            self.was_named_at(Some(purges));
        }
        let orphan = held.unwrap_or(false);
        if ctime.sec + CTIME_SETTLES_S < clock_gettime(ClockId::RealtimeCoarse).tv_sec {
            self.orphan.store(orphan, Ordering::Relaxed);
            self.orphan_as_of.store(stamp, Ordering::Release);
        }
        orphan
    }

    /// An open file over `meta` holds the guard: `ESTALE` where the inode was purged before it did.
    /// Only where inodes are counted do all files become orphans first, so that one without a name
    /// has been purged, and given back.
    pub fn begin_use(&self, meta: impl AsFd, is_tmpfile: bool) -> Result<()> {
        let is_first = self.holders.load(Ordering::Acquire) == 0;
        let may_be_purged = is_first && !is_tmpfile && self.volume.usage.counts();
        if may_be_purged && stat_fd(meta)?.attr.nlink == 0 {
            return Err(Errno::STALE);
        }
        self.holders.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// An open file is about to let go of the guard.
    pub fn end_use(&self) {
        self.holders.fetch_sub(1, Ordering::AcqRel);
    }

    /// It was made without a name, and may be given one.
    pub fn set_linkable(&self, linkable: bool) {
        self.linkable.store(linkable, Ordering::Relaxed);
    }

    /// Whether it may be given a name once it has none.
    pub fn is_linkable(&self) -> bool {
        self.linkable.load(Ordering::Relaxed)
    }
}

impl Stripe {
    fn slot(&self, object: u64) -> (u32, &OnceLock<DataFd>) {
        let column = self.record.layout.column(object);
        (column, &self.objects[column as usize])
    }

    /// All columns.
    pub fn columns(&self) -> impl Iterator<Item = u64> {
        0..u64::from(self.record.layout.stripe_count())
    }
}

/// Frees the inode's blocks beyond `mdt_size_bytes`: the data there is in the objects. A failure
/// leaves them, which harms nothing.
pub(super) fn free_size_blocks(meta: impl AsFd, mdt_size_bytes: u64) {
    let end = size_fd(&meta).unwrap_or(0).next_multiple_of(64 << 10);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if end > mdt_size_bytes {
        let _ = fallocate(meta, mode, mdt_size_bytes, end - mdt_size_bytes);
    }
}

/// Runs `change` of the record of the inode behind `meta` while no other daemon changes it. The lock is
/// held for two system calls; one that stands still with it is not waited for.
fn alone(meta: impl AsFd, change: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut limit = None;
    loop {
        match try_lock(&meta, Byte::Record, Kind::Exclusive) {
            Err(Errno::AGAIN) => {}
            locked => break locked?,
        }
        if Instant::now() > *limit.get_or_insert_with(|| Instant::now() + RECORD_WAIT) {
            break;
        }
        // It may need this processor.
        std::thread::sleep(Duration::from_micros(20));
    }
    let changed = change();
    changed.and(try_lock(&meta, Byte::Record, Kind::None))
}

/// An open file description of its own for the inode behind `meta`: locks belong to that. Where
/// the inode cannot be opened for writing, it can be read, but not deleted by this process.
pub(super) fn open_again(volume: &Volume, meta: impl AsFd) -> Result<OwnedFd> {
    match volume.proc.open_fd(&meta, OFlags::RDWR | OFlags::CLOEXEC) {
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
            volume.proc.open_fd(&meta, OFlags::RDONLY | OFlags::CLOEXEC)
        }
        result => result,
    }
}
