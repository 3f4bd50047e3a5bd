//! Against a model: a file is a vector of bytes, whatever way it lies on inode and objects.

use proptest::prelude::*;

use super::*;

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
