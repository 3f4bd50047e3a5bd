//! Reading directories.

use std::sync::{Arc, Mutex};

use super::attr::ino;
use super::calls::Kind;
use super::file::{Dir, DirItem};
use super::mount::Vino;
use super::nodes::Node;
use super::shared::Shared;
use crate::fs::*;
use crate::sync::lock;

/// An open directory.
pub struct OpenDir {
    node: Arc<Node>,
    stream: Mutex<Stream>,
}

struct Stream {
    dir: Dir,
    /// The cookie after which `dir`, or `ahead`, goes on.
    cookie: u64,
    /// An entry that was read and not given out.
    ahead: Option<(DirItem, bool)>,
}

impl Stream {
    /// Goes on after the entry with this cookie.
    fn seek(&mut self, cookie: u64) -> Result<()> {
        if self.cookie != cookie {
            self.ahead = None;
            self.dir.seek(cookie as i64)?;
            self.cookie = cookie;
        }
        Ok(())
    }

    /// The next entry; with `plus`, and its inode.
    fn next(&mut self, plus: bool) -> Result<Option<DirItem>> {
        match self.ahead.take() {
            Some((item, had)) if had == plus => Ok(Some(item)),
            Some(_) => {
                self.dir.seek(self.cookie as i64)?;
                self.dir.next(plus)
            }
            None => self.dir.next(plus),
        }
    }
}

impl Shared {
    pub fn opendir(self: &Arc<Self>, node: NodeId, reply: Reply<Opened>) {
        self.call(Kind::Open, reply, move |fs| {
            let dir = fs.open_dir(node)?;
            fs.dirs.insert(node, 0, dir).map(Opened::from)
        });
    }

    fn open_dir(&self, node: NodeId) -> Result<OpenDir> {
        let node = self.nodes.get(node)?.dir()?;
        let stream = Stream {
            dir: node.inode.open_dir()?,
            cookie: 0,
            ahead: None,
        };
        Ok(OpenDir {
            node,
            stream: Mutex::new(stream),
        })
    }

    pub fn readdir(
        self: &Arc<Self>,
        handle: Handle,
        offset: u64,
        plus: bool,
        list: DirList,
        reply: Reply<DirList>,
    ) {
        let list = Mutex::new(list);
        self.call(Kind::Readdir, reply, move |fs| {
            let dir = fs.dirs.get(handle, |node, _| fs.open_dir(node))?;
            let mut list = lock(&list);
            fs.list(&dir, offset, plus, &mut list)?;
            Ok(std::mem::take(&mut *list))
        });
    }

    fn list(&self, dir: &OpenDir, offset: u64, plus: bool, list: &mut DirList) -> Result<()> {
        let mut stream = lock(&dir.stream);
        stream.seek(offset)?;
        loop {
            let item = match stream.next(plus) {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(errno) if list.is_empty() => return Err(errno),
                Err(_) => return Ok(()),
            };
            if !list.fits(item.name().count_bytes()) {
                stream.ahead = Some((item, plus));
                return Ok(());
            }
            let cookie = item.raw.d_off as u64;
            if !self.push(dir, item, list)? {
                // Asked for again, it comes with its error.
                let cookie = stream.cookie as i64;
                return stream.dir.seek(cookie);
            }
            stream.cookie = cookie;
        }
    }

    /// Adds an entry; answers false where it has an error, and others come before it.
    fn push(&self, dir: &OpenDir, mut item: DirItem, list: &mut DirList) -> Result<bool> {
        let found = match Name::new(item.name()) {
            Ok(_) => item.found.take(),
            Err(_) => None,
        };
        let entry = found.map(|found| self.entry(found)).transpose();
        let entry = match entry {
            // What was listed so far has its lookups.
            Err(_) if !list.is_empty() => return Ok(false),
            entry => entry?,
        };
        let vino = Vino {
            ino: item.raw.d_ino,
            snap: dir.node.vino.snap,
        };
        list.push(DirEntry {
            ino: entry.map_or(ino(vino), |entry| entry.attr.ino),
            cookie: item.raw.d_off as u64,
            kind: item.raw.d_type,
            name: item.name().to_bytes(),
            entry,
        });
        Ok(true)
    }

    pub fn fsyncdir(self: &Arc<Self>, at: (NodeId, Handle), datasync: bool, reply: Reply<()>) {
        self.call(Kind::Sync, reply, move |fs| match fs.dirs.node(at.1)? {
            node if node == at.0 => fs.nodes.get(node)?.inode.sync(datasync),
            _ => Err(Errno::BADF),
        });
    }

    pub fn releasedir(self: &Arc<Self>, handle: Handle, reply: Reply<()>) {
        match self.dirs.remove(handle) {
            Ok(dir) => {
                self.calls.run(Kind::Close, move || {
                    drop(dir);
                    reply.ok(());
                });
            }
            Err(errno) => reply.err(errno),
        }
    }
}
