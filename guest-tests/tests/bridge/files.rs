//! Ordinary work with files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};

use guest_tests::fixture::{Noise, Volume};
use rustix::fs::{getxattr, getxattr_query, listxattr, setxattr, statvfs, XattrFlags};
use rustix::io::Errno;

use crate::support::Bridge;

#[test]
fn work_with_files_on_a_striped_volume() {
    work_with_files(&Volume::striped());
}

#[test]
fn work_with_files_on_a_plain_directory() {
    work_with_files(&Volume::posix());
}

#[test]
fn work_with_files_on_a_mapped_volume() {
    work_with_files(&Volume::mapped());
}

fn work_with_files(volume: &Volume) {
    let Some(bridge) = Bridge::mount(volume, &[]) else {
        return;
    };
    data(&bridge, volume);
    names(&bridge);
    attributes(&bridge);
    bridge.end();
}

/// More than a request's worth, at odd offsets.
fn data(bridge: &Bridge, volume: &Volume) {
    let mut bytes = Noise::new(7).bytes(3_000_001);
    let path = bridge.join("data");
    let mut file = File::create_new(&path).unwrap();
    file.write_all(&bytes).unwrap();
    let patch = Noise::new(8).bytes(70_000);
    file.write_all_at(&patch, 65_537).unwrap();
    bytes[65_537..][..patch.len()].copy_from_slice(&patch);
    file.sync_all().unwrap();
    assert!(volume.get("data") == bytes, "the host reads other bytes");
    drop(file);
    assert!(fs::read(&path).unwrap() == bytes, "other bytes");
    let mut part = vec![0; 200_000];
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.read_exact_at(&mut part, 1_999_999).unwrap();
    assert!(
        part == bytes[1_999_999..2_199_999],
        "other bytes in the middle"
    );
    file.set_len(100_001).unwrap();
    file.set_len(200_000).unwrap();
    bytes.truncate(100_001);
    bytes.resize(200_000, 0);
    let mut appended = File::options().append(true).open(&path).unwrap();
    appended.write_all(b"the end").unwrap();
    bytes.extend(b"the end");
    assert!(fs::read(&path).unwrap() == bytes, "other bytes after a cut");
    fs::copy(&path, bridge.join("copy")).unwrap();
    assert!(
        fs::read(bridge.join("copy")).unwrap() == bytes,
        "a bad copy"
    );
}

fn names(bridge: &Bridge) {
    fs::create_dir(bridge.join("dir")).unwrap();
    let expected: BTreeSet<String> = (0..500).map(|i| format!("name-{i:0>40}")).collect();
    for name in &expected {
        File::create_new(bridge.join("dir").join(name)).unwrap();
    }
    let listed = || -> BTreeSet<String> {
        let entries = fs::read_dir(bridge.join("dir")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    };
    assert_eq!(listed(), expected);
    let (one, other) = (bridge.join("one"), bridge.join("dir/other"));
    fs::write(&one, "one").unwrap();
    fs::write(&other, "other").unwrap();
    fs::rename(&one, &other).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"one");
    assert_eq!(fs::metadata(&one).unwrap_err().kind(), ErrorKind::NotFound);
    fs::hard_link(&other, &one).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
    symlink("dir/other", bridge.join("link")).unwrap();
    assert_eq!(
        fs::read_link(bridge.join("link")).unwrap().to_str(),
        Some("dir/other")
    );
    assert_eq!(fs::read(bridge.join("link")).unwrap(), b"one");
    let full = fs::remove_dir(bridge.join("dir")).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(bridge.join("dir")).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().nlink(), 1);
}

fn attributes(bridge: &Bridge) {
    let path = bridge.join("attributes");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4751);
    std::os::unix::fs::chown(&path, Some(1234), Some(5678)).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 5678));
    let value = Noise::new(9).bytes(2000);
    setxattr(&path, "user.long", &value, XattrFlags::CREATE).unwrap();
    let again = setxattr(&path, "user.long", &value, XattrFlags::CREATE);
    assert_eq!(again, Err(Errno::EXIST));
    let mut read = vec![0; 4096];
    let len = getxattr(&path, "user.long", &mut read[..]).unwrap();
    assert!(read[..len] == value, "another value");
    assert_eq!(getxattr_query(&path, "user.long"), Ok(value.len()));
    let short = getxattr(&path, "user.long", &mut read[..1999]);
    assert_eq!(short, Err(Errno::RANGE));
    let len = listxattr(&path, &mut read[..]).unwrap();
    assert_eq!(&read[..len], b"user.long\0");
    assert!(statvfs(&path).unwrap().f_blocks > 0);
}

#[test]
fn many_threads_on_many_queues() {
    let volume = Volume::striped();
    let Some(bridge) = Bridge::mount(&volume, &["--queues", "3", "--depth", "2"]) else {
        return;
    };
    let work = |seed: u64| {
        let path = bridge.join(&format!("file-{seed}"));
        let mut noise = Noise::new(seed);
        let mut bytes = vec![0; 1 << 20];
        let options = &mut File::options();
        let file = options.read(true).write(true).create_new(true).open(path);
        let file = file.unwrap();
        for _ in 0..40 {
            let at = noise.below(bytes.len() as u64 - 100_000) as usize;
            let len = noise.below(100_000) as usize + 1;
            let patch = noise.bytes(len);
            bytes[at..at + len].copy_from_slice(&patch);
            file.write_all_at(&patch, at as u64).unwrap();
            let end = file.metadata().unwrap().len() as usize;
            let mut read = vec![0; end];
            file.read_exact_at(&mut read, 0).unwrap();
            assert!(read == bytes[..end], "other bytes");
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..8).map(|seed| scope.spawn(move || work(seed))).collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    bridge.end();
}
