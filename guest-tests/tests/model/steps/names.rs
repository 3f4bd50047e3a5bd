//! Names: made, found, moved, removed.

use guest_tests::ring::fuse::abi::{EntryOut, OpenOut};
use guest_tests::ring::fuse::{ops, Errno, Error, Handle};

use crate::guest::File;
use crate::posix::{Id, Kind};
use crate::step::{At, Op, Pick, Thing, NAMES};
use crate::world::{ensure, show, Checked, Mismatch, World};

/// What FUSE masks modes with: the caller's umask.
const UMASK: u32 = 0o022;

impl World {
    /// A directory that the client knows, and a name.
    fn at(&self, client: usize, at: At) -> (Id, u64, &'static [u8]) {
        let dir = self.pick_dir(client, at.dir);
        let name = NAMES[usize::from(at.name) % NAMES.len()];
        (dir, self.guests[client].nodeid(dir), name)
    }

    /// A directory that the client knows: there is always the root.
    pub fn pick_dir(&self, client: usize, pick: Pick) -> Id {
        let is_dir = |id| self.tree.get(id).is_dir() && self.tree.get(id).links > 0;
        let picked = self.guests[client].pick(pick, is_dir);
        picked.unwrap_or(crate::posix::ROOT)
    }

    /// A node that the client knows and that is there, of a kind.
    pub fn pick_node(
        &self,
        client: usize,
        pick: Pick,
        wanted: impl Fn(&crate::posix::Inode) -> bool,
    ) -> Option<Id> {
        self.guests[client].pick(pick, |id| {
            let inode = self.tree.get(id);
            !inode.is_gone() && wanted(inode)
        })
    }

    /// Takes an entry that was answered: its lookup, and its attributes.
    pub fn enter(&mut self, client: usize, id: Id, entry: &EntryOut) -> Checked {
        let took = self.guests[client].took(id, entry.nodeid);
        took.map_err(|what| Mismatch(format!("inode {id} is {what}")))?;
        self.compare_attr(client, id, &entry.attr)
    }

    /// Looks a name up, and answers what it is.
    pub fn find(&mut self, client: usize, dir: Id, name: &[u8]) -> Checked<Option<Id>> {
        let nodeid = self.guests[client].nodeid(dir);
        let got = present(self.guests[client].fs().lookup(nodeid, name));
        let Some((entry, id)) = self.same(got, self.tree.lookup((dir, name)))? else {
            return Ok(None);
        };
        self.enter(client, id, &entry)?;
        Ok(Some(id))
    }

    pub fn lookup(&mut self, client: usize, at: At) -> Checked {
        let (dir, _, name) = self.at(client, at);
        self.note(client, format!("lookup {dir}/{}", show(name)));
        self.find(client, dir, name).map(drop)
    }

    pub fn make(&mut self, client: usize, at: At, thing: Thing, mode: u32) -> Checked {
        let (dir, parent, name) = self.at(client, at);
        let owner = self.ask_as(client, self.user);
        self.note(
            client,
            format!("make {thing:?} {dir}/{} {mode:o}", show(name)),
        );
        let fs = self.guests[client].fs();
        let masked = mode & !UMASK;
        let node = |format: u32, rdev| ops::mknod(parent, name, format | mode, rdev, UMASK);
        let (kind, masked, got) = match thing {
            Thing::Dir => {
                let got = fs.call(&ops::mkdir(parent, name, mode, UMASK));
                (Kind::Dir(Default::default()), masked, got)
            }
            Thing::Link(to) => {
                let target = vec![b't'; 1 + usize::from(to)];
                let got = fs.symlink(parent, name, &target);
                (Kind::Link(target), 0o777, got)
            }
            Thing::File => {
                let got = fs.call(&node(libc::S_IFREG, 0));
                (Kind::File(Default::default()), masked, got)
            }
            Thing::Socket => {
                let got = fs.call(&node(libc::S_IFSOCK, 0));
                (Kind::Special(libc::S_IFSOCK, 0), masked, got)
            }
            Thing::Device if self.is_root => {
                // /dev/zero, as the kernel encodes it.
                let got = fs.call(&node(libc::S_IFCHR, 0x105));
                (Kind::Special(libc::S_IFCHR, 0x105), masked, got)
            }
            Thing::Fifo | Thing::Device => {
                let got = fs.call(&node(libc::S_IFIFO, 0));
                (Kind::Special(libc::S_IFIFO, 0), masked, got)
            }
        };
        let expected = self.tree.make((dir, name), kind, masked, owner);
        if let Some((entry, id)) = self.same(got, expected)? {
            self.touched.push(dir);
            self.enter(client, id, &entry)?;
        }
        Ok(())
    }

    pub fn create(&mut self, client: usize, op: &Op) -> Checked {
        let Op::Create {
            at,
            mode,
            how,
            exclusive,
        } = *op
        else {
            return Ok(());
        };
        let (dir, parent, name) = self.at(client, at);
        let exists = self.tree.lookup((dir, name)).ok();
        if !exclusive && exists.is_some_and(|id| !self.tree.get(id).is_file()) {
            // No guest's kernel asks for that.
            return Ok(());
        }
        let owner = self.ask_as(client, self.user);
        let flags = how.flags();
        let excl = if exclusive { libc::O_EXCL } else { 0 };
        self.note(
            client,
            format!("create {dir}/{} {mode:o} {:#o}", show(name), flags | excl),
        );
        let mode = u32::from(mode);
        let request = ops::create(parent, name, libc::S_IFREG | mode, flags | excl, UMASK);
        let got = self.guests[client].fs().call(&request);
        let expected = match exists {
            Some(id) if !exclusive => Ok(id),
            _ => {
                let kind = Kind::File(Default::default());
                self.tree.make((dir, name), kind, mode & !UMASK, owner)
            }
        };
        let Some((made, id)) = self.same(got, expected)? else {
            return Ok(());
        };
        if exists.is_some() && flags & libc::O_TRUNC != 0 {
            self.truncate_model(id, 0);
        }
        self.touched.extend([dir, id]);
        self.opened(client, id, flags, &made)
    }

    /// Takes an entry with an open file.
    fn opened(
        &mut self,
        client: usize,
        id: Id,
        flags: i32,
        (entry, open): &(EntryOut, OpenOut),
    ) -> Checked {
        let handle = Handle::new(entry.nodeid, open);
        self.tree.get_mut(id).handles += 1;
        self.guests[client].files.push(File { id, handle, flags });
        self.enter(client, id, entry)
    }

    pub fn tmpfile(&mut self, client: usize, dir: Pick, mode: u32, exclusive: bool) -> Checked {
        let dir = self.pick_dir(client, dir);
        let owner = self.ask_as(client, false);
        self.note(client, format!("tmpfile {dir} exclusive={exclusive}"));
        let parent = self.guests[client].nodeid(dir);
        let flags = libc::O_RDWR | if exclusive { libc::O_EXCL } else { 0 };
        let request = ops::tmpfile(parent, libc::S_IFREG | mode, flags, UMASK);
        let got = self.guests[client].fs().call(&request);
        let expected = self
            .tree
            .make_unnamed(dir, mode & !UMASK, owner, !exclusive);
        let Some((made, id)) = self.same(got, expected)? else {
            return Ok(());
        };
        self.tree.get_mut(id).is_orphan = self.volume.is_striped();
        self.opened(client, id, flags, &made)
    }

    pub fn unlink(&mut self, client: usize, at: At) -> Checked {
        let (dir, _, name) = self.at(client, at);
        self.remove(client, dir, name, false)
    }

    pub fn rmdir(&mut self, client: usize, at: At) -> Checked {
        let (dir, _, name) = self.at(client, at);
        self.remove(client, dir, name, true)
    }

    /// Removes a name.
    pub fn remove(&mut self, client: usize, dir: Id, name: &[u8], is_dir: bool) -> Checked {
        let what = if is_dir { "rmdir" } else { "unlink" };
        self.note(client, format!("{what} {dir}/{}", show(name)));
        let parent = self.guests[client].nodeid(dir);
        let fs = self.guests[client].fs();
        let (got, expected) = match is_dir {
            true => (fs.rmdir(parent, name), self.tree.rmdir((dir, name))),
            false => (fs.unlink(parent, name), self.tree.unlink((dir, name))),
        };
        if let Some(((), id)) = self.same(got, expected)? {
            self.touched.extend([dir, id]);
            self.lost_name(client, id);
        }
        Ok(())
    }

    pub fn rename(&mut self, client: usize, from: At, to: At, flags: u32) -> Checked {
        let (dir, parent, name) = self.at(client, from);
        let (to_dir, to_parent, to_name) = self.at(client, to);
        let (a, b) = (show(name), show(to_name));
        self.note(
            client,
            format!("rename {dir}/{a} to {to_dir}/{b} flags {flags}"),
        );
        let (from, to) = ((dir, name), (to_dir, to_name));
        let victims = [from, to].map(|at| self.tree.lookup(at).ok());
        let request = ops::rename2(parent, name, to_parent, to_name, flags);
        let got = self.guests[client].fs().call(&request);
        let expected = self.tree.rename(from, to, flags);
        if self.same(got, expected)?.is_some() {
            self.touched.extend([dir, to_dir]);
            self.touched.extend(victims.into_iter().flatten());
            for id in victims.into_iter().flatten() {
                self.lost_name(client, id);
            }
        } else {
            self.was_nearly_replaced(victims[1]);
        }
        Ok(())
    }

    pub fn link(&mut self, client: usize, node: Pick, to: At) -> Checked {
        let Some(id) = self.pick_node(client, node, |_| true) else {
            return Ok(());
        };
        let (dir, parent, name) = self.at(client, to);
        self.note(client, format!("link {id} as {dir}/{}", show(name)));
        let nodeid = self.guests[client].nodeid(id);
        let got = self.guests[client].fs().link(nodeid, parent, name);
        let expected = self.tree.link(id, (dir, name));
        let both_wrong = self.tree.get(id).links == 0 && expected == Err(Errno::EXIST);
        if both_wrong && got.as_ref().is_err_and(|e| *e == Errno::NOENT) {
            // A guest's kernel looks at the new name itself.
            return Ok(());
        }
        if let Some((entry, ())) = self.same(got, expected)? {
            self.touched.extend([dir, id]);
            self.enter(client, id, &entry)?;
        }
        Ok(())
    }

    pub fn readlink(&mut self, client: usize, node: Pick) -> Checked {
        let is_link = |inode: &crate::posix::Inode| matches!(inode.kind, Kind::Link(_));
        let Some(id) = self.pick_node(client, node, is_link) else {
            return Ok(());
        };
        self.note(client, format!("readlink {id}"));
        let nodeid = self.guests[client].nodeid(id);
        let target = self.guests[client].fs().readlink(nodeid)?;
        let inode = self.tree.get_mut(id);
        inode.times.access.may_be_set();
        ensure!(
            matches!(&inode.kind, Kind::Link(to) if *to == target),
            "another target"
        );
        Ok(())
    }

    /// Gives lookups back; a node without any is known no more.
    pub fn forget(&mut self, client: usize, pick: Pick, all: bool) -> Checked {
        let guest = &mut self.guests[client];
        // A guest's kernel keeps what is open.
        let open: Vec<Id> = guest.files.iter().map(|file| file.id).collect();
        let picked = guest.pick(pick, |id| id != crate::posix::ROOT && !open.contains(&id));
        let Some(id) = picked else {
            return Ok(());
        };
        let mut node = guest.nodes[&id];
        let count = if all { node.lookups } else { 1 };
        node.lookups -= count;
        guest.fs().forget(node.nodeid, count)?;
        guest.fs().drain_hiprio()?;
        if node.lookups > 0 {
            guest.nodes.insert(id, node);
            self.touched.push(id);
        } else {
            guest.nodes.remove(&id);
            let gone = guest.fs().getattr(node.nodeid);
            ensure!(
                gone.is_err_and(|e| e == Errno::STALE),
                "node of inode {id} is known after it was forgotten"
            );
        }
        self.note(client, format!("forget {id} {count} times"));
        Ok(())
    }
}

/// A name that is known not to be there is not there.
fn present(entry: Result<EntryOut, Error>) -> Result<EntryOut, Error> {
    match entry {
        Ok(entry) if entry.nodeid == 0 => Err(Error::Errno {
            opcode: 1,
            errno: Errno::NOENT,
        }),
        other => other,
    }
}
