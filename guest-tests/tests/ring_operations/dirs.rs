//! Directories: listing them, small and large, while they change.

use std::collections::HashSet;

use guest_tests::fixture::{Mount, Volume};
use guest_tests::ring::fuse::abi::ROOT_ID;
use guest_tests::ring::fuse::{ops, Client, DirEntry, Errno, Handle};

on_every_kind_of_volume! {
    ten_thousand_entries_in_small_buffers,
    entries_say_what_they_are,
    a_listing_goes_on_where_it_is_told,
    a_directory_that_changes_while_it_is_listed,
}

const COUNT: usize = 10_000;

/// Makes empty files, as many in flight as there can be.
fn make_files(fs: &mut Client, parent: u64, count: usize) {
    let names: Vec<String> = (0..count).map(|i| format!("file-{i}")).collect();
    let mut tickets = Vec::new();
    for batch in names.chunks(48) {
        for name in batch {
            let mode = libc::S_IFREG | 0o600;
            let request = ops::mknod(parent, name.as_bytes(), mode, 0, 0);
            tickets.push(fs.enqueue(&request, 0).unwrap());
        }
        fs.kick().unwrap();
        for ticket in tickets.drain(..) {
            let node = fs.wait(ticket).unwrap().nodeid;
            fs.forget(node, 1).unwrap();
        }
    }
}

/// All entries, in buffers of `len` bytes.
fn list(fs: &mut Client, handle: Handle, len: usize) -> Vec<DirEntry> {
    let mut entries: Vec<DirEntry> = Vec::new();
    loop {
        let offset = entries.last().map_or(0, |last| last.offset);
        let part = fs.readdir(handle, offset, len).unwrap();
        if part.is_empty() {
            return entries;
        }
        entries.extend(part);
    }
}

fn names(entries: &[DirEntry]) -> HashSet<Vec<u8>> {
    let names: HashSet<_> = entries.iter().map(|e| e.name.clone()).collect();
    assert_eq!(names.len(), entries.len(), "an entry came twice");
    names
}

fn ten_thousand_entries_in_small_buffers(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "d", 0o755).unwrap().nodeid;
    make_files(fs, dir, COUNT);
    let handle = fs.opendir(dir).unwrap();
    let entries = list(fs, handle, 512);
    let found = names(&entries);
    assert_eq!(found.len(), COUNT + 2);
    assert!((0..COUNT).all(|i| found.contains(format!("file-{i}").as_bytes())));
    assert!(found.contains(&b"."[..]) && found.contains(&b".."[..]));

    let mut plus: Vec<DirEntry> = Vec::new();
    loop {
        let offset = plus.last().map_or(0, |last| last.offset);
        let part = fs.readdirplus(handle, offset, 2000).unwrap();
        if part.is_empty() {
            break;
        }
        let mut forgets = Vec::new();
        for (entry, named) in part {
            let dots = named.name == b"." || named.name == b"..";
            assert_eq!(entry.nodeid == 0, dots, "{:?}", named.name);
            if !dots {
                assert_eq!(entry.attr.ino, named.ino);
                assert_eq!(entry.attr.mode, libc::S_IFREG | 0o600);
                forgets.push((entry.nodeid, 1));
            }
            plus.push(named);
        }
        fs.batch_forget(&forgets).unwrap();
    }
    assert_eq!(names(&plus), found);
    // Each lookup that came with an entry was counted once.
    fs.drain_hiprio().unwrap();
    let node = fs.lookup(dir, "file-77").unwrap().nodeid;
    fs.forget(node, 1).unwrap();
    fs.drain_hiprio().unwrap();
    assert_eq!(fs.getattr(node).unwrap_err(), Errno::STALE);
    fs.fsyncdir(handle, false).unwrap();
    fs.fsyncdir(handle, true).unwrap();
    fs.releasedir(handle).unwrap();
    assert_eq!(fs.readdir(handle, 0, 512).unwrap_err(), Errno::BADF);
}

fn entries_say_what_they_are(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    let dir = fs.mkdir(ROOT_ID, "dir", 0o755).unwrap();
    let file = fs.mknod(ROOT_ID, "file", libc::S_IFREG | 0o600, 0).unwrap();
    let fifo = fs.mknod(ROOT_ID, "fifo", libc::S_IFIFO | 0o600, 0).unwrap();
    let link = fs.symlink(ROOT_ID, "link", "x").unwrap();
    let entries = fs.list("/").unwrap();
    let made = [
        ("dir", dir, libc::DT_DIR),
        ("file", file, libc::DT_REG),
        ("fifo", fifo, libc::DT_FIFO),
        ("link", link, libc::DT_LNK),
    ];
    assert_eq!(entries.len(), made.len());
    for (name, entry, kind) in made {
        let found = entries.iter().find(|e| e.name == name.as_bytes()).unwrap();
        assert_eq!(
            (found.ino, found.kind),
            (entry.attr.ino, u32::from(kind)),
            "{name}"
        );
    }
    let handle = fs.opendir(ROOT_ID).unwrap();
    for (entry, named) in fs.readdirplus(handle, 0, 4096).unwrap() {
        let known = made.iter().find(|(name, ..)| name.as_bytes() == named.name);
        assert_eq!(entry.nodeid, known.map_or(0, |(_, made, _)| made.nodeid));
    }
    // Too small for any entry.
    assert_eq!(fs.readdir(handle, 0, 16).unwrap_err(), Errno::INVAL);
}

fn a_listing_goes_on_where_it_is_told(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    make_files(fs, ROOT_ID, 300);
    let handle = fs.opendir(ROOT_ID).unwrap();
    let all = list(fs, handle, 32 << 10);
    for from in [0, 1, 57, 150, 299, 301] {
        // Backwards as well as forwards.
        for start in [from, all.len() - 1 - from] {
            let next = fs.readdir(handle, all[start].offset, 400).unwrap();
            assert_eq!(next.first(), all.get(start + 1), "after entry {start}");
        }
    }
    assert_eq!(list(fs, handle, 4096), all);
    // Another handle knows the same places.
    let other = fs.opendir(ROOT_ID).unwrap();
    assert_eq!(fs.readdir(other, all[99].offset, 400).unwrap()[0], all[100]);
}

fn a_directory_that_changes_while_it_is_listed(mount: &mut Mount, _: &Volume) {
    let fs = mount.fs();
    make_files(fs, ROOT_ID, 2000);
    let handle = fs.opendir(ROOT_ID).unwrap();
    let mut seen: Vec<DirEntry> = Vec::new();
    let mut made = 0;
    loop {
        let offset = seen.last().map_or(0, |last| last.offset);
        let part = fs.readdir(handle, offset, 1000).unwrap();
        if part.is_empty() {
            break;
        }
        // What was listed goes, as `rm -r` does it, and something new comes.
        for entry in part.iter().filter(|e| e.name.starts_with(b"file-")) {
            fs.unlink(ROOT_ID, &entry.name).unwrap();
        }
        seen.extend(part);
        if made < 20 {
            fs.mkdir(ROOT_ID, format!("new-{made}"), 0o755).unwrap();
            made += 1;
        }
    }
    // Whoever was there all the time came exactly once.
    let seen = names(&seen);
    assert!((0..2000).all(|i| seen.contains(format!("file-{i}").as_bytes())));
    assert_eq!(fs.list("/").unwrap().len(), made);
}
