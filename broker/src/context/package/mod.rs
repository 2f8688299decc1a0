//! Packages: everything that work needs to go on elsewhere, in one file that is signed, bounded and checked before use.
//!
//! Pure: ids, nonces, times and keys are passed in. Invariant: nothing of a package is unpacked, or believed, before its
//! signature by a trusted key was verified.

mod build;
mod document;
mod record;
mod report;
mod resume;

pub use broker_proto::package::{
    Guard, HOPS_MAX, OTHERS_MAX, Opened, PACKED_MAX, PackError, RawPart, Refused, STORED_MAX,
    Signer, is_usable, open, pack,
};
pub use build::{Built, Making, build, contents, shown_task};
pub use document::{document, read};
pub use report::{PLACEHOLDERS, Report, report};
pub use resume::instructions;

pub(crate) use broker_proto::package::rfc3339;

#[cfg(test)]
mod tests;
