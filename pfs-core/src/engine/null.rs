//! Answers at once and stores nothing: measures what is above an engine.
//!
//! The root has, under every name, one and the same large file. Reads leave the buffer as it is,
//! writes go nowhere.

use std::ffi::CStr;

use crate::fs::*;

/// The node of the one file.
const FILE: NodeId = NodeId(2);
/// Its size in bytes.
const FILE_SIZE: u64 = 1 << 40;
/// The handle of everything that is open.
const HANDLE: Handle = Handle(1);

/// See the [module](self).
pub struct Null;

impl Null {
    fn attr(node: NodeId) -> Result<Attr> {
        let attr = Attr {
            ino: node.0,
            blksize: 4096,
            nlink: 1,
            ..Attr::default()
        };
        match node {
            NodeId::ROOT => Ok(Attr {
                mode: libc::S_IFDIR | 0o777,
                nlink: 2,
                ..attr
            }),
            FILE => Ok(Attr {
                mode: libc::S_IFREG | 0o666,
                size: FILE_SIZE,
                ..attr
            }),
            _ => Err(Errno::STALE),
        }
    }

    fn entry() -> Result<Entry> {
        Null::attr(FILE).map(|attr| Entry { node: FILE, attr })
    }

    fn count(buf: Slices) -> Result<u32> {
        u32::try_from(buf.len()).map_err(|_| Errno::INVAL)
    }
}

impl FileSystem for Null {
    fn lookup(&self, _: &mut Req<'_>, _: NodeId, _: &Name, reply: Reply<Entry>) {
        reply.send(Null::entry());
    }

    fn forget(&self, _: NodeId, _: u64) {}

    fn getattr(&self, _: &mut Req<'_>, node: NodeId, _: Option<Handle>, reply: Reply<Attr>) {
        reply.send(Null::attr(node));
    }

    fn setattr(&self, _: &mut Req<'_>, node: NodeId, _: &SetAttr, reply: Reply<Attr>) {
        reply.send(Null::attr(node));
    }

    fn readlink(&self, _: &mut Req<'_>, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.err(Errno::INVAL);
    }

    fn symlink(&self, _: &mut Req<'_>, _: NodeId, _: &Name, _: &CStr, reply: Reply<Entry>) {
        reply.err(Errno::OPNOTSUPP);
    }

    fn mknod(
        &self,
        _: &mut Req<'_>,
        _: NodeId,
        _: &Name,
        make: &Make,
        _: u32,
        reply: Reply<Entry>,
    ) {
        match make.mode & libc::S_IFMT {
            0 | libc::S_IFREG => reply.send(Null::entry()),
            _ => reply.err(Errno::OPNOTSUPP),
        }
    }

    fn mkdir(&self, _: &mut Req<'_>, _: NodeId, _: &Name, _: &Make, reply: Reply<Entry>) {
        reply.err(Errno::OPNOTSUPP);
    }

    fn unlink(&self, _: &mut Req<'_>, _: NodeId, _: &Name, reply: Reply<()>) {
        reply.ok(());
    }

    fn rmdir(&self, _: &mut Req<'_>, _: NodeId, _: &Name, reply: Reply<()>) {
        reply.err(Errno::NOTDIR);
    }

    fn rename(
        &self,
        _: &mut Req<'_>,
        _: (NodeId, &Name),
        _: (NodeId, &Name),
        _: u32,
        reply: Reply<()>,
    ) {
        reply.ok(());
    }

    fn link(&self, _: &mut Req<'_>, _: NodeId, _: NodeId, _: &Name, reply: Reply<Entry>) {
        reply.send(Null::entry());
    }

    fn open(&self, _: &mut Req<'_>, node: NodeId, _: OpenFlags, reply: Reply<Opened>) {
        reply.send(Null::attr(node).map(|_| HANDLE.into()));
    }

    fn create(
        &self,
        _: &mut Req<'_>,
        _: NodeId,
        _: &Name,
        _: &Make,
        _: OpenFlags,
        reply: Reply<Created>,
    ) {
        reply.send(Null::entry().map(|entry| Created {
            entry,
            opened: HANDLE.into(),
        }));
    }

    fn tmpfile(&self, _: &mut Req<'_>, _: NodeId, _: &Make, _: i32, reply: Reply<Created>) {
        reply.send(Null::entry().map(|entry| Created {
            entry,
            opened: HANDLE.into(),
        }));
    }

    fn read(&self, _: &mut Req<'_>, _: At, buf: Slices, reply: Reply<u32>) {
        reply.send(Null::count(buf));
    }

    fn write(&self, _: &mut Req<'_>, _: At, buf: Slices, _: WriteFlags, reply: Reply<u32>) {
        reply.send(Null::count(buf));
    }

    fn flush(&self, _: &mut Req<'_>, _: Handle, _: u64, reply: Reply<()>) {
        reply.ok(());
    }

    fn fsync(&self, _: &mut Req<'_>, _: NodeId, _: Handle, _: bool, reply: Reply<()>) {
        reply.ok(());
    }

    fn fallocate(&self, _: &mut Req<'_>, _: At, _: u64, _: u32, reply: Reply<()>) {
        reply.ok(());
    }

    fn lseek(&self, _: &mut Req<'_>, at: At, whence: u32, reply: Reply<u64>) {
        match whence as i32 {
            libc::SEEK_DATA if at.offset < FILE_SIZE => reply.ok(at.offset),
            libc::SEEK_HOLE if at.offset < FILE_SIZE => reply.ok(FILE_SIZE),
            libc::SEEK_DATA | libc::SEEK_HOLE => reply.err(Errno::NXIO),
            _ => reply.err(Errno::INVAL),
        }
    }

    fn copy_file_range(&self, _: &mut Req<'_>, _: At, _: At, len: u64, reply: Reply<u32>) {
        reply.ok(len.min(1 << 30) as u32);
    }

    fn release(&self, _: &mut Req<'_>, _: Handle, _: Option<u64>, reply: Reply<()>) {
        reply.ok(());
    }

    fn opendir(&self, _: &mut Req<'_>, node: NodeId, reply: Reply<Opened>) {
        match node {
            NodeId::ROOT => reply.ok(HANDLE.into()),
            _ => reply.err(Errno::NOTDIR),
        }
    }

    fn readdir(
        &self,
        _: &mut Req<'_>,
        _: Handle,
        offset: u64,
        _: bool,
        mut list: DirList,
        reply: Reply<DirList>,
    ) {
        for (cookie, name) in [(1, &b"."[..]), (2, b"..")] {
            if offset < cookie {
                let (ino, kind) = (NodeId::ROOT.0, libc::DT_DIR);
                list.push(DirEntry {
                    ino,
                    cookie,
                    kind,
                    name,
                    entry: None,
                });
            }
        }
        reply.ok(list);
    }

    fn fsyncdir(&self, _: &mut Req<'_>, _: NodeId, _: Handle, _: bool, reply: Reply<()>) {
        reply.ok(());
    }

    fn releasedir(&self, _: &mut Req<'_>, _: Handle, reply: Reply<()>) {
        reply.ok(());
    }

    fn setxattr(
        &self,
        _: &mut Req<'_>,
        _: NodeId,
        _: &XattrName,
        _: &[u8],
        _: SetXattr,
        reply: Reply<()>,
    ) {
        reply.err(Errno::OPNOTSUPP);
    }

    fn getxattr(&self, _: &mut Req<'_>, _: NodeId, _: &XattrName, reply: Reply<Vec<u8>>) {
        reply.err(Errno::NODATA);
    }

    fn listxattr(&self, _: &mut Req<'_>, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.ok(Vec::new());
    }

    fn removexattr(&self, _: &mut Req<'_>, _: NodeId, _: &XattrName, reply: Reply<()>) {
        reply.err(Errno::NODATA);
    }

    fn statfs(&self, _: &mut Req<'_>, _: NodeId, reply: Reply<StatFs>) {
        let blocks = FILE_SIZE / 4096;
        reply.ok(StatFs {
            blocks,
            blocks_free: blocks,
            blocks_available: blocks,
            files: 1 << 32,
            files_free: 1 << 32,
            block_size: 4096,
            name_max: NAME_MAX as u32,
        });
    }

    fn access(&self, _: &mut Req<'_>, _: NodeId, _: u32, reply: Reply<()>) {
        reply.ok(());
    }

    fn syncfs(&self, _: &mut Req<'_>, _: NodeId, reply: Reply<()>) {
        reply.ok(());
    }

    fn reset(&self) {}

    fn restore(&self) -> Result<(u64, u64)> {
        Ok((1, 0))
    }

    fn prepare_restore(&self) -> u64 {
        0
    }
}
