//! Layouts from a guest: what is made with which, who may set one, and two daemons about it.

use std::ffi::CStr;
use std::sync::Mutex;

use super::*;
use crate::fs::{Entry, Intent, IntentLog, XattrName};

const USUAL: &str = "stripe_unit=4096 stripe_count=3 mdt_size=8192";
const OTHER: &str = "stripe_unit=16384 stripe_count=2 mdt_size=4096";

fn attr(name: &CStr) -> &XattrName {
    XattrName::new(name).unwrap()
}

impl Mount {
    fn set(&mut self, node: NodeId, name: &CStr, value: &str) -> Result<()> {
        self.client.call(|fs, req, reply| {
            fs.setxattr(req, node, attr(name), value.as_bytes(), 0.into(), reply)
        })
    }

    pub(super) fn set_layout(&mut self, node: NodeId, value: &str) -> Result<()> {
        self.set(node, c"user.pfs.layout", value)
    }

    fn get(&mut self, node: NodeId, name: &CStr) -> Result<String> {
        let value: Vec<u8> = self
            .client
            .call(|fs, req, reply| fs.getxattr(req, node, attr(name), reply))?;
        Ok(String::from_utf8(value).unwrap())
    }

    #[track_caller]
    fn layout(&mut self, node: NodeId) -> String {
        self.get(node, c"user.pfs.layout").unwrap()
    }

    fn remove(&mut self, node: NodeId, name: &CStr) -> Result<()> {
        self.client
            .call(|fs, req, reply| fs.removexattr(req, node, attr(name), reply))
    }

    fn mkdir(&mut self, parent: NodeId, dir: &'static CStr) -> NodeId {
        let make = Make {
            mode: 0o777,
            umask: 0,
        };
        let made: Entry = self
            .client
            .call(|fs, req, reply| fs.mkdir(req, parent, name(dir), &make, reply))
            .unwrap();
        made.node
    }

    fn create_in(&mut self, parent: NodeId, file: &'static CStr) -> Open {
        let make = Make {
            mode: 0o666,
            umask: 0,
        };
        let flags = libc::O_RDWR;
        let made: Created = self
            .client
            .call(|fs, req, reply| fs.create(req, parent, name(file), &make, flags.into(), reply))
            .unwrap();
        Open {
            node: made.entry.node,
            handle: made.opened.handle,
        }
    }

    fn mknod(&mut self, parent: NodeId, node: &'static CStr, mode: u32) -> NodeId {
        let make = Make { mode, umask: 0 };
        let made: Entry = self
            .client
            .call(|fs, req, reply| fs.mknod(req, parent, name(node), &make, 0, reply))
            .unwrap();
        made.node
    }

    fn lookup(&mut self, file: &'static CStr) -> NodeId {
        let node = self.client.lookup(NodeId::ROOT, name(file)).unwrap();
        let id = node.id;
        std::mem::forget(node);
        id
    }
}

#[test]
fn a_volume_has_one_where_nothing_was_set() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let (file, dir) = (mount.create(c"f"), mount.mkdir(NodeId::ROOT, c"d"));
    for node in [NodeId::ROOT, file.node, dir] {
        assert_eq!(mount.layout(node), USUAL);
    }
    let mut field = |name| mount.get(file.node, name);
    assert_eq!(field(c"user.pfs.layout.stripe_unit").as_deref(), Ok("4096"));
    assert_eq!(field(c"user.pfs.layout.stripe_count").as_deref(), Ok("3"));
    assert_eq!(field(c"user.pfs.layout.mdt_size").as_deref(), Ok("8192"));
    assert_eq!(field(c"user.pfs.layout.other"), Err(Errno::NODATA));
    let fifo = mount.mknod(NodeId::ROOT, c"fifo", libc::S_IFIFO | 0o666);
    assert_eq!(mount.get(fifo, c"user.pfs.layout"), Err(Errno::NODATA));
    assert_eq!(mount.set_layout(fifo, "stripe_count=1"), Err(Errno::INVAL));
}

#[test]
fn what_is_made_in_a_directory_takes_its_layout() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let before = mount.create(c"before");
    let dir = mount.mkdir(NodeId::ROOT, c"d");
    mount
        .set_layout(dir, "stripe_unit=16K mdt_size=4K")
        .unwrap();
    mount
        .set(dir, c"user.pfs.layout.stripe_count", "2")
        .unwrap();
    assert_eq!(mount.layout(dir), OTHER);
    let file = mount.create_in(dir, c"f");
    let below = mount.mkdir(dir, c"below");
    let deep = mount.create_in(below, c"deep");
    let node = mount.mknod(dir, c"node", libc::S_IFREG | 0o644);
    for node in [file.node, below, deep.node, node] {
        assert_eq!(mount.layout(node), OTHER);
    }
    assert_eq!(mount.layout(before.node), USUAL);
    assert_eq!(mount.layout(NodeId::ROOT), USUAL);

    // It is what the data follows.
    mount.write(file, 0, &vec![5; 100_000]);
    let objects = rig.objects().concat();
    assert_eq!(objects.len(), 2, "two columns");
    assert_eq!(mount.layout(file.node), OTHER);
    mount.write(deep, 0, &[5; 4096]);
    assert_eq!(rig.objects().concat().len(), 2, "within its mdt_size");
    assert!(mount.read(file, 0, 200_000) == vec![5; 100_000]);

    // A change above changes nothing below.
    mount.set_layout(dir, "mdt_size=0").unwrap();
    for node in [file.node, below, deep.node, node] {
        assert_eq!(mount.layout(node), OTHER);
    }
}

#[test]
fn a_layout_is_hidden_from_lists_and_survives() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let dir = mount.mkdir(NodeId::ROOT, c"d");
    mount.set_layout(dir, OTHER).unwrap();
    let file = mount.create_in(dir, c"f");
    for node in [dir, file.node] {
        let names: Vec<u8> = mount
            .client
            .call(|fs, req, reply| fs.listxattr(req, node, reply))
            .unwrap();
        assert!(names.is_empty());
    }
    drop(mount);
    let mut mount = rig.mount();
    let dir = mount.lookup(c"d");
    assert_eq!(mount.layout(dir), OTHER);
}

#[test]
fn removal_takes_the_parents() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let dir = mount.mkdir(NodeId::ROOT, c"d");
    let below = mount.mkdir(dir, c"below");
    mount.set_layout(dir, OTHER).unwrap();
    mount
        .set_layout(below, "stripe_count=1 mdt_size=0")
        .unwrap();
    mount.remove(below, c"user.pfs.layout.mdt_size").unwrap();
    assert_eq!(
        mount.layout(below),
        "stripe_unit=4096 stripe_count=1 mdt_size=4096"
    );
    mount.remove(below, c"user.pfs.layout").unwrap();
    assert_eq!(mount.layout(below), OTHER);
    mount.remove(dir, c"user.pfs.layout").unwrap();
    assert_eq!(mount.layout(dir), USUAL);
    mount.set_layout(NodeId::ROOT, OTHER).unwrap();
    mount.remove(NodeId::ROOT, c"user.pfs.layout").unwrap();
    assert_eq!(mount.layout(NodeId::ROOT), USUAL);
    let file = mount.create(c"f");
    let gone = mount.remove(file.node, c"user.pfs.layout");
    assert_eq!(gone, Err(Errno::INVAL));
    let gone = mount.remove(file.node, c"user.pfs.layout.x");
    assert_eq!(gone, Err(Errno::NODATA));
}

#[test]
fn an_empty_files_can_change_until_it_has_a_byte() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount
        .set_layout(file.node, "mdt_size=0 stripe_count=1")
        .unwrap();
    mount
        .set_layout(file.node, "mdt_size=4096 stripe_count=2 stripe_unit=16K")
        .unwrap();
    assert_eq!(mount.layout(file.node), OTHER);
    mount.write(file, 0, &[1]);
    assert_eq!(mount.set_layout(file.node, "mdt_size=0"), Err(Errno::BUSY));
    mount.truncate(file, 0);
    mount.set_layout(file.node, "mdt_size=0").unwrap();
    mount.write(file, 0, &[1]);
    assert_eq!(rig.objects().concat(), [1], "no byte stays in the inode");
    mount.truncate(file, 0);
    assert_eq!(
        mount.set_layout(file.node, USUAL),
        Err(Errno::BUSY),
        "fixed"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let (file, dir) = (mount.create(c"f"), mount.mkdir(NodeId::ROOT, c"d"));
    mount.write(file, 0, &[1]);
    for node in [file.node, dir] {
        for value in ["stripe_count=4", "stripe_count=0", "mdt_size=1", "x", ""] {
            assert_eq!(mount.set_layout(node, value), Err(Errno::INVAL), "{value}");
        }
        let wrong = mount.set(node, c"user.pfs.layout.object_size", "0");
        assert_eq!(wrong, Err(Errno::INVAL));
        let hidden = mount.set(node, c"user.pfs.file", "x");
        assert_eq!(hidden, Err(Errno::PERM));
        let hidden = mount.set(node, c"user.pfs.layouts", "x");
        assert_eq!(hidden, Err(Errno::PERM));
    }
    let mut with = |flags: u32| {
        let (name, value) = (attr(c"user.pfs.layout"), OTHER.as_bytes());
        mount.client.call(|fs, req, reply: Reply<()>| {
            fs.setxattr(req, dir, name, value, flags.into(), reply)
        })
    };
    assert_eq!(with(libc::XATTR_CREATE as u32), Err(Errno::EXIST));
    assert_eq!(with(1 << 10), Err(Errno::INVAL));
    assert_eq!(with(libc::XATTR_REPLACE as u32), Ok(()));
}

#[test]
fn only_owner_and_root_set_one() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let dir = mount.mkdir(NodeId::ROOT, c"d");
    let file = mount.create_in(dir, c"f");
    let own = SetAttr {
        uid: Some(1000),
        gid: Some(1000),
        ..SetAttr::default()
    };
    for node in [dir, file.node] {
        let owned = mount
            .client
            .call(|fs, req, reply: Reply<Attr>| fs.setattr(req, node, &own, reply));
        if owned == Err(Errno::PERM) {
            return;
        }
        let uid = |uid| Caller::new(uid, 0, 0);
        let nodes = [node];
        for (caller, expected) in [(1001, Err(Errno::PERM)), (1000, Ok(())), (0, Ok(()))] {
            mount.client.act_as(uid(caller));
            for node in nodes {
                assert_eq!(mount.set_layout(node, "stripe_count=1"), expected);
            }
        }
        mount.client.act_as(uid(1001));
        if node == dir {
            assert_eq!(mount.remove(dir, c"user.pfs.layout"), Err(Errno::PERM));
        }
        mount.client.act_as(uid(0));
    }
}

#[test]
fn another_daemon_follows_at_once() {
    let rig = Rig::new(3);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let (here, early) = (one.mkdir(NodeId::ROOT, c"d"), one.create(c"early"));
    let (there, open) = (two.lookup(c"d"), two.open(c"early"));
    one.set_layout(here, OTHER).unwrap();
    assert_eq!(two.layout(there), OTHER);
    let file = two.create_in(there, c"f");
    assert_eq!(two.layout(file.node), OTHER);

    // What another has open stays as that one knows it.
    two.write(open, 100, &[]);
    two.read(open, 0, 10);
    assert_eq!(one.set_layout(early.node, OTHER), Err(Errno::BUSY));
    two.release(open);
    one.set_layout(early.node, OTHER).unwrap();
    let open = two.open(c"early");
    two.write(open, 0, &[3; 50_000]);
    assert!(one.read(early, 0, 60_000) == vec![3; 50_000]);
}

#[test]
fn a_posix_volume_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SessionStore::private(100).unwrap());
    let options = crate::engine::Options {
        store,
        inode_fds_max: 100,
    };
    let fs = crate::engine::open(VolumePath::open(dir.path()).unwrap(), &options).unwrap();
    let client = Client::new(fs, Caller::default()).unwrap();
    let mut mount = Mount { client };
    let root = NodeId::ROOT;
    assert_eq!(mount.get(root, c"user.pfs.layout"), Err(Errno::NODATA));
    assert_eq!(mount.set_layout(root, OTHER), Err(Errno::OPNOTSUPP));
    assert_eq!(mount.remove(root, c"user.pfs.layout"), Err(Errno::NODATA));
}

/// The memory of one request, before and after a crash.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Option<Intent>>>);

impl IntentLog for Log {
    fn replayed(&self) -> Option<Intent> {
        *self.0.lock().unwrap()
    }

    fn record(&self, intent: Intent) {
        *self.0.lock().unwrap() = Some(intent);
    }

    fn keep(&self) -> Box<dyn IntentLog + Send> {
        Box::new(self.clone())
    }
}

#[test]
fn a_set_that_was_done_before_a_crash_is_done() {
    let rig = Rig::new(3);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    let log = Log::default();
    let set = |mount: &mut Mount, value: &str| {
        mount.client.call(|fs, req, reply: Reply<()>| {
            let mut req = crate::fs::Req {
                io: &mut *req.io,
                caller: req.caller,
                intent: Some(&log),
            };
            let name = attr(c"user.pfs.layout");
            fs.setxattr(&mut req, file.node, name, value.as_bytes(), 0.into(), reply);
        })
    };
    assert_eq!(set(&mut mount, OTHER), Ok(()));
    mount.write(file, 0, &[1]);
    assert_eq!(set(&mut mount, OTHER), Ok(()), "the same request again");
    assert_eq!(set(&mut mount, USUAL), Err(Errno::BUSY));
}
