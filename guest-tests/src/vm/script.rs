//! Runs the shell scripts that prepare what guests need, and reads the NAME=VALUE lines they print.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// A script's exit code for "cannot be had on this machine".
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
    #[error("{script} failed ({status}): {last_line}; run it by hand to see all it says")]
    Failed {
        script: PathBuf,
        status: ExitStatus,
        last_line: String,
    },
    #[error("the script did not print {name}; script and harness are of different versions")]
    Missing { name: &'static str },
}

/// What a script printed.
#[derive(Debug)]
pub struct Values(HashMap<String, String>);

impl Values {
    /// Runs a script of the source tree, named from its root; its progress is passed on.
    pub fn from_script(script: &str, args: &[&str]) -> Result<Self, Error> {
        let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(script);
        let start_error = |source| Error::Start {
            script: script.clone(),
            source,
        };
        let mut child = Command::new(&script)
            .args(args)
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
            Some(0) => Ok(Self::parse(&printed)),
            Some(EXIT_UNAVAILABLE) => Err(Error::Unavailable {
                reason: last_line.trim_start_matches("unavailable: ").to_owned(),
            }),
            _ => Err(Error::Failed {
                script,
                status,
                last_line,
            }),
        }
    }

    /// NAME=VALUE lines; others are passed over.
    pub fn parse(printed: &str) -> Self {
        let pairs = printed.lines().filter_map(|line| line.split_once('='));
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    pub fn get(&self, name: &'static str) -> Result<&str, Error> {
        let value = self.0.get(name).map(String::as_str);
        value.ok_or(Error::Missing { name })
    }
}
