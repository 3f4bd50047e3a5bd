//! The floor under a row: the bare system calls for the same work on the same file system, made
//! by this process.

use std::path::Path;

use rustix::io::Errno;

pub mod data;
pub mod dirs;
pub mod files;
pub mod postmark;
pub mod steps;

/// The bare work of a workload.
pub trait Floor {
    /// Once: makes files in an empty folder.
    fn prepare(&mut self, folder: &Path) -> Result<(), Errno>;

    /// Before each slice, not measured.
    fn before(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    /// One operation, or several of the same: how many units of work it was, 0 if nothing is left
    /// to do in this slice.
    fn operation(&mut self) -> Result<u64, Errno>;

    /// After each slice, not measured.
    fn after(&mut self) -> Result<(), Errno> {
        Ok(())
    }
}
