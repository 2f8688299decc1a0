//! Stored contents: message bodies and uploaded parts, in pieces the journal takes; and what of a conversation goes to
//! whom, which is pure.

mod bodies;
pub mod bound;
pub mod choose;
pub mod echo;
pub mod extract;
pub mod history;
mod indexes;
pub mod package;
mod plain;
mod receiver;
mod recent;
pub mod render;
mod said;
pub mod summary;
mod tokenizer;

pub use bodies::{Bodies, Error, Stored};
pub use indexes::{Indexed, Indexes};
pub use receiver::Receiver;
pub use said::{Said, SaidLately};
pub use tokenizer::Tokenizer;

#[cfg(test)]
mod tests;
