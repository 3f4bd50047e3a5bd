//! Many boots in a row: none may hang, fail or leave a process behind.

use guest_tests::vm::{Guest, Share, Steps, Volume};
use std::path::Path;
use std::time::Duration;

const BOOTS: u32 = 20;
const SECONDS_30: Duration = Duration::from_secs(30);

#[test]
#[ignore = "takes minutes: guest-tests/run.sh --full runs it"]
fn boots_twenty_times() {
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    for boot in 1..=BOOTS {
        steps.step(&format!("boot {boot} of {BOOTS}"), || {
            let mut daemon = volume.serve("data")?;
            let guest = Guest::builder()
                .share(Share::new(daemon.socket(), "data"))
                .boot()?;
            guest.mount("data", "/mnt")?;
            guest.check(
                &format!("echo boot {boot} >> /mnt/boots && sync /mnt/boots"),
                SECONDS_30,
            )?;
            assert_eq!(
                guest.check("tail -1 /mnt/boots", SECONDS_30)?,
                format!("boot {boot}")
            );
            let qemu = guest.pid();
            guest.poweroff()?;
            daemon.wait()?;
            assert!(!Path::new(&format!("/proc/{qemu}")).exists());
            Ok(())
        });
    }
    assert_eq!(
        volume
            .read("/boots")
            .expect("the file of all boots")
            .iter()
            .filter(|&&b| b == b'\n')
            .count(),
        BOOTS as usize
    );
}
