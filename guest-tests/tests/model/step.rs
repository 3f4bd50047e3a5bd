//! One step of a test, by either client, and how steps are chosen.
//!
//! Steps name nothing that a client may not have: they pick from what is there when they run, so
//! that any part of a sequence is a sequence, and can be shrunk.

use proptest::prelude::*;

/// Picks from a list by its place, whatever its length.
pub type Pick = u8;

/// Names that steps use: few, so that they meet.
pub const NAMES: [&[u8]; 7] = [b"a", b"b", b"c", b"d", b"\xff\n\x01", &[b'n'; 255], b"e f"];

/// A place in a file: near something that matters.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Bytes from the start.
    Start(u16),
    /// This far from where the bytes in the inode end.
    Inode(i8),
    /// This far from the end of this stripe unit.
    Unit(u8, i8),
    /// This far from the end of the file.
    End(i8),
    /// Units of 2^20, and bytes.
    Far(u32, u16),
}

/// What may be made beside files.
#[derive(Clone, Copy, Debug)]
pub enum Thing {
    Dir,
    Link(u8),
    /// By MKNOD.
    File,
    Fifo,
    Socket,
    Device,
}

/// What fallocate(2) does.
#[derive(Clone, Copy, Debug)]
pub enum Allocate {
    Extend,
    Keep,
    Punch,
    Zero,
    ZeroKeep,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// 0 to read, 1 to write, 2 for both.
    pub access: u8,
    pub truncate: bool,
    pub append: bool,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub dir: Pick,
    pub name: Pick,
}

#[derive(Clone, Debug)]
pub enum Op {
    Lookup(At),
    Forget {
        node: Pick,
        all: bool,
    },
    Make {
        at: At,
        thing: Thing,
        mode: u16,
    },
    Create {
        at: At,
        mode: u16,
        how: How,
        exclusive: bool,
    },
    Tmpfile {
        dir: Pick,
        mode: u16,
        exclusive: bool,
    },
    Unlink(At),
    Rmdir(At),
    Rename {
        from: At,
        to: At,
        /// Flags of renameat2(2).
        flags: u8,
    },
    Link {
        node: Pick,
        to: At,
    },
    Readlink(Pick),
    Open {
        node: Pick,
        how: How,
    },
    Release(Pick),
    Read {
        file: Pick,
        place: Place,
        len: u32,
    },
    Write {
        file: Pick,
        place: Place,
        len: u32,
    },
    /// What a guest's kernel writes back of pages that a process changed in a mapping.
    WritePages {
        file: Pick,
        place: Place,
        len: u32,
    },
    Truncate {
        node: Pick,
        place: Place,
    },
    Allocate {
        file: Pick,
        how: Allocate,
        place: Place,
        len: u32,
    },
    Seek {
        file: Pick,
        place: Place,
    },
    Copy {
        from: Pick,
        to: Pick,
        at: Place,
        to_at: Place,
        len: u32,
    },
    Sync {
        file: Pick,
        data: bool,
    },
    Flush(Pick),
    Chmod {
        node: Pick,
        mode: u16,
    },
    Chown {
        node: Pick,
        uid: Option<u8>,
        gid: Option<u8>,
    },
    SetTimes {
        node: Pick,
        access: Option<u32>,
        modify: Option<u32>,
        now: bool,
    },
    List {
        dir: Pick,
        plus: bool,
        /// Bytes asked for at a time.
        room: u16,
        /// Names that the other client removes meanwhile, each after so many pieces.
        removed: Vec<Pick>,
    },
    SyncDir(Pick),
    SetXattr {
        node: Pick,
        name: Pick,
        len: u16,
        flags: u8,
    },
    GetXattr {
        node: Pick,
        name: Pick,
    },
    ListXattrs(Pick),
    RemoveXattr {
        node: Pick,
        name: Pick,
    },
    StatFs,
    SyncFs,
    /// The client's daemon is killed, and its guest with it; another begins.
    Crash,
    /// The client's daemon is killed, and another goes on with the session.
    Resume,
}

/// Which client does what.
#[derive(Clone, Debug)]
pub struct Step {
    pub client: bool,
    /// Asked by a user, not by root, where that makes a difference.
    pub user: bool,
    pub op: Op,
}

fn at() -> impl Strategy<Value = At> {
    let dir = prop_oneof![2 => Just(0), 3 => any::<Pick>()];
    (dir, 0..NAMES.len() as Pick).prop_map(|(dir, name)| At { dir, name })
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => any::<u16>().prop_map(|at| Place::Start(at / 2)),
        3 => any::<i8>().prop_map(Place::Inode),
        4 => (0..24u8, any::<i8>()).prop_map(|(unit, by)| Place::Unit(unit, by)),
        3 => any::<i8>().prop_map(Place::End),
        1 => (0..1u32 << 20, any::<u16>()).prop_map(|(far, by)| Place::Far(far, by)),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    prop_oneof![1..200u32, 1..9000u32, 1..40_000u32]
}

fn how() -> impl Strategy<Value = How> {
    let access = prop_oneof![1 => Just(0), 1 => Just(1), 5 => Just(2)];
    let (truncate, append) = (prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    (access, truncate, append).prop_map(|(access, truncate, append)| How {
        access,
        truncate,
        append,
    })
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        5 => Just(Thing::Dir),
        2 => any::<u8>().prop_map(Thing::Link),
        2 => Just(Thing::File),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Socket),
        1 => Just(Thing::Device),
    ]
}

fn allocate() -> impl Strategy<Value = Allocate> {
    prop_oneof![
        Just(Allocate::Extend),
        Just(Allocate::Keep),
        Just(Allocate::Punch),
        Just(Allocate::Zero),
        Just(Allocate::ZeroKeep),
    ]
}

fn names() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    let flags = prop_oneof![4 => Just(0), 1 => Just(1), 2 => Just(2), 1 => Just(3)];
    prop_oneof![
        4 => at().prop_map(Op::Lookup),
        2 => (pick(), any::<bool>()).prop_map(|(node, all)| Op::Forget { node, all }),
        3 => (at(), thing(), 0..0o1000u16)
            .prop_map(|(at, thing, mode)| Op::Make { at, thing, mode }),
        5 => (at(), 0..0o1000u16, how(), any::<bool>())
            .prop_map(|(at, mode, how, exclusive)| Op::Create { at, mode, how, exclusive }),
        1 => (pick(), 0..0o1000u16, any::<bool>())
            .prop_map(|(dir, mode, exclusive)| Op::Tmpfile { dir, mode, exclusive }),
        3 => at().prop_map(Op::Unlink),
        2 => at().prop_map(Op::Rmdir),
        3 => (at(), at(), flags).prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        2 => (pick(), at()).prop_map(|(node, to)| Op::Link { node, to }),
        1 => pick().prop_map(Op::Readlink),
        1 => (pick(), any::<bool>(), 600..4096u16, prop::collection::vec(pick(), 0..4))
            .prop_map(|(dir, plus, room, removed)| Op::List { dir, plus, room, removed }),
        1 => pick().prop_map(Op::SyncDir),
    ]
}

fn data() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    prop_oneof![
        4 => (pick(), how()).prop_map(|(node, how)| Op::Open { node, how }),
        3 => pick().prop_map(Op::Release),
        6 => (pick(), place(), len()).prop_map(|(file, place, len)| Op::Read { file, place, len }),
        9 => (pick(), place(), len()).prop_map(|(file, place, len)| Op::Write { file, place, len }),
        2 => (pick(), place(), len())
            .prop_map(|(file, place, len)| Op::WritePages { file, place, len }),
        3 => (pick(), place()).prop_map(|(node, place)| Op::Truncate { node, place }),
        3 => (pick(), allocate(), place(), len())
            .prop_map(|(file, how, place, len)| Op::Allocate { file, how, place, len }),
        2 => (pick(), place()).prop_map(|(file, place)| Op::Seek { file, place }),
        2 => (pick(), pick(), place(), place(), len())
            .prop_map(|(from, to, at, to_at, len)| Op::Copy { from, to, at, to_at, len }),
        1 => (pick(), any::<bool>()).prop_map(|(file, data)| Op::Sync { file, data }),
        1 => pick().prop_map(Op::Flush),
    ]
}

fn attributes() -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    let time = || prop::option::of(any::<u32>());
    prop_oneof![
        3 => (pick(), 0..0o10000u16).prop_map(|(node, mode)| Op::Chmod { node, mode }),
        2 => (pick(), prop::option::of(0..4u8), prop::option::of(0..4u8))
            .prop_map(|(node, uid, gid)| Op::Chown { node, uid, gid }),
        3 => (pick(), time(), time(), any::<bool>())
            .prop_map(|(node, access, modify, now)| Op::SetTimes { node, access, modify, now }),
        3 => (pick(), 0..3 as Pick, 0..300u16, 0..3u8)
            .prop_map(|(node, name, len, flags)| Op::SetXattr { node, name, len, flags }),
        1 => (pick(), 0..3 as Pick).prop_map(|(node, name)| Op::GetXattr { node, name }),
        1 => pick().prop_map(Op::ListXattrs),
        1 => (pick(), 0..3 as Pick).prop_map(|(node, name)| Op::RemoveXattr { node, name }),
        1 => Just(Op::StatFs),
    ]
}

/// Steps on the bytes of few files, as fsx(1) has them.
pub fn bytes_step() -> impl Strategy<Value = Step> {
    let op = data().prop_map(|op| match op {
        Op::Release(file) => Op::Flush(file),
        op => op,
    });
    (any::<bool>(), op).prop_map(|(client, op)| Step {
        client,
        user: false,
        op,
    })
}

/// Opens a file, and another, by both clients: what steps on bytes need.
pub fn open_files() -> Vec<Step> {
    let steps = [false, true].into_iter().flat_map(|client| {
        [0, 1].map(|name| Step {
            client,
            user: false,
            op: Op::Create {
                at: At { dir: 0, name },
                mode: 0o600,
                how: How {
                    access: 2,
                    truncate: false,
                    append: name == 1,
                },
                exclusive: false,
            },
        })
    });
    steps.collect()
}

/// Steps: mostly names and data, with a death now and then.
pub fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        480 => names(),
        640 => data(),
        160 => attributes(),
        4 => Just(Op::Crash),
        4 => Just(Op::Resume),
        // All of the host's file system is synced.
        1 => Just(Op::SyncFs),
    ];
    (any::<bool>(), any::<bool>(), op).prop_map(|(client, user, op)| Step { client, user, op })
}
