//! Random data written in a guest, read back in every way there is: after the caches are
//! dropped, after a remount, in a second guest with a daemon of its own, and from the host.

use guest_tests::vm::{data_mib, steps::StepResult, Guest, Share, Steps, Volume};
use std::thread;
use std::time::{Duration, Instant};

const TARGETS: u64 = 4;
const STRIPE_UNIT: u64 = 64 << 10;
const SECONDS_30: Duration = Duration::from_secs(30);

/// Far above what TCG needs, for a machine that is busy otherwise: 1 MiB/s.
fn data_timeout() -> Duration {
    Duration::from_secs(120 + data_mib())
}

fn guest_sha256(guest: &Guest, path: &str) -> StepResult<String> {
    guest.check("echo 3 > /proc/sys/vm/drop_caches", SECONDS_30)?;
    let sum = guest.check(&format!("sha256sum < {path}"), data_timeout())?;
    Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
}

#[test]
fn data_is_the_same_wherever_it_is_read() {
    let steps = Steps::new();
    let size = data_mib() << 20;
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    let empty = match volume.is_striped() {
        true => steps.step("look at the empty targets", || Ok(volume.target_bytes()?)),
        false => Vec::new(),
    };
    let daemon = steps.step("start a daemon", || Ok(volume.serve("data")?));
    let guest = steps.step("boot a guest", || {
        let share = Share::new(daemon.socket(), "data");
        let guest = Guest::builder().share(share).boot()?;
        guest.mount("data", "/mnt")?;
        Ok(guest)
    });

    let sum = steps.step(&format!("write {} MiB in the guest", data_mib()), || {
        let write =
            format!("head -c {size} /dev/urandom | tee /mnt/big | sha256sum; sync /mnt/big");
        let sum = guest.check(&write, data_timeout())?;
        assert_eq!(
            guest.check("stat -c %s /mnt/big", SECONDS_30)?,
            size.to_string()
        );
        Ok(sum.split_whitespace().next().unwrap_or_default().to_owned())
    });
    steps.step("read it with cold caches", || {
        assert_eq!(guest_sha256(&guest, "/mnt/big")?, sum);
        Ok(())
    });
    steps.step("read it after a remount", || {
        guest.unmount("/mnt")?;
        guest.mount("data", "/mnt")?;
        assert_eq!(guest_sha256(&guest, "/mnt/big")?, sum);
        Ok(())
    });
    steps.step("read it from the host", || {
        assert_eq!(volume.sha256("/big")?, sum);
        Ok(())
    });
    steps.step("read it in a second guest, the first one still up", || {
        second_guest(&volume, &sum)
    });
    steps.step("read in the first guest what the second wrote", || {
        assert_eq!(
            guest.check("cat /mnt/second", SECONDS_30)?,
            "from the second guest"
        );
        Ok(())
    });
    if volume.is_striped() {
        steps.step("every target has an equal share", || {
            equal_shares(&volume.object_lengths()?);
            stored_whole(&volume.target_bytes()?, &empty, size);
            Ok(())
        });
    }
    steps.step("remove it", || {
        guest.check("rm /mnt/big /mnt/second /mnt/from-host && sync", SECONDS_30)?;
        assert_eq!(guest.check("ls -A /mnt", SECONDS_30)?, "");
        Ok(())
    });
    if volume.is_striped() {
        steps.step("the targets are empty again", || {
            becomes_empty(&volume, &empty)
        });
    }
    steps.step("power off", || Ok(guest.poweroff()?));
}

/// A guest and a daemon of its own on the same volume.
fn second_guest(volume: &Volume, sum: &str) -> StepResult {
    let daemon = volume.serve("shared")?;
    let share = Share::new(daemon.socket(), "shared");
    let guest = Guest::builder().share(share).boot()?;
    guest.mount("shared", "/mnt")?;
    assert_eq!(guest_sha256(&guest, "/mnt/big")?, sum);
    volume.put("/from-host", b"from the host\n")?;
    assert_eq!(
        guest.check("cat /mnt/from-host", SECONDS_30)?,
        "from the host"
    );
    let write = "echo from the second guest > /mnt/second && sync /mnt/second";
    guest.check(write, SECONDS_30)?;
    Ok(guest.poweroff()?)
}

/// Equal to within one stripe unit.
fn equal_shares(shares: &[u64]) {
    eprintln!("      bytes per target: {shares:?}");
    assert_eq!(shares.len() as u64, TARGETS);
    let least = shares.iter().min().copied().unwrap_or_default();
    let most = shares.iter().max().copied().unwrap_or_default();
    assert!(most - least <= STRIPE_UNIT, "unequal shares: {shares:?}");
}

/// Together the file but for its head, which lives in its own inode on the metadata target.
fn stored_whole(now: &[u64], empty: &[u64], size: u64) {
    let together: u64 = now.iter().zip(empty).map(|(now, empty)| now - empty).sum();
    // Also what the host's file systems need to find the data.
    let slack_bytes = 1 << 20;
    assert!(
        (size - slack_bytes..=size + slack_bytes).contains(&together),
        "{together} bytes on the targets for a file of {size}"
    );
}

/// Objects may be removed behind the answer to the guest, but not for long.
fn becomes_empty(volume: &Volume, empty: &[u64]) -> StepResult {
    let deadline = Instant::now() + SECONDS_30;
    loop {
        let now = volume.target_bytes()?;
        if now == empty {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "still on the targets: {now:?}");
        thread::sleep(Duration::from_millis(100));
    }
}
