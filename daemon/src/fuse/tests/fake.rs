//! A double for an engine: says what it was asked, and answers always the same.

use std::ffi::CStr;
use std::sync::Mutex;

use pfs_core::fs::*;

/// Remembers its calls. Unless `fail` is set, each answers a value that tests can tell.
#[derive(Default)]
pub struct Fake {
    pub calls: Mutex<Vec<String>>,
    pub fail: Mutex<Option<Errno>>,
}

pub const VALUE: &[u8] = b"a value";

pub fn attr() -> Attr {
    let time = |sec, nsec| Timestamp { sec, nsec };
    Attr {
        ino: 42,
        size: 4097,
        blocks: 16,
        blksize: 4096,
        mode: libc::S_IFREG | 0o640,
        nlink: 2,
        uid: 1000,
        gid: 1001,
        rdev_major: 8,
        rdev_minor: 1,
        atime: time(-1, 1),
        mtime: time(2, 2),
        ctime: time(3, 3),
        btime: time(4, 4),
    }
}

const ENTRY_NODE: NodeId = NodeId(0x7_0000_0002);
const HANDLE: Handle = Handle(0x9_0000_0001);

fn entry() -> Entry {
    Entry {
        node: ENTRY_NODE,
        attr: attr(),
    }
}

fn opened() -> Opened {
    HANDLE.into()
}

impl Fake {
    fn say(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn answer<T: Into<Answer>>(&self, call: String, reply: Reply<T>, value: T) {
        self.say(call);
        match *self.fail.lock().unwrap() {
            Some(errno) => reply.err(errno),
            None => reply.ok(value),
        }
    }
}

/// Methods that are told from their arguments and a fixed answer.
macro_rules! methods {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $out:ty = $value:expr;)*) => {
        $(fn $name(&self, req: &mut Req<'_>, $($arg: $ty,)* reply: Reply<$out>) {
            let _ = &req.caller;
            let mut call = String::from(stringify!($name));
            $(call += &format!(" {:?}", $arg);)*
            self.answer(call, reply, $value);
        })*
    };
}

impl FileSystem for Fake {
    methods! {
        lookup(parent: NodeId, name: &Name) -> Entry = entry();
        getattr(node: NodeId, handle: Option<Handle>) -> Attr = attr();
        setattr(node: NodeId, set: &SetAttr) -> Attr = attr();
        readlink(node: NodeId) -> Vec<u8> = VALUE.to_vec();
        symlink(parent: NodeId, name: &Name, target: &CStr) -> Entry = entry();
        mknod(parent: NodeId, name: &Name, make: &Make, rdev: u32) -> Entry = entry();
        mkdir(parent: NodeId, name: &Name, make: &Make) -> Entry = entry();
        unlink(parent: NodeId, name: &Name) -> () = ();
        rmdir(parent: NodeId, name: &Name) -> () = ();
        rename(from: (NodeId, &Name), to: (NodeId, &Name), flags: u32) -> () = ();
        link(node: NodeId, parent: NodeId, name: &Name) -> Entry = entry();
        open(node: NodeId, flags: OpenFlags) -> Opened = opened();
        create(parent: NodeId, name: &Name, make: &Make, flags: OpenFlags) -> Created =
            Created { entry: entry(), opened: opened() };
        tmpfile(parent: NodeId, make: &Make, flags: i32) -> Created =
            Created { entry: entry(), opened: opened() };
        flush(handle: Handle, owner: u64) -> () = ();
        fsync(node: NodeId, handle: Handle, datasync: bool) -> () = ();
        fallocate(at: At, len: u64, mode: u32) -> () = ();
        lseek(at: At, whence: u32) -> u64 = 0x1_0000_0000;
        copy_file_range(from: At, to: At, len: u64) -> u32 = 5;
        release(handle: Handle, flock_owner: Option<u64>) -> () = ();
        opendir(node: NodeId) -> Opened = opened();
        fsyncdir(node: NodeId, handle: Handle, datasync: bool) -> () = ();
        releasedir(handle: Handle) -> () = ();
        setxattr(node: NodeId, name: &XattrName, value: &[u8], how: SetXattr) -> () = ();
        getxattr(node: NodeId, name: &XattrName) -> Vec<u8> = VALUE.to_vec();
        listxattr(node: NodeId) -> Vec<u8> = VALUE.to_vec();
        removexattr(node: NodeId, name: &XattrName) -> () = ();
        statfs(node: NodeId) -> StatFs =
            StatFs { blocks: 9, block_size: 4096, name_max: 255, ..StatFs::default() };
        access(node: NodeId, mask: u32) -> () = ();
        syncfs(node: NodeId) -> () = ();
        getlk(at: At, lock: &Lock) -> Lock = *lock;
    }

    /// Whoever would wait asks for leave, and then need not.
    fn setlk(&self, _: &mut Req<'_>, at: At, lock: &Lock, wait: Option<MayWait>, reply: Reply<()>) {
        let call = format!("setlk {at:?} {lock:?} {}", wait.is_some());
        match wait.map(|may_wait| may_wait()) {
            Some(Err(errno)) => reply.err(errno),
            _ => self.answer(call, reply, ()),
        }
    }

    fn keeps_locks(&self) -> bool {
        true
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.say(format!("forget {node:?} {count}"));
    }

    /// Fills all but the last byte with 'r'.
    fn read(&self, _: &mut Req<'_>, at: At, buf: Slices, reply: Reply<u32>) {
        let len = buf.len().saturating_sub(1);
        buf.copy_from(&vec![b'r'; len as usize]);
        self.answer(format!("read {at:?} {}", buf.len()), reply, len as u32);
    }

    fn write(&self, _: &mut Req<'_>, at: At, buf: Slices, flags: WriteFlags, reply: Reply<u32>) {
        let mut data = Vec::new();
        for part in buf.parts(0, buf.len()) {
            // SAFETY: the memory is a test's, lent until the reply.
            let part = unsafe { std::slice::from_raw_parts(part.iov_base.cast(), part.iov_len) };
            data.extend_from_slice(part);
        }
        let text = String::from_utf8_lossy(&data);
        let call = format!("write {at:?} {text:?} {flags:?}");
        self.answer(call, reply, data.len() as u32);
    }

    /// Lists `.`, `file-0`, `file-1`... as long as there is room.
    fn readdir(
        &self,
        _: &mut Req<'_>,
        handle: Handle,
        offset: u64,
        plus: bool,
        mut list: DirList,
        reply: Reply<DirList>,
    ) {
        let mut number = 0;
        loop {
            let name = match number {
                0 => String::from("."),
                number => format!("file-{number}"),
            };
            number += 1;
            let pushed = list.push(DirEntry {
                ino: 100 + number,
                cookie: number,
                kind: 8,
                name: name.as_bytes(),
                entry: (plus && number > 1).then(entry),
            });
            if !pushed {
                break;
            }
        }
        let call = format!("readdir {handle:?} {offset} {plus}");
        self.answer(call, reply, list);
    }

    fn reset(&self) {
        self.say("reset".into());
    }

    fn restore(&self) -> Result<(u64, u64)> {
        self.say("restore".into());
        Ok((3, 2))
    }

    fn prepare_restore(&self) -> u64 {
        0
    }
}
