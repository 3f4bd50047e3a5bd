//! What the engines do otherwise than the model.

use crate::guest::File;
use crate::posix::Id;
use crate::world::World;

impl World {
    /// A descriptor is closed: who may have written through it moves the change time, from which
    /// others tell that the file changed. Who closes a striped file last frees blocks of its inode.
    pub fn close_may_set_times(&mut self, file: File) {
        if file.can_write() || self.volume.is_striped() {
            self.tree.get_mut(file.id).times.change.may_be_set();
        }
    }

    /// A rename that fails may have made what it was to replace an orphan, and undone that.
    pub fn was_nearly_replaced(&mut self, victim: Option<Id>) {
        if let Some(id) = victim.filter(|_| self.volume.is_striped()) {
            self.tree.get_mut(id).times.change.may_be_set();
        }
    }

    /// A striped file that others have open, and that has no name any more, has one link for who
    /// does not have it open: the one among the orphans.
    pub fn may_miss_removal(&self, client: usize, id: Id) -> bool {
        let is_open = self.guests[client].files.iter().any(|file| file.id == id);
        let inode = self.tree.get(id);
        self.volume.is_striped() && inode.is_file() && inode.links == 0 && !is_open
    }

    /// A client removed a name of a file. A striped one is kept for those who have it open, be
    /// their daemons killed, if it has objects or that client has it open.
    pub fn lost_name(&mut self, client: usize, id: Id) {
        let is_open = self.guests[client].files.iter().any(|file| file.id == id);
        let striped = self.volume.is_striped();
        let inode = self.tree.get_mut(id);
        inode.is_orphan =
            striped && inode.is_file() && inode.links == 0 && (is_open || inode.has_objects);
    }
}
