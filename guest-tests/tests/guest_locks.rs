//! Two guests on one volume: a lock that one holds is honoured in the other, and ends with its
//! process or its VM.

use guest_tests::vm::steps::StepResult;
use guest_tests::vm::{Guest, Running, Share, Steps, Volume};
use std::time::Duration;

const SECONDS_30: Duration = Duration::from_secs(30);
const SECONDS_120: Duration = Duration::from_secs(120);

/// What scripts begin with. Locks as the system calls take them, on /mnt/f.
const PREAMBLE: &str = r#"
import errno, fcntl, os, struct, sys, time
fd = os.open("/mnt/f", os.O_RDWR)
def call(fd, command, kind, start, length):
    lock = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, lock))
def range_lock(kind, start, length, wait=False):
    call(fd, fcntl.F_SETLKW if wait else fcntl.F_SETLK, kind, start, length)
def refused(error, attempt, *args):
    try:
        attempt(*args)
    except OSError as e:
        assert e.errno == error, e
    else:
        raise AssertionError("it was granted")
def hold():
    open("/tmp/holder", "w").write(str(os.getpid()))
    print("held.", flush=True)
    time.sleep(600)
"#;

const HOLD_RANGE: &str = "range_lock(fcntl.F_WRLCK, 0, 100); hold()";
const HOLD_FLOCK: &str = "fcntl.flock(fd, fcntl.LOCK_EX); hold()";

const KEPT_OUT_OF_RANGE: &str = r#"
refused(errno.EAGAIN, range_lock, fcntl.F_RDLCK, 99, 1)
range_lock(fcntl.F_WRLCK, 100, 0)
found = call(fd, fcntl.F_GETLK, fcntl.F_WRLCK, 50, 10)
assert (found[0], found[2], found[3], found[4]) == (fcntl.F_WRLCK, 0, 100, 0), found
"#;
const KEPT_OUT_OF_FLOCK: &str = r#"
refused(errno.EAGAIN, fcntl.flock, fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
range_lock(fcntl.F_WRLCK, 0, 0)
"#;
const WAIT_FOR_RANGE: &str = r#"
print("waits.", flush=True)
range_lock(fcntl.F_WRLCK, 0, 100, wait=True)
"#;
const WAIT_FOR_FLOCK: &str = r#"
print("waits.", flush=True)
fcntl.flock(fd, fcntl.LOCK_EX)
"#;

/// Linux drops nothing of an OFD lock itself: it ends with the open file.
const OFD_LOCK_IS_CLOSED: &str = r#"
call(fd, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 0, 0)
other = os.open("/mnt/f", os.O_RDWR)
refused(errno.EAGAIN, call, other, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, 0, 0)
os.close(fd)
for attempt in range(100):
    try:
        call(other, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, 0, 0)
        break
    except OSError:
        time.sleep(0.05)
else:
    raise AssertionError("it is still locked")
"#;

/// POSIX: any close of the file drops all ranges; a child has none of its parent's.
const CLOSES_AND_FORKS: &str = r#"
range_lock(fcntl.F_WRLCK, 0, 10)
def in_child(attempt):
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except BaseException as e:
            print(e, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def kept_out():
    refused(errno.EAGAIN, range_lock, fcntl.F_WRLCK, 0, 1)
    assert call(fd, fcntl.F_GETLK, fcntl.F_WRLCK, 0, 1)[4] == os.getppid()
in_child(kept_out)
in_child(kept_out)
os.close(os.open("/mnt/f", os.O_RDONLY))
in_child(lambda: range_lock(fcntl.F_WRLCK, 0, 10))
"#;

/// Parent and child wait for each other's byte: the second to wait is told.
const DEADLOCK: &str = r#"
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    range_lock(fcntl.F_WRLCK, 1, 1)
    os.write(ready[1], b"x")
    range_lock(fcntl.F_WRLCK, 0, 1, wait=True)
    os._exit(0)
range_lock(fcntl.F_WRLCK, 0, 1)
os.read(ready[0], 1)
time.sleep(1)
refused(errno.EDEADLK, range_lock, fcntl.F_WRLCK, 1, 1, True)
range_lock(fcntl.F_UNLCK, 0, 0)
assert os.waitpid(pid, 0)[1] == 0
"#;

fn python(script: &str) -> String {
    let script = format!("{PREAMBLE}\n{script}").replace('\'', "\"");
    format!("exec python3 -ISB -c '{script}'")
}

fn run(guest: &Guest, script: &str) -> StepResult {
    guest.check(&python(script), SECONDS_30)?;
    Ok(())
}

/// Starts a script that goes on after it has said `word`.
fn start(guest: &Guest, script: &str, word: &str) -> StepResult<Running> {
    let mut running = guest.start(&python(script), SECONDS_120)?;
    running.wait_for_output(word)?;
    Ok(running)
}

/// The script must end well.
fn ends(running: Running) -> StepResult {
    let output = running.wait()?;
    assert_eq!(output.code, 0, "{}", output.text());
    Ok(())
}

#[test]
fn locks_hold_between_two_guests() {
    let steps = Steps::new();
    let volume = steps.step("create a volume", || Ok(Volume::create(4, "64K")?));
    let boot = |tag: &str| -> StepResult<_> {
        let daemon = volume.serve(tag)?;
        let guest = Guest::builder()
            .share(Share::new(daemon.socket(), tag))
            .boot()?;
        guest.mount(tag, "/mnt")?;
        Ok((guest, daemon))
    };
    let (left, _left_daemon) = steps.step("boot a guest", || boot("left"));
    let (right, _right_daemon) = steps.step("boot a second one", || boot("right"));
    steps.step("make a file", || {
        // With data beyond its head, where daemons have locks of their own.
        left.check(
            "head -c 300000 /dev/zero > /mnt/f && sync /mnt/f",
            SECONDS_30,
        )?;
        Ok(())
    });
    for (what, hold, kept_out, wait) in [
        ("a range", HOLD_RANGE, KEPT_OUT_OF_RANGE, WAIT_FOR_RANGE),
        ("a flock", HOLD_FLOCK, KEPT_OUT_OF_FLOCK, WAIT_FOR_FLOCK),
    ] {
        steps.step(&format!("{what} keeps the other guest out"), || {
            let _holder = start(&left, hold, "held.")?;
            run(&right, kept_out)?;
            let waiting = start(&right, wait, "waits.")?;
            // It waits, and its queue serves others.
            std::thread::sleep(Duration::from_secs(1));
            right.check("cat /mnt/f > /dev/null", SECONDS_30)?;
            left.check("kill -9 $(cat /tmp/holder)", SECONDS_30)?;
            ends(waiting)
        });
    }
    steps.step("an OFD lock ends with its file", || {
        run(&left, OFD_LOCK_IS_CLOSED)?;
        run(&right, OFD_LOCK_IS_CLOSED)
    });
    steps.step("closes and children", || run(&left, CLOSES_AND_FORKS));
    steps.step("a deadlock in one guest", || run(&left, DEADLOCK));
    steps.step("locks end with their VM", || {
        let _range = start(&left, HOLD_RANGE, "held.")?;
        let _whole = start(&left, HOLD_FLOCK, "held.")?;
        let range = start(&right, WAIT_FOR_RANGE, "waits.")?;
        let whole = start(&right, WAIT_FOR_FLOCK, "waits.")?;
        std::thread::sleep(Duration::from_secs(1));
        left.kill();
        ends(range)?;
        ends(whole)
    });
    steps.step("power off", || Ok(right.poweroff()?));
}
