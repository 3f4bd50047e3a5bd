//! Where the daemon binaries under test are.
//!
//! A test names no path: it asks here, and the environment decides.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Why a binary could not be found or built.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The variable is set, but names nothing that can be run.
    #[error("{variable}={path} is not an executable file", path = .path.display())]
    NotExecutable {
        /// The environment variable's name.
        variable: &'static str,
        /// What it names.
        path: PathBuf,
    },
    /// `cargo build` could not be started.
    #[error("cannot run cargo to build {package}: {reason}")]
    Cargo {
        /// The package that was to be built.
        package: &'static str,
        /// The error of starting cargo.
        reason: String,
    },
    /// `cargo build` failed.
    #[error("cargo build -p {package} failed:\n{stderr}")]
    Build {
        /// The package that was to be built.
        package: &'static str,
        /// What cargo wrote to stderr.
        stderr: String,
    },
}

/// The `pfs-virtiofsd` binary: `$PFS_VIRTIOFSD` if set, else the one beside the running test
/// executable's folder, built first if it is missing.
pub fn pfs_virtiofsd() -> Result<PathBuf, Error> {
    static FOUND: OnceLock<Result<PathBuf, Error>> = OnceLock::new();
    FOUND
        .get_or_init(|| workspace_binary("PFS_VIRTIOFSD", "pfs-virtiofsd", "pfs-virtiofsd"))
        .clone()
}

/// The `pfsctl` binary: `$PFSCTL` if set, else found and built like [`pfs_virtiofsd`].
pub fn pfsctl() -> Result<PathBuf, Error> {
    static FOUND: OnceLock<Result<PathBuf, Error>> = OnceLock::new();
    FOUND
        .get_or_init(|| workspace_binary("PFSCTL", "pfs-virtiofsd", "pfsctl"))
        .clone()
}

/// The peer, virtiofsd: `$VIRTIOFSD` if set, else the first one in `$PATH`, else none.
pub fn virtiofsd() -> Option<PathBuf> {
    if let Some(path) = env::var_os("VIRTIOFSD") {
        let path = PathBuf::from(path);
        return is_executable(&path).then_some(path);
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join("virtiofsd"))
        .find(|path| is_executable(path))
}

fn workspace_binary(
    variable: &'static str,
    package: &'static str,
    binary: &'static str,
) -> Result<PathBuf, Error> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        return if is_executable(&path) {
            Ok(path)
        } else {
            Err(Error::NotExecutable { variable, path })
        };
    }
    let profile_dir = profile_dir();
    let path = profile_dir.join(binary);
    if !is_executable(&path) {
        build(package, &profile_dir)?;
    }
    Ok(path)
}

/// `target/debug` or `target/release`: test executables are in its `deps` folder, examples in
/// `examples`, binaries in it.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().unwrap_or_default();
    let dir = exe.parent().unwrap_or(Path::new("."));
    match dir.file_name().and_then(|name| name.to_str()) {
        Some("deps" | "examples") => dir.parent().unwrap_or(dir).to_owned(),
        _ => dir.to_owned(),
    }
}

fn build(package: &'static str, profile_dir: &Path) -> Result<(), Error> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--package", package])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if let Some(target_dir) = profile_dir.parent() {
        cargo.arg("--target-dir").arg(target_dir);
    }
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().map_err(|e| Error::Cargo {
        package,
        reason: e.to_string(),
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(Error::Build {
            package,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}
