//! Extended attributes.

use std::borrow::Cow;

use pfs_core::fs::{Errno, Result, XattrName};

use super::Call;
use crate::fuse::abi::init;
use crate::fuse::decode::Xattrs;
use crate::fuse::ids::is_acl;
use crate::fuse::reply::Shape;

impl Call<'_> {
    pub(super) fn xattrs(mut self, request: &Xattrs<'_>) -> Result<()> {
        // ENOSYS becomes EOPNOTSUPP in the guest, which then does not ask again.
        if !self.config.xattr {
            return Err(Errno::NOSYS);
        }
        if let Xattrs::Set { name, .. } | Xattrs::Get { name, .. } | Xattrs::Remove { name } =
            request
        {
            self.may_have(name)?;
        }
        let (fs, node) = (self.fs, self.node);
        match *request {
            Xattrs::Set { name, value, how } => {
                let value = &*self.in_host_ids(name, value)?;
                let reply = self.reply(Shape::Empty);
                fs.setxattr(&mut self.req(), node, name, value, how, reply);
            }
            Xattrs::Get { name, size } => {
                self.pending.acl = is_acl(name);
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

    /// An ACL is for a guest whose kernel enforces it, and checks who may change it.
    fn may_have(&self, name: &XattrName) -> Result<()> {
        match is_acl(name) && self.flags & init::POSIX_ACL == 0 {
            true => Err(Errno::OPNOTSUPP),
            false => Ok(()),
        }
    }

    /// The value to set, in the volume's ids.
    fn in_host_ids<'a>(&self, name: &XattrName, value: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        let ids = &self.config.ids;
        if ids.is_identity() || !is_acl(name) {
            return Ok(Cow::Borrowed(value));
        }
        let mut value = value.to_vec();
        ids.acl_to_host(&mut value)?;
        Ok(Cow::Owned(value))
    }

    /// How a value is answered where the guest says that it has room for `size` bytes.
    fn value(&self, size: u32) -> Result<Shape> {
        if size == 0 {
            return Ok(Shape::ValueSize);
        }
        Ok(Shape::Value { size })
    }
}
