//! Ranges of files: sizes, allocation, holes, copies.

use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid};
use guest_tests::ring::fuse::{Errno, Error};

use crate::guest::File;
use crate::step::{Allocate, Op, Pick, Place};
use crate::world::{ensure, Checked, World};

/// FATTR_KILL_SUIDGID.
const KILL_SUIDGID: u32 = 1 << 11;

impl World {
    /// ALLOCATE and COPY.
    pub fn ranges(&mut self, client: usize, file: File, op: &Op) -> Checked {
        match *op {
            Op::Allocate {
                how, place, len, ..
            } => self.allocate(client, file, how, place, u64::from(len)),
            Op::Copy {
                to, at, to_at, len, ..
            } => match self.guests[client].file(to) {
                Some(to) => self.copy(client, (file, at), (to, to_at), u64::from(len)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Sets a size, without a handle.
    pub fn truncate(&mut self, client: usize, node: Pick, place: Place) -> Checked {
        let Some(id) = self.pick_node(client, node, |inode| inode.is_file()) else {
            return Ok(());
        };
        let size = self.offset(place, self.tree.get(id).bytes().len());
        self.note(client, format!("truncate {id} to {size}"));
        let nodeid = self.guests[client].nodeid(id);
        let set = SetattrIn {
            valid: SetattrValid::SIZE.bits() | if self.user { KILL_SUIDGID } else { 0 },
            size,
            ..SetattrIn::default()
        };
        let answer = self.guests[client].fs().setattr(nodeid, &set)?;
        self.truncate_model(id, size);
        self.kill_setid(id);
        self.touched.push(id);
        self.compare_attr(client, id, &answer.attr)
    }

    fn allocate(
        &mut self,
        client: usize,
        file: File,
        how: Allocate,
        place: Place,
        len: u64,
    ) -> Checked {
        let at = self.offset(place, self.tree.get(file.id).bytes().len());
        self.note(client, format!("fallocate {} {how:?} {at}+{len}", file.id));
        let (mode, extends, zeroes) = match how {
            Allocate::Extend => (0, true, false),
            Allocate::Keep => (libc::FALLOC_FL_KEEP_SIZE, false, false),
            Allocate::Punch => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                (mode, false, true)
            }
            Allocate::Zero => (libc::FALLOC_FL_ZERO_RANGE, true, true),
            Allocate::ZeroKeep => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                (mode, false, true)
            }
        };
        let fs = self.guests[client].fs();
        let got = fs.fallocate(file.handle, mode, at, len);
        if matches!(how, Allocate::Zero | Allocate::ZeroKeep) && unsupported(&got) {
            // Not every host's file system can.
            return Ok(());
        }
        let expected = if file.can_write() {
            Ok(())
        } else {
            Err(Errno::BADF)
        };
        if self.same(got, expected)?.is_none() {
            return Ok(());
        }
        let inode = self.tree.get_mut(file.id);
        inode.times.may_be_modified();
        let bytes = inode.bytes_mut();
        if zeroes {
            bytes.zero(at..at + len);
        }
        if extends && at + len > bytes.len() {
            bytes.truncate(at + len);
        }
        self.kill_setid(file.id);
        Ok(())
    }

    /// What is skipped as a hole is zeros; what is called a hole begins with them.
    pub fn seek(&mut self, client: usize, file: File, place: Place) -> Checked {
        let bytes = self.tree.get(file.id).bytes().clone();
        let size = bytes.len();
        let at = self.offset(place, size);
        self.note(client, format!("seek {} {at}", file.id));
        let fs = self.guests[client].fs();
        let data = fs.lseek(file.handle, at, libc::SEEK_DATA);
        let hole = fs.lseek(file.handle, at, libc::SEEK_HOLE);
        if at >= size {
            ensure!(
                data.is_err_and(|e| e == Errno::NXIO) && hole.is_err_and(|e| e == Errno::NXIO),
                "data or a hole beyond the end"
            );
            return Ok(());
        }
        let data = or_none(data)?;
        let end = data.unwrap_or(size);
        ensure!((at..=size).contains(&end), "data at {end}");
        ensure!(!bytes.has_data(at..end), "data before {end} was skipped");
        let hole = hole?;
        ensure!((at..=size).contains(&hole), "a hole at {hole}");
        if hole < size {
            let next = or_none(fs.lseek(file.handle, hole, libc::SEEK_DATA))?.unwrap_or(size);
            ensure!(next > hole, "data where the hole begins, at {hole}");
            ensure!(
                !bytes.has_data(hole..next),
                "data in the hole {hole}..{next}"
            );
        }
        if let Some(data) = data {
            let again = fs.lseek(file.handle, data, libc::SEEK_DATA)?;
            ensure!(again == data, "data at {data}, then at {again}");
        }
        Ok(())
    }

    fn copy(
        &mut self,
        client: usize,
        (from, at): (File, Place),
        (to, to_at): (File, Place),
        len: u64,
    ) -> Checked {
        let size = |file: File| self.tree.get(file.id).bytes().len();
        let (at, to_at) = (self.offset(at, size(from)), self.offset(to_at, size(to)));
        self.note(
            client,
            format!("copy {} {at}+{len} to {} {to_at}", from.id, to.id),
        );
        self.touched.push(to.id);
        let fs = self.guests[client].fs();
        let got = fs.copy_file_range(from.handle, at, to.handle, to_at, len);
        let expected = match from.can_read() && to.can_write() {
            true => self.tree.copy_len((from.id, at), (to.id, to_at), len),
            false => Err(Errno::BADF),
        };
        let overlaps = from.id == to.id && at.abs_diff(to_at) < len;
        if overlaps && got.as_ref().is_err_and(|e| *e == Errno::INVAL) {
            // Linux has looked at this before the end of the file, and after it.
            return Ok(());
        }
        let Some((got, most)) = self.same(got, expected)? else {
            return Ok(());
        };
        let got = got as u64;
        ensure!(
            got <= most && (got > 0 || most == 0),
            "{got} of {most} copied"
        );
        self.tree.get_mut(from.id).times.access.may_be_set();
        let bytes = self.tree.get(from.id).bytes().read(at, got);
        let inode = self.tree.get_mut(to.id);
        if got > 0 {
            inode.bytes_mut().write(to_at, &bytes);
            inode.times.modified();
            self.has_objects_from(to.id, to_at + got);
        } else {
            inode.times.may_be_modified();
        }
        self.kill_setid(to.id);
        Ok(())
    }
}

fn unsupported<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(error) if *error == Errno::OPNOTSUPP)
}

/// An offset, or none where there is no data left.
fn or_none(offset: Result<u64, Error>) -> Result<Option<u64>, Error> {
    match offset {
        Ok(offset) => Ok(Some(offset)),
        Err(error) if error == Errno::NXIO => Ok(None),
        Err(error) => Err(error),
    }
}
