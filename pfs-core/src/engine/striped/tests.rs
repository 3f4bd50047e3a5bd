//! Against a model: a file is a vector of bytes, whatever way it lies on inode and objects.

mod check;
mod layouts;

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::client::Client;
use crate::fs::{At, Caller, Created, Handle, Make, SetAttr, WriteFlags};
use crate::session::SessionStore;
use crate::volume::{create, CreateOptions, NewEngine, NewTargets, Volume as VolumePath};

const UNIT: u64 = 4096;
const MDT_SIZE: u64 = 8192;

/// A volume of its own, removed with the test.
struct Rig {
    dir: tempfile::TempDir,
}

/// One daemon's view of it.
struct Mount {
    client: Client,
}

#[derive(Clone, Copy)]
struct Open {
    node: NodeId,
    handle: Handle,
}

impl Rig {
    fn new(targets: u32) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let engine = NewEngine::Striped {
            targets: NewTargets::Inside(targets),
            stripe_unit_bytes: UNIT,
            stripe_count: None,
            mdt_size_bytes: MDT_SIZE,
            limits: crate::volume::Limits::default(),
        };
        create(&CreateOptions {
            path: dir.path().join("v"),
            engine,
        })
        .unwrap();
        Rig { dir }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("v")
    }

    fn mount(&self) -> Mount {
        let store = Arc::new(SessionStore::private(1 << 16).unwrap());
        let options = crate::engine::Options {
            store,
            inode_fds_max: 1000,
        };
        let fs = crate::engine::open(VolumePath::open(&self.path()).unwrap(), &options).unwrap();
        Mount {
            client: Client::new(fs, Caller::default()).unwrap(),
        }
    }

    /// Lengths of all object files, by target.
    fn objects(&self) -> Vec<Vec<u64>> {
        let mut targets: Vec<_> = list(&self.path().join("targets"));
        targets.sort();
        let sizes = |target: std::path::PathBuf| {
            let fanout = list(&target.join("objects"));
            let objects = fanout.iter().flat_map(|dir| list(dir));
            objects
                .map(|object| object.metadata().unwrap().len())
                .collect()
        };
        targets.into_iter().map(sizes).collect()
    }
}

fn list(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

fn name(name: &'static std::ffi::CStr) -> &'static Name {
    Name::new(name).unwrap()
}

impl Mount {
    fn create(&mut self, file: &'static std::ffi::CStr) -> Open {
        let make = Make {
            mode: 0o644,
            umask: 0,
        };
        let made: Created = self
            .client
            .call(|fs, req, reply| {
                fs.create(
                    req,
                    NodeId::ROOT,
                    name(file),
                    &make,
                    libc::O_RDWR.into(),
                    reply,
                );
            })
            .unwrap();
        Open {
            node: made.entry.node,
            handle: made.opened.handle,
        }
    }

    fn write(&mut self, file: Open, offset: u64, data: &[u8]) {
        let mut data = data.to_vec();
        let list = [iov(&mut data)];
        // SAFETY: `data` and `list` live until `call` has the answer.
        let buf = unsafe { Slices::new(&list) };
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let flags = WriteFlags::default();
        let wrote: u32 = self
            .client
            .call(|fs, req, reply| fs.write(req, at, buf, flags, reply))
            .unwrap();
        assert_eq!(wrote as usize, data.len());
    }

    fn read(&mut self, file: Open, offset: u64, len: usize) -> Vec<u8> {
        // In two uneven parts, full of what must not be seen.
        let mut data = vec![0xEE; len];
        let (first, second) = data.split_at_mut(len / 3);
        let list = [iov(first), iov(second)];
        // SAFETY: `data` and `list` live until `call` has the answer.
        let buf = unsafe { Slices::new(&list) };
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let got: u32 = self
            .client
            .call(|fs, req, reply| fs.read(req, at, buf, reply))
            .unwrap();
        data.truncate(got as usize);
        data
    }

    fn size(&mut self, file: Open) -> u64 {
        let attr: Attr = self
            .client
            .call(|fs, req, reply| fs.getattr(req, file.node, None, reply))
            .unwrap();
        attr.size
    }

    fn truncate(&mut self, file: Open, size: u64) {
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let attr: Attr = self
            .client
            .call(|fs, req, reply| fs.setattr(req, file.node, &set, reply))
            .unwrap();
        assert_eq!(attr.size, size);
    }

    fn fallocate(&mut self, file: Open, offset: u64, len: u64, mode: i32) {
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        self.client
            .call(|fs, req, reply: Reply<()>| fs.fallocate(req, at, len, mode as u32, reply))
            .unwrap();
    }

    fn lseek(&mut self, file: Open, offset: u64, whence: i32) -> Result<u64> {
        let at = At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        self.client
            .call(|fs, req, reply| fs.lseek(req, at, whence as u32, reply))
    }

    fn copy(&mut self, file: Open, from: u64, to: u64, len: u64) -> u32 {
        let at = |offset| At {
            node: file.node,
            handle: file.handle,
            offset,
        };
        let (from, to) = (at(from), at(to));
        self.client
            .call(|fs, req, reply| fs.copy_file_range(req, from, to, len, reply))
            .unwrap()
    }

    fn release(&mut self, file: Open) {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.release(req, file.handle, None, reply))
            .unwrap();
    }

    fn fsync(&mut self, file: Open) {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.fsync(req, file.node, file.handle, false, reply))
            .unwrap();
    }

    fn open(&mut self, file: &'static std::ffi::CStr) -> Open {
        let node = self.client.lookup(NodeId::ROOT, name(file)).unwrap();
        let opened: crate::fs::Opened = self
            .client
            .call(|fs, req, reply| fs.open(req, node.id, libc::O_RDWR.into(), reply))
            .unwrap();
        let open = Open {
            node: node.id,
            handle: opened.handle,
        };
        std::mem::forget(node);
        open
    }

    fn unlink(&mut self, file: &'static std::ffi::CStr) {
        self.client
            .call(|fs, req, reply: Reply<()>| fs.unlink(req, NodeId::ROOT, name(file), reply))
            .unwrap();
    }
}

fn iov(buf: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: u64,
        len: usize,
        fill: u8,
    },
    Read {
        offset: u64,
        len: usize,
    },
    Truncate(u64),
    Allocate {
        offset: u64,
        len: u64,
        keep_size: bool,
    },
    Punch {
        offset: u64,
        len: u64,
    },
    Zero {
        offset: u64,
        len: u64,
    },
    Copy {
        from: u64,
        to: u64,
        len: u64,
    },
    Reopen,
    Seek(u64),
}

const END: u64 = 96 << 10;

/// Layouts of files, besides the volume's.
const LAYOUTS: &[&str] = &[
    "",
    "mdt_size=0",
    "mdt_size=4K stripe_count=1",
    "mdt_size=0 stripe_unit=16K stripe_count=1",
    "mdt_size=64K stripe_unit=8K",
    "mdt_size=1M",
];

fn step() -> impl Strategy<Value = Step> {
    let (offset, len) = (0..END, 1..(40u64 << 10));
    prop_oneof![
        4 => (offset.clone(), len.clone(), 1u8..)
            .prop_map(|(offset, len, fill)| Step::Write { offset, len: len as usize, fill }),
        4 => (offset.clone(), len.clone())
            .prop_map(|(offset, len)| Step::Read { offset, len: len as usize }),
        2 => offset.clone().prop_map(Step::Truncate),
        1 => (offset.clone(), len.clone(), any::<bool>())
            .prop_map(|(offset, len, keep_size)| Step::Allocate { offset, len, keep_size }),
        1 => (offset.clone(), len.clone()).prop_map(|(offset, len)| Step::Punch { offset, len }),
        1 => (offset.clone(), len.clone()).prop_map(|(offset, len)| Step::Zero { offset, len }),
        1 => (offset.clone(), offset.clone(), len)
            .prop_map(|(from, to, len)| Step::Copy { from, to, len }),
        1 => Just(Step::Reopen),
        1 => offset.prop_map(Step::Seek),
    ]
}

/// The file as it should be.
#[derive(Default)]
struct Model(Vec<u8>);

impl Model {
    fn put(&mut self, offset: u64, data: &[u8]) {
        let end = offset as usize + data.len();
        if self.0.len() < end {
            self.0.resize(end, 0);
        }
        self.0[offset as usize..end].copy_from_slice(data);
    }

    fn get(&self, offset: u64, len: usize) -> Vec<u8> {
        self.0
            .iter()
            .skip(offset as usize)
            .take(len)
            .copied()
            .collect()
    }

    fn zero(&mut self, offset: u64, len: u64) {
        let len = (self.0.len() as u64).saturating_sub(offset).min(len);
        self.put_if_any(offset, len);
    }

    fn put_if_any(&mut self, offset: u64, len: u64) {
        if len > 0 {
            self.put(offset, &vec![0; len as usize]);
        }
    }
}

fn check_seek(mount: &mut Mount, file: Open, model: &Model, offset: u64) {
    let size = model.0.len() as u64;
    let (data, hole) = (
        mount.lseek(file, offset, libc::SEEK_DATA),
        mount.lseek(file, offset, libc::SEEK_HOLE),
    );
    if offset >= size {
        assert_eq!((data, hole), (Err(Errno::NXIO), Err(Errno::NXIO)));
        return;
    }
    // What is skipped as a hole must be zeros; a hole must begin with them.
    let data = data.unwrap_or(size);
    assert!(
        data >= offset
            && model
                .get(offset, (data - offset) as usize)
                .iter()
                .all(|b| *b == 0)
    );
    let hole = hole.unwrap();
    assert!((offset..=size).contains(&hole));
    assert!(hole == size || model.0[hole as usize] == 0);
    assert!(data == size || mount.lseek(file, data, libc::SEEK_DATA) == Ok(data));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_its_bytes(
        targets in 1u32..5,
        layout in prop::sample::select(LAYOUTS),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let rig = Rig::new(targets);
        // Two daemons take turns.
        let mut mounts = [rig.mount(), rig.mount()];
        if !layout.is_empty() {
            mounts[1].set_layout(NodeId::ROOT, layout).unwrap();
        }
        let first = mounts[0].create(c"f");
        let mut files = [first, mounts[1].open(c"f")];
        let mut model = Model::default();
        for (turn, step) in steps.into_iter().enumerate() {
            let which = turn % 2;
            let (mount, file) = (&mut mounts[which], files[which]);
            match step {
                Step::Write { offset, len, fill } => {
                    let data: Vec<u8> = (0..len).map(|i| fill.wrapping_add(i as u8)).collect();
                    mount.write(file, offset, &data);
                    model.put(offset, &data);
                }
                Step::Read { offset, len } => {
                    prop_assert!(mount.read(file, offset, len) == model.get(offset, len));
                }
                Step::Truncate(size) => {
                    mount.truncate(file, size);
                    model.0.resize(size as usize, 0);
                }
                Step::Allocate { offset, len, keep_size } => {
                    let mode = if keep_size { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
                    mount.fallocate(file, offset, len, mode);
                    let end = (offset + len) as usize;
                    if !keep_size && model.0.len() < end {
                        model.0.resize(end, 0);
                    }
                }
                Step::Punch { offset, len } => {
                    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    mount.fallocate(file, offset, len, mode);
                    model.zero(offset, len);
                }
                Step::Zero { offset, len } => {
                    mount.fallocate(file, offset, len, libc::FALLOC_FL_ZERO_RANGE);
                    model.put_if_any(offset, len);
                }
                Step::Copy { from, to, len } => {
                    if from + len <= to || to + len <= from {
                        let data = model.get(from, len as usize);
                        prop_assert_eq!(mount.copy(file, from, to, len) as usize, data.len());
                        if !data.is_empty() {
                            model.put(to, &data);
                        }
                    }
                }
                Step::Reopen => {
                    mount.release(file);
                    files[which] = mount.open(c"f");
                }
                Step::Seek(offset) => check_seek(mount, file, &model, offset),
            }
            prop_assert_eq!(mounts[which].size(files[which]), model.0.len() as u64);
        }
        for (mount, file) in mounts.iter_mut().zip(files) {
            prop_assert!(mount.read(file, 0, 1 << 20) == model.0);
            mount.fsync(file);
            mount.release(file);
        }
        mounts[1].unlink(c"f");
        prop_assert!(rig.objects().iter().all(Vec::is_empty));
    }
}

#[test]
fn a_large_file_lies_in_equal_shares_and_goes_whole() {
    let rig = Rig::new(4);
    let mut mount = rig.mount();
    let file = mount.create(c"big");
    let chunk = vec![7u8; 1 << 20];
    for index in 0..16 {
        mount.write(file, index << 20, &chunk);
    }
    mount.release(file);
    let shares = rig.objects();
    assert_eq!(shares.len(), 4);
    for share in &shares {
        let bytes: u64 = share.iter().sum();
        assert!(bytes.abs_diff((16 << 20) / 4) <= UNIT, "{shares:?}");
    }
    let inode = rig.path().join("meta/namespace/big");
    use std::os::unix::fs::MetadataExt;
    assert!(
        inode.metadata().unwrap().blocks() * 512 <= MDT_SIZE,
        "only its own bytes are in it"
    );
    mount.unlink(c"big");
    assert!(rig.objects().iter().all(Vec::is_empty));
}

#[test]
fn a_file_being_written_does_not_fill_the_metadata_target() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new(1);
    let mut mount = rig.mount();
    let file = mount.create(c"long");
    for index in 0..600 {
        mount.write(file, index << 20, &[1]);
    }
    let blocks = rig
        .path()
        .join("meta/namespace/long")
        .metadata()
        .unwrap()
        .blocks();
    assert!(
        blocks * 512 < 300 * 4096 + MDT_SIZE,
        "{blocks} blocks for a size"
    );
}

#[test]
fn a_small_file_never_touches_a_target() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let file = mount.create(c"small");
    mount.write(file, 0, &vec![1; MDT_SIZE as usize]);
    assert!(rig.objects().iter().all(Vec::is_empty));
    mount.write(file, MDT_SIZE, &[1]);
    assert_eq!(rig.objects().concat(), [UNIT * (MDT_SIZE / UNIT / 2) + 1]);
}

#[test]
fn a_removed_file_lives_until_the_last_daemon_lets_go() {
    let rig = Rig::new(3);
    let (mut one, mut two) = (rig.mount(), rig.mount());
    let here = one.create(c"f");
    let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    one.write(here, 0, &data);
    let there = two.open(c"f");
    one.unlink(c"f");
    one.release(here);
    assert!(two.read(there, 0, 200_000) == data);
    two.write(there, 100_000, &[9]);
    assert!(!rig.objects().concat().is_empty());
    two.release(there);
    assert!(rig.objects().iter().all(Vec::is_empty));
}

#[test]
fn renaming_over_a_file_removes_its_objects() {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    for (file, byte) in [(c"a", 1), (c"b", 2)] {
        let open = mount.create(file);
        mount.write(open, 0, &vec![byte; 50_000]);
        mount.release(open);
    }
    let before = rig.objects().concat().len();
    let (a, b) = ((NodeId::ROOT, name(c"a")), (NodeId::ROOT, name(c"b")));
    mount
        .client
        .call(|fs, req, reply: Reply<()>| fs.rename(req, a, b, 0, reply))
        .unwrap();
    assert_eq!(rig.objects().concat().len() * 2, before);
    let open = mount.open(c"b");
    assert!(mount.read(open, 0, 50_000) == vec![1; 50_000]);
}

#[test]
fn daemons_that_extend_one_file_at_once_lose_nothing() {
    const WRITES: u64 = 200;
    let rig = Rig::new(2);
    rig.mount().create(c"log");
    let writer = |lane: u64| {
        let mut mount = rig.mount();
        let file = mount.open(c"log");
        let mut size = 0;
        for index in 0..WRITES {
            // The lanes interleave, so each extends over what the other has not written yet.
            let offset = (index * 2 + lane) * 3000;
            mount.write(file, offset, &[lane as u8 + 1; 3000]);
            let now = mount.size(file);
            assert!(
                now >= size && now >= offset + 3000,
                "the file shrank from {size} to {now}"
            );
            size = now;
        }
        mount.release(file);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| writer(0));
        scope.spawn(|| writer(1));
    });
    let mut mount = rig.mount();
    let file = mount.open(c"log");
    let data = mount.read(file, 0, (WRITES * 2 * 3000) as usize + 1);
    assert_eq!(data.len() as u64, WRITES * 2 * 3000);
    for (index, part) in data.chunks(3000).enumerate() {
        assert!(
            part.iter().all(|byte| *byte == index as u8 % 2 + 1),
            "write {index} is damaged"
        );
    }
}

#[test]
fn a_guest_neither_sees_nor_sets_the_records() {
    let rig = Rig::new(1);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.write(file, 0, &vec![1; 20_000]);
    let record = record::xattr_name();
    let node = file.node;
    let call = &mut mount.client;
    let names: Vec<u8> = call
        .call(|fs, req, reply| fs.listxattr(req, node, reply))
        .unwrap();
    assert!(names.is_empty());
    assert_eq!(
        call.call(|fs, req, reply: Reply<Vec<u8>>| fs.getxattr(req, node, record, reply)),
        Err(Errno::NODATA)
    );
    assert_eq!(
        call.call(|fs, req, reply: Reply<()>| fs.setxattr(
            req,
            node,
            record,
            b"x",
            0.into(),
            reply
        )),
        Err(Errno::PERM)
    );
}
