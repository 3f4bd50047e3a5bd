//! Open files and directories.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use hashbrown::DefaultHashBuilder;

use crate::fs::{Errno, Handle, NodeId, Result};
use crate::session::{Identity, Kind, Record, SessionStore};
use crate::sync::lock;

/// Workers meet on a shard only for handles whose slots are alike.
const SHARDS: usize = 64;

type Shard<T> = Mutex<HashMap<u64, Arc<T>, DefaultHashBuilder>>;

/// What is behind the handles of one kind. A handle is a record of the session (its node and
/// open flags) and, in this process, a `T`; one that the session knows and this process does not
/// is opened again when it is used.
pub struct Handles<T> {
    store: Arc<SessionStore>,
    kind: Kind,
    shards: Box<[Shard<T>]>,
}

impl<T> Handles<T> {
    /// An empty table of handles recorded as `kind`.
    pub fn new(store: Arc<SessionStore>, kind: Kind) -> Handles<T> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Handles {
            store,
            kind,
            shards,
        }
    }

    /// Gives out a handle for `value`; `ENFILE` when the session has no room.
    pub fn insert(&self, node: NodeId, flags: i32, value: T) -> Result<Handle> {
        let id = self.store.insert(&Record {
            kind: self.kind,
            a: node.0,
            b: flags as u32 as u64,
            identity: Identity::NONE,
        })?;
        lock(self.shard(id)).insert(id, Arc::new(value));
        Ok(Handle(id))
    }

    /// What is behind `handle`. `reopen(node, flags)` makes it anew where only the session's
    /// record is left. `EBADF` for a handle never given out, released, or of another kind.
    pub fn get(
        &self,
        handle: Handle,
        reopen: impl FnOnce(NodeId, i32) -> Result<T>,
    ) -> Result<Arc<T>> {
        if let Some(value) = lock(self.shard(handle.0)).get(&handle.0) {
            return Ok(value.clone());
        }
        let record = self
            .store
            .get(handle.0)
            .filter(|record| record.kind == self.kind);
        let record = record.ok_or(Errno::BADF)?;
        let value = Arc::new(reopen(NodeId(record.a), record.b as u32 as i32)?);
        Ok(lock(self.shard(handle.0))
            .entry(handle.0)
            .or_insert(value)
            .clone())
    }

    /// What is behind `handle` in this process, if anything is yet.
    pub fn peek(&self, handle: Handle) -> Option<Arc<T>> {
        lock(self.shard(handle.0)).get(&handle.0).cloned()
    }

    /// The node that `handle` is of: `EBADF` as for [`get`](Self::get).
    pub fn node(&self, handle: Handle) -> Result<NodeId> {
        let record = self.store.get(handle.0);
        let record = record.filter(|record| record.kind == self.kind);
        record.map(|record| NodeId(record.a)).ok_or(Errno::BADF)
    }

    /// Takes `handle` back; answers what was behind it in this process.
    pub fn remove(&self, handle: Handle) -> Result<Option<Arc<T>>> {
        let record = self
            .store
            .get(handle.0)
            .filter(|record| record.kind == self.kind);
        record.ok_or(Errno::BADF)?;
        let value = lock(self.shard(handle.0)).remove(&handle.0);
        self.store.remove(handle.0);
        Ok(value)
    }

    /// Takes all handles back.
    pub fn remove_all(&self) -> Vec<Arc<T>> {
        let mut values = Vec::new();
        for shard in &self.shards {
            values.extend(lock(shard).drain().map(|(id, value)| {
                self.store.remove(id);
                value
            }));
        }
        let left: Vec<u64> = self
            .store
            .ids()
            .filter(|(_, kind)| *kind == self.kind)
            .map(|(id, _)| id)
            .collect();
        left.into_iter().for_each(|id| self.store.remove(id));
        values
    }

    /// Lets go of what is behind the handles, which stay: each is opened again when it is used.
    pub fn let_go(&self) -> Vec<Arc<T>> {
        let shards = self.shards.iter();
        shards
            .flat_map(|shard| std::mem::take(&mut *lock(shard)).into_values())
            .collect()
    }

    /// The handles that the session has.
    pub fn all(&self) -> Vec<Handle> {
        let ids = self.store.ids().filter(|(_, kind)| *kind == self.kind);
        ids.map(|(id, _)| Handle(id)).collect()
    }

    fn shard(&self, id: u64) -> &Shard<T> {
        &self.shards[id as u32 as usize % SHARDS]
    }
}
