//! What writes within the size do to the inode, many of them within a tick of the clock.

use super::*;
use crate::fs::{SetTime, SetXattr, Timestamp, XattrName};

/// More than fit into one tick, fewer than into each of them one.
const ROUNDS: usize = 50;

/// A file with objects, and a write within each of its parts.
fn written() -> (Rig, Mount, Open) {
    let rig = Rig::new(2);
    let mut mount = rig.mount();
    let file = mount.create(c"f");
    mount.write(file, 0, &[1; 4 * MDT_SIZE as usize]);
    (rig, mount, file)
}

#[test]
fn a_write_changes_the_time_that_was_just_set() {
    let (rig, mut mount, file) = written();
    let mut other = rig.mount();
    let same = other.open(c"f");
    let old = Timestamp { sec: 7, nsec: 0 };
    let set = SetAttr {
        mtime: Some(SetTime::To(old)),
        ..SetAttr::default()
    };
    for round in 0..ROUNDS {
        mount.write(file, 2 * MDT_SIZE, b"before");
        let (by, node) = match round % 2 {
            0 => (&mut mount, file.node),
            _ => (&mut other, same.node),
        };
        let attr: Attr = by
            .client
            .call(|fs, req, reply| fs.setattr(req, node, &set, reply))
            .unwrap();
        assert_eq!(attr.mtime, old);
        mount.write(file, 2 * MDT_SIZE, b"after");
        assert_ne!(mount.attr(file).mtime, old);
    }
}

#[test]
fn a_write_drops_a_capability_that_was_just_set() {
    // cap_net_raw+ep, revision 2.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let (_rig, mut mount, file) = written();
    let name = XattrName::new(c"security.capability").unwrap();
    for _ in 0..ROUNDS {
        mount.write(file, 2 * MDT_SIZE, b"before");
        let set = mount.client.call(|fs, req, reply: Reply<()>| {
            fs.setxattr(req, file.node, name, &capability, SetXattr::from(0), reply);
        });
        match set {
            Err(Errno::PERM) => return println!("skipped: needs CAP_SETFCAP"),
            set => set.unwrap(),
        }
        mount.write(file, 2 * MDT_SIZE, b"after");
        let got = mount
            .client
            .call(|fs, req, reply| fs.getxattr(req, file.node, name, reply));
        assert_eq!(got, Err(Errno::NODATA));
    }
}

#[test]
fn a_write_notices_a_truncation_of_another_at_once() {
    let (rig, mut mount, file) = written();
    let mut other = rig.mount();
    let same = other.open(c"f");
    for _ in 0..ROUNDS {
        mount.write(file, 2 * MDT_SIZE, &[2; 2 * MDT_SIZE as usize]);
        other.truncate(same, MDT_SIZE);
        mount.write(file, 3 * MDT_SIZE, b"end");
        assert_eq!(mount.size(file), 3 * MDT_SIZE + 3);
        assert_eq!(other.read(same, 3 * MDT_SIZE - 2, 9), b"\0\0end");
    }
}
