//! Deaths of daemons, and what comes after.

use crate::guest::Guest;
use crate::posix::{Id, ROOT};
use crate::world::{ensure, Checked, World};
use guest_tests::ring::fuse::Errno;

impl World {
    /// Daemon and guest are gone; all that was answered is there for the next.
    pub fn crash(&mut self, client: usize) -> Checked {
        self.note(client, "crash");
        let killed = self.guests[client].mount.daemon.kill();
        ensure!(killed.is_ok(), "{killed:?}");
        for file in std::mem::take(&mut self.guests[client].files) {
            let inode = self.tree.get_mut(file.id);
            inode.handles -= 1;
            self.lost_nameless |= inode.links == 0;
        }
        self.guests[client] = Guest::new(&self.volume);
        self.compare_all(client)
    }

    /// Another daemon goes on: with nodes, handles and all.
    pub fn resume(&mut self, client: usize) -> Checked {
        self.note(client, "resume");
        self.guests[client].resume(&self.volume);
        let guests = &self.guests;
        let lost = |id: &Id| {
            let inode = self.tree.get(*id);
            let is_open = guests[client].files.iter().any(|file| file.id == *id);
            inode.links == 0 && !(inode.is_orphan && is_open)
        };
        let lost: Vec<Id> = guests[client].nodes.keys().copied().filter(lost).collect();
        for id in lost {
            self.lose(client, id)?;
        }
        self.touched.extend(self.guests[client].nodes.keys());
        Ok(())
    }

    /// A file that has no name, and is no orphan, was in use by a daemon that died: it is there or
    /// not, but no other file is in its place.
    fn lose(&mut self, client: usize, id: Id) -> Checked {
        self.lost_nameless = true;
        let nodeid = self.guests[client].nodeid(id);
        if !self.tree.get(id).is_gone() {
            match self.guests[client].fs().getattr(nodeid) {
                Ok(seen) => self.compare_attr(client, id, &seen.attr)?,
                Err(error) => ensure!(error == Errno::STALE, "{error}"),
            }
        }
        let guest = &mut self.guests[client];
        let (lost, kept) = std::mem::take(&mut guest.files)
            .into_iter()
            .partition(|file| file.id == id);
        guest.files = kept;
        let lost: Vec<crate::guest::File> = lost;
        for file in lost {
            self.close_may_set_times(file);
            self.guests[client].fs().release(file.handle)?;
            self.tree.get_mut(id).handles -= 1;
        }
        let guest = &mut self.guests[client];
        if let Some(node) = guest.nodes.remove(&id) {
            guest.fs().forget(node.nodeid, node.lookups)?;
        }
        Ok(())
    }

    /// Lets go of everything, removes it, and looks at what is left on the disk.
    pub fn close_down(&mut self) -> Checked {
        let world = self;
        for client in 0..2 {
            while let Some(file) = world.guests[client].files.last().copied() {
                world.release(client, file)?;
            }
        }
        world.empty(ROOT)?;
        for guest in &mut world.guests {
            guest.mount.session.device.disconnect();
            let status = guest.mount.daemon.wait();
            let ended = status.as_ref().is_ok_and(|status| status.success());
            ensure!(ended, "{status:?}, {}", guest.mount.daemon.log());
        }
        if world.volume.is_striped() {
            world.check_volume()?;
        }
        Ok(())
    }

    /// Deaths may have left files without a name, which a repair removes; nothing else is left.
    fn check_volume(&self) -> Checked {
        if self.lost_nameless {
            let (code, said) = self.volume.check(&["--repair", "--orphan-age", "0"]);
            ensure!(code <= 1, "volume check --repair: {code}: {said}");
        }
        let (code, said) = self.volume.check(&[]);
        ensure!(code == 0, "volume check: {code}: {said}");
        let left = self.volume.objects().concat().len();
        ensure!(left == 0, "{left} objects without a file");
        Ok(())
    }

    /// Removes all that is in a directory.
    fn empty(&mut self, dir: Id) -> Checked {
        let entries: Vec<(Vec<u8>, Id)> = match self.tree.entries(dir) {
            Ok(entries) => entries.iter().map(|(n, id)| (n.clone(), *id)).collect(),
            Err(_) => return Ok(()),
        };
        for (name, id) in entries {
            let is_dir = self.tree.get(id).is_dir();
            if is_dir {
                self.find(0, dir, &name)?;
                self.empty(id)?;
            }
            self.remove(0, dir, &name, is_dir)?;
        }
        Ok(())
    }
}
