//! Where data lies.

use super::*;

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
fn a_reader_that_closes_last_frees_what_writers_left() {
    use std::os::unix::fs::MetadataExt;
    let rig = Rig::new(1);
    let mut mount = rig.mount();
    let writer = mount.create(c"f");
    for index in 1..20 {
        mount.write(writer, index << 20, &[1]);
    }
    let reader = mount.open_with(writer.node, libc::O_RDONLY).unwrap();
    mount.release(writer);
    let inode = rig.path().join("meta/namespace/f");
    let before = inode.metadata().unwrap();
    let is_freed = |inode: &std::fs::Metadata| inode.blocks() * 512 <= MDT_SIZE;
    assert!(!is_freed(&before), "each extension left a block");
    mount.release(reader);
    let after = inode.metadata().unwrap();
    assert!(is_freed(&after), "{} blocks are left", after.blocks());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
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

#[test]
fn reading_objects_changes_the_access_time_as_reading_the_inode_does() {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.write(file, 0, &vec![1; 50_000]);
    mount.release(file);
    let path = rig.path().join("meta/namespace/f");
    let [inode, objects] = [0, 20_000].map(|offset| {
        let old = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let times = std::fs::FileTimes::new();
        let times = times.set_accessed(old(1000)).set_modified(old(2000));
        let host = std::fs::File::options().write(true).open(&path).unwrap();
        host.set_times(times).unwrap();
        let file = mount.open(c"f");
        let before = mount.attr(file);
        mount.read(file, offset, 4096);
        let limit = Instant::now() + Duration::from_secs(2);
        let mut after = mount.attr(file);
        while after.atime.sec == 1000 && Instant::now() < limit {
            after = mount.attr(file);
        }
        mount.release(file);
        assert_eq!((after.mtime, after.ctime), (before.mtime, before.ctime));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let recent = now.as_secs() as i64 - 60..now.as_secs() as i64 + 60;
        (after.atime.sec != 1000, recent.contains(&after.atime.sec))
    });
    // On a volume mounted with noatime, neither does.
    assert_eq!(objects, inode);
    assert_eq!(objects.0, objects.1);
}
