//! What guests boot from, made and cached by `qemu-scripts/guest-image.sh`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The script's exit code for "cannot be had on this machine".
const EXIT_UNAVAILABLE: i32 = 69;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {script}; tests need bash and the whole source tree")]
    Start {
        script: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Not a failure of the code under test: the test is to be skipped with this reason.
    #[error("{reason}")]
    Unavailable { reason: String },
    #[error("guest-image.sh failed ({status}): {last_line}; run it by hand to see all it says")]
    Failed {
        status: std::process::ExitStatus,
        last_line: String,
    },
    #[error("guest-image.sh did not print {name}; script and harness are of different versions")]
    Missing { name: &'static str },
}

/// The guest's kernel, and with it the QEMU that runs it well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// Debian 12's own kernel under the installed QEMU. Uses the first request queue only.
    #[default]
    V6_1,
    /// Kernel 6.12 under QEMU 10, both of Debian backports: uses all request queues.
    V6_12,
}

impl Kernel {
    fn script_args(self) -> &'static [&'static str] {
        match self {
            Kernel::V6_1 => &[],
            Kernel::V6_12 => &["--kernel-6.12", "--qemu-10"],
        }
    }
}

/// Paths of all parts, ready to boot.
#[derive(Debug)]
pub struct Image {
    pub root: PathBuf,
    pub modules: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub qemu: PathBuf,
    /// Firmware folders for `-L`; empty for QEMU's own defaults.
    pub qemu_data: Vec<PathBuf>,
}

impl Image {
    /// Finds the parts in the cache; builds or fetches first what is not there yet.
    pub fn prepare(kernel: Kernel) -> Result<Self, Error> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../qemu-scripts/guest-image.sh");
        let start_error = |source| Error::Start {
            script: script.clone(),
            source,
        };
        let mut child = Command::new(&script)
            .args(kernel.script_args())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start_error)?;
        // Progress is passed on as it comes. The results on stdout fit in the pipe meanwhile.
        let mut last_line = String::new();
        let progress = BufReader::new(child.stderr.take().expect("stderr is piped"));
        for line in progress.lines().map_while(Result::ok) {
            eprintln!("{line}");
            last_line = line;
        }
        let mut printed = String::new();
        let mut stdout = child.stdout.take().expect("stdout is piped");
        stdout.read_to_string(&mut printed).map_err(start_error)?;
        let status = child.wait().map_err(start_error)?;
        match status.code() {
            Some(0) => Self::parse(&printed),
            Some(EXIT_UNAVAILABLE) => Err(Error::Unavailable {
                reason: last_line.trim_start_matches("unavailable: ").to_owned(),
            }),
            _ => Err(Error::Failed { status, last_line }),
        }
    }

    fn parse(printed: &str) -> Result<Self, Error> {
        let values: HashMap<&str, &str> =
            printed.lines().filter_map(|l| l.split_once('=')).collect();
        let value = |name| values.get(name).copied().ok_or(Error::Missing { name });
        let data = value("QEMU_DATA")?;
        Ok(Self {
            root: value("ROOT")?.into(),
            modules: value("MODULES")?.into(),
            kernel: value("KERNEL")?.into(),
            initrd: value("INITRD")?.into(),
            qemu: value("QEMU")?.into(),
            qemu_data: data
                .split(':')
                .filter(|p| !p.is_empty())
                .map(Into::into)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_script_prints() {
        let text =
            "ROOT=/r\nKERNEL=/k\nINITRD=/i\nMODULES=/m\nQEMU=/q\nQEMU_DATA=/a/qemu:/a/seabios\n";
        let image = Image::parse(text).unwrap();
        assert_eq!(image.kernel, Path::new("/k"));
        assert_eq!(
            image.qemu_data,
            [Path::new("/a/qemu"), Path::new("/a/seabios")]
        );
        let none = Image::parse(&text.replace("/a/qemu:/a/seabios", "")).unwrap();
        assert!(none.qemu_data.is_empty());
        let error = Image::parse("ROOT=/r\n").unwrap_err();
        assert!(error.to_string().contains("QEMU_DATA"), "{error}");
    }
}
