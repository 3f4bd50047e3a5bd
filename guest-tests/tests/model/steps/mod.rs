//! What each step does to the volume and to the model.

mod attrs;
mod dirs;
mod files;
mod lives;
mod names;
mod ranges;

pub use files::same_bytes;
