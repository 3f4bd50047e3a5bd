//! Inodes that have open files in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use hashbrown::DefaultHashBuilder;

use super::inode::StripedInode;
use crate::sync::lock;

/// Workers meet on a shard only for inodes whose numbers are alike.
const SHARDS: usize = 64;

type Shard = Mutex<HashMap<u64, Weak<StripedInode>, DefaultHashBuilder>>;

/// By inode number: one that is open keeps its number.
pub(super) struct Table(Box<[Shard]>);

impl Default for Table {
    fn default() -> Table {
        Table((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Table {
    /// The inode `ino`, if it is open here.
    pub fn get(&self, ino: u64) -> Option<Arc<StripedInode>> {
        self.shard(ino).get(&ino).and_then(Weak::upgrade)
    }

    /// Whether the inode `ino` is open here.
    pub fn is_open(&self, ino: u64) -> bool {
        let shard = self.shard(ino);
        shard
            .get(&ino)
            .is_some_and(|inode| inode.strong_count() > 0)
    }

    /// The inode `ino`, made by `new` where it is not open here yet.
    pub fn get_or(&self, ino: u64, new: impl FnOnce() -> StripedInode) -> Arc<StripedInode> {
        let mut shard = self.shard(ino);
        if let Some(inode) = shard.get(&ino).and_then(Weak::upgrade) {
            return inode;
        }
        // Entries of closed files go when the table would grow.
        if shard.len() == shard.capacity() {
            shard.retain(|_, inode| inode.strong_count() > 0);
        }
        let inode = Arc::new(new());
        shard.insert(ino, Arc::downgrade(&inode));
        inode
    }

    fn shard(
        &self,
        ino: u64,
    ) -> MutexGuard<'_, HashMap<u64, Weak<StripedInode>, DefaultHashBuilder>> {
        lock(&self.0[ino as usize % SHARDS])
    }
}
