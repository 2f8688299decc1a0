//! The broker's wire and its words: generated types, domain types, and the conversions between them.
//!
//! Everything the binaries say to each other passes through here; nothing here opens a socket or a file.

pub mod convert;
pub mod package;
pub mod pb;
pub mod types;

pub use types::*;
