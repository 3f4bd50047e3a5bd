//! Directories read in pieces, while names in them go.

use std::collections::BTreeSet;

use guest_tests::ring::fuse::abi::EntryOut;
use guest_tests::ring::fuse::{DirEntry, Handle};

use crate::posix::Id;
use crate::step::{Op, Pick};
use crate::world::{ensure, show, Checked, World};

/// A reading of a directory.
struct Reading {
    dir: Id,
    handle: Handle,
    plus: bool,
    room: usize,
    /// Names seen so far, `.` and `..` too.
    seen: Vec<Vec<u8>>,
    offset: u64,
}

impl World {
    pub fn list(&mut self, client: usize, op: &Op) -> Checked {
        let Op::List {
            dir,
            plus,
            room,
            removed,
        } = op
        else {
            return Ok(());
        };
        let dir = self.pick_dir(client, *dir);
        self.note(client, format!("list {dir} plus={plus} room={room}"));
        self.list_dir(client, dir, *plus, usize::from(*room), removed)
    }

    /// Reads a directory, and compares; between pieces, the other client removes names of it.
    pub fn list_dir(
        &mut self,
        client: usize,
        dir: Id,
        plus: bool,
        room: usize,
        removed: &[Pick],
    ) -> Checked {
        let nodeid = self.guests[client].nodeid(dir);
        let handle = self.guests[client].fs().opendir(nodeid)?;
        let mut reading = Reading {
            dir,
            handle,
            plus,
            room,
            seen: Vec::new(),
            offset: 0,
        };
        let before = self.names_in(dir);
        let mut removals = removed.iter();
        while self.read_piece(client, &mut reading)? {
            if let Some(pick) = removals.next() {
                self.remove_some(1 - client, dir, *pick)?;
            }
        }
        self.guests[client].fs().releasedir(handle)?;
        self.tree.get_mut(dir).times.access.may_be_set();
        self.touched.push(dir);
        let after = self.names_in(dir);
        let seen: BTreeSet<Vec<u8>> = reading.seen.iter().cloned().collect();
        ensure!(seen.len() == reading.seen.len(), "a name was seen twice");
        for name in &after {
            ensure!(seen.contains(name), "{:?} was not seen", show(name));
        }
        let dots = [b".".to_vec(), b"..".to_vec()];
        for name in seen {
            let known = before.contains(&name) || dots.contains(&name);
            ensure!(known, "{:?} is not there", show(&name));
        }
        Ok(())
    }

    fn names_in(&self, dir: Id) -> BTreeSet<Vec<u8>> {
        let entries = self.tree.entries(dir);
        entries
            .map(|e| e.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Reads the next entries; answers whether there were any.
    fn read_piece(&mut self, client: usize, reading: &mut Reading) -> Checked<bool> {
        let fs = self.guests[client].fs();
        let (handle, offset) = (reading.handle, reading.offset);
        let entries: Vec<(Option<EntryOut>, DirEntry)> = match reading.plus {
            true => {
                let piece = fs.readdirplus(handle, offset, reading.room)?;
                let some = |(entry, dir)| (Some(entry), dir);
                piece.into_iter().map(some).collect()
            }
            false => {
                let piece = fs.readdir(handle, offset, reading.room)?;
                piece.into_iter().map(|dir| (None, dir)).collect()
            }
        };
        for (entry, listed) in &entries {
            reading.offset = listed.offset;
            reading.seen.push(listed.name.clone());
            self.compare_entry(client, reading.dir, entry.as_ref(), listed)?;
        }
        Ok(!entries.is_empty())
    }

    fn compare_entry(
        &mut self,
        client: usize,
        dir: Id,
        entry: Option<&EntryOut>,
        listed: &DirEntry,
    ) -> Checked {
        // One that was removed after the host listed it may still be told of.
        let Ok(id) = self.tree.lookup((dir, &listed.name)) else {
            ensure!(
                entry.is_none_or(|entry| entry.nodeid == 0),
                "a node for {:?}, which is not there",
                show(&listed.name)
            );
            return Ok(());
        };
        let inode = self.tree.get(id);
        let kind = inode.kind.format() >> 12;
        ensure!(listed.kind == kind, "type {}, not {kind}", listed.kind);
        let ino = inode.ino.unwrap_or(listed.ino);
        ensure!(listed.ino == ino, "number {}, not {ino}", listed.ino);
        match entry {
            Some(entry) if entry.nodeid != 0 => self.enter(client, id, entry),
            _ => Ok(()),
        }
    }

    /// Removes one of the names of a directory, if it can be.
    fn remove_some(&mut self, client: usize, dir: Id, pick: Pick) -> Checked {
        let names: Vec<Vec<u8>> = self.names_in(dir).into_iter().collect();
        if names.is_empty() || !self.guests[client].nodes.contains_key(&dir) {
            return Ok(());
        }
        let name = &names[usize::from(pick) % names.len()];
        let found = self.tree.lookup((dir, name));
        let is_dir = found.is_ok_and(|id| self.tree.get(id).is_dir());
        self.remove(client, dir, name, is_dir)
    }

    pub fn sync_dir(&mut self, client: usize, dir: Pick) -> Checked {
        let dir = self.pick_dir(client, dir);
        self.note(client, format!("fsyncdir {dir}"));
        let nodeid = self.guests[client].nodeid(dir);
        let fs = self.guests[client].fs();
        let handle = fs.opendir(nodeid)?;
        fs.fsyncdir(handle, false)?;
        Ok(fs.releasedir(handle)?)
    }
}
