//! Test programs of crates.io, built and cached by `guest-tests/tools.sh`, for use in guests.

use super::guest::{self, Guest};
use super::script::{self, Values};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

const COPY_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Script(#[from] script::Error),
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Guest(#[from] guest::Error),
}

/// Programs on the host, ready to be copied into a guest.
#[derive(Debug)]
pub struct Tools {
    pub pjdfstest: PathBuf,
    pub fsx: PathBuf,
}

impl Tools {
    /// Finds them in the cache; builds first what is not there yet.
    pub fn prepare() -> Result<Self, script::Error> {
        let values = Values::from_script("guest-tests/tools.sh", &[])?;
        Ok(Self {
            pjdfstest: values.get("PJDFSTEST")?.into(),
            fsx: values.get("FSX")?.into(),
        })
    }
}

/// Copies a program of the host to a path in the guest. Host and guest have one C library.
pub fn install(guest: &Guest, from: &PathBuf, to: &str) -> Result<(), Error> {
    let bytes = fs::read(from).map_err(|source| Error::Read {
        path: from.clone(),
        source,
    })?;
    let put = format!("cat > '{to}' && chmod 755 '{to}'");
    let output = guest.run_with_input(&put, &bytes, COPY_TIMEOUT)?;
    if output.code == 0 {
        return Ok(());
    }
    Err(guest::Error::failed(&put, output).into())
}
