//! One client: a daemon of its own, and what its guest knows of the volume.

use std::collections::BTreeMap;

use guest_tests::fixture::{Heritage, Mount, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{Client, Handle, SessionConfig};

use super::posix::{Id, ROOT};
use super::step::{How, Pick};

/// A node that the guest has looked up.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    pub nodeid: u64,
    pub lookups: u64,
}

/// A file that the guest has open.
#[derive(Clone, Copy, Debug)]
pub struct File {
    pub id: Id,
    pub handle: Handle,
    pub flags: i32,
}

impl File {
    pub fn can_read(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_WRONLY
    }

    pub fn can_write(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

impl How {
    /// The flags of open(2).
    pub fn flags(self) -> i32 {
        let access = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR][usize::from(self.access)];
        let truncate = self.truncate && access != libc::O_RDONLY;
        access
            | if truncate { libc::O_TRUNC } else { 0 }
            | if self.append { libc::O_APPEND } else { 0 }
    }
}

pub struct Guest {
    pub mount: Mount,
    heritage: Heritage,
    pub nodes: BTreeMap<Id, Node>,
    pub files: Vec<File>,
}

impl Guest {
    pub fn new(volume: &Volume) -> Guest {
        let heritage = Heritage::new();
        let daemon = heritage.pass_to(volume.daemon());
        let root = Node {
            nodeid: ROOT_ID,
            lookups: 1,
        };
        Guest {
            mount: Mount::start(daemon, &SessionConfig::default()),
            heritage,
            nodes: BTreeMap::from([(ROOT, root)]),
            files: Vec::new(),
        }
    }

    pub fn fs(&mut self) -> &mut Client {
        self.mount.fs()
    }

    /// Kills the daemon, and lets another go on with the session.
    pub fn resume(&mut self, volume: &Volume) {
        self.mount.daemon.kill().expect("a daemon to kill");
        let daemon = self.heritage.pass_to(volume.daemon());
        self.mount.resume_with(daemon);
    }

    /// Remembers a lookup that was taken.
    pub fn took(&mut self, id: Id, nodeid: u64) -> Result<(), String> {
        let node = self.nodes.entry(id);
        let node = node.or_insert(Node { nodeid, lookups: 0 });
        if node.nodeid != nodeid {
            return Err(format!("node {nodeid}, which was {}", node.nodeid));
        }
        node.lookups += 1;
        Ok(())
    }

    /// The number of a node that the guest knows.
    pub fn nodeid(&self, id: Id) -> u64 {
        self.nodes[&id].nodeid
    }

    /// One of the nodes that `wanted` admits.
    pub fn pick(&self, pick: Pick, wanted: impl Fn(Id) -> bool) -> Option<Id> {
        let nodes: Vec<Id> = self
            .nodes
            .keys()
            .copied()
            .filter(|id| wanted(*id))
            .collect();
        match nodes.len() {
            0 => None,
            len => Some(nodes[usize::from(pick) % len]),
        }
    }

    /// One of the open files.
    pub fn file(&self, pick: Pick) -> Option<File> {
        match self.files.len() {
            0 => None,
            len => Some(self.files[usize::from(pick) % len]),
        }
    }
}
