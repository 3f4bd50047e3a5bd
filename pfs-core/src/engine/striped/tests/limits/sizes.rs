//! Sizes, and limits of them that change.

use super::*;
use crate::engine::striped::check;

#[test]
fn sizes_are_counted_in_every_way_they_change() {
    let rig = Rig::limited(3, SOME);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    expect(&rig, 0, 1);
    mount.write(file, 0, &[1; 100]);
    expect(&rig, 100, 1);
    mount.write(file, 50, &[1; 100]);
    expect(&rig, 150, 1);
    mount.write(file, 0, &[1; 50]);
    mount.write(file, 20_000, &[1; 10_000]);
    expect(&rig, 30_000, 1);
    mount.truncate(file, 500_000);
    expect(&rig, 500_000, 1);
    mount.truncate(file, 10);
    expect(&rig, 10, 1);
    mount.fallocate(file, 0, 8000, 0);
    expect(&rig, 8000, 1);
    mount.fallocate(file, 5000, 95_000, 0);
    expect(&rig, 100_000, 1);
    mount.fallocate(file, 0, 200_000, libc::FALLOC_FL_ZERO_RANGE);
    expect(&rig, 200_000, 1);
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    mount.fallocate(file, 0, 300_000, keep | libc::FALLOC_FL_PUNCH_HOLE);
    mount.fallocate(file, 0, 200_000, keep);
    let beyond = mount.try_fallocate(file, 100, 200_000, keep);
    assert_eq!(beyond, Err(Errno::OPNOTSUPP), "no size would count it");
    expect(&rig, 200_000, 1);
    assert_eq!(mount.copy(file, 0, 250_000, 100), 100);
    expect(&rig, 250_100, 1);
    let again = mount
        .try_create(c"f", libc::O_RDWR | libc::O_TRUNC)
        .unwrap();
    expect(&rig, 0, 1);
    mount.write(again, 0, &[1; 9000]);
    mount.unlink(c"f");
    expect(&rig, 9000, 1);
    mount.write(file, 9000, &[1; 1000]);
    mount.release(again);
    expect(&rig, 10_000, 1);
    mount.release(file);
    expect(&rig, 0, 0);
    drop(mount);
    clean(&rig);
}

#[test]
fn the_capacity_holds_in_every_way_to_grow() {
    let rig = Rig::limited(3, SOME);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.write(file, 0, &[1; 1000]);
    mount.truncate(file, 999_000);
    assert_eq!(mount.try_write(file, 999_000, 1001), Err(Errno::NOSPC));
    assert_eq!(mount.try_truncate(file, 1_000_001), Err(Errno::NOSPC));
    for mode in [0, libc::FALLOC_FL_ZERO_RANGE] {
        let grown = mount.try_fallocate(file, 0, 1_000_001, mode);
        assert_eq!(grown, Err(Errno::NOSPC));
    }
    let copied: Result<u32> = mount
        .client
        .call(|fs, req, reply| fs.copy_file_range(req, at(file, 0), at(file, 999_500), 600, reply));
    assert_eq!(copied, Err(Errno::NOSPC));
    assert_eq!(mount.size(file), 999_000, "nothing of it was done");
    expect(&rig, 999_000, 1);
    let small = mount.create(c"small");
    assert_eq!(mount.try_write(small, 0, 1001), Err(Errno::NOSPC));
    assert_eq!(mount.try_write(small, 0, 1000), Ok(1000));
    assert_eq!(mount.try_write(small, 1000, 1), Err(Errno::NOSPC));
    assert_eq!(mount.try_write(small, 0, 1000), Ok(1000), "what is there");
    mount.write(file, 0, &[2; 500_000]);
    let stat = mount.statfs();
    assert_eq!((stat.blocks_free, stat.blocks_available), (0, 0));
    mount.unlink(c"small");
    mount.release(small);
    assert_eq!(mount.try_write(file, 999_000, 1000), Ok(1000));
    drop(mount);
    clean(&rig);
}

#[test]
fn limits_are_set_while_the_volume_is_in_use() {
    let rig = Rig::limited(2, SOME);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.truncate(file, 500_000);
    // Below what is there: nothing is lost, and nothing may come.
    set(&rig, Some(100_000), Some(1));
    assert_eq!(mount.try_write(file, 500_000, 1), Err(Errno::NOSPC));
    mount.write(file, 0, &[1; 100_000]);
    assert_eq!(mount.try_mkdir(c"d"), Err(Errno::NOSPC));
    let stat = mount.statfs();
    assert_eq!((stat.blocks, stat.blocks_free), (100_000 / 4096, 0));
    assert_eq!((stat.files, stat.files_free), (1, 0));
    mount.truncate(file, 99_000);
    assert_eq!(mount.try_write(file, 99_000, 1000), Ok(1000));
    // The last limit goes, and counting with it; without being alone it cannot begin again.
    set(&rig, None, None);
    mount.truncate(file, 1 << 40);
    mount.try_mkdir(c"d").unwrap();
    let again = set_limits(&rig.path(), |_| SOME, &mut |_| ControlFlow::Continue(()));
    let in_use = crate::volume::Error::MustBeAlone { path: rig.path() };
    assert!(
        matches!(&again, Err(check::Error::Volume(error)) if error.to_string() == in_use.to_string()),
        "{again:?}"
    );
    mount.truncate(file, 70_000);
    mount.release(file);
    drop(mount);
    set(&rig, Some(80_000), None);
    expect(&rig, 70_000, 2);
    let mut mount = rig.mount();
    let file = mount.try_create(c"f", libc::O_RDWR).unwrap();
    assert_eq!(mount.try_write(file, 70_000, 10_001), Err(Errno::NOSPC));
    assert_eq!(mount.try_write(file, 70_000, 10_000), Ok(10_000));
    drop(mount);
    clean(&rig);
}
