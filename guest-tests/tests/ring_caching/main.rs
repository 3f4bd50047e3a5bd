//! What a guest may keep, and what a second one sees: docs/caching.md, line by line.
//!
//! The driver keeps nothing itself, so the tests look at what the daemon allows a guest to keep,
//! and play a guest that does so.

mod auto;
mod policies;
mod writeback;

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{Client, Handle, SessionConfig};

/// `FOPEN_*`.
const DIRECT_IO: u32 = 1 << 0;
const KEEP_CACHE: u32 = 1 << 1;
const CACHE_DIR: u32 = 1 << 3;

const RDONLY: i32 = libc::O_RDONLY;
const WRONLY: i32 = libc::O_WRONLY;
const RDWR: i32 = libc::O_RDWR;

/// A VM on a volume, whose daemon has these options.
fn vm(volume: &Volume, options: &[&str]) -> Mount {
    Mount::start(volume.daemon_with(options), &SessionConfig::default())
}

/// Both engines.
fn volumes() -> [Volume; 2] {
    [Volume::posix(), Volume::striped()]
}

/// Opens by path, as a guest whose name has timed out: its lookup is given back at the close.
fn open(fs: &mut Client, name: &str, flags: i32) -> (Handle, u64) {
    let entry = fs.lookup(ROOT_ID, name).unwrap();
    (fs.open(entry.nodeid, flags).unwrap(), entry.attr.size)
}

/// Closes as Linux does.
fn close(fs: &mut Client, handle: Handle) {
    fs.flush(handle, 0).unwrap();
    fs.release(handle).unwrap();
}

/// Opens and closes; answers whether the guest would keep what it has cached.
fn reopen_keeps(fs: &mut Client, name: &str) -> bool {
    let (handle, _) = open(fs, name, RDONLY);
    close(fs, handle);
    handle.open_flags & KEEP_CACHE != 0
}

/// Writes a file as `>` of a shell does.
fn rewrite(fs: &mut Client, name: &str, bytes: &[u8]) {
    let handle = match fs.lookup(ROOT_ID, name) {
        Ok(entry) => fs.open(entry.nodeid, WRONLY | libc::O_TRUNC).unwrap(),
        Err(_) => fs.create(ROOT_ID, name, 0o644, WRONLY).unwrap().1,
    };
    fs.write_all(handle, 0, bytes).unwrap();
    close(fs, handle);
}
