//! Limits: what is counted is what is there, whoever changes it and in whatever way.

use std::ffi::CStr;
use std::ops::ControlFlow;

mod inodes;
mod repair;
mod sizes;
mod together;

use super::check::{clean, look_alone};
use super::*;
use crate::engine::striped::set_limits;
use crate::volume::{Limits, OpenVolume, Used};

const SOME: Limits = Limits {
    capacity_bytes: Some(1_000_000),
    inodes: Some(20),
};

fn used(rig: &Rig) -> Used {
    let OpenVolume { kind, .. } = VolumePath::open(&rig.path()).unwrap();
    let VolumeKind::Striped { usage, .. } = kind else {
        unreachable!("a rig's volume is striped");
    };
    usage.used().unwrap()
}

#[track_caller]
fn expect(rig: &Rig, bytes: u64, inodes: u64) {
    assert_eq!(used(rig), Used { bytes, inodes });
}

fn set(rig: &Rig, capacity_bytes: Option<u64>, inodes: Option<u64>) {
    let change = |_| Limits {
        capacity_bytes,
        inodes,
    };
    set_limits(&rig.path(), change, &mut |_| ControlFlow::Continue(())).unwrap();
}

impl Mount {
    fn done(
        &mut self,
        call: impl FnOnce(&dyn crate::fs::FileSystem, &mut crate::fs::Req<'_>, Reply<()>),
    ) -> Result<()> {
        self.client.call(|fs, req, reply| call(fs, req, reply))
    }

    fn entry(
        &mut self,
        call: impl FnOnce(&dyn crate::fs::FileSystem, &mut crate::fs::Req<'_>, Reply<Entry>),
    ) -> Result<Entry> {
        self.client.call(|fs, req, reply| call(fs, req, reply))
    }

    fn try_create(&mut self, file: &CStr, flags: i32) -> Result<Open> {
        let file = Name::new(file)?;
        let made: Created = self.client.call(|fs, req, reply| {
            fs.create(req, NodeId::ROOT, file, &MAKE, flags.into(), reply)
        })?;
        Ok(Open {
            node: made.entry.node,
            handle: made.opened.handle,
        })
    }

    fn try_write(&mut self, file: Open, offset: u64, len: usize) -> Result<u32> {
        let mut data = vec![5; len];
        let list = [iov(&mut data)];
        // SAFETY: `data` and `list` live until `call` has the answer.
        let buf = unsafe { Slices::new(&list) };
        let at = at(file, offset);
        self.client
            .call(|fs, req, reply| fs.write(req, at, buf, WriteFlags::default(), reply))
    }

    fn try_truncate(&mut self, file: Open, size: u64) -> Result<()> {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let attr: Result<Attr> = self
            .client
            .call(|fs, req, reply| fs.setattr(req, file.node, &set, reply));
        attr.map(drop)
    }

    fn try_fallocate(&mut self, file: Open, offset: u64, len: u64, mode: i32) -> Result<()> {
        self.done(|fs, req, reply| fs.fallocate(req, at(file, offset), len, mode as u32, reply))
    }

    fn try_mkdir(&mut self, dir: &CStr) -> Result<()> {
        let dir = Name::new(dir)?;
        self.entry(|fs, req, reply| fs.mkdir(req, NodeId::ROOT, dir, &MAKE, reply))
            .map(drop)
    }

    fn symlink(&mut self, link: &CStr) -> Result<()> {
        let link = Name::new(link)?;
        self.entry(|fs, req, reply| fs.symlink(req, NodeId::ROOT, link, c"to", reply))
            .map(drop)
    }

    fn fifo(&mut self, fifo: &CStr) -> Result<()> {
        let make = Make {
            mode: libc::S_IFIFO | 0o600,
            umask: 0,
        };
        let fifo = Name::new(fifo)?;
        self.entry(|fs, req, reply| fs.mknod(req, NodeId::ROOT, fifo, &make, 0, reply))
            .map(drop)
    }

    fn try_remove(&mut self, name: &CStr) -> Result<()> {
        let name = Name::new(name)?;
        self.done(|fs, req, reply| fs.unlink(req, NodeId::ROOT, name, reply))
    }

    fn rmdir(&mut self, dir: &CStr) -> Result<()> {
        let dir = Name::new(dir)?;
        self.done(|fs, req, reply| fs.rmdir(req, NodeId::ROOT, dir, reply))
    }

    fn try_rename(&mut self, from: &CStr, to: &CStr, flags: u32) -> Result<()> {
        let (from, to) = (Name::new(from)?, Name::new(to)?);
        let (from, to) = ((NodeId::ROOT, from), (NodeId::ROOT, to));
        self.done(|fs, req, reply| fs.rename(req, from, to, flags, reply))
    }

    fn try_link(&mut self, old: &CStr, new: &CStr) -> Result<()> {
        let (old, new) = (Name::new(old)?, Name::new(new)?);
        let found = self.entry(|fs, req, reply| fs.lookup(req, NodeId::ROOT, old, reply))?;
        let linked =
            self.entry(|fs, req, reply| fs.link(req, found.node, NodeId::ROOT, new, reply));
        linked.map(drop)
    }

    fn statfs(&mut self) -> StatFs {
        self.client
            .call(|fs, req, reply| fs.statfs(req, NodeId::ROOT, reply))
            .unwrap()
    }
}

fn at(file: Open, offset: u64) -> At {
    At {
        node: file.node,
        handle: file.handle,
        offset,
    }
}
