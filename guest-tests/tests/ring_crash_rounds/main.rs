//! Daemons are killed at random moments under load; new ones find all that was answered, no file
//! has another's bytes or older ones of its own, and a check finds nothing that a repair leaves.
//!
//! Two daemons serve one volume. Each has files on its own, with one request in flight for each of
//! them. Then one daemon dies, or both; what is left is compared through new ones.
//!
//! - [`content`]: bytes that say whose they are. [`lane`]: one file's life.

mod content;
mod lane;

use std::collections::BTreeSet;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use guest_tests::fixture::{Mount, Noise, Volume};
use rustix::process::{kill_process, Pid, Signal};

use lane::{Lane, Pair};

/// Rounds of each test, and of each nightly one.
const ROUNDS: u64 = 10;
const NIGHTLY_ROUNDS: u64 = 200;
/// Files of each daemon that are in use at once.
const LANES: usize = 10;
/// Requests that are answered before a kill, at least and at most.
const ANSWERS: std::ops::Range<u64> = 20..600;
/// A kill comes up to this long after those, in microseconds.
const KILL_WITHIN_US: u64 = 3000;

/// A daemon and the files that are changed through it.
struct Side {
    mount: Mount,
    lanes: Vec<Lane>,
}

impl Side {
    fn start(volume: &Volume, mut lanes: Vec<Lane>) -> Side {
        let mut mount = volume.mount();
        for lane in &mut lanes {
            lane.open(mount.fs());
        }
        Side { mount, lanes }
    }

    /// Gives every idle lane something to do.
    fn send(&mut self, noise: &mut Noise) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.send(self.mount.session.fs(), index as u64, noise);
        }
        // A dead daemon does not listen.
        let _ = self.mount.fs().kick();
    }

    /// Takes the answers that are there; tells how many.
    fn take(&mut self) -> u64 {
        let mut count = 0;
        while let Ok(Some(done)) = self.mount.fs().poll_done() {
            self.lanes[done.tag as usize].take(self.mount.session.fs(), done);
            count += 1;
        }
        count
    }

    /// Kills the daemon a while from now.
    fn kill_after(&self, pause: Duration) -> JoinHandle<()> {
        let pid = Pid::from_raw(self.mount.daemon.pid() as i32).expect("a process");
        thread::spawn(move || {
            thread::sleep(pause);
            // Not waited for here: the number stays its own.
            kill_process(pid, Signal::KILL).expect("a daemon to kill");
        })
    }

    /// Waits for all answers of a daemon that lives, or takes the last of one that died.
    fn finish(mut self, dead: bool) -> Vec<Lane> {
        if dead {
            self.mount.daemon.kill().expect("a dead daemon");
            self.take();
        } else {
            while self.mount.fs().in_flight() > 0 {
                self.mount.fs().next_done().expect("the other daemon lives");
                self.take();
            }
            stop(self.mount);
        }
        self.lanes
    }
}

/// Ends a daemon as a guest that is switched off does.
fn stop(mut mount: Mount) {
    mount.session.device.disconnect();
    let status = mount.daemon.wait().expect("an end");
    assert!(status.success(), "{status}");
}

/// One volume, and what must be on it.
struct World {
    volume: Volume,
    noise: Noise,
    sides: [Vec<Lane>; 2],
    repairs: u64,
}

impl World {
    fn new(volume: Volume, seed: u64) -> World {
        let lanes = |side| {
            (0..LANES)
                .map(|lane| Lane::new(side * LANES + lane))
                .collect()
        };
        World {
            volume,
            noise: Noise::new(seed),
            sides: [lanes(0), lanes(1)],
            repairs: 0,
        }
    }

    fn round(&mut self) {
        self.load_and_kill();
        let [mut first, mut second] = [self.volume.mount(), self.volume.mount()];
        // What one daemon wrote, the other's successor reads.
        self.settle(0, &mut second);
        self.settle(1, &mut first);
        self.compare_names(&mut first);
        stop(first);
        stop(second);
        if self.volume.is_striped() && self.check() {
            self.repairs += 1;
            let mut mount = self.volume.mount();
            self.settle(0, &mut mount);
            self.settle(1, &mut mount);
            stop(mount);
        }
    }

    /// Load, until one daemon dies or both do.
    fn load_and_kill(&mut self) {
        let lanes = std::mem::take(&mut self.sides);
        let mut sides = lanes.map(|lanes| Side::start(&self.volume, lanes));
        let least = ANSWERS.start + self.noise.below(ANSWERS.end - ANSWERS.start);
        let mut answers = 0;
        while answers < least {
            answers += self.step(&mut sides);
        }
        let dead = [[true, false], [false, true], [true, true]][self.noise.below(3) as usize];
        let mut killers = Vec::new();
        for (side, _) in sides.iter().zip(dead).filter(|(_, dead)| *dead) {
            let pause = Duration::from_micros(self.noise.below(KILL_WITHIN_US));
            killers.push(side.kill_after(pause));
        }
        while killers.iter().any(|killer| !killer.is_finished()) {
            self.step(&mut sides);
        }
        for killer in killers {
            killer.join().expect("a kill");
        }
        let [first, second] = sides;
        // The dead first: what its successor will find is not to depend on the other's end.
        self.sides = match dead[0] {
            true => [first.finish(true), second.finish(dead[1])],
            false => {
                let second = second.finish(true);
                [first.finish(false), second]
            }
        };
    }

    fn step(&mut self, sides: &mut [Side; 2]) -> u64 {
        let mut answers = 0;
        for side in sides {
            side.send(&mut self.noise);
            answers += side.take();
        }
        if answers == 0 {
            thread::sleep(Duration::from_micros(50));
        }
        answers
    }

    /// Compares one side's files with what they may be, and takes them for what they are.
    fn settle(&mut self, side: usize, mount: &mut Mount) {
        for lane in &mut self.sides[side] {
            let found: Pair<Vec<u8>> = lane.names().map(|name| {
                let bytes = mount.fs().read_file(&format!("/{name}"));
                bytes.map_or_else(|e| lane::absent(&name, &e), Some)
            });
            lane.settle(&found);
        }
    }

    /// No other names are there.
    fn compare_names(&mut self, mount: &mut Mount) {
        let listed = mount.fs().list("/").expect("the root's entries");
        let listed: BTreeSet<String> = listed
            .into_iter()
            .map(|entry| String::from_utf8(entry.name).expect("names of ours"))
            .collect();
        let lanes = self.sides.iter().flatten();
        let expected: BTreeSet<String> = lanes.flat_map(Lane::present).collect();
        assert_eq!(listed, expected);
    }

    /// The volume is clean, or becomes so by a repair: answers whether it needed one.
    fn check(&self) -> bool {
        let (code, said) = self.volume.check(&[]);
        if code == 0 {
            return false;
        }
        assert_eq!(code, 4, "volume check: {said}");
        println!("{said}");
        let (code, said) = self.volume.check(&["--repair"]);
        assert_eq!(code, 1, "volume check --repair: {said}");
        let (code, said) = self.volume.check(&[]);
        assert_eq!(code, 0, "volume check after a repair: {said}");
        true
    }
}

fn run(volume: Volume, rounds: u64) {
    let mut world = World::new(volume, 1);
    for round in 0..rounds {
        println!("round {round}");
        world.round();
    }
    println!(
        "{} of {rounds} rounds left something to repair",
        world.repairs
    );
}

/// Stripes so small that most files cross them.
fn striped() -> Volume {
    Volume::striped_as(4, 4096, 4096)
}

#[test]
fn striped_survives_kills() {
    run(striped(), ROUNDS);
}

#[test]
fn posix_survives_kills() {
    run(Volume::posix(), ROUNDS);
}

#[test]
#[ignore = "nightly"]
fn nightly_striped_survives_kills() {
    run(striped(), NIGHTLY_ROUNDS);
}

#[test]
#[ignore = "nightly"]
fn nightly_posix_survives_kills() {
    run(Volume::posix(), NIGHTLY_ROUNDS);
}
