//! Extended attributes.

use pfs_core::fs::{Errno, Result};

use super::Call;
use crate::fuse::decode::Xattrs;
use crate::fuse::reply::Shape;

impl Call<'_> {
    pub(super) fn xattrs(mut self, request: &Xattrs<'_>) -> Result<()> {
        // ENOSYS becomes EOPNOTSUPP in the guest, which then does not ask again.
        if !self.config.xattr {
            return Err(Errno::NOSYS);
        }
        let (fs, node) = (self.fs, self.node);
        match *request {
            Xattrs::Set { name, value, flags } => {
                let reply = self.reply(Shape::Empty);
                fs.setxattr(&mut self.req(), node, name, value, flags, reply);
            }
            Xattrs::Get { name, size } => {
                let reply = self.reply(self.value(size)?);
                fs.getxattr(&mut self.req(), node, name, reply);
            }
            Xattrs::List { size } => {
                let reply = self.reply(self.value(size)?);
                fs.listxattr(&mut self.req(), node, reply);
            }
            Xattrs::Remove { name } => {
                let reply = self.reply(Shape::Empty);
                fs.removexattr(&mut self.req(), node, name, reply);
            }
        }
        Ok(())
    }

    /// How a value is answered where the guest says that it has room for `size` bytes.
    fn value(&self, size: u32) -> Result<Shape> {
        if size == 0 {
            return Ok(Shape::ValueSize);
        }
        Ok(Shape::Value { size })
    }
}
