//! The whole volume against the whole model.

use crate::posix::{Bytes, Id, Kind, ROOT};
use crate::steps::same_bytes;
use crate::world::{ensure, show, Checked, Mismatch, World};

/// Files up to this are read whole, larger ones where there is data, and around it.
const WHOLE_MAX: u64 = 256 << 10;

impl World {
    /// Compares all names, attributes and bytes as a client sees them.
    pub fn compare_all(&mut self, client: usize) -> Checked {
        self.note(client, "compare all");
        self.compare_node(client, ROOT)?;
        self.compare_dir(client, ROOT)
    }

    fn compare_dir(&mut self, client: usize, dir: Id) -> Checked {
        self.compare_xattrs(client, dir)?;
        self.list_dir(client, dir, true, 4096, &[])?;
        let entries: Vec<(Vec<u8>, Id)> = match self.tree.entries(dir) {
            Ok(entries) => entries.iter().map(|(n, id)| (n.clone(), *id)).collect(),
            Err(_) => return Ok(()),
        };
        for (name, id) in entries {
            let found = self.find(client, dir, &name)?;
            ensure!(found == Some(id), "{:?} is {found:?}", show(&name));
            match &self.tree.get(id).kind {
                Kind::Dir(_) => self.compare_dir(client, id)?,
                Kind::File(_) => self.compare_file(client, id)?,
                Kind::Link(target) => {
                    let (target, nodeid) = (target.clone(), self.guests[client].nodeid(id));
                    let seen = self.guests[client].fs().readlink(nodeid)?;
                    self.tree.get_mut(id).times.access.may_be_set();
                    ensure!(seen == target, "link {id} goes elsewhere");
                }
                Kind::Special(..) => {}
            }
        }
        Ok(())
    }

    fn compare_file(&mut self, client: usize, id: Id) -> Checked {
        self.compare_xattrs(client, id)?;
        let nodeid = self.guests[client].nodeid(id);
        let handle = self.guests[client].fs().open(nodeid, libc::O_RDONLY)?;
        let bytes = self.tree.get(id).bytes().clone();
        let margin = 2 * self.shape.stripe_unit;
        for range in ranges(&bytes, margin) {
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(512 << 10);
                let read = self.guests[client].fs().read(handle, at, len as usize)?;
                let same = same_bytes(at, &read, &bytes.read(at, len));
                same.map_err(|Mismatch(what)| {
                    Mismatch(format!("client {client}, inode {id}: {what}"))
                })?;
                at += len;
            }
        }
        self.tree.get_mut(id).times.access.may_be_set();
        Ok(self.guests[client].fs().release(handle)?)
    }
}

/// What of a file is worth reading.
fn ranges(bytes: &Bytes, margin: u64) -> Vec<std::ops::Range<u64>> {
    let size = bytes.len();
    let start = 0..WHOLE_MAX.min(size + 1);
    let end = size.saturating_sub(margin)..size + 1;
    let around = bytes.extents().into_iter().filter(|e| e.end > WHOLE_MAX);
    let around = around.map(|e| e.start.saturating_sub(margin)..(e.end + margin).min(size + 1));
    std::iter::once(start).chain(around).chain([end]).collect()
}
