//! Reply slots: the live hop of an answer, from an agent's link to whoever asked.
//!
//! A slot holds what one consultation's attempts have said so far. Each asker reads it at its own place, so one that
//! is slow or comes back costs the link nothing and misses nothing (I-37).
//!
//! Invariant: part frames of an attempt that is over are dropped, and what one attempt said is never joined with
//! another's without a `Restarted` or `Switched` between (I-35).
//! Absence: nothing here is durable; the end of a consultation comes from the engine.

mod asker;
mod slot;
mod table;

pub use asker::{Asker, Seen};
pub use slot::{Slot, TooLarge};
pub use table::{AskerLeft, LONGEST_PARTIAL, Slots};

#[cfg(test)]
mod tests;
