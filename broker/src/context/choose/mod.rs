//! Which turns of a conversation a package keeps, by what comes next as well as by how new they are.
//!
//! Pure: the same turns, query and budget give the same choice. The constants were measured on long conversations with
//! marked evidence; on that plateau no setting is worth a knob.

mod index;
mod pick;
mod unit;
mod value;
mod words;

pub use index::{Index, Turn};
pub(super) use pick::GAP;
pub use pick::{Choice, choose, choose_marked};
pub(super) use words::terms;

#[cfg(test)]
mod tests;
