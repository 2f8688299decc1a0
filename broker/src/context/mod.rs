//! Stored contents: message bodies and uploaded parts, in pieces the journal takes.

mod bodies;
pub mod choose;
pub mod package;
mod recent;

pub use bodies::{Bodies, Error, Stored};

#[cfg(test)]
mod tests;
