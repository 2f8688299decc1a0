//! An orchestrator's checkpoint: its state file in, a context payload and a report out, and a check of all three.
//!
//! Everything here is a function of what it is given: the time and the id of a handoff are passed in, no file is read.
//! A payload holds what the next session needs, within the tokens of its level; what did not fit is counted in it.
//!
//! Invariant: a problem names the place (`$.tasks[3].status`), never what stands there.

mod finding;
mod graph;
mod kind;
mod payload;
mod placeholder;
mod record;
mod report;
mod room;
mod state;
mod text;
mod tokens;
mod validate;

#[cfg(test)]
mod tests;

pub use finding::{Fault, Finding};
pub use kind::Kind;
pub use payload::{Level, MustKeep, Payload, TooSmall, build};
pub use report::{DEFAULT_TEMPLATE, PLACEHOLDERS, Report, plain, render, template};
pub use state::{FileState, Priority, State, Task, TaskStatus};
pub use text::{MOST_BYTES, MOST_TEMPLATE_BYTES, Unreadable};
pub use tokens::{METHOD, estimate};
pub use validate::{Checked, Rules, Size, age, check};
