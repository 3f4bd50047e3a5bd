//! Attributes, the file system's own numbers, and the session's begin and end.

use std::sync::Arc;

use super::attr::to_set;
use super::calls::Kind;
use super::ffi::STATX_ALL;
use super::nodes::Node;
use super::shared::{without_privileges, Shared};
use crate::fs::*;

/// What `stat` says: its blocks are counted in units of `f_frsize`.
pub fn size(stat: &libc::statvfs) -> StatFs {
    StatFs {
        blocks: stat.f_blocks,
        blocks_free: stat.f_bfree,
        blocks_available: stat.f_bavail,
        files: stat.f_files,
        files_free: stat.f_ffree,
        block_size: stat.f_frsize as u32,
        name_max: NAME_MAX as u32,
    }
}

impl Shared {
    pub fn getattr(self: &Arc<Self>, node: NodeId, reply: Reply<Attr>) {
        self.call(Kind::Getattr, reply, move |fs| {
            fs.attr(&*fs.nodes.get(node)?)
        });
    }

    pub fn setattr(self: &Arc<Self>, node: NodeId, set: &SetAttr, reply: Reply<Attr>) {
        let set = *set;
        self.call(Kind::Setattr, reply, move |fs| {
            let node = fs.nodes.get(node)?;
            fs.set_attr(&node, set)?;
            fs.attr(&node)
        });
    }

    fn set_attr(&self, node: &Arc<Node>, mut set: SetAttr) -> Result<()> {
        if let Some(size) = set.size {
            match node.file_type {
                libc::S_IFREG => {}
                libc::S_IFDIR => return Err(Errno::ISDIR),
                _ => return Err(Errno::INVAL),
            }
            if size > i64::MAX as u64 {
                return Err(Errno::FBIG);
            }
        }
        if set.kill_suidgid && node.file_type == libc::S_IFREG {
            let mode = match set.mode {
                Some(mode) => mode,
                None => u32::from(node.inode.stat(STATX_ALL)?.stx_mode) & 0o7777,
            };
            if without_privileges(mode) != mode {
                set.mode = Some(without_privileges(mode));
            }
        }
        let changes = set.size.is_some();
        if changes {
            node.changes.begin_write();
        }
        let (mut stx, mask) = to_set(&set);
        let result = match mask {
            0 => Ok(()),
            mask => node.inode.set(&mut stx, mask),
        };
        if changes {
            node.answered();
        }
        result
    }

    pub fn statfs(self: &Arc<Self>, node: NodeId, reply: Reply<StatFs>) {
        self.call(Kind::Other, reply, move |fs| {
            Ok(size(&fs.nodes.get(node)?.inode.statfs()?))
        });
    }

    pub fn access(self: &Arc<Self>, req: &mut Req<'_>, node: NodeId, mask: u32, reply: Reply<()>) {
        let caller = req.caller;
        self.call(Kind::Getattr, reply, move |fs| {
            let attr = fs.attr(&*fs.nodes.get(node)?)?;
            let bits = match (attr.uid == caller.uid, attr.gid == caller.gid) {
                _ if caller.is_root => return Ok(()),
                (true, _) => attr.mode >> 6,
                (false, true) => attr.mode >> 3,
                (false, false) => attr.mode,
            };
            (mask & !bits & 7 == 0).then_some(()).ok_or(Errno::ACCESS)
        });
    }

    pub fn syncfs(self: &Arc<Self>, reply: Reply<()>) {
        self.call(Kind::Sync, reply, |fs| fs.nodes.mount()?.sync());
    }

    /// A new session begins.
    pub fn reset(&self) {
        let gone = (
            self.locks.reset(),
            self.files.remove_all(),
            self.dirs.remove_all(),
        );
        // Servers may have to be told.
        self.calls.run(Kind::Close, move || drop(gone));
        self.nodes.forget_all();
    }

    /// A session goes on: nodes and files are found by their records when they are used, locks at once.
    pub fn restore(&self) -> Result<(u64, u64)> {
        let nodes = self.nodes.restore();
        self.restore_locks();
        let handles = self.files.all().len() + self.dirs.all().len();
        Ok((nodes, handles as u64))
    }
}
