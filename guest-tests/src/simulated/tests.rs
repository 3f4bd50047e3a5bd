//! Needs root and `/dev/fuse`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use super::*;

const MIB: usize = 1 << 20;

fn slow() -> Speed {
    Speed {
        bytes_per_s: 20.0 * MIB as f64,
        latency: Duration::from_millis(2),
    }
}

#[test]
fn it_is_the_directory_and_takes_its_time() {
    private_mounts().unwrap();
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/before"), b"before").unwrap();
    let target = SimulatedTarget::mount(dir.path(), slow()).unwrap();

    assert_eq!(fs::read(dir.path().join("sub/before")).unwrap(), b"before");
    let path = dir.path().join("sub/new");
    let file = fs::File::create_new(&path).unwrap();
    let bytes: Vec<u8> = (0..4 * MIB).map(|at| (at / 511) as u8).collect();
    let begin = Instant::now();
    file.write_all_at(&bytes, 10).unwrap();
    // Answers come no earlier than they should; how much later is the machine's.
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let begin = Instant::now();
    assert!(fs::read(&path).unwrap()[10..] == bytes);
    assert!(begin.elapsed() >= Duration::from_millis(200));
    file.set_len(3).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 3);
    file.sync_all().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir.path().join("sub"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["before", "new"]);
    fs::remove_file(dir.path().join("sub/before")).unwrap();

    drop(file);
    drop(target);
    let left: Vec<_> = fs::read_dir(dir.path().join("sub")).unwrap().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(fs::read(dir.path().join("sub/new")).unwrap().len(), 3);
}
