//! A guest that lies: each request is answered with an error or dropped, nothing else is harmed,
//! and an ordinary request right after it is served.
//!
//! - [`requests`]: FUSE requests that are not what they say.
//! - [`ranges`]: offsets and lengths that no file can have.
//! - [`chains`]: descriptors and rings that no driver makes.

mod chains;
mod ranges;
mod requests;
