//! What was measured, for people and for programs.

pub mod footprint;
pub mod json;
pub mod queues;
pub mod scale;
pub mod svg;
pub mod table;

#[cfg(test)]
mod tests;
