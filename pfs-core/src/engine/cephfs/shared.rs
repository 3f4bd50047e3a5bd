//! What requests share: the client, the inodes, and what the session has open.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::append::Appends;
use super::attr::{self, to_set};
use super::calls::{Calls, Kind};
use super::connect::Connector;
use super::dirs::OpenDir;
use super::ffi::{ceph_statx, STATX_ALL};
use super::file::File;
use super::inode::Inode;
use super::limited::Pending;
use super::mount::Perms;
use super::nodes::{Node, Nodes};
use super::version::Version;
use crate::fs::*;
use crate::handles::Handles;
use crate::locks::Locks;
use crate::session::{self, SessionStore};

/// What requests take with them.
pub struct Shared {
    pub nodes: Nodes,
    pub files: Handles<OpenFile>,
    pub dirs: Handles<OpenDir>,
    pub locks: Arc<Locks>,
    pub appends: Appends,
    pub calls: Calls,
    pub connector: Mutex<Connector>,
    /// How long a request may wait for the cluster.
    pub timeout: Option<Duration>,
    /// The process ends.
    pub closed: AtomicBool,
}

/// What is behind a file's handle.
pub struct OpenFile {
    pub node: Arc<Node>,
    pub flags: i32,
    /// What the file was at the open, and how many writes had begun here, where that is certain.
    pub version: Option<(Version, u64)>,
    pub file: File,
    /// A program's capabilities were dropped at an earlier write.
    pub caps_dropped: AtomicBool,
}

/// How often a call is made where one client after the other is given up.
const TRIES: u32 = 3;
/// Access mode that no handle has: what is wanted is allowed through every one.
pub const ANY_MODE: i32 = -1;

impl Shared {
    pub fn new(store: &Arc<SessionStore>, held_max: usize, connector: Connector) -> Shared {
        Shared {
            nodes: Nodes::new(store.clone(), held_max),
            files: Handles::new(store.clone(), session::Kind::File),
            dirs: Handles::new(store.clone(), session::Kind::Dir),
            locks: Locks::new(store.clone()),
            appends: Appends::default(),
            calls: Calls::new(),
            timeout: connector.timeout(),
            connector: Mutex::new(connector),
            closed: AtomicBool::new(false),
        }
    }

    /// Makes a call on a thread for it, and answers with its result. Where the cluster has given this
    /// client up, another takes its place and the call is made again.
    pub fn call<T: Into<Answer> + 'static>(
        self: &Arc<Self>,
        kind: Kind,
        reply: Reply<T>,
        call: impl Fn(&Arc<Shared>) -> Result<T> + Send + 'static,
    ) {
        let shared = self.clone();
        let Some(limit) = self.timeout else {
            return self
                .calls
                .run(kind, move || reply.send(shared.insist(call)));
        };
        let pending = Pending::new(reply);
        let late = pending.clone();
        let job = move || {
            let result = shared.insist(call);
            match (pending.take(), result) {
                (Some(reply), result) => reply.send(result),
                (None, Ok(value)) => shared.give_back(value.into()),
                (None, Err(_)) => {}
            }
        };
        self.calls.run(kind, job);
        self.calls.expire_after(limit, move || late.expire());
    }

    /// Makes a call, again where the client was given up.
    pub fn insist<T>(
        self: &Arc<Self>,
        mut call: impl FnMut(&Arc<Shared>) -> Result<T>,
    ) -> Result<T> {
        for _ in 1..TRIES {
            let mount = self.nodes.mount()?;
            match call(self) {
                Err(Errno::SHUTDOWN | Errno::NOTCONN) if self.connect_again(&mount) => {}
                result => return result,
            }
        }
        call(self)
    }

    /// What `req`'s caller is for the library.
    pub fn perms(&self, caller: &Caller) -> Result<Perms> {
        Perms::new(self.nodes.mount()?.functions(), caller.uid, caller.gid)
    }

    /// Takes one lookup on `inode`.
    pub fn entry(&self, (inode, stx): (impl Into<Arc<Inode>>, ceph_statx)) -> Result<Entry> {
        let node = self.nodes.intern(inode, &stx)?;
        Ok(Entry {
            node: node.id,
            attr: attr::attr(&stx),
        })
    }

    pub fn attr(&self, node: &Node) -> Result<Attr> {
        node.inode.stat(STATX_ALL).map(|stx| attr::attr(&stx))
    }

    /// The open file behind `handle`.
    pub fn open_file(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        self.files.get(handle, |node, flags| {
            let node = self.nodes.get(node)?.file()?;
            let flags = flags & !libc::O_TRUNC;
            let file = node.inode.open(file_flags(flags))?;
            Ok(OpenFile::new(node, flags, None, file))
        })
    }

    /// The file behind a handle of `at.node`, if it was not opened for the contrary of what it is
    /// wanted for.
    pub fn open_at(&self, at: &At, unwanted: i32) -> Result<Arc<OpenFile>> {
        let open = self.open_file(at.handle)?;
        match open.node.id != at.node || open.flags & libc::O_ACCMODE == unwanted {
            true => Err(Errno::BADF),
            false => Ok(open),
        }
    }

    /// Drops setuid and setgid of a file, as a change by an unprivileged caller must.
    pub fn drop_privileges(&self, node: &Node) -> Result<()> {
        let mode = u32::from(node.inode.stat(super::ffi::STATX_ALL)?.stx_mode);
        match without_privileges(mode) {
            kept if kept == mode => Ok(()),
            kept => {
                let (mut stx, mask) = to_set(&SetAttr {
                    mode: Some(kept),
                    ..SetAttr::default()
                });
                node.inode.set(&mut stx, mask)
            }
        }
    }
}

impl OpenFile {
    pub fn new(node: Arc<Node>, flags: i32, version: Option<(Version, u64)>, file: File) -> Self {
        OpenFile {
            node,
            flags,
            version,
            file,
            caps_dropped: Default::default(),
        }
    }

    /// A descriptor of the handle was closed: what the requester has cached of it is no older than its
    /// open.
    pub fn closing(&self) {
        if let Some((version, begun)) = &self.version {
            self.node.changes.confirm(version, *begun);
        }
    }
}

/// The open flags of a request that the client is given: not those that are handled by name, nor
/// `O_APPEND`, whose place is found here, nor `O_DIRECT`, since data is not kept in the client.
pub fn file_flags(flags: i32) -> i32 {
    flags & (libc::O_ACCMODE | libc::O_SYNC | libc::O_DSYNC | libc::O_TRUNC)
}

/// A mode without setuid, and without setgid where it is not mandatory locking.
pub fn without_privileges(mode: u32) -> u32 {
    let executable = mode & libc::S_IXGRP != 0;
    mode & !libc::S_ISUID & !(if executable { libc::S_ISGID } else { 0 })
}
