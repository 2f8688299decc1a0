//! The file of a package: what its sender signs, and what whoever receives it verifies by itself.
//!
//! Pure: ids, nonces, times and keys are passed in. Invariant: nothing of a package is unpacked, or believed, before its
//! signature by a trusted key was verified.

pub mod coding;
mod container;
mod key;
mod refused;

pub use container::{Guard, Opened, PackError, Packed, RawPart, open, pack, seal};
pub use key::{Signer, is_usable};
pub use refused::Refused;

use crate::WallTime;

/// Bytes of a package at most.
pub const PACKED_MAX: u64 = 64 << 20;
/// Bytes of parts that a package keeps as they are while it stays here. More are compressed at once: the disk is worth
/// more then than the time.
pub const STORED_MAX: u64 = 4 << 20;
/// Bytes of its parts at most.
pub const UNPACKED_MAX: u64 = 256 << 20;
/// Bytes of all parts but the conversation's: read, they take up to sixteen times that.
pub const OTHERS_MAX: u64 = 8 << 20;
/// How many times its size its parts may be.
pub const RATIO_MAX: u64 = 100;
/// Handoffs that one piece of work may go through.
pub const HOPS_MAX: u32 = 8;

/// A time as documents say it.
#[must_use]
pub fn rfc3339(time: WallTime) -> String {
    time.rfc3339().unwrap_or_else(|| format!("{} ms after 1970", time.0))
}
