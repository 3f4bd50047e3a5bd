//! A guest for a suite, with the volume on /mnt.

use guest_tests::suites::skip;
use guest_tests::vm::steps::StepResult;
use guest_tests::vm::{script, Engine, Guest, Kernel, Root, Served};
use guest_tests::vm::{Share, Steps, Tools, Volume};
use std::time::Duration;

pub const SECONDS_30: Duration = Duration::from_secs(30);
pub const MINUTES_5: Duration = Duration::from_secs(300);
pub const MINUTES_15: Duration = Duration::from_secs(900);
pub const MINUTES_40: Duration = Duration::from_secs(2400);

const TAG: &str = "data";

/// What a suite may ask for beyond a volume.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub engine: Engine,
    pub kernel: Kernel,
    pub root: Root,
    pub memory_mib: u32,
    pub request_queues: u32,
    pub daemon_args: &'static [&'static str],
}

impl Config {
    /// For programs of [`Root::Suites`], which are larger, too.
    pub fn with_programs(engine: Engine) -> Self {
        Self {
            root: Root::Suites,
            memory_mib: 2048,
            ..Self::new(engine)
        }
    }

    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            kernel: Kernel::default(),
            root: Root::Basic,
            memory_mib: 1024,
            request_queues: 1,
            daemon_args: &[],
        }
    }
}

/// A booted guest with the volume on /mnt.
pub struct Bench {
    pub steps: Steps,
    // Before the daemon and the volume: it must not outlive them.
    pub guest: Guest,
    #[allow(dead_code, reason = "serves until the guest ends")]
    pub daemon: Served,
    #[allow(dead_code, reason = "removes the volume when dropped")]
    pub volume: Volume,
}

impl Bench {
    /// None, with the reason printed, where this machine cannot run such a guest.
    pub fn start(config: &Config) -> Option<Self> {
        Self::start_with(config, None)
    }

    /// As [`start`](Self::start); the guest has another share, too, which it does not mount yet.
    pub fn start_with(config: &Config, other: Option<Share>) -> Option<Self> {
        let steps = Steps::new();
        let volume = steps.step("create a volume", || Ok(Volume::of(config.engine)?));
        let (daemon, guest) = attach_with(&steps, &volume, config, other)?;
        Some(Self {
            steps,
            guest,
            daemon,
            volume,
        })
    }

    /// A command of a suite: its output is the log of a failing test.
    pub fn run(&self, name: &str, command: &str, timeout: Duration) -> String {
        self.steps
            .step(name, || Ok(self.guest.check(command, timeout)?))
    }

    /// The guest must be well at the end, and the volume let itself be unmounted.
    pub fn finish(self) {
        self.steps.step("unmount and power off", || {
            self.guest.unmount("/mnt")?;
            assert_eq!(self.guest.kernel_complaints(), Vec::<String>::new());
            Ok(self.guest.poweroff()?)
        });
    }
}

/// A daemon of its own for the volume, and a guest that has mounted it on /mnt.
pub fn attach(steps: &Steps, volume: &Volume, config: &Config) -> Option<(Served, Guest)> {
    attach_with(steps, volume, config, None)
}

/// As [`attach`]; the guest has another share, too, which it does not mount yet.
fn attach_with(
    steps: &Steps,
    volume: &Volume,
    config: &Config,
    other: Option<Share>,
) -> Option<(Served, Guest)> {
    let daemon = steps.step("start a daemon", || {
        Ok(volume.serve_with(TAG, config.daemon_args)?)
    });
    let share = Share::new(daemon.socket(), TAG).request_queues(config.request_queues);
    let mut builder = Guest::builder()
        .kernel(config.kernel)
        .root(config.root)
        .memory_mib(config.memory_mib)
        .share(share);
    if let Some(other) = other {
        builder = builder.share(other);
    }
    let guest = match builder.boot() {
        Err(error) if error.unavailable().is_some() => {
            skip(error.unavailable().unwrap_or_default());
            return None;
        }
        other => steps.step("boot a guest", || Ok(other?)),
    };
    steps.step("mount", || Ok(guest.mount(TAG, "/mnt")?));
    Some((daemon, guest))
}

/// The programs of crates.io; None, with the reason printed, where they cannot be built.
pub fn tools() -> Option<Tools> {
    match Tools::prepare() {
        Ok(tools) => Some(tools),
        Err(script::Error::Unavailable { reason }) => {
            skip(&reason);
            None
        }
        Err(error) => panic!("tools for the guest: {error}"),
    }
}

/// Puts a text file into the guest.
pub fn put(guest: &Guest, path: &str, text: &str) -> StepResult {
    let command = format!("cat > '{path}'");
    let output = guest.run_with_input(&command, text.as_bytes(), SECONDS_30)?;
    assert_eq!(output.code, 0, "{command}: {output}");
    Ok(())
}
