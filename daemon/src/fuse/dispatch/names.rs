//! Names and nodes.

use pfs_core::fs::Result;

use super::Call;
use crate::fuse::decode::Names;
use crate::fuse::reply::Shape;

impl Call<'_> {
    pub(super) fn names(mut self, request: &Names<'_>) -> Result<()> {
        let (fs, node) = (self.fs, self.node);
        match *request {
            Names::Lookup { name } => {
                let reply = self.reply(Shape::Lookup);
                fs.lookup(&mut self.req(), node, name, reply);
            }
            Names::Readlink => {
                let reply = self.reply(Shape::Readlink);
                fs.readlink(&mut self.req(), node, reply);
            }
            Names::Symlink { name, target } => {
                let reply = self.reply(Shape::Entry);
                fs.symlink(&mut self.req(), node, name, target, reply);
            }
            Names::Mknod {
                name,
                ref make,
                rdev,
            } => {
                let reply = self.reply(Shape::Entry);
                fs.mknod(&mut self.req(), node, name, make, rdev, reply);
            }
            Names::Mkdir { name, ref make } => {
                let reply = self.reply(Shape::Entry);
                fs.mkdir(&mut self.req(), node, name, make, reply);
            }
            Names::Unlink { name } => {
                let reply = self.reply(Shape::Empty);
                fs.unlink(&mut self.req(), node, name, reply);
            }
            Names::Rmdir { name } => {
                let reply = self.reply(Shape::Empty);
                fs.rmdir(&mut self.req(), node, name, reply);
            }
            Names::Rename {
                name,
                to_parent,
                to_name,
                flags,
            } => {
                let reply = self.reply(Shape::Empty);
                let (from, to) = ((node, name), (to_parent, to_name));
                fs.rename(&mut self.req(), from, to, flags, reply);
            }
            Names::Link { node: target, name } => {
                let reply = self.reply(Shape::Entry);
                fs.link(&mut self.req(), target, node, name, reply);
            }
            Names::Create {
                name,
                ref make,
                flags,
                kill_suidgid,
            } => {
                let flags = self.open_flags(flags, kill_suidgid);
                let reply = self.reply(Shape::Create);
                fs.create(&mut self.req(), node, name, make, flags, reply);
            }
            Names::Tmpfile { ref make, flags } => {
                let flags = self.open_flags(flags, false).widened();
                let reply = self.reply(Shape::Create);
                fs.tmpfile(&mut self.req(), node, make, flags, reply);
            }
        }
        Ok(())
    }
}
