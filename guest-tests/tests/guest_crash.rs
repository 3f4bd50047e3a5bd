//! The daemon is killed while the guest writes: what fsync acknowledged is there afterwards.

use guest_tests::vm::{Guest, Share, Steps, Volume};
use std::time::Duration;

const RECORD_BYTES: usize = 256 << 10;
const RECORDS_BEFORE_KILL: usize = 12;
const SECONDS_30: Duration = Duration::from_secs(30);
const SECONDS_60: Duration = Duration::from_secs(60);

/// Appends records until it is stopped, each synced before it is told.
const WRITER: &str = r#"
i=0
while :; do
    yes "record $i" | head -c 262144 | dd of=/mnt/log oflag=append conv=notrunc,fsync bs=256K iflag=fullblock status=none || exit
    echo "synced $i."
    i=$((i + 1))
done
"#;

fn record(number: usize) -> Vec<u8> {
    let line = format!("record {number}\n").into_bytes();
    line.into_iter().cycle().take(RECORD_BYTES).collect()
}

#[test]
fn synced_data_survives_the_death_of_the_daemon() {
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    let mut daemon = steps.step("start a daemon", || Ok(volume.serve("data")?));
    let guest = steps.step("boot a guest", || {
        let guest = Guest::builder()
            .share(Share::new(daemon.socket(), "data"))
            .boot()?;
        guest.mount("data", "/mnt")?;
        Ok(guest)
    });
    steps.step("kill -9 the daemon during writes", || {
        let mut writer = guest.start(WRITER, SECONDS_60)?;
        writer.wait_for_output(&format!("synced {RECORDS_BEFORE_KILL}."))?;
        Ok(daemon.kill()?)
    });
    // Without its daemon the guest waits for ever: QEMU does not reconnect by itself.
    guest.kill();

    steps.step("the host finds all that was synced", || {
        let found = volume.read("/log")?;
        for number in 0..=RECORDS_BEFORE_KILL {
            let at = number * RECORD_BYTES;
            assert!(
                found.get(at..at + RECORD_BYTES) == Some(&record(number)),
                "record {number} of a file of {} bytes",
                found.len()
            );
        }
        Ok(())
    });
    steps.step("a new daemon and guest go on with the file", || {
        let daemon = volume.serve("data")?;
        let guest = Guest::builder()
            .share(Share::new(daemon.socket(), "data"))
            .boot()?;
        guest.mount("data", "/mnt")?;
        let sum = guest.check("sha256sum < /mnt/log", SECONDS_30)?;
        assert_eq!(
            sum.split_whitespace().next(),
            Some(volume.sha256("/log")?.as_str())
        );
        guest.check("echo more >> /mnt/log && sync /mnt/log", SECONDS_30)?;
        assert!(volume.read("/log")?.ends_with(b"more\n"));
        Ok(guest.poweroff()?)
    });
}
