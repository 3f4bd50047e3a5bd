//! The volume with both clients, and the model beside it: what is done to one is done to the
//! other, and compared.

use guest_tests::fixture::{Noise, Volume};
use guest_tests::ring::fuse::abi::{Attr, ROOT_ID};
use guest_tests::ring::fuse::{Errno, Error};

use super::guest::Guest;
use super::posix::{begin_step, Id, Kind, Owner, Time, Times, Tree, When};
use super::step::{Op, Place, Step};

/// What differs between the volume and the model.
#[derive(Debug)]
pub struct Mismatch(pub String);

pub type Checked<T = ()> = Result<T, Mismatch>;

/// Leaves with a [`Mismatch`] unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::world::Mismatch(format!($($what)+)));
        }
    };
}
pub(crate) use ensure;

impl From<Error> for Mismatch {
    fn from(error: Error) -> Mismatch {
        Mismatch(format!("unexpected: {error}"))
    }
}

/// How a volume lays files out.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub targets: usize,
    pub stripe_unit: u64,
    pub mdt_size: u64,
}

pub struct World {
    pub volume: Volume,
    pub shape: Shape,
    pub tree: Tree,
    pub guests: [Guest; 2],
    /// Whether this process may make what belongs to others.
    pub is_root: bool,
    /// Whether a user asks for the current step, and not root.
    pub user: bool,
    /// Of the bytes of the next write.
    pub seed: u64,
    /// What was done, for whoever reads of a mismatch.
    log: Vec<String>,
    /// A daemon died that had a file without a name open.
    pub lost_nameless: bool,
    /// What the current step may have changed.
    pub touched: Vec<Id>,
}

impl World {
    pub fn new(volume: Volume, shape: Shape) -> World {
        let mut guests = [Guest::new(&volume), Guest::new(&volume)];
        let root = guests[0].fs().getattr(ROOT_ID).expect("a root").attr;
        let owner = Owner {
            uid: root.uid,
            gid: root.gid,
        };
        let tree = Tree::new(root.mode & 0o7777, owner, Times::seen(&root));
        World {
            volume,
            shape,
            tree,
            guests,
            is_root: rustix::process::geteuid().is_root(),
            user: false,
            seed: 0,
            log: Vec::new(),
            lost_nameless: false,
            touched: Vec::new(),
        }
    }

    /// Does one step, and compares what both clients see of what it changed.
    pub fn run(&mut self, step: &Step) -> Checked {
        let client = usize::from(step.client);
        self.touched.clear();
        self.user = step.user && self.is_root;
        begin_step();
        let done = self.dispatch(client, &step.op);
        let done = done.and_then(|()| self.compare_touched());
        done.map_err(|Mismatch(what)| self.explain(&what))
    }

    /// Both, whole; then lets go of everything, and compares what is left on the disk.
    pub fn finish(mut self) -> Checked {
        begin_step();
        let done = self.compare_all(0).and_then(|()| self.compare_all(1));
        let done = done.and_then(|()| self.close_down());
        done.map_err(|Mismatch(what)| self.explain(&what))
    }

    fn explain(&self, what: &str) -> Mismatch {
        Mismatch(format!("{what}, after:\n  {}", self.log.join("\n  ")))
    }

    /// Notes what a client does, with everything resolved.
    pub fn note(&mut self, client: usize, what: impl Into<String>) {
        self.log.push(format!("{client}: {}", what.into()));
    }

    /// Who asks from now on: root, or a user where the step says so. Answers who owns what they
    /// make.
    pub fn ask_as(&mut self, client: usize, user: bool) -> Owner {
        let id = if user { 1000 } else { 0 };
        let caller = &mut self.guests[client].fs().caller;
        (caller.uid, caller.gid) = (id, id);
        match self.is_root {
            true => Owner { uid: id, gid: id },
            false => Owner {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
            },
        }
    }

    /// The offset that a place is in a file of `size` bytes.
    pub fn offset(&self, place: Place, size: u64) -> u64 {
        let by = |base: u64, by: i8| base.saturating_add_signed(i64::from(by) / 8);
        match place {
            Place::Start(at) => u64::from(at),
            Place::Inode(near) => by(self.shape.mdt_size, near),
            Place::Unit(unit, near) => by(u64::from(unit) * self.shape.stripe_unit, near),
            Place::End(near) => by(size, near),
            Place::Far(far, at) => (u64::from(far) << 20) + u64::from(at),
        }
    }

    /// Bytes that no other write writes.
    pub fn fresh_bytes(&mut self, len: usize) -> Vec<u8> {
        self.seed += 1;
        Noise::new(self.seed).bytes(len)
    }

    /// Compares the attributes that both clients see of what the step changed.
    fn compare_touched(&mut self) -> Checked {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for &id in &touched {
            for client in 0..2 {
                if self.guests[client].nodes.contains_key(&id) && !self.tree.get(id).is_gone() {
                    self.compare_node(client, id)?;
                }
            }
        }
        Ok(())
    }

    /// Asks for a node's attributes, and compares.
    pub fn compare_node(&mut self, client: usize, id: Id) -> Checked {
        let nodeid = self.guests[client].nodeid(id);
        let seen = self.guests[client].fs().getattr(nodeid);
        let seen = seen.map_err(|e| Mismatch(format!("client {client}, inode {id}: {e}")))?;
        self.compare_attr(client, id, &seen.attr)
    }

    /// Compares attributes that a client was told.
    pub fn compare_attr(&mut self, client: usize, id: Id, seen: &Attr) -> Checked {
        let may_miss = self.may_miss_removal(client, id);
        let inode = self.tree.get_mut(id);
        let what = format!("client {client}, inode {id}");
        let mode = inode.kind.format() | inode.mode;
        ensure!(
            seen.mode == mode,
            "{what}: mode {:o}, not {mode:o}",
            seen.mode
        );
        let owner = (inode.owner.uid, inode.owner.gid);
        let seen_owner = (seen.uid, seen.gid);
        ensure!(seen_owner == owner, "{what}: {seen_owner:?}, not {owner:?}");
        let links = inode.links;
        ensure!(
            seen.nlink == links || may_miss && seen.nlink == 1,
            "{what}: {} links, not {links}",
            seen.nlink
        );
        if let Kind::File(bytes) = &inode.kind {
            let size = bytes.len();
            ensure!(seen.size == size, "{what}: size {}, not {size}", seen.size);
        }
        if let Kind::Special(_, rdev) = inode.kind {
            ensure!(
                seen.rdev == rdev,
                "{what}: device {}, not {rdev}",
                seen.rdev
            );
        }
        let ino = *inode.ino.get_or_insert(seen.ino);
        ensure!(seen.ino == ino, "{what}: number {}, not {ino}", seen.ino);
        let times = inode.times.see(seen);
        times.map_err(|differs| Mismatch(format!("{what}: {differs}")))
    }

    /// Compares an outcome with the model's: both a success, or both the same error. Answers
    /// what the volume gave, if it did.
    pub fn same<T, U>(
        &self,
        got: Result<T, Error>,
        expected: Result<U, Errno>,
    ) -> Checked<Option<(T, U)>> {
        match (got, expected) {
            (Ok(got), Ok(expected)) => Ok(Some((got, expected))),
            (Err(got), Err(expected)) if got == expected => Ok(None),
            (Ok(_), Err(expected)) => Err(Mismatch(format!("success, not {expected}"))),
            (Err(got), Ok(_)) => Err(Mismatch(format!("{got}, not success"))),
            (Err(got), Err(expected)) => Err(Mismatch(format!("{got}, not {expected}"))),
        }
    }

    fn dispatch(&mut self, client: usize, op: &Op) -> Checked {
        match op {
            Op::Lookup(at) => self.lookup(client, *at),
            Op::Forget { node, all } => self.forget(client, *node, *all),
            Op::Make { at, thing, mode } => self.make(client, *at, *thing, u32::from(*mode)),
            Op::Create { .. } => self.create(client, op),
            Op::Tmpfile {
                dir,
                mode,
                exclusive,
            } => self.tmpfile(client, *dir, u32::from(*mode), *exclusive),
            Op::Unlink(at) => self.unlink(client, *at),
            Op::Rmdir(at) => self.rmdir(client, *at),
            Op::Rename { from, to, flags } => self.rename(client, *from, *to, u32::from(*flags)),
            Op::Link { node, to } => self.link(client, *node, *to),
            Op::Readlink(node) => self.readlink(client, *node),
            Op::List { .. } => self.list(client, op),
            Op::SyncDir(dir) => self.sync_dir(client, *dir),
            Op::Crash => self.crash(client),
            Op::Resume => self.resume(client),
            Op::Chmod { .. }
            | Op::Chown { .. }
            | Op::SetTimes { .. }
            | Op::SetXattr { .. }
            | Op::GetXattr { .. }
            | Op::ListXattrs(_)
            | Op::RemoveXattr { .. }
            | Op::StatFs
            | Op::SyncFs => self.attributes(client, op),
            _ => self.data(client, op),
        }
    }
}

impl Times {
    /// As a client sees them.
    pub fn seen(attr: &Attr) -> Times {
        let [access, modify, change] = times_of(attr).map(When::at);
        Times {
            access,
            modify,
            change,
        }
    }

    fn see(&mut self, attr: &Attr) -> Result<(), String> {
        let [access, modify, change] = times_of(attr);
        let what = |name| move |differs| format!("{name} {differs}");
        self.access.see(access).map_err(what("atime"))?;
        self.modify.see(modify).map_err(what("mtime"))?;
        self.change.see(change).map_err(what("ctime"))
    }
}

fn times_of(attr: &Attr) -> [Time; 3] {
    [
        (attr.atime, attr.atimensec),
        (attr.mtime, attr.mtimensec),
        (attr.ctime, attr.ctimensec),
    ]
    .map(|(sec, nsec)| Time {
        sec: sec as i64,
        nsec,
    })
}

/// What a step writes in the log.
pub fn show(name: &[u8]) -> String {
    name[..name.len().min(8)].escape_ascii().to_string()
}
