//! Several daemons on one file at once.

use super::*;

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
