//! The engine: the one task that owns a namespace.
//!
//! It takes commands from a bounded channel, decides, collects the events of a batch, appends them as one frame with
//! one sync, and only then answers the callers and lets effects out (I-1, I-18).
//!
//! Invariant: nothing leaves before the append that holds it was answered with `Ok`.

mod clock;
mod error;
mod frames;
mod handle;
mod recover;
mod task;

pub use clock::{Clock, SystemClock};
pub use error::{Error, Fatal};
pub use handle::{AsOf, Content, EngineHandle};
pub use recover::recover;
pub use task::{EngineTask, Outlet, Returned, engine};

#[cfg(test)]
mod tests;
