//! Every operation that ordinary work in a guest needs, on a striped volume and, by the same
//! tests, on a plain directory, and on both with mapped ownership, served by an ordinary user.
//!
//! The volume has four targets and a stripe unit of 64 KiB, so that what is larger than a few
//! pages crosses from target to target. Data is compared with a model of the file in memory.

use guest_tests::fixture::{Mount, Volume};

/// Makes of each `fn(&mut Mount, &Volume)` a test on each kind of volume.
macro_rules! on_every_kind_of_volume {
    ($($name:ident),* $(,)?) => {
        mod striped {
            $(#[test] fn $name() { crate::mounted(guest_tests::fixture::Volume::striped(), super::$name); })*
        }
        mod mapped {
            $(#[test] fn $name() { crate::mounted(guest_tests::fixture::Volume::mapped(), super::$name); })*
        }
        mod mapped_posix {
            $(#[test] fn $name() { crate::mounted(guest_tests::fixture::Volume::mapped_posix(), super::$name); })*
        }
        mod posix {
            $(#[test] fn $name() { crate::mounted(guest_tests::fixture::Volume::posix(), super::$name); })*
        }
    };
}

mod acls;
mod attrs;
mod data;
mod dirs;
mod lifetime;
mod names;
mod privileges;
mod ranges;
mod xattrs;

fn mounted(volume: Volume, test: fn(&mut Mount, &Volume)) {
    let mut mount = volume.mount();
    test(&mut mount, &volume);
    // The daemon is alive, in order, and ends with its VMM.
    mount.fs().statfs(1).unwrap();
    mount.session.device.disconnect();
    let status = mount.daemon.wait().unwrap();
    assert!(
        status.success(),
        "{status}; its log:\n{}",
        mount.daemon.log()
    );
}
