//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use guest_tests::ring::device::DeviceConfig;
use guest_tests::simulated::Speed;

use crate::backend::{Kind, Pinning, Setup};
use crate::slice::Pace;

const MIB: f64 = (1 << 20) as f64;
const ALL_BACKENDS: [&str; 5] = ["striped-4", "striped-1", "posix", "null", "virtiofsd"];

/// Measures virtiofs daemons at their ring: no VM, requests at native speed
///
/// Plays the VMM and the guest's driver itself. Build with --release first, the daemon too:
/// cargo build --release -p guest-tests -p pfs-virtiofsd.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs workloads on several daemons in turns, and prints a table
    Compare(Compare),
    /// Compares the rows that have a goal, in two minutes: fails where one is missed
    ///
    /// Goals are ratios of our CPU time for each operation to virtiofsd's, on a striped volume of
    /// 4 targets and on a plain directory.
    Check(Check),
    /// Runs one workload on one daemon, as for a profile: says the daemon's process id first
    Run(Run),
    /// Measures what a daemon takes while it does nothing, and for what its guest knows
    Footprint(Footprint),
    /// Measures how the bandwidth of a large file grows with the targets it is striped over
    ///
    /// Targets are simulated, each with the same bandwidth and latency, so that neither a disk nor
    /// a network of this machine is measured. Needs root and /dev/fuse.
    Scale(Scale),
    /// Measures what more queues give: random reads of 4 KiB, on one queue and on several
    ///
    /// Each queue's worker has a CPU of its own. Queues are filled before the workers begin, and
    /// the driver sleeps until they are done, so that all CPUs are theirs meanwhile.
    Queues(Queues),
    /// Names the workloads
    List,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// Only the workload of this name, or those with this in their name; can be given several times
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,

    /// Daemons: striped-N (N targets), posix, null, virtiofsd; can be given several times
    ///
    /// The ratios are to virtiofsd, if it is among them.
    #[arg(long, value_name = "NAME", default_values = ALL_BACKENDS)]
    pub backend: Vec<Kind>,

    /// Rounds: in each, all daemons have their turn, and once more in reverse
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Length of one turn
    #[arg(long, default_value = "0.4", value_parser = seconds)]
    pub seconds: Duration,

    #[command(flatten)]
    pub output: Output,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Check {
    /// How much more than it is held to a ratio may be, in percent
    #[arg(long, default_value_t = 15.0)]
    pub percent: f64,

    /// How often a row is measured before it is lost: what is lost once may have met others' load
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,

    /// As for compare
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Length of one turn
    #[arg(long, default_value = "0.3", value_parser = seconds)]
    pub seconds: Duration,

    #[command(flatten)]
    pub output: Output,

    #[command(flatten)]
    pub common: Common,
}

/// Where results go, beside the table on standard output.
#[derive(Debug, Args)]
pub struct Output {
    /// Writes all that was measured to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Writes a plot of the ratios to this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The daemon: striped-N, posix, null or virtiofsd
    pub backend: Kind,

    /// The workload's name, see `bench list`
    pub workload: String,

    /// How long
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub seconds: Duration,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Footprint {
    /// The daemon: striped-N, posix or virtiofsd
    #[arg(default_value = "posix")]
    pub backend: Kind,

    /// Files that are looked up and not forgotten, each an inode of its own
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub inodes: u32,

    /// How long nothing is asked
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub idle: Duration,

    /// Starts, of which the median is taken
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub starts: u32,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Scale {
    /// Numbers of targets; the first is what the others are compared with
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16],
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub targets: Vec<u32>,

    /// Bandwidth of a target, of reads and writes together
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub mib_per_s: f64,

    /// Latency of a target
    #[arg(long, value_name = "US", default_value_t = 1000)]
    pub latency_us: u64,

    /// How long the file takes to be written, and to be read, where all goes well
    #[arg(long, default_value = "4", value_parser = seconds)]
    pub seconds: Duration,

    /// Requests of 1 MiB in flight for each target
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub depth: u32,

    /// Fails where less is reached of what so many targets could give
    #[arg(long, value_name = "RATIO", default_value_t = 0.95)]
    pub at_least: f64,

    /// Where volumes are made
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,

    /// One more option for the daemon
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub daemon_option: Vec<String>,
}

impl Scale {
    pub fn setup(&self) -> Setup {
        Setup {
            dir: self.dir.clone(),
            pinning: None,
            options: self.daemon_option.clone(),
            target_speed: Some(Speed {
                bytes_per_s: self.mib_per_s * MIB,
                latency: Duration::from_micros(self.latency_us),
            }),
            device: DeviceConfig::default(),
            ceph: None,
        }
    }
}

#[derive(Debug, Args)]
pub struct Queues {
    /// Daemons: striped-N, posix, null; can be given several times
    #[arg(long, value_name = "NAME", default_values = ["posix", "striped-4", "null"])]
    pub backend: Vec<Kind>,

    /// Queues that are compared with one; as many as there are CPUs, or less
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..))]
    pub queues: u8,

    /// Rounds: in each, one queue has its turn, all have, and once more in reverse
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,

    /// Where volumes are made
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,

    /// One more option for the daemon
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub daemon_option: Vec<String>,
}

impl Queues {
    pub fn setup(&self, device: DeviceConfig) -> Setup {
        Setup {
            dir: self.dir.clone(),
            pinning: None,
            options: self.daemon_option.clone(),
            target_speed: None,
            device,
            ceph: None,
        }
    }
}

#[derive(Debug, Args)]
pub struct Common {
    /// Where volumes are made
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub dir: PathBuf,

    /// Leave it to the scheduler where the driver and the daemons run
    ///
    /// By default the driver has the first CPU and the daemons the last.
    #[arg(long)]
    pub no_pin: bool,

    /// Let the driver and the daemons share a CPU; the driver then sleeps at once
    #[arg(long, conflicts_with = "no_pin")]
    pub one_cpu: bool,

    /// How long the driver looks for answers before it sleeps, in microseconds
    #[arg(
        long,
        value_name = "US",
        default_value_t = 50,
        conflicts_with = "one_cpu"
    )]
    pub driver_poll_us: u64,

    /// With one operation at a time, how long the driver takes to send the next, in microseconds
    ///
    /// In a guest these are its interrupt, scheduler and program. A daemon that does not wait for
    /// requests by looking for them sleeps meanwhile.
    #[arg(long, value_name = "US", default_value_t = 5)]
    pub think_us: u64,

    /// For daemons on a CephFS: the folder of a cluster of qemu-scripts/ceph-dev.sh
    #[arg(long, value_name = "DIR", env = "PFS_CEPH")]
    pub ceph: Option<PathBuf>,

    /// One more option for our daemon, such as --daemon-option=--cache=never
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub daemon_option: Vec<String>,
}

impl Common {
    pub fn setup(&self) -> Setup {
        Setup {
            dir: self.dir.clone(),
            pinning: match (self.no_pin, self.one_cpu) {
                (true, _) => None,
                (_, true) => Pinning::together(),
                _ => Pinning::pick(),
            },
            options: self.daemon_option.clone(),
            target_speed: None,
            device: DeviceConfig::default(),
            ceph: self.ceph.clone(),
        }
    }

    pub fn pace(&self, duration: Duration) -> Pace {
        let poll_us = match self.one_cpu {
            true => 0,
            false => self.driver_poll_us,
        };
        Pace {
            duration,
            poll: Duration::from_micros(poll_us),
            think: Duration::from_micros(self.think_us),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)?).map_err(|e| e.to_string())
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match number > 0.0 {
        true => Ok(number),
        false => Err("must be more than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["bench"], args].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn backends_and_rows_add_up() {
        let args = ["compare", "--backend", "posix", "--backend", "virtiofsd"];
        let cli = parse(&[&args[..], &["--workload", "read", "--seconds", "0.1"]].concat());
        let Command::Compare(compare) = cli.unwrap().command else {
            panic!("not compare");
        };
        assert_eq!(compare.backend, [Kind::Posix, Kind::Virtiofsd]);
        assert_eq!(compare.workload, ["read"]);
        assert_eq!(compare.seconds, Duration::from_millis(100));
    }

    #[test]
    fn bad_values_are_refused() {
        for args in [
            ["compare", "--backend=nfs"],
            ["compare", "--seconds=0"],
            ["compare", "--seconds=-1"],
            ["compare", "--seconds=x"],
            ["compare", "--rounds=0"],
            ["compare", "--think-us=-1"],
        ] {
            let kind = parse(&args).unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::ValueValidation),
                "{args:?}: {kind:?}"
            );
        }
    }
}
