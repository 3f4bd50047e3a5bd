use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::names::{By, Opens, Removal};
use super::*;
use crate::fs::{Caller, DirList, Entry, Intent, IntentLog, Make, Name, SetAttr};
use crate::io::Fd;
use crate::ofd;

fn tree_on(path: &Path, store: Arc<SessionStore>, inode_fds_max: usize) -> Tree {
    let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    Tree::open(
        root,
        &Options {
            store,
            inode_fds_max,
        },
    )
    .unwrap()
}

fn mapped_tree(path: &Path) -> Tree {
    let root = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let options = Options {
        store: private(),
        inode_fds_max: 1000,
    };
    Tree::open_mapped(root, &options, tempfile::tempfile().unwrap().into()).unwrap()
}

fn private() -> Arc<SessionStore> {
    Arc::new(SessionStore::private(1 << 16).unwrap())
}

fn tree(path: &Path) -> Tree {
    tree_on(path, private(), 1000)
}

fn name(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap()
}

fn lookup(tree: &Tree, parent: NodeId, text: &str) -> Result<Entry> {
    tree.lookup(parent, Name::new(&name(text)).unwrap())
}

const NOBODY: By<'static> = By {
    caller: Caller::new(0, 0, 0),
    intent: None,
    budget: &Unlimited,
};
fn opens(flags: i32) -> Opens {
    Opens {
        flags,
        fd_flags: names::file_flags(flags),
        keeps_fd: false,
    }
}

const MAKE: Make = Make {
    mode: 0o777,
    umask: 0o022,
};

#[test]
fn nodes_are_stable_and_forgotten_by_count() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let tree = tree(dir.path());
    let first = lookup(&tree, NodeId::ROOT, "f").unwrap();
    let again = lookup(&tree, NodeId::ROOT, "f").unwrap();
    assert_eq!(first.node, again.node);
    tree.forget(first.node, 1);
    assert!(tree.inode(first.node).is_ok());
    tree.forget(first.node, 1);
    assert_eq!(tree.inode(first.node).err(), Some(Errno::STALE));
    assert_ne!(lookup(&tree, NodeId::ROOT, "f").unwrap().node, first.node);
    tree.forget(NodeId::ROOT, u64::MAX);
    assert!(tree.inode(NodeId::ROOT).is_ok());
}

#[test]
fn a_reused_inode_number_is_another_node() {
    let dir = tempfile::tempdir().unwrap();
    // Two descriptors at most, so that those of removed files are let go.
    let tree = tree_on(dir.path(), private(), 2);
    let mut nodes = std::collections::HashMap::new();
    let mut reused = 0;
    for round in 0..500 {
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let entry = lookup(&tree, NodeId::ROOT, "f").unwrap();
        reused += u32::from(nodes.values().any(|ino| *ino == entry.attr.ino));
        assert!(
            nodes.insert(entry.node, entry.attr.ino).is_none(),
            "round {round}"
        );
        std::fs::remove_file(dir.path().join("f")).unwrap();
    }
    // On a file system that never reuses numbers this says nothing; ext4 does at once.
    println!("{reused} inode numbers were reused");
}

/// Names and nodes that READDIRPLUS gives of the root.
fn list_root(tree: &Tree) -> std::collections::BTreeMap<Vec<u8>, (NodeId, u64)> {
    let dir = tree.open_dir(NodeId::ROOT).unwrap();
    let mut list = DirList::new(1 << 20, 24);
    tree.read_dir(&dir, 0, true, &mut list).unwrap();
    let entries = list.iter().filter_map(|item| {
        let entry = item.entry?;
        Some((item.name.to_vec(), (entry.node, entry.attr.ino)))
    });
    entries.collect()
}

#[test]
fn listings_take_no_descriptors_from_others() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: file handles need CAP_DAC_READ_SEARCH");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |i: u32| dir.path().join(i.to_string());
    (0..40).for_each(|i| std::fs::write(path(i), "x").unwrap());
    let tree = tree_on(dir.path(), private(), 10);
    let first = list_root(&tree);
    assert_eq!(first.len(), 40);
    let held: Vec<_> = (0..40).map(|i| is_held(&tree, &path(i))).collect();
    assert_eq!(list_root(&tree), first);
    let held_now: Vec<_> = (0..40).map(|i| is_held(&tree, &path(i))).collect();
    assert_eq!(held, held_now);

    // Each listing took a lookup on each.
    for (node, _) in first.values() {
        tree.forget(*node, 1);
        assert!(tree.inode(*node).is_ok());
    }
    // Others in the places of the first, maybe with their numbers, are other nodes.
    for i in 0..40 {
        std::fs::remove_file(path(i)).unwrap();
    }
    (0..40).for_each(|i| std::fs::write(path(i), "y").unwrap());
    let known: std::collections::HashSet<_> = first.values().map(|(node, _)| *node).collect();
    assert!(list_root(&tree)
        .values()
        .all(|(node, _)| !known.contains(node)));
    for (node, _) in first.values() {
        tree.forget(*node, 1);
        assert_eq!(tree.inode(*node).err(), Some(Errno::STALE));
    }
}

fn is_held(tree: &Tree, path: &Path) -> bool {
    let file = std::fs::File::open(path).unwrap();
    tree.held(&attrs::stat_fd(&file).unwrap()).is_some()
}

#[test]
fn names_are_found_whatever_the_last_one_was() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["a", "b", "c"] {
        std::fs::write(dir.path().join(text), "x").unwrap();
    }
    let tree = tree(dir.path());
    let node = |text| lookup(&tree, NodeId::ROOT, text).unwrap().node;
    // Unheld, held, unheld after held, and held after unheld.
    let (a, b) = (node("a"), node("b"));
    assert_eq!((node("a"), node("a")), (a, a));
    let c = node("c");
    assert_eq!((node("b"), node("c"), node("b")), (b, c, b));
    let missing = lookup(&tree, NodeId::ROOT, "d").err();
    assert_eq!(missing, Some(Errno::NOENT));
    for (node, count) in [(a, 3), (b, 3), (c, 2)] {
        tree.forget(node, count - 1);
        assert!(tree.inode(node).is_ok());
        tree.forget(node, 1);
        assert_eq!(tree.inode(node).err(), Some(Errno::STALE));
    }
}

#[test]
fn descriptors_are_bounded_and_inodes_found_again() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: file handles need CAP_DAC_READ_SEARCH");
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = tree_on(dir.path(), private(), 50);
    let entries: Vec<_> = (0..500)
        .map(|i| {
            std::fs::write(dir.path().join(i.to_string()), i.to_string()).unwrap();
            lookup(&tree, NodeId::ROOT, &i.to_string()).unwrap()
        })
        .collect();
    assert!(tree.inode_fds() <= 51, "{} descriptors", tree.inode_fds());
    for entry in &entries {
        let inode = tree.inode(entry.node).unwrap();
        assert_eq!(tree.attr(&inode).unwrap().ino, entry.attr.ino);
    }
    assert!(tree.inode_fds() <= 51);
    std::fs::remove_file(dir.path().join("7")).unwrap();
    for entry in &entries {
        tree.forget(entry.node, 1);
    }
    assert_eq!(tree.inode_fds(), 1);
}

#[test]
fn a_session_goes_on_from_its_records() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: file handles need CAP_DAC_READ_SEARCH");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), "x").unwrap();
    let memfd = rustix::fs::memfd_create("s", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let store = || Arc::new(SessionStore::shared(memfd.try_clone().unwrap(), 1024).unwrap());
    let before = tree_on(dir.path(), store(), 100);
    let d = lookup(&before, NodeId::ROOT, "d").unwrap();
    let f = lookup(&before, d.node, "f").unwrap();
    // As after a kill: nothing is completed or given back.
    std::mem::forget(before);

    let after = tree_on(dir.path(), store(), 100);
    assert_eq!(after.restore_nodes(None), 3);
    assert_eq!(
        after.attr(&after.inode(f.node).unwrap()).unwrap().ino,
        f.attr.ino
    );
    assert_eq!(lookup(&after, d.node, "f").unwrap().node, f.node);
    after.forget(f.node, 2);
    assert!(after.inode(f.node).is_err());
}

#[test]
fn what_is_made_belongs_to_the_caller() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can create for others");
    }
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    for (uid, text) in [(1000, "a"), (1001, "b"), (0, "c"), (1000, "d")] {
        let by = By {
            caller: Caller::new(uid, uid + 5, 1),
            intent: None,
            budget: &Unlimited,
        };
        let entry = tree
            .mkdir(by, NodeId::ROOT, Name::new(&name(text)).unwrap(), &MAKE)
            .unwrap();
        let made = (entry.attr.uid, entry.attr.gid, entry.attr.mode & 0o7777);
        assert_eq!(made, (uid, uid + 5, 0o755));
    }
    let by = By {
        caller: Caller::new(u32::MAX, 0, 1),
        intent: None,
        budget: &Unlimited,
    };
    let refused = tree.mkdir(by, NodeId::ROOT, Name::new(c"e").unwrap(), &MAKE);
    assert_eq!(refused.err(), Some(Errno::INVAL));
    assert!(!dir.path().join("e").exists());
}

#[test]
fn links_are_neither_followed_nor_opened() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path().join("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RUSR,
        0,
    )
    .unwrap();
    let link = lookup(&tree, NodeId::ROOT, "link").unwrap();
    assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(tree.readlink(link.node).unwrap(), b"/etc/passwd");
    assert_eq!(
        tree.reopen(&tree.inode(link.node).unwrap(), OFlags::RDONLY)
            .err(),
        Some(Errno::LOOP)
    );
    let fifo = lookup(&tree, NodeId::ROOT, "fifo").unwrap();
    assert_eq!(
        tree.reopen(&tree.inode(fifo.node).unwrap(), OFlags::RDONLY)
            .err(),
        Some(Errno::NXIO)
    );
    let through = tree.create(
        NOBODY,
        NodeId::ROOT,
        Name::new(c"fifo").unwrap(),
        &MAKE,
        opens(libc::O_WRONLY),
    );
    assert_eq!(through.err(), Some(Errno::NXIO));
}

#[test]
fn a_directory_read_in_pieces_is_whole_while_names_go() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..1000 {
        std::fs::write(dir.path().join(format!("file-{i:04}")), "").unwrap();
    }
    let tree = tree(dir.path());
    let open = tree.open_dir(NodeId::ROOT).unwrap();
    let (mut seen, mut offset) = (Vec::new(), 0);
    loop {
        let mut list = DirList::new(4096, 152);
        tree.read_dir(&open, offset, true, &mut list).unwrap();
        if list.is_empty() {
            break;
        }
        for entry in list.iter() {
            offset = entry.cookie;
            if let Some(found) = entry.entry {
                let text = String::from_utf8(entry.name.to_vec()).unwrap();
                assert_eq!(found.attr.ino, entry.ino);
                tree.forget(found.node, 1);
                std::fs::remove_file(dir.path().join(&text)).unwrap();
                seen.push(text);
            }
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 1000);
    assert_eq!(tree.inode_fds(), 1);
}

/// An intent kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Option<Intent>>>, bool);

impl IntentLog for Log {
    fn replayed(&self) -> Option<Intent> {
        self.1.then(|| *self.0.lock().unwrap()).flatten()
    }

    fn record(&self, intent: Intent) {
        *self.0.lock().unwrap() = Some(intent);
    }

    fn keep(&self) -> Box<dyn IntentLog + Send> {
        Box::new(self.clone())
    }
}

impl Log {
    fn replay(self) -> Log {
        Log(self.0, true)
    }
}

#[test]
fn a_replay_knows_its_own_work() {
    for open in [tree, mapped_tree] {
        replay_in(open);
    }
}

fn replay_in(open: fn(&Path) -> Tree) {
    let dir = tempfile::tempdir().unwrap();
    let tree = open(dir.path());
    let (root, a, b) = (
        NodeId::ROOT,
        Name::new(c"a").unwrap(),
        Name::new(c"b").unwrap(),
    );
    fn by(log: &Log) -> By<'_> {
        By {
            caller: Caller::default(),
            intent: Some(log),
            budget: &Unlimited,
        }
    }

    let log = Log::default();
    let first = tree.mkdir(by(&log), root, a, &MAKE).unwrap();
    let again = tree.mkdir(by(&log.replay()), root, a, &MAKE).unwrap();
    assert_eq!(first.node, again.node);
    let log = Log::default();
    assert_eq!(
        tree.mkdir(by(&log), root, a, &MAKE).err(),
        Some(Errno::EXIST)
    );
    assert_eq!(
        tree.mkdir(by(&log.replay()), root, a, &MAKE).err(),
        Some(Errno::EXIST)
    );

    let log = Log::default();
    let top = tree.inode(root).unwrap();
    let begin = |log: &Log| tree.begin_rename(by(log), &top, a);
    assert_eq!(begin(&log), Ok(false));
    let log = log.replay();
    assert_eq!(begin(&log), Ok(false));
    std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    assert_eq!(begin(&log), Ok(true));
    assert!(dir.path().join("b").exists());

    let log = Log::default();
    let begin = |log: &Log| tree.begin_remove(Some(log), &top, b, true);
    assert!(matches!(begin(&log), Ok(Removal::Of(_))));
    std::fs::remove_dir(dir.path().join("b")).unwrap();
    assert!(matches!(begin(&log.replay()), Ok(Removal::Done { .. })));
    let missing = begin(&Log::default()).map(drop);
    assert_eq!(missing, Err(Errno::NOENT));

    let log = Log::default();
    let open = |log: &Log| {
        let flags = libc::O_EXCL | libc::O_RDWR;
        tree.create(by(log), root, a, &MAKE, opens(flags))
            .map(|made| made.entry.attr.ino)
    };
    let ino = open(&log).unwrap();
    assert_eq!(open(&log.replay()), Ok(ino));
    assert_eq!(open(&Log::default()), Err(Errno::EXIST));
    assert_eq!(dir.path().join("a").metadata().unwrap().ino(), ino);
}

#[test]
fn a_mapped_directory_half_made_is_completed_by_its_maker() {
    let dir = tempfile::tempdir().unwrap();
    let tree = mapped_tree(dir.path());
    let (root, name) = (NodeId::ROOT, Name::new(c"d").unwrap());
    let caller = Caller::new(5, 6, 1);
    let log = Log::default();
    log.record(Intent::NameAbsent);
    // What a crash can leave: the directory, and nothing of whose it is.
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let mkdir = |log: Log| {
        let by = By {
            caller,
            intent: Some(&log),
            budget: &Unlimited,
        };
        tree.mkdir(by, root, name, &MAKE).map(|entry| entry.attr)
    };
    let seen = lookup(&tree, root, "d").unwrap().attr;
    assert_eq!((seen.uid, seen.gid), (0, 0));
    assert_eq!(mkdir(Log::default()).err(), Some(Errno::EXIST));
    let made = mkdir(log.clone().replay()).unwrap();
    assert_eq!((made.uid, made.gid, made.mode), (5, 6, 0o40755));
    // Once it is whole, whoever changes it meanwhile has the last word.
    let inode = tree.inode(lookup(&tree, root, "d").unwrap().node).unwrap();
    let set = SetAttr {
        mode: Some(0o700),
        uid: Some(9),
        ..SetAttr::default()
    };
    tree.set_attr(&inode, &set, false).unwrap();
    let again = mkdir(log.replay()).unwrap();
    assert_eq!((again.uid, again.gid, again.mode), (9, 6, 0o40700));
}

#[test]
fn a_mapped_tree_belongs_to_its_roots_owner() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can make files of others");
    }
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(dir.path(), Some(1234), Some(2345)).unwrap();
    let tree = mapped_tree(dir.path());
    let root = NodeId::ROOT;
    let at = |text: &'static std::ffi::CStr| Name::new(text).unwrap();
    tree.mkdir(NOBODY, root, at(c"d"), &MAKE).unwrap();
    tree.symlink(NOBODY, root, at(c"l"), c"d").unwrap();
    tree.mknod(NOBODY, root, at(c"p"), &MAKE, 0).unwrap();
    for name in ["d", "l", "p"] {
        let made = dir.path().join(name).symlink_metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 2345), "{name}");
        assert_eq!(made.mode() & 0o77, 0, "{name}");
    }
}

#[test]
fn a_mapped_change_waits_for_anothers() {
    let dir = tempfile::tempdir().unwrap();
    let lock = tempfile::NamedTempFile::new().unwrap();
    let open = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = rustix::fs::open(dir.path(), flags, Mode::empty()).unwrap();
        let options = Options {
            store: private(),
            inode_fds_max: 10,
        };
        Tree::open_mapped(root, &options, lock.reopen().unwrap().into()).unwrap()
    };
    let tree = open();
    let root = tree.inode(NodeId::ROOT).unwrap();
    // Another daemon that holds everything, as one that is stopped in the midst of a change.
    let other = lock.reopen().unwrap();
    let all = |kind| {
        ofd::set(&other, &ofd::describe(kind, 0, 0), false).unwrap();
    };
    all(ofd::Kind::Exclusive);
    let set = SetAttr {
        mode: Some(0o711),
        ..SetAttr::default()
    };
    assert_eq!(tree.set_attr(&root, &set, false), Err(Errno::AGAIN));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| tree.set_attr(&root, &set, true));
        // A write's drop of privileges waits for nobody.
        tree.drop_privileges(&root, true).unwrap();
        assert_ne!(tree.attr(&root).unwrap().mode & 0o777, 0o711);
        all(ofd::Kind::None);
        waits.join().unwrap().unwrap();
    });
    assert_eq!(tree.attr(&root).unwrap().mode & 0o7777, 0o711);
}

#[test]
fn a_made_file_whose_name_means_another_is_still_itself() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let root = tree.inode(NodeId::ROOT).unwrap();
    let made = |text: &str| {
        let file = std::fs::File::create(dir.path().join(text)).unwrap();
        Fd::from(OwnedFd::from(file))
    };
    let (file, gone) = (made("f"), made("gone"));
    std::fs::remove_file(dir.path().join("gone")).unwrap();
    // With an own descriptor for the inode; with the file's, while others remove files.
    for (keeps_fd, purges) in [(false, 0), (true, 1)] {
        let entry = |text: &str, fd: &Fd| {
            let name = name(text);
            let at = (&*root, Name::new(&name).unwrap());
            let opens = Opens {
                keeps_fd,
                ..opens(libc::O_WRONLY)
            };
            let made = tree.entry_made(at, (fd, &opens), &Unlimited, purges);
            let (entry, named_at) = made.unwrap();
            (entry.attr.ino, named_at)
        };
        let number = |fd: &Fd| attrs::stat_fd(fd).unwrap().ino;
        assert_eq!(entry("f", &file), (number(&file), Some(0)));
        assert_eq!(entry("f", &gone), (number(&gone), None));
        assert_eq!(entry("gone", &gone), (number(&gone), None));
    }
}

#[test]
fn a_made_file_is_reached_by_its_descriptor_and_opened_by_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let tree = tree(dir.path());
    let opens = Opens {
        keeps_fd: true,
        ..opens(libc::O_RDWR)
    };
    let name = name("f");
    let name = Name::new(&name).unwrap();
    let made = tree
        .create(NOBODY, NodeId::ROOT, name, &MAKE, opens)
        .unwrap();
    let inode = tree.inode(made.entry.node).unwrap();
    if !tree.is_local(&inode) {
        return assert!(!Arc::ptr_eq(&inode.fd, &made.fd));
    }
    assert!(Arc::ptr_eq(&inode.fd, &made.fd));
    let parked = |fd: &Fd, flags| Parked {
        fd: fd.clone(),
        flags,
        named_at: None,
    };
    tree.park(&inode, parked(&made.fd, OFlags::RDWR));
    // Another's is not kept beside it.
    let other = tree.reopen(&inode, OFlags::RDONLY).unwrap().into();
    tree.park(&inode, parked(&other, OFlags::RDONLY));
    assert_eq!(Arc::strong_count(&other), 1);
    assert!(tree.unpark(&inode, OFlags::RDWR | OFlags::DSYNC).is_none());
    for flags in [OFlags::RDONLY, OFlags::RDWR] {
        let had = tree.unpark(&inode, flags).unwrap();
        assert!(Arc::ptr_eq(&had.fd, &made.fd));
        assert!(tree.unpark(&inode, flags).is_none());
        tree.park(&inode, had);
    }
}

#[test]
fn a_parked_descriptor_goes_with_its_inode() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    let tree = tree(dir.path());
    let node = lookup(&tree, NodeId::ROOT, "f").unwrap().node;
    let inode = tree.inode(node).unwrap();
    let park = || {
        let parked = Parked {
            fd: tree.reopen(&inode, OFlags::RDONLY).unwrap().into(),
            flags: OFlags::RDONLY,
            named_at: Some(7),
        };
        tree.park(&inode, parked);
    };
    park();
    assert!(tree.unpark(&inode, OFlags::RDWR).is_none());
    let had = tree.unpark(&inode, OFlags::RDONLY).unwrap();
    assert_eq!(had.named_at, Some(7));
    assert!(tree.unpark(&inode, OFlags::RDONLY).is_none());
    park();
    let weak = Arc::downgrade(&inode);
    drop(inode);
    tree.forget(node, 1);
    assert!(weak.upgrade().is_none());
}

/// Mounts `from` read-only on `to`, for this thread alone; answers whether it may.
fn mount_read_only(from: &Path, to: &Path) -> bool {
    // SAFETY: only this thread gets another mount namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let mount = |args: &[&str], paths: &[&Path]| {
        let mut command = std::process::Command::new("mount");
        let status = command.args(args).args(paths).status();
        status.is_ok_and(|status| status.success())
    };
    mount(&["--make-rprivate", "/"], &[])
        && mount(&["--bind"], &[from, to])
        && mount(&["-o", "remount,bind,ro"], &[to])
}

#[test]
fn what_is_mounted_read_only_stays_so() {
    // In a thread of its own, whose mounts go with it.
    let test = || {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("a/f"), "x").unwrap();
        std::fs::write(path("other"), "x").unwrap();
        if !mount_read_only(&path("a"), &path("b")) {
            return println!("skipped: this process may not mount");
        }
        let tree = tree_on(dir.path(), private(), 1);
        let b = lookup(&tree, NodeId::ROOT, "b").unwrap().node;
        let f = lookup(&tree, b, "f").unwrap().node;
        let write = |node| tree.reopen(&tree.inode(node).unwrap(), OFlags::RDWR).err();
        assert_eq!(write(f), Some(Errno::ROFS));
        // Whether its descriptor was let go of or not.
        for _ in 0..20 {
            let other = lookup(&tree, NodeId::ROOT, "other").unwrap().node;
            assert_eq!(write(other), None);
            tree.forget(other, 1);
        }
        assert_eq!(write(f), Some(Errno::ROFS));
    };
    std::thread::scope(|scope| scope.spawn(test).join().unwrap());
}
