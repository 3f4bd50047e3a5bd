//! Open files and their data.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use libc::iovec;

use super::attr;
use super::calls::Kind;
use super::ffi::STATX_VERSIONED;
use super::file::File;
use super::inode::NewInode;
use super::limited::{Buf, Pending};
use super::nodes::Node;
use super::shared::{file_flags, OpenFile, Shared};
use super::version::Version;
use crate::fs::intent::begin_making;
use crate::fs::*;
use crate::locks::Whose;

/// Largest piece of a copy, in bytes: the buffer's size.
const COPY_PIECE_BYTES: usize = 4 << 20;
/// Largest copy of one request, in bytes: a longer one is answered short, and the requester goes on.
const COPY_MAX_BYTES: u64 = 256 << 20;
/// A program's capabilities.
const CAPABILITY: &std::ffi::CStr = c"security.capability";

impl Shared {
    pub fn open(self: &Arc<Self>, node: NodeId, how: OpenFlags, reply: Reply<Opened>) {
        self.call(Kind::Open, reply, move |fs| {
            let node = fs.nodes.get(node)?.file()?;
            let flags = how.widened();
            let file = node.inode.open(file_flags(flags))?;
            if flags & libc::O_TRUNC != 0 && how.kill_suidgid {
                fs.drop_privileges(&node)?;
            }
            fs.opened(node, file, OpenFlags { flags, ..how })
        });
    }

    /// Gives out a handle of what was opened.
    fn opened(&self, node: Arc<Node>, file: File, how: OpenFlags) -> Result<Opened> {
        let version = match how.cached {
            true => self.version(&node)?,
            false => None,
        };
        let keep_cache = version
            .as_ref()
            .is_some_and(|(version, _)| node.changes.is_cached(version));
        let id = node.id;
        let open = OpenFile::new(node, how.flags, version, file);
        let handle = self.files.insert(id, how.flags, open)?;
        Ok(Opened { handle, keep_cache })
    }

    /// What the server says the file is now, if nothing is being written here.
    fn version(&self, node: &Node) -> Result<Option<(Version, u64)>> {
        let Some(begun) = node.changes.quiet() else {
            return Ok(None);
        };
        let stx = node.inode.stat(STATX_VERSIONED)?;
        let still = node.changes.quiet() == Some(begun);
        Ok(still.then(|| (Version::of(&stx), begun)))
    }

    pub fn create(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        parent: NodeId,
        name: &Name,
        make: &Make,
        how: OpenFlags,
        reply: Reply<Created>,
    ) {
        let (name, make, caller) = (name.as_c_str().to_owned(), *make, req.caller);
        let log = req.intent.map(IntentLog::keep);
        self.call(Kind::Create, reply, move |fs| {
            let dir = fs.nodes.get(parent)?.dir()?;
            let may_be_ours = begin_making(log.as_deref().map(|log| log as _), || {
                matches!(dir.inode.lookup(&name), Err(Errno::NOENT))
            });
            let flags = how.widened();
            let exclusive = match may_be_ours {
                true => 0,
                false => flags & libc::O_EXCL,
            };
            let perms = fs.perms(&caller)?;
            let new = NewInode {
                name: &name,
                perms: &perms,
                mode: libc::S_IFREG | make.mode & 0o7777,
                umask: make.umask,
            };
            let (inode, file, stx) = dir.inode.create(&new, file_flags(flags) | exclusive)?;
            let node = fs.nodes.intern(inode, &stx)?;
            let id = node.id;
            let opened = node.file().and_then(|node| {
                if flags & libc::O_TRUNC != 0 && how.kill_suidgid {
                    fs.drop_privileges(&node)?;
                }
                fs.opened(node, file, OpenFlags { flags, ..how })
            });
            match opened {
                Ok(opened) => Ok(Created {
                    entry: Entry {
                        node: id,
                        attr: attr::attr(&stx),
                    },
                    opened,
                }),
                Err(errno) => {
                    fs.nodes.forget(id, 1);
                    Err(errno)
                }
            }
        });
    }

    pub fn read(self: &Arc<Self>, at: At, buf: Slices, reply: Reply<u32>) {
        if let Some(limit) = self.timeout {
            return self.read_limited(limit, at, buf, reply);
        }
        self.call(Kind::Read, reply, move |fs| {
            let open = fs.open_at(&at, libc::O_WRONLY)?;
            let parts: Vec<iovec> = buf.parts(0, buf.len()).collect();
            // SAFETY: the requester's memory is there until its reply, which comes after this.
            unsafe { open.file.read(&parts, at.offset as i64) }
        });
    }

    /// Reads into memory of this process, and then, if its time is not up, into the requester's.
    fn read_limited(self: &Arc<Self>, limit: Duration, at: At, buf: Slices, reply: Reply<u32>) {
        let (shared, pending) = (self.clone(), Pending::new(reply));
        let (late, len) = (pending.clone(), buf.len() as usize);
        let job = move || {
            let mut own = vec![0u8; len];
            let result = shared.insist(|fs| {
                let open = fs.open_at(&at, libc::O_WRONLY)?;
                let parts = [part(&mut own)];
                // SAFETY: the buffer is there for the call.
                unsafe { open.file.read(&parts, at.offset as i64) }
            });
            let Some(reply) = pending.take() else { return };
            if let Ok(got) = result {
                buf.copy_from(&own[..got as usize]);
            }
            reply.send(result);
        };
        self.calls.run(Kind::Read, job);
        self.calls.expire_after(limit, move || late.expire());
    }

    pub fn write(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        at: At,
        buf: Slices,
        flags: WriteFlags,
        reply: Reply<u32>,
    ) {
        if flags.append {
            return self.append(req, at, buf, flags, reply);
        }
        let buf = Buf::to_write(buf, self.timeout.is_some());
        self.call(Kind::Write, reply, move |fs| {
            fs.write_now(&at, &buf, flags.kill_suidgid, || Ok(at.offset))
        });
    }

    /// Writes at the place that `place` finds.
    pub fn write_now(
        &self,
        at: &At,
        buf: &Buf,
        kill_suidgid: bool,
        place: impl FnOnce() -> Result<u64>,
    ) -> Result<u32> {
        self.changing(at, kill_suidgid, |open| write(&open.file, place()?, buf))
    }

    /// Runs a change of a file's data.
    fn changing<T>(
        &self,
        at: &At,
        kill_suidgid: bool,
        change: impl FnOnce(&OpenFile) -> Result<T>,
    ) -> Result<T> {
        let open = self.open_at(at, libc::O_RDONLY)?;
        if kill_suidgid {
            self.drop_privileges(&open.node)?;
        }
        if !open.caps_dropped.swap(true, Ordering::Relaxed) {
            match open.node.inode.remove_xattr(CAPABILITY) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        open.node.changes.begin_write();
        let result = change(&open);
        open.node.answered();
        result
    }

    pub fn flush(self: &Arc<Self>, handle: Handle, owner: u64, reply: Reply<()>) {
        let node = match self.files.node(handle) {
            Ok(node) => node,
            Err(errno) => return reply.err(errno),
        };
        if let Some(open) = self.files.peek(handle) {
            open.closing();
        }
        match self.locks.has_none(node) {
            true => reply.ok(()),
            false => self.call(Kind::Lock, reply, move |fs| {
                fs.locks.unlock(node, Whose::Owner(owner));
                Ok(())
            }),
        }
    }

    pub fn release(self: &Arc<Self>, handle: Handle, flock_owner: Option<u64>, reply: Reply<()>) {
        let removed = self.files.node(handle).and_then(|node| {
            let open = self.files.remove(handle)?;
            Ok((node, open))
        });
        let (node, open) = match removed {
            Ok(removed) => removed,
            Err(errno) => return reply.err(errno),
        };
        let shared = self.clone();
        self.calls.run(Kind::Close, move || {
            let whose = Whose::Handle {
                handle,
                flock_owner,
            };
            if !shared.locks.has_none(node) {
                shared.locks.unlock(node, whose);
            }
            if let Some(open) = &open {
                open.closing();
            }
            drop(open);
            reply.ok(());
        });
    }

    pub fn fsync(self: &Arc<Self>, at: (NodeId, Handle), datasync: bool, reply: Reply<()>) {
        self.call(Kind::Sync, reply, move |fs| {
            let open = fs.open_file(at.1)?;
            match open.node.id == at.0 {
                true => open.file.sync(datasync),
                false => Err(Errno::BADF),
            }
        });
    }

    pub fn fallocate(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        at: At,
        len: u64,
        mode: u32,
        reply: Reply<()>,
    ) {
        let is_root = req.caller.is_root;
        let end = at
            .offset
            .checked_add(len)
            .filter(|end| *end <= i64::MAX as u64);
        let Some(end) = end else {
            return reply.err(Errno::FBIG);
        };
        self.call(Kind::Write, reply, move |fs| {
            fs.changing(&at, !is_root, |open| {
                allocate(open, at.offset..end, mode as i32)
            })
        });
    }

    pub fn lseek(self: &Arc<Self>, at: At, whence: u32, reply: Reply<u64>) {
        self.call(Kind::Getattr, reply, move |fs| {
            let open = fs.open_file(at.handle)?;
            match whence as i32 {
                whence @ (libc::SEEK_DATA | libc::SEEK_HOLE) => {
                    open.file.seek(at.offset as i64, whence)
                }
                _ => Err(Errno::INVAL),
            }
        });
    }

    pub fn copy(
        self: &Arc<Self>,
        req: &mut Req<'_>,
        from: At,
        to: At,
        len: u64,
        reply: Reply<u32>,
    ) {
        let is_root = req.caller.is_root;
        self.call(Kind::Write, reply, move |fs| {
            let source = fs.open_at(&from, libc::O_WRONLY)?;
            fs.changing(&to, !is_root, |open| {
                let len = len.min(COPY_MAX_BYTES);
                copy((&source.file, from.offset), (&open.file, to.offset), len)
            })
        });
    }
}

/// Writes all of `buf`.
fn write(file: &File, offset: u64, buf: &Buf) -> Result<u32> {
    let mut done = 0;
    while done < buf.len() {
        let parts = buf.parts(done);
        // SAFETY: lent memory is there until the reply, which comes after this; own is in `buf`.
        match unsafe { file.write(&parts, (offset + done) as i64) }? {
            0 => return Err(Errno::IO),
            more => done += u64::from(more),
        }
    }
    Ok(done as u32)
}

fn part(buffer: &mut [u8]) -> iovec {
    iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }
}

/// Copies through this process: the library has no call for it.
fn copy(from: (&File, u64), to: (&File, u64), len: u64) -> Result<u32> {
    let mut buffer = vec![0u8; COPY_PIECE_BYTES.min(len as usize)];
    let mut done = 0;
    while done < len {
        let want = buffer.len().min((len - done) as usize);
        let parts = [part(&mut buffer[..want])];
        // SAFETY: the buffer is there for the call.
        let got = unsafe { from.0.read(&parts, (from.1 + done) as i64) };
        let got = match got {
            Ok(0) => break,
            Ok(got) => got as usize,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        };
        let mut put = 0;
        while put < got {
            let parts = [part(&mut buffer[put..got])];
            // SAFETY: as above.
            match unsafe { to.0.write(&parts, (to.1 + done) as i64) } {
                Ok(0) if done == 0 => return Err(Errno::IO),
                Err(errno) if done == 0 => return Err(errno),
                Ok(0) | Err(_) => return Ok(done as u32),
                Ok(more) => {
                    put += more as usize;
                    done += u64::from(more);
                }
            }
        }
    }
    Ok(done as u32)
}

/// `fallocate(2)`: Ceph reserves no space. It has holes, and sizes.
fn allocate(open: &OpenFile, range: std::ops::Range<u64>, mode: i32) -> Result<()> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    let (offset, len) = (range.start as i64, (range.end - range.start) as i64);
    if mode & !KEEP != ZERO {
        return open.file.allocate(mode, offset, len);
    }
    open.file.allocate(PUNCH | KEEP, offset, len)?;
    match mode & KEEP {
        0 => open.file.allocate(0, offset, len),
        _ => Ok(()),
    }
}
