//! The engine, as one or more daemons use it.
//!
//! - `model`: a file is a vector of bytes, whatever way it lies on inode and objects.
//! - `place`: where data lies on disk. `sharing`: several daemons at once.
//! - `prepare`: what writes do to the inode. `orphans`: files without a name. `replay`: appends that are executed again.

mod check;
mod layouts;
mod limits;
mod model;
mod orphans;
mod place;
mod prepare;
mod replay;
mod sharing;

use std::path::Path;

use super::*;
use crate::client::Client;
use crate::fs::{At, Caller, Created, Entry, Handle, Make, Req, SetAttr, WriteFlags};
use crate::session::SessionStore;
use crate::volume::{
    create, CreateOptions, NewEngine, NewTargets, Ownership, Volume as VolumePath,
};

const UNIT: u64 = 4096;
const MDT_SIZE: u64 = 8192;
const MAKE: Make = Make {
    mode: 0o644,
    umask: 0,
};

/// A volume of its own, removed with the test.
struct Rig {
    dir: tempfile::TempDir,
}

/// One daemon's view of it.
struct Mount {
    client: Client,
}

#[derive(Clone, Copy)]
struct Open {
    node: NodeId,
    handle: Handle,
}

impl Rig {
    fn new(targets: u32) -> Rig {
        Rig::limited(targets, crate::volume::Limits::default())
    }

    fn limited(targets: u32, limits: crate::volume::Limits) -> Rig {
        Rig::owned(targets, limits, Ownership::Native)
    }

    fn owned(targets: u32, limits: crate::volume::Limits, ownership: Ownership) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let engine = NewEngine::Striped {
            targets: NewTargets::Inside(targets),
            stripe_unit_bytes: UNIT,
            stripe_count: None,
            mdt_size_bytes: MDT_SIZE,
            limits,
        };
        create(&CreateOptions {
            path: dir.path().join("v"),
            ownership,
            engine,
        })
        .unwrap();
        Rig { dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("v")
    }

    fn mount(&self) -> Mount {
        let store = Arc::new(SessionStore::private(1 << 16).unwrap());
        let options = crate::engine::Options {
            store,
            inode_fds_max: 1000,
        };
        let fs = crate::engine::open(VolumePath::open(&self.path()).unwrap(), &options).unwrap();
        Mount {
            client: Client::new(fs, Caller::default()).unwrap(),
        }
    }

    /// Names among the orphans.
    fn orphans(&self) -> Vec<std::path::PathBuf> {
        list(&self.path().join("meta/orphans"))
    }

    /// Whether the volume's one file with objects, of `size` bytes, has no byte beyond.
    fn ends_at(&self, size: u64) -> bool {
        let columns = self.objects().len() as u64;
        let end = match size > MDT_SIZE {
            true => size.next_multiple_of(UNIT * columns) / columns,
            false => 0,
        };
        self.objects().concat().iter().all(|len| *len <= end)
    }

    /// Whether nothing is left of any file with objects or without a name.
    fn is_clean(&self) -> bool {
        self.orphans().is_empty() && self.objects().iter().all(Vec::is_empty)
    }

    /// Lengths of all object files, by target.
    fn objects(&self) -> Vec<Vec<u64>> {
        let mut targets: Vec<_> = list(&self.path().join("targets"));
        targets.sort();
        let sizes = |target: std::path::PathBuf| {
            let fanout = list(&target.join("objects"));
            let objects = fanout.iter().flat_map(|dir| list(dir));
            objects
                .map(|object| object.metadata().unwrap().len())
                .collect()
        };
        targets.into_iter().map(sizes).collect()
    }
}

fn list(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn name(name: &'static std::ffi::CStr) -> &'static Name {
    Name::new(name).unwrap()
}

impl Mount {
    fn create(&mut self, file: &'static std::ffi::CStr) -> Open {
        let made: Created = self
            .client
            .call(|fs, req, reply| {
                fs.create(
                    req,
                    NodeId::ROOT,
                    name(file),
                    &MAKE,
                    libc::O_RDWR.into(),
                    reply,
                );
            })
            .unwrap();
        Open {
            node: made.entry.node,
            handle: made.opened.handle,
        }
    }

    fn write(&mut self, file: Open, offset: u64, data: &[u8]) {
        self.write_with(file, offset, data, WriteFlags::default());
    }

    fn append(&mut self, file: Open, offset: u64, data: &[u8]) {
        let flags = WriteFlags {
            append: true,
            ..WriteFlags::default()
        };
        self.write_with(file, offset, data, flags);
    }

    /// An append with its intent.
    fn append_logged(&mut self, file: Open, data: &[u8], log: &dyn crate::fs::IntentLog) {
        let flags = WriteFlags {
            append: true,
            ..WriteFlags::default()
        };
        self.write_logged(file, 0, data, flags, Some(log));
    }

    fn write_with(&mut self, file: Open, offset: u64, data: &[u8], flags: WriteFlags) {
        self.write_logged(file, offset, data, flags, None);
    }

    fn write_logged(
        &mut self,
        file: Open,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        intent: Option<&dyn crate::fs::IntentLog>,
    ) {
        let mut data = data.to_vec();
        let list = [iov(&mut data)];
        // SAFETY: `data` and `list` live until `call` has the answer.
        let buf = unsafe { Slices::new(&list) };
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let wrote: u32 = self
            .client
            .call(|fs, req, reply| {
                let mut req = Req {
                    io: &mut *req.io,
                    caller: req.caller,
                    intent,
                };
                fs.write(&mut req, at, buf, flags, reply);
            })
            .unwrap();
        assert_eq!(wrote as usize, data.len());
    }

    fn read(&mut self, file: Open, offset: u64, len: usize) -> Vec<u8> {
        // In two uneven parts, full of what must not be seen.
        let mut data = vec![0xEE; len];
        let (first, second) = data.split_at_mut(len / 3);
        let list = [iov(first), iov(second)];
        // SAFETY: `data` and `list` live until `call` has the answer.
        let buf = unsafe { Slices::new(&list) };
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let got: u32 = self
            .client
            .call(|fs, req, reply| fs.read(req, at, buf, reply))
            .unwrap();
        data.truncate(got as usize);
        data
    }

    fn attr(&mut self, file: Open) -> Attr {
        self.client
            .call(|fs, req, reply| fs.getattr(req, file.node, None, reply))
            .unwrap()
    }

    fn size(&mut self, file: Open) -> u64 {
        self.attr(file).size
    }

    fn links(&mut self, file: Open) -> u32 {
        self.attr(file).nlink
    }

    fn link(&mut self, file: Open, to: &'static std::ffi::CStr) -> Result<Entry> {
        self.client
            .call(|fs, req, reply| fs.link(req, file.node, NodeId::ROOT, name(to), reply))
    }

    fn rename(&mut self, from: &'static std::ffi::CStr, to: &'static std::ffi::CStr) {
        let (from, to) = ((NodeId::ROOT, name(from)), (NodeId::ROOT, name(to)));
        self.client
            .call(|fs, req, reply: Reply<()>| fs.rename(req, from, to, 0, reply))
            .unwrap();
    }

    fn tmpfile(&mut self, flags: i32) -> Open {
        let made: Created = self
            .client
            .call(|fs, req, reply| fs.tmpfile(req, NodeId::ROOT, &MAKE, flags, reply))
            .unwrap();
        assert_eq!(made.entry.attr.nlink, 0);
        Open {
            node: made.entry.node,
            handle: made.opened.handle,
        }
    }

    fn truncate(&mut self, file: Open, size: u64) {
        assert_eq!(self.set_size(file, size).size, size);
    }

    /// Truncates; answers what the file is then, which others may have changed.
    fn set_size(&mut self, file: Open, size: u64) -> Attr {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        self.client
            .call(|fs, req, reply| fs.setattr(req, file.node, &set, reply))
            .unwrap()
    }

    fn fallocate(&mut self, file: Open, offset: u64, len: u64, mode: i32) {
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        self.client
            .call(|fs, req, reply: Reply<()>| fs.fallocate(req, at, len, mode as u32, reply))
            .unwrap();
    }

    fn lseek(&mut self, file: Open, offset: u64, whence: i32) -> Result<u64> {
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        self.client
            .call(|fs, req, reply| fs.lseek(req, at, whence as u32, reply))
    }

    fn copy(&mut self, file: Open, from: u64, to: u64, len: u64) -> u32 {
        let at = |offset| At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let (from, to) = (at(from), at(to));
        self.client
            .call(|fs, req, reply| fs.copy_file_range(req, from, to, len, reply))
            .unwrap()
    }

    fn release(&mut self, file: Open) {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.release(req, file.handle, None, reply))
            .unwrap();
    }

    fn fsync(&mut self, file: Open) {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.fsync(req, file.node, file.handle, false, reply))
            .unwrap();
    }

    fn open(&mut self, file: &'static std::ffi::CStr) -> Open {
        let node = self.client.lookup(NodeId::ROOT, name(file)).unwrap();
        let open = self.open_node(node.id).unwrap();
        std::mem::forget(node);
        open
    }

    fn open_node(&mut self, node: NodeId) -> Result<Open> {
        self.open_with(node, libc::O_RDWR)
    }

    fn open_with(&mut self, node: NodeId, flags: i32) -> Result<Open> {
        let opened: Result<crate::fs::Opened> = self
            .client
            .call(|fs, req, reply| fs.open(req, node, flags.into(), reply));
        let handle = opened?.handle;
        Ok(Open { node, handle })
    }

    fn unlink(&mut self, file: &'static std::ffi::CStr) {
        self.try_unlink(file).unwrap();
    }

    fn try_unlink(&mut self, file: &'static std::ffi::CStr) -> Result<()> {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.unlink(req, NodeId::ROOT, name(file), reply))
    }
}

fn iov(buf: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    }
}
