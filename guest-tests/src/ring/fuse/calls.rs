//! The operations as blocking calls: one method for each, in the order of the opcodes.
//!
//! Each returns the reply, or an [`Error`] that compares to an `Errno`. See
//! [`ops`] for what is sent.

use super::abi::{AttrOut, EntryOut, FileLock, Kstatfs, SetattrIn, StatxOut};
use super::client::Client;
use super::error::Error;
use super::ops::{self, Handle, Lock};
use super::request::DirEntry;
use crate::ring::memory::Buffer;

#[allow(missing_docs)] // Named and shaped as the FUSE operations; see `ops`.
impl Client {
    pub fn lookup(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<EntryOut, Error> {
        self.call(&ops::lookup(parent, name.as_ref()))
    }

    pub fn getattr(&mut self, nodeid: u64) -> Result<AttrOut, Error> {
        self.call(&ops::getattr(nodeid, None))
    }

    pub fn fgetattr(&mut self, handle: Handle) -> Result<AttrOut, Error> {
        self.call(&ops::getattr(handle.nodeid, Some(handle)))
    }

    pub fn setattr(&mut self, nodeid: u64, attr: &SetattrIn) -> Result<AttrOut, Error> {
        self.call(&ops::setattr(nodeid, attr))
    }

    pub fn readlink(&mut self, nodeid: u64) -> Result<Vec<u8>, Error> {
        self.call(&ops::readlink(nodeid))
    }

    pub fn symlink(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<EntryOut, Error> {
        self.call(&ops::symlink(parent, name.as_ref(), target.as_ref()))
    }

    pub fn mknod(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        rdev: u32,
    ) -> Result<EntryOut, Error> {
        self.call(&ops::mknod(parent, name.as_ref(), mode, rdev, 0))
    }

    pub fn mkdir(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
    ) -> Result<EntryOut, Error> {
        self.call(&ops::mkdir(parent, name.as_ref(), mode, 0))
    }

    pub fn unlink(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(&ops::unlink(parent, name.as_ref()))
    }

    pub fn rmdir(&mut self, parent: u64, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(&ops::rmdir(parent, name.as_ref()))
    }

    pub fn rename(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        newdir: u64,
        newname: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.call(&ops::rename(
            parent,
            name.as_ref(),
            newdir,
            newname.as_ref(),
        ))
    }

    pub fn rename2(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        newdir: u64,
        newname: impl AsRef<[u8]>,
        flags: u32,
    ) -> Result<(), Error> {
        let (name, newname) = (name.as_ref(), newname.as_ref());
        self.call(&ops::rename2(parent, name, newdir, newname, flags))
    }

    pub fn link(
        &mut self,
        nodeid: u64,
        newparent: u64,
        newname: impl AsRef<[u8]>,
    ) -> Result<EntryOut, Error> {
        self.call(&ops::link(nodeid, newparent, newname.as_ref()))
    }

    pub fn open(&mut self, nodeid: u64, flags: i32) -> Result<Handle, Error> {
        let open = self.call(&ops::open(nodeid, flags))?;
        Ok(Handle::new(nodeid, &open))
    }

    /// One READ of at most `limits.io_len` bytes, copied out.
    pub fn read(&mut self, handle: Handle, offset: u64, len: usize) -> Result<Vec<u8>, Error> {
        let data = self.scratch(len)?;
        let len = self.call(&ops::read(handle, offset, &data))?;
        Ok(data.to_vec(0, len))
    }

    /// One READ in place; the number of bytes.
    pub fn read_into(
        &mut self,
        handle: Handle,
        offset: u64,
        data: &Buffer,
    ) -> Result<usize, Error> {
        self.call(&ops::read(handle, offset, data))
    }

    /// One WRITE of at most `limits.io_len` bytes, copied in; the number of bytes written.
    pub fn write(&mut self, handle: Handle, offset: u64, bytes: &[u8]) -> Result<usize, Error> {
        let data = self.scratch(bytes.len())?;
        data.write(0, bytes);
        self.write_from(handle, offset, &data)
    }

    /// One WRITE in place; the number of bytes written.
    pub fn write_from(
        &mut self,
        handle: Handle,
        offset: u64,
        data: &Buffer,
    ) -> Result<usize, Error> {
        let out = self.call(&ops::write(handle, offset, data))?;
        Ok(out.size as usize)
    }

    pub fn statfs(&mut self, nodeid: u64) -> Result<Kstatfs, Error> {
        Ok(self.call(&ops::statfs(nodeid))?.st)
    }

    pub fn release(&mut self, handle: Handle) -> Result<(), Error> {
        self.call(&ops::release(handle, 0))
    }

    pub fn fsync(&mut self, handle: Handle, datasync: bool) -> Result<(), Error> {
        self.call(&ops::fsync(handle, datasync))
    }

    pub fn setxattr(
        &mut self,
        nodeid: u64,
        name: impl AsRef<[u8]>,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Error> {
        let extended = self.limits.setxattr_ext;
        self.call(&ops::setxattr(
            nodeid,
            name.as_ref(),
            value,
            flags,
            extended,
        ))
    }

    /// The value, asked for with room for 64 KiB.
    pub fn getxattr(&mut self, nodeid: u64, name: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.call(&ops::getxattr(nodeid, name.as_ref(), 64 << 10))
    }

    /// The size of the value.
    pub fn getxattr_size(&mut self, nodeid: u64, name: impl AsRef<[u8]>) -> Result<u32, Error> {
        Ok(self.call(&ops::getxattr_size(nodeid, name.as_ref()))?.size)
    }

    /// The names, each with its NUL, asked for with room for 64 KiB.
    pub fn listxattr(&mut self, nodeid: u64) -> Result<Vec<u8>, Error> {
        self.call(&ops::listxattr(nodeid, 64 << 10))
    }

    /// The size of the list.
    pub fn listxattr_size(&mut self, nodeid: u64) -> Result<u32, Error> {
        Ok(self.call(&ops::listxattr_size(nodeid))?.size)
    }

    pub fn removexattr(&mut self, nodeid: u64, name: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(&ops::removexattr(nodeid, name.as_ref()))
    }

    pub fn flush(&mut self, handle: Handle, lock_owner: u64) -> Result<(), Error> {
        self.call(&ops::flush(handle, lock_owner))
    }

    pub fn opendir(&mut self, nodeid: u64) -> Result<Handle, Error> {
        let open = self.call(&ops::opendir(nodeid, libc::O_DIRECTORY))?;
        Ok(Handle::new(nodeid, &open))
    }

    pub fn readdir(
        &mut self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Vec<DirEntry>, Error> {
        let data = self.scratch(len)?;
        self.call(&ops::readdir(handle, offset, &data))
    }

    pub fn releasedir(&mut self, handle: Handle) -> Result<(), Error> {
        self.call(&ops::releasedir(handle, 0))
    }

    pub fn fsyncdir(&mut self, handle: Handle, datasync: bool) -> Result<(), Error> {
        self.call(&ops::fsyncdir(handle, datasync))
    }

    /// The lock that stands in the way, or one of type `F_UNLCK`.
    pub fn getlk(&mut self, handle: Handle, lock: &Lock) -> Result<FileLock, Error> {
        Ok(self.call(&ops::getlk(handle, lock))?.lk)
    }

    pub fn setlk(&mut self, handle: Handle, lock: &Lock) -> Result<(), Error> {
        self.call(&ops::setlk(handle, lock))
    }

    pub fn setlkw(&mut self, handle: Handle, lock: &Lock) -> Result<(), Error> {
        self.call(&ops::setlkw(handle, lock))
    }

    pub fn access(&mut self, nodeid: u64, mask: u32) -> Result<(), Error> {
        self.call(&ops::access(nodeid, mask))
    }

    pub fn create(
        &mut self,
        parent: u64,
        name: impl AsRef<[u8]>,
        mode: u32,
        flags: i32,
    ) -> Result<(EntryOut, Handle), Error> {
        let request = ops::create(parent, name.as_ref(), libc::S_IFREG | mode, flags, 0);
        let (entry, open) = self.call(&request)?;
        Ok((entry, Handle::new(entry.nodeid, &open)))
    }

    pub fn destroy(&mut self) -> Result<(), Error> {
        self.call(&ops::destroy())
    }

    pub fn fallocate(
        &mut self,
        handle: Handle,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Error> {
        self.call(&ops::fallocate(handle, mode, offset, length))
    }

    pub fn readdirplus(
        &mut self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Vec<(EntryOut, DirEntry)>, Error> {
        let data = self.scratch(len)?;
        self.call(&ops::readdirplus(handle, offset, &data))
    }

    pub fn lseek(&mut self, handle: Handle, offset: u64, whence: i32) -> Result<u64, Error> {
        Ok(self.call(&ops::lseek(handle, offset, whence))?.offset)
    }

    pub fn copy_file_range(
        &mut self,
        from: Handle,
        offset_in: u64,
        to: Handle,
        offset_out: u64,
        len: u64,
    ) -> Result<usize, Error> {
        let request = ops::copy_file_range(from, offset_in, to, offset_out, len);
        Ok(self.call(&request)?.size as usize)
    }

    pub fn syncfs(&mut self, nodeid: u64) -> Result<(), Error> {
        self.call(&ops::syncfs(nodeid))
    }

    pub fn tmpfile(
        &mut self,
        parent: u64,
        mode: u32,
        flags: i32,
    ) -> Result<(EntryOut, Handle), Error> {
        let request = ops::tmpfile(parent, libc::S_IFREG | mode, flags, 0);
        let (entry, open) = self.call(&request)?;
        Ok((entry, Handle::new(entry.nodeid, &open)))
    }

    pub fn statx(
        &mut self,
        nodeid: u64,
        handle: Option<Handle>,
        sx_flags: u32,
        sx_mask: u32,
    ) -> Result<StatxOut, Error> {
        self.call(&ops::statx(nodeid, handle, sx_flags, sx_mask))
    }

    /// `len` bytes for the data of one blocking call. Taken anew if the last call still has
    /// them in flight.
    pub(super) fn scratch(&mut self, len: usize) -> Result<Buffer, Error> {
        let fits = |buffer: &&Buffer| buffer.len() >= len && !buffer.is_shared();
        if self.scratch.as_ref().filter(fits).is_none() {
            self.scratch = Some(self.memory.alloc_pages(len.max(self.limits.io_len))?);
        }
        let scratch = self.scratch.as_ref().ok_or(Error::Busy)?;
        Ok(scratch.slice(0, len))
    }
}
