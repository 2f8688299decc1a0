//! The gRPC services: the only place that says `Request`, `Response` and `Status`.
//!
//! A handler converts, calls one component, and converts back.

mod agent_link;
mod consult;
mod content;
mod event;
mod find;
mod handoff;
mod identity;
mod layers;
mod message;
mod queue;
pub(crate) mod reason;
mod registry;
mod server;
mod session;
pub(crate) mod status;
mod task;
mod told;
mod usage;
mod watch;

pub use agent_link::AgentLinkService;
pub use consult::ConsultService;
pub use content::{ContentService, Uploads};
pub use event::EventService;
pub use handoff::HandoffService;
pub use identity::{Caller, IdentityLayer, Verify};
pub use layers::{DeadlineLayer, ShedLayer, TraceLayer};
pub use message::MessageService;
pub use reason::{REASONS, Reason};
pub use registry::RegistryService;
pub use server::DESCRIPTORS;
pub use session::SessionService;
pub use task::TaskService;
pub use usage::UsageService;
pub use watch::Watches;

#[cfg(test)]
mod tests;
