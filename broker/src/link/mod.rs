//! Links: agents' streams. Hello, credit, deliveries out, answer parts and settlements in.
//!
//! Invariant: a link is disposable; what an agent holds belongs to its name and process, not to its stream.
//! Invariant: frames are always read; what cannot be done is refused in the reply.

mod drain;
mod outlet;
mod ping;
mod pull;
mod stream;
mod table;
mod token;

pub use drain::Drain;
pub use outlet::LinkOutlet;
pub use ping::{PingError, Side};
pub use stream::{Frames, Services, Settings, Wire, run};
pub use table::{Links, Out};
pub use token::{AgentToken, LeaseKey};

#[cfg(test)]
mod tests;
