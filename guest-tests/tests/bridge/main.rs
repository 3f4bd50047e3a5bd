//! Real programs' system calls over the real ring: volumes mounted on this host by the bridge.
//!
//! Skipped, and said so, where this process may not mount FUSE.

mod ends;
mod files;
mod fsx;
mod locks;
mod pjdfstest;
mod support;
