//! The harness itself: a guest without a share.

use guest_tests::vm::agent::Error as AgentError;
use guest_tests::vm::{guest, Guest, Steps};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

const SECONDS_10: Duration = Duration::from_secs(10);
const SECONDS_60: Duration = Duration::from_secs(60);

#[test]
fn runs_commands_in_a_guest() {
    let steps = Steps::new();
    let guest = steps.step("boot", || Ok(Guest::builder().boot()?));

    steps.step("exit code, stdout and stderr come apart", || {
        let output = guest.run("echo out; echo err >&2; exit 3", SECONDS_10)?;
        assert_eq!(
            (output.code, &output.stdout[..], &output.stderr[..]),
            (3, &b"out\n"[..], &b"err\n"[..])
        );
        Ok(())
    });
    steps.step("any bytes pass both ways", || {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
        let output = guest.run_with_input("cat", &bytes, SECONDS_10)?;
        assert!(output.stdout == bytes, "{} bytes came", output.stdout.len());
        Ok(())
    });
    steps.step("a command costs little", || {
        let start = Instant::now();
        for _ in 0..10 {
            guest.check("true", SECONDS_10)?;
        }
        eprintln!("      {} ms a command", start.elapsed().as_millis() / 10);
        Ok(())
    });
    steps.step("a command in time is killed", || {
        let error = guest
            .run("echo begun; sleep 100", Duration::from_secs(1))
            .expect_err("a timeout");
        let guest::Error::Agent(AgentError::Timeout { output, .. }) = error else {
            return Err(error.into());
        };
        assert_eq!(output.text(), "begun");
        let sleeps = "cat /proc/[0-9]*/comm | grep -cx sleep; true";
        assert_eq!(guest.check(sleeps, SECONDS_10)?, "0");
        Ok(())
    });
    steps.step("a background process does not hold up its command", || {
        let start = Instant::now();
        guest.check("sleep 20 & echo $!", SECONDS_10)?;
        assert!(start.elapsed() < SECONDS_10);
        Ok(())
    });
    steps.step("commands run side by side", || {
        let waits = "mkfifo /run/fifo; echo ready; cat /run/fifo";
        let mut first = guest.start(waits, SECONDS_10)?;
        first.wait_for_output("ready")?;
        guest.check("echo from the second > /run/fifo", SECONDS_10)?;
        assert_eq!(first.wait()?.text(), "ready\nfrom the second");
        Ok(())
    });
    steps.step("the kernel log is apart from outputs", || {
        guest.check("echo a mark from the test > /dev/kmsg", SECONDS_10)?;
        assert!(guest.kernel_log().contains("a mark from the test"));
        Ok(())
    });
    steps.step("a reset boots it again", || {
        guest.reset()?;
        let boots = |log: String| log.matches("Linux version").count();
        let deadline = Instant::now() + SECONDS_60;
        while boots(guest.kernel_log()) < 2 {
            assert!(Instant::now() < deadline, "{}", guest.kernel_log());
            thread::sleep(Duration::from_millis(100));
        }
        while let Err(error) = guest.check("true", SECONDS_10) {
            assert!(Instant::now() < deadline, "{error}");
        }
        Ok(())
    });
    steps.step("power off", || {
        let pid = guest.pid();
        guest.poweroff()?;
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        Ok(())
    });
}

/// Set for the process that is to be killed.
const VICTIM: &str = "PFS_TEST_VICTIM";

#[test]
fn a_killed_test_leaves_no_qemu() {
    if env::var_os(VICTIM).is_some() {
        let guest = Guest::builder().boot().expect("a guest");
        println!("\nqemu {}", guest.pid());
        return thread::sleep(Duration::from_secs(60));
    }
    let dir = tempfile::tempdir().expect("a folder for what the victim leaves");
    let mut victim = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "a_killed_test_leaves_no_qemu", "--nocapture"])
        .env(VICTIM, "1")
        .env("TMPDIR", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the victim");
    let output = BufReader::new(victim.stdout.take().expect("a pipe"));
    let qemu = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("qemu ")?.parse::<u32>().ok());
    victim.kill().expect("to kill the victim");
    victim.wait().expect("its end");
    let qemu = qemu.expect("the victim tells QEMU's process id");
    let deadline = Instant::now() + SECONDS_10;
    while is_running(qemu) {
        assert!(Instant::now() < deadline, "QEMU {qemu} still runs");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A dead process may be listed until someone collects it, without a command line.
fn is_running(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}
