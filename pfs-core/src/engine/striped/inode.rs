//! A striped file in use by this process.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rustix::fs::{
    fallocate, fremovexattr, fsetxattr, ftruncate, FallocateFlags, OFlags, XattrFlags,
};

use super::file_layout::{self, FileLayout};
use super::record::{self, Record};
use super::{has_no_name, Volume};
use crate::fs::{Errno, Result};
use crate::io::Fd;
use crate::tree::attrs::size_fd;
use crate::tree::proc::last_errno;

/// The byte of an inode that guards lie on: beyond every file, so it never meets a guest's lock.
const GUARD_BYTE: i64 = i64::MAX - 1;
/// The byte that is locked against changes of the layout.
const LAYOUT_BYTE: i64 = i64::MAX - 8;
const _: () = assert!(LAYOUT_BYTE as u64 > super::LOCK_END && GUARD_BYTE > LAYOUT_BYTE);

/// Blocks that only carry the size are freed after so many extensions, and at the last close.
const FREE_EVERY: u32 = 256;

/// What all open files of one inode share.
pub(super) struct StripedInode {
    pub volume: Arc<Volume>,
    stripe: OnceLock<Stripe>,
    /// Where a file without a record is looked at for a layout of its own.
    pin: OnceLock<Pin>,
    /// Held while the pin is made, or the layout changed.
    changing: Mutex<()>,
    /// How often the size was extended, each time with a block in the inode to carry it.
    extended: AtomicU32,
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
    objects: Box<[OnceLock<Fd>]>,
    /// A descriptor of the inode that holds the shared lock.
    guard: OwnedFd,
    /// An object was made here, and its name has not been synced since.
    pub made_object: AtomicBool,
}

impl StripedInode {
    pub fn new(volume: Arc<Volume>) -> StripedInode {
        StripedInode {
            volume,
            stripe: OnceLock::new(),
            pin: OnceLock::new(),
            changing: Mutex::new(()),
            extended: AtomicU32::new(0),
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
        lock(&fd, LAYOUT_BYTE, libc::F_RDLCK, true)?;
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
        match lock(&pin.fd, LAYOUT_BYTE, libc::F_WRLCK, false) {
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(Errno::BUSY),
            locked => locked?,
        }
        let done = self.set_layout_alone(pin, change);
        // Others may have it open again; a failure would only keep them waiting.
        let shared = lock(&pin.fd, LAYOUT_BYTE, libc::F_RDLCK, false);
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
        // The guard first: under it, objects that the record names stay.
        let guard = take_guard(&self.volume, meta)?;
        Ok(Record::load(&guard)?.map(|record| self.put(record, guard)))
    }

    /// The objects; the layout is fixed now where the file had no striped byte.
    pub fn stripe_for_write(&self, meta: impl AsFd) -> Result<&Stripe> {
        if let Some(stripe) = self.stripe.get() {
            return Ok(stripe);
        }
        let guard = take_guard(&self.volume, meta)?;
        let volume = &self.volume;
        let record = match Record::load(&guard)? {
            Some(record) => record,
            None => {
                let layout = match volume.usage.has_layouts() {
                    true => {
                        // From here on no other process changes it.
                        self.pin(&guard)?;
                        volume.own_layout(&guard)?.unwrap_or(volume.default)
                    }
                    false => volume.default,
                };
                Record::new(&layout, volume.targets.count()).fix(&guard)?
            }
        };
        Ok(self.put(record, guard))
    }

    /// The objects, if this process has used them.
    pub fn loaded(&self) -> Option<&Stripe> {
        self.stripe.get()
    }

    fn put(&self, record: Record, guard: OwnedFd) -> &Stripe {
        self.stripe.get_or_init(|| Stripe {
            objects: (0..record.layout.stripe_count())
                .map(|_| OnceLock::new())
                .collect(),
            record,
            guard,
            made_object: AtomicBool::new(false),
        })
    }

    /// An object to read; none where it was never written.
    pub fn object(&self, stripe: &Stripe, object: u64) -> Result<Option<Fd>> {
        let (column, slot) = stripe.slot(object);
        if let Some(fd) = slot.get() {
            return Ok(Some(fd.clone()));
        }
        let opened = self.volume.targets.open(&stripe.record, column, false)?;
        Ok(opened.map(|fd| slot.get_or_init(|| fd).clone()))
    }

    /// An object to write.
    pub fn object_for_write(&self, stripe: &Stripe, object: u64) -> Result<Fd> {
        if let Some(fd) = self.object(stripe, object)? {
            return Ok(fd);
        }
        let (column, slot) = stripe.slot(object);
        let made = self.volume.targets.open(&stripe.record, column, true)?;
        stripe.made_object.store(true, Ordering::Release);
        stripe.record.set_made(&stripe.guard, column)?;
        Ok(slot
            .get_or_init(|| made.unwrap_or_else(|| unreachable!("it was to be made")))
            .clone())
    }

    /// Extends the size to at least `end`: never shrinks it, whatever others do meanwhile.
    pub fn extend(&self, meta: impl AsFd, end: u64) -> Result<()> {
        fallocate(&meta, FallocateFlags::empty(), end - 1, 1)?;
        // A long file written in one go must not fill the metadata target.
        if self.extended.fetch_add(1, Ordering::Relaxed) % FREE_EVERY == FREE_EVERY - 1 {
            let mdt_size = self.mdt_size_bytes(&meta)?;
            free_size_blocks(meta, mdt_size);
        }
        Ok(())
    }

    /// Whether letting go of an open file removes nothing: it is not the last, or has a name.
    pub fn closes_at_once(&self) -> bool {
        self.extended.load(Ordering::Relaxed) == 0
            && self
                .loaded()
                .is_none_or(|stripe| !has_no_name(&stripe.guard))
    }
}

impl Stripe {
    fn slot(&self, object: u64) -> (u32, &OnceLock<Fd>) {
        let column = self.record.layout.column(object);
        (column, &self.objects[column as usize])
    }

    /// All columns.
    pub fn columns(&self) -> impl Iterator<Item = u64> {
        0..u64::from(self.record.layout.stripe_count())
    }
}

impl Drop for StripedInode {
    fn drop(&mut self) {
        let Some(stripe) = self.stripe.take() else {
            return;
        };
        if *self.extended.get_mut() > 0 && !has_no_name(&stripe.guard) {
            free_size_blocks(&stripe.guard, stripe.record.mdt_size_bytes);
        }
        // Let go of the shared lock before trying for the exclusive one, or two who let go at
        // once would each see the other.
        if has_no_name(&stripe.guard)
            && lock(&stripe.guard, GUARD_BYTE, libc::F_UNLCK, false).is_ok()
        {
            purge_if_last(&self.volume, &stripe.guard);
        }
    }
}

/// Frees the inode's blocks beyond `mdt_size_bytes`: the data there is in the objects. A failure
/// leaves them, which harms nothing.
fn free_size_blocks(meta: impl AsFd, mdt_size_bytes: u64) {
    let end = size_fd(&meta).unwrap_or(0).next_multiple_of(64 << 10);
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if end > mdt_size_bytes {
        let _ = fallocate(meta, mode, mdt_size_bytes, end - mdt_size_bytes);
    }
}

/// A descriptor of the inode behind `meta` with the shared lock on it.
fn take_guard(volume: &Volume, meta: impl AsFd) -> Result<OwnedFd> {
    let guard = open_again(volume, meta)?;
    lock(&guard, GUARD_BYTE, libc::F_RDLCK, true)?;
    Ok(guard)
}

/// An open file description of its own for the inode behind `meta`: locks belong to that. Where
/// the inode cannot be opened for writing, it can be read, but not deleted by this process.
fn open_again(volume: &Volume, meta: impl AsFd) -> Result<OwnedFd> {
    match volume.proc.open_fd(&meta, OFlags::RDWR | OFlags::CLOEXEC) {
        Err(Errno::ACCESS | Errno::ROFS | Errno::PERM) => {
            volume.proc.open_fd(&meta, OFlags::RDONLY | OFlags::CLOEXEC)
        }
        result => result,
    }
}

/// Deletes the objects of an inode without a name, if no process uses them. `meta` is open for
/// writing, and holds no lock.
pub(super) fn purge_if_last(volume: &Volume, meta: &OwnedFd) {
    if !has_no_name(meta) || lock(meta, GUARD_BYTE, libc::F_WRLCK, false).is_err() {
        return;
    }
    if let Err(errno) = purge(volume, meta) {
        log::warn!("objects of a removed file are left behind: {errno}");
    }
    let _ = lock(meta, GUARD_BYTE, libc::F_UNLCK, false);
}

fn purge(volume: &Volume, meta: &OwnedFd) -> Result<()> {
    let Some(record) = Record::load(meta)? else {
        return Ok(());
    };
    // Whoever still reaches the inode finds an empty file, never one without its objects.
    ftruncate(meta, 0)?;
    fremovexattr(meta, record::xattr_name().as_c_str())?;
    for column in 0..record.layout.stripe_count() {
        volume.targets.delete(&record, column)?;
    }
    Ok(())
}

/// Sets or drops the guard's lock, which belongs to the open file description of `fd`.
fn lock(fd: &OwnedFd, byte: i64, kind: libc::c_int, wait: bool) -> Result<()> {
    let command = if wait {
        libc::F_OFD_SETLKW
    } else {
        libc::F_OFD_SETLK
    };
    let range = libc::flock64 {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    loop {
        // SAFETY: fcntl reads the lock's description and keeps no reference to it.
        if unsafe { libc::fcntl(fd.as_raw_fd(), command, &range) } == 0 {
            return Ok(());
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}
