//! A 6.12 guest with 4 request queues under QEMU 10: the kernel spreads requests over all of
//! them. Skipped, with the reason printed, where those versions cannot be fetched.

use guest_tests::vm::{print_skip, Guest, Kernel, Share, Steps, Volume};
use std::time::Duration;

const QUEUES: u32 = 4;
const SECONDS_30: Duration = Duration::from_secs(30);
const SECONDS_180: Duration = Duration::from_secs(180);

/// Each job writes its own file with O_DIRECT, then reads and verifies it.
const FIO: &str = "cd /mnt && fio --name=job --numjobs=4 --size=16m --bs=256k --rw=randwrite \
    --direct=1 --verify=crc32c --group_reporting --minimal >/tmp/fio.log 2>&1 || \
    { cat /tmp/fio.log; exit 1; }";

#[test]
fn four_queues_carry_requests() {
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    let daemon = steps.step("start a daemon", || Ok(volume.serve("data")?));
    let share = Share::new(daemon.socket(), "data").request_queues(QUEUES);
    let booted = Guest::builder()
        .kernel(Kernel::V6_12)
        .vcpus(QUEUES)
        .share(share)
        .boot();
    let guest = match booted {
        Ok(guest) => guest,
        Err(error) => match error.unavailable() {
            Some(reason) => return print_skip(reason),
            None => steps.step("boot a 6.12 guest", || Err(error.into())),
        },
    };
    steps.step("mount with 4 queues", || {
        guest.mount("data", "/mnt")?;
        // Those that some vCPU sends on; the queue for urgent requests is listed too.
        let used = "cd /sys/fs/virtiofs/*/mqs && for queue in *; do \
            test -n \"$(cat $queue/cpu_list)\" && cat $queue/name; done | grep -c requests";
        assert_eq!(guest.check(used, SECONDS_30)?, QUEUES.to_string());
        Ok(())
    });
    steps.step("write and verify from all vCPUs", || {
        guest.check(FIO, SECONDS_180)?;
        Ok(())
    });
    steps.step("the same bytes after a remount and from the host", || {
        let sums = "cd /mnt && sha256sum job.*";
        let before = guest.check(sums, SECONDS_180)?;
        guest.unmount("/mnt")?;
        guest.mount("data", "/mnt")?;
        assert_eq!(guest.check(sums, SECONDS_180)?, before);
        for line in before.lines() {
            let (sum, name) = line.split_once("  ").expect("what sha256sum prints");
            assert_eq!(volume.sha256(&format!("/{name}"))?, sum, "{name}");
        }
        Ok(())
    });
    steps.step("power off", || Ok(guest.poweroff()?));
}
