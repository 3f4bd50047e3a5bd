//! Open files, and the bytes in them.

use guest_tests::ring::fuse::abi::{Opcode, OpenIn, OpenOut, WriteIn, WriteOut};
use guest_tests::ring::fuse::{Errno, Error, Handle, Request};

use crate::guest::File;
use crate::posix::Id;
use crate::step::{How, Op, Pick, Place};
use crate::world::{ensure, Checked, Mismatch, World};

/// Bytes of a guest's page.
const PAGE: u64 = 4096;
/// FUSE_WRITE_CACHE.
const WRITE_CACHE: u32 = 1 << 0;
/// FUSE_WRITE_KILL_SUIDGID.
const WRITE_KILL_PRIV: u32 = 1 << 2;
/// FUSE_OPEN_KILL_SUIDGID.
const OPEN_KILL_SUIDGID: u32 = 1 << 0;

impl World {
    pub fn data(&mut self, client: usize, op: &Op) -> Checked {
        self.ask_as(client, self.user);
        if let Op::Open { node, how } = op {
            return self.open(client, *node, *how);
        }
        if let Op::Truncate { node, place } = op {
            return self.truncate(client, *node, *place);
        }
        let pick = match op {
            Op::Release(file) | Op::Flush(file) => *file,
            Op::Read { file, .. } | Op::Write { file, .. } | Op::Allocate { file, .. } => *file,
            Op::WritePages { file, .. } => *file,
            Op::Seek { file, .. } | Op::Sync { file, .. } => *file,
            Op::Copy { from, .. } => *from,
            _ => return Ok(()),
        };
        let Some(file) = self.guests[client].file(pick) else {
            return Ok(());
        };
        self.touched.push(file.id);
        match op {
            Op::Release(_) => self.release(client, file),
            Op::Flush(_) => {
                self.note(client, format!("flush {}", file.id));
                self.close_may_set_times(file);
                Ok(self.guests[client].fs().flush(file.handle, 0)?)
            }
            Op::Sync { data, .. } => {
                self.note(client, format!("fsync {}", file.id));
                Ok(self.guests[client].fs().fsync(file.handle, *data)?)
            }
            Op::Read { place, len, .. } => self.read(client, file, *place, u64::from(*len)),
            Op::Write { place, len, .. } => self.write(client, file, *place, *len as usize),
            Op::WritePages { place, len, .. } => {
                self.write_pages(client, file, *place, u64::from(*len))
            }
            Op::Seek { place, .. } => self.seek(client, file, *place),
            _ => self.ranges(client, file, op),
        }
    }

    fn open(&mut self, client: usize, node: Pick, how: How) -> Checked {
        let Some(id) = self.pick_node(client, node, |inode| inode.is_file()) else {
            return Ok(());
        };
        let flags = how.flags();
        self.note(client, format!("open {id} {flags:#o}"));
        let nodeid = self.guests[client].nodeid(id);
        let truncates = flags & libc::O_TRUNC != 0;
        let body = OpenIn {
            flags: flags as u32,
            fuse_flags: u32::from(truncates && self.user) * OPEN_KILL_SUIDGID,
        };
        let request = Request::new(Opcode::Open as u32, nodeid).body(&body);
        let open: OpenOut = self.guests[client].fs().call(&request)?;
        let handle = Handle::new(nodeid, &open);
        self.tree.get_mut(id).handles += 1;
        self.guests[client].files.push(File { id, handle, flags });
        if truncates {
            self.truncate_model(id, 0);
            self.kill_setid(id);
        }
        self.touched.push(id);
        Ok(())
    }

    /// Closes a file.
    pub fn release(&mut self, client: usize, file: File) -> Checked {
        self.note(client, format!("release {}", file.id));
        let guest = &mut self.guests[client];
        guest
            .files
            .retain(|other| other.handle.fh != file.handle.fh);
        guest.fs().release(file.handle)?;
        let again = guest.fs().fsync(file.handle, false);
        ensure!(
            again.is_err_and(|e| e == Errno::BADF),
            "a handle works after its release"
        );
        self.close_may_set_times(file);
        self.tree.get_mut(file.id).handles -= 1;
        Ok(())
    }

    fn read(&mut self, client: usize, file: File, place: Place, len: u64) -> Checked {
        let size = self.tree.get(file.id).bytes().len();
        let at = self.offset(place, size);
        self.note(client, format!("read {} {at}+{len}", file.id));
        let got = self.guests[client].fs().read(file.handle, at, len as usize);
        let expected = match file.can_read() {
            true => Ok(self.tree.get(file.id).bytes().read(at, len)),
            false => Err(Errno::BADF),
        };
        if let Some((got, expected)) = self.same(got, expected)? {
            self.tree.get_mut(file.id).times.access.may_be_set();
            same_bytes(at, &got, &expected)?;
        }
        Ok(())
    }

    fn write(&mut self, client: usize, file: File, place: Place, len: usize) -> Checked {
        let size = self.tree.get(file.id).bytes().len();
        // What an appender believes to be the end may be long past.
        let told = self.offset(place, size);
        let at = match file.flags & libc::O_APPEND {
            0 => told,
            _ => size,
        };
        let bytes = self.fresh_bytes(len);
        self.note(client, format!("write {} {at}+{len}", file.id));
        let privileges = if self.user { WRITE_KILL_PRIV } else { 0 };
        let flags = (file.flags, privileges);
        let got = self.write_at(client, file, told, &bytes, flags);
        let expected = if file.can_write() {
            Ok(len)
        } else {
            Err(Errno::BADF)
        };
        if let Some((got, len)) = self.same(got, expected)? {
            ensure!(got == len, "{got} bytes written");
            let inode = self.tree.get_mut(file.id);
            inode.bytes_mut().write(at, &bytes);
            inode.times.modified();
            self.kill_setid(file.id);
            self.has_objects_from(file.id, at + len as u64);
        }
        Ok(())
    }

    /// Changes some bytes, and writes the pages they are in as far as the file goes: with no flags
    /// of the open file, and so never at the end.
    fn write_pages(&mut self, client: usize, file: File, place: Place, len: u64) -> Checked {
        let size = self.tree.get(file.id).bytes().len();
        let changed = self.offset(place, size);
        let start = changed - changed % PAGE;
        let end = (changed + len).next_multiple_of(PAGE).min(size);
        if !file.can_write() || changed >= end {
            return Ok(());
        }
        let mut pages = self.tree.get(file.id).bytes().read(start, end - start);
        let fresh = self.fresh_bytes((end.min(changed + len) - changed) as usize);
        pages[(changed - start) as usize..][..fresh.len()].copy_from_slice(&fresh);
        self.note(
            client,
            format!("write pages {} {start}+{}", file.id, pages.len()),
        );
        let written = self.write_at(client, file, start, &pages, (0, WRITE_CACHE))?;
        ensure!(written == pages.len(), "{written} bytes written");
        let inode = self.tree.get_mut(file.id);
        inode.bytes_mut().write(start, &pages);
        inode.times.modified();
        if !self.is_root {
            self.kill_setid(file.id);
        }
        self.has_objects_from(file.id, end);
        Ok(())
    }

    /// WRITE, with the flags that the guest's kernel gives of the open file, and its own.
    fn write_at(
        &mut self,
        client: usize,
        file: File,
        offset: u64,
        bytes: &[u8],
        (flags, fuse_flags): (i32, u32),
    ) -> Result<usize, Error> {
        let fs = self.guests[client].fs();
        let data = fs.memory().alloc_pages(bytes.len())?;
        data.write(0, bytes);
        let Handle { nodeid, fh, .. } = file.handle;
        let body = WriteIn {
            fh,
            offset,
            size: bytes.len() as u32,
            flags: flags as u32,
            fuse_flags,
            ..WriteIn::default()
        };
        let request = Request::new(Opcode::Write as u32, nodeid)
            .body(&body)
            .payload(&data);
        let out: WriteOut = fs.call(&request)?;
        Ok(out.size as usize)
    }
}

/// Compares bytes, and says where they differ.
pub fn same_bytes(offset: u64, got: &[u8], expected: &[u8]) -> Checked {
    let (seen, wanted) = (got.len(), expected.len());
    ensure!(seen == wanted, "{seen} bytes at {offset}, not {wanted}");
    let Some(at) = got.iter().zip(expected).position(|(a, b)| a != b) else {
        return Ok(());
    };
    let different = got.iter().zip(expected).filter(|(a, b)| a != b).count();
    let zeros = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == 0).count();
    Err(Mismatch(format!(
        "{different} of {seen} bytes at {offset} differ, the first at {}: {} zeros, not {}",
        offset + at as u64,
        zeros(&got[at..]),
        zeros(&expected[at..]),
    )))
}

impl World {
    /// What changes a file takes setuid and setgid from it, unless root did.
    pub fn kill_setid(&mut self, id: Id) {
        if self.user || !self.is_root {
            self.tree.get_mut(id).kill_setid();
        }
    }

    /// Notes that bytes up to `end` were written.
    pub fn has_objects_from(&mut self, id: Id, end: u64) {
        self.tree.get_mut(id).has_objects |= end > self.shape.mdt_size;
    }

    /// Sets the model's size, as SETATTR and O_TRUNC do.
    pub fn truncate_model(&mut self, id: Id, size: u64) {
        let inode = self.tree.get_mut(id);
        if inode.bytes().len() == size {
            inode.times.may_be_modified();
        } else {
            inode.times.modified();
        }
        inode.bytes_mut().truncate(size);
    }
}
