//! Attributes and open files.

use pfs_core::fs::{Errno, Lock, Result};

use super::Call;
use crate::fuse::abi::init::{FLOCK_LOCKS, POSIX_LOCKS};
use crate::fuse::decode::Files;
use crate::fuse::reply::Shape;

impl Call<'_> {
    pub(super) fn files(mut self, request: &Files) -> Result<()> {
        let (fs, node) = (self.fs, self.node);
        match *request {
            Files::Getattr { handle } => {
                let reply = self.reply(Shape::Attr);
                fs.getattr(&mut self.req(), node, handle, reply);
            }
            Files::Statx { handle } => {
                let reply = self.reply(Shape::Statx);
                fs.getattr(&mut self.req(), node, handle, reply);
            }
            Files::Setattr { mut set } => {
                self.config.ids.set_attr(&mut set)?;
                let reply = self.reply(Shape::Attr);
                fs.setattr(&mut self.req(), node, &set, reply);
            }
            Files::Open {
                flags,
                kill_suidgid,
            } => {
                self.may_open(flags)?;
                let flags = self.open_flags(flags, kill_suidgid);
                let reply = self.reply(Shape::Open);
                fs.open(&mut self.req(), node, flags, reply);
            }
            Files::Read { at, size } => {
                if self.room() < u64::from(size) {
                    return Err(Errno::INVAL);
                }
                let reply = self.reply(Shape::Read { size });
                let slices = self.read_slices(size);
                fs.read(&mut self.req(), at, slices, reply);
            }
            Files::Write { at, size, flags } => {
                let reply = self.reply(Shape::Write { size });
                let slices = self.write_slices(size);
                fs.write(&mut self.req(), at, slices, flags, reply);
            }
            Files::Flush { handle, owner } => {
                let reply = self.reply(Shape::Empty);
                fs.flush(&mut self.req(), handle, owner, reply);
            }
            Files::Release {
                handle,
                flock_owner,
            } => {
                let reply = self.reply(Shape::Empty);
                fs.release(&mut self.req(), handle, flock_owner, reply);
            }
            Files::Fsync { handle, datasync } => {
                let reply = self.reply(Shape::Empty);
                fs.fsync(&mut self.req(), node, handle, datasync, reply);
            }
            _ => return self.ranges(request),
        }
        Ok(())
    }

    /// Requests about ranges of a file but READ and WRITE.
    fn ranges(mut self, request: &Files) -> Result<()> {
        let fs = self.fs;
        match *request {
            Files::Fallocate { at, len, mode } => {
                let reply = self.reply(Shape::Empty);
                fs.fallocate(&mut self.req(), at, len, mode, reply);
            }
            Files::Lseek { at, whence } => {
                let reply = self.reply(Shape::Lseek);
                fs.lseek(&mut self.req(), at, whence, reply);
            }
            Files::CopyFileRange { from, to, len } => {
                let reply = self.reply(Shape::Write { size: u32::MAX });
                fs.copy_file_range(&mut self.req(), from, to, len, reply);
            }
            Files::Getlk { at, ref lock } => {
                self.has_locks(lock)?;
                let reply = self.reply(Shape::Lock);
                fs.getlk(&mut self.req(), at, lock, reply);
            }
            Files::Setlk { at, ref lock, wait } => {
                self.has_locks(lock)?;
                let wait = wait.then(|| self.source.may_wait(self.unique));
                let reply = self.reply(Shape::Empty);
                fs.setlk(&mut self.req(), at, lock, wait, reply);
            }
            _ => return Err(Errno::NOSYS),
        }
        Ok(())
    }

    /// Whether the session has such locks for all; else they are the guest's own.
    fn has_locks(&self, lock: &Lock) -> Result<()> {
        let flag = match lock.flock {
            true => FLOCK_LOCKS,
            false => POSIX_LOCKS,
        };
        match self.flags & flag != 0 {
            true => Ok(()),
            false => Err(Errno::NOSYS),
        }
    }

    /// On a read-only volume nothing is opened for writing.
    fn may_open(&self, flags: i32) -> Result<()> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        match self.config.readonly && writes {
            true => Err(Errno::ROFS),
            false => Ok(()),
        }
    }
}
