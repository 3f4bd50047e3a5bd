//! Watches a boot: a kernel that stalls under emulation is given a second chance.
//!
//! On a busy machine QEMU's TCG loses a guest with several vCPUs now and then while its kernel sets
//! up clocks (about one boot in some hundreds): no line is printed any more, and no device has been
//! looked for yet. Such a machine is reset, which leaves QEMU and what is connected to it as they are.
//! A kernel that stalls later, with virtiofs in play, is left alone: that is for the test to fail on.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

/// Without a line of the kernel's.
const STALLED_AFTER: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(500);
const QMP_TIMEOUT: Duration = Duration::from_secs(5);
const RESETS_MAX: u32 = 2;
/// What the kernel prints once it has got to its devices, or past them.
const LATE: [&str; 2] = ["virtio", "Run /init"];

/// Watches a boot until it is dropped.
pub struct Watch {
    _end: Sender<()>,
}

impl Watch {
    /// Resets the machine behind `qmp_socket` while `console_log` says that it is stalled.
    pub fn start(qmp_socket: PathBuf, console_log: PathBuf) -> Watch {
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            let (mut bytes, mut since, mut begin, mut resets) = (0, Instant::now(), 0, 0);
            while ended.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                let log = fs::read(&console_log).unwrap_or_default();
                if log.len() != bytes {
                    (bytes, since) = (log.len(), Instant::now());
                }
                let this_boot = String::from_utf8_lossy(&log[begin..]);
                if since.elapsed() < STALLED_AFTER || !is_early(&this_boot) {
                    continue;
                }
                eprintln!("      the guest's kernel stalled before it looked for devices: reset");
                if let Err(error) = reset(&qmp_socket) {
                    eprintln!("      QEMU does not reset the machine: {error}");
                }
                (begin, since, resets) = (bytes, Instant::now(), resets + 1);
                if resets == RESETS_MAX {
                    break;
                }
            }
        });
        Watch { _end: end }
    }
}

/// Whether the kernel that printed `log` has begun, and not got to its devices.
fn is_early(log: &str) -> bool {
    log.contains("Linux version") && !LATE.iter().any(|word| log.contains(word))
}

/// Resets the machine of a QEMU that was started with `-no-reboot`, which is not in force any more:
/// the firmware resets the machine once more to start it afresh.
pub fn reset(qmp_socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(qmp_socket)?;
    stream.set_read_timeout(Some(QMP_TIMEOUT))?;
    let mut messages = BufReader::new(stream.try_clone()?);
    let mut command = |name: &str, arguments: Value, done: &[&str]| {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        (&stream).write_all(line.as_bytes())?;
        wait_for(&mut messages, done)
    };
    command("qmp_capabilities", json!({}), &["return"])?;
    command("set-action", json!({ "reboot": "reset" }), &["return"])?;
    command("system_reset", json!({}), &["return", "RESET"])
}

/// Reads QEMU's messages until a reply (`return`) and events of these names have come.
fn wait_for(messages: &mut impl BufRead, names: &[&str]) -> io::Result<()> {
    let mut missing = names.to_vec();
    while !missing.is_empty() {
        let mut line = String::new();
        if messages.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message: Value = serde_json::from_str(&line)?;
        if let Some(error) = message.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
        let event = message.get("event").and_then(Value::as_str);
        missing.retain(|name| message.get(*name).is_none() && event != Some(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_with_devices_is_not_early() {
        let early = "[    0.000000] Linux version 6.1\n[    1.00] clocksource: Switched";
        assert!(is_early(early));
        assert!(!is_early("SeaBIOS"));
        for late in [
            "virtio_blk virtio1: 2/0/0 queues",
            "Run /init as init process",
        ] {
            assert!(!is_early(&format!("{early}\n[    2.00] {late}")));
        }
    }
}
