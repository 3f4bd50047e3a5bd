//! Open directories.

use pfs_core::fs::{Errno, Result, NAME_MAX};

use super::Call;
use crate::fuse::abi::{DIRENTPLUS_BYTES, DIRENT_BYTES};
use crate::fuse::decode::Dirs;
use crate::fuse::reply::Shape;

/// Most bytes of entries in one reply, whatever room a guest offers: what the daemon holds of a
/// listing. Linux asks for a page.
const MAX_LIST_BYTES: u64 = 128 << 10;

impl Call<'_> {
    pub(super) fn dirs(mut self, request: &Dirs) -> Result<()> {
        let (fs, node) = (self.fs, self.node);
        match *request {
            Dirs::Opendir => {
                let reply = self.reply(Shape::OpenDir);
                fs.opendir(&mut self.req(), node, reply);
            }
            Dirs::Readdir {
                handle,
                offset,
                size,
                plus,
            } => {
                let header = match plus {
                    true => DIRENTPLUS_BYTES,
                    false => DIRENT_BYTES,
                };
                let room = u64::from(size).min(self.room()).min(MAX_LIST_BYTES) as usize;
                // An empty list means the end, so one entry must always have room; getdents64(2)
                // has the same error.
                if room < (header + NAME_MAX).next_multiple_of(8) {
                    return Err(Errno::INVAL);
                }
                let mut list = std::mem::take(&mut self.pending.list);
                list.clear(room, header);
                let reply = self.reply(Shape::List { plus });
                fs.readdir(&mut self.req(), handle, offset, plus, list, reply);
            }
            Dirs::Releasedir { handle } => {
                let reply = self.reply(Shape::Empty);
                fs.releasedir(&mut self.req(), handle, reply);
            }
            Dirs::Fsyncdir { handle, datasync } => {
                let reply = self.reply(Shape::Empty);
                fs.fsyncdir(&mut self.req(), node, handle, datasync, reply);
            }
        }
        Ok(())
    }
}
