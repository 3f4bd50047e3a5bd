//! Truncations, when the daemon dies.
//!
//! Debug builds of the daemon die where `PFS_CRASH_AT` says; others cannot be asked to.

use guest_tests::crash::dies_when_told;
use guest_tests::fixture::{Heritage, Mount, Noise, Volume};
use guest_tests::ring::fuse::abi::{SetattrIn, SetattrValid, ROOT_ID};
use guest_tests::ring::fuse::{ops, SessionConfig};

const LARGE: usize = 300_000;
const CUT: usize = 70_000;

fn set_size(size: usize) -> SetattrIn {
    SetattrIn {
        valid: SetattrValid::SIZE.bits(),
        size: size as u64,
        ..SetattrIn::default()
    }
}

/// A truncation dies at each of its steps. The next daemon finishes it; without one, another never
/// shows what was cut.
#[test]
fn truncations_that_are_interrupted_show_nothing_old() {
    if !dies_when_told() {
        return;
    }
    let volume = Volume::striped();
    for point in ["objects_cut", "size_set"] {
        for goes_on in [true, false] {
            let heritage = Heritage::new();
            let daemon = heritage
                .pass_to(volume.daemon())
                .env("PFS_CRASH_AT", format!("{point}:1"));
            let mut mount = Mount::start(daemon, &SessionConfig::default());
            let bytes = Noise::new(5).bytes(LARGE);
            mount.fs().write_file("/f", &bytes).unwrap();
            let node = mount.fs().lookup(ROOT_ID, "f").unwrap().nodeid;
            let request = ops::setattr(node, &set_size(CUT));
            let ticket = mount.fs().submit(&request.length_only(), 0).unwrap();
            mount.daemon.wait().unwrap();
            if goes_on {
                mount.resume_with(heritage.pass_to(volume.daemon()));
                mount.fs().wait(ticket).unwrap();
                assert!(
                    mount.fs().read_file("/f").unwrap() == bytes[..CUT],
                    "{point}"
                );
            }
            let mut other = volume.mount();
            let node = other.fs().lookup(ROOT_ID, "f").unwrap().nodeid;
            let request = ops::setattr(node, &set_size(LARGE));
            other.fs().call(&request.length_only()).unwrap();
            let now = other.fs().read_file("/f").unwrap();
            assert!(now[..CUT] == bytes[..CUT], "{point}");
            let rest = &now[CUT..];
            assert!(rest.iter().all(|byte| *byte == 0), "{point}");
            assert_eq!(now.len(), LARGE);
            other.fs().unlink(ROOT_ID, "f").unwrap();
        }
    }
}
