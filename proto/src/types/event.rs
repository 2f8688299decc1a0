//! What happens in the broker, in words.

use super::{AgentName, MessageId, MessageName, MessageState, ModelName, WallTime};

/// One event in words; never content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventInfo {
    /// One of those that `docs/events.md` lists.
    pub kind: String,
    pub at: WallTime,
    /// The message it is about, and its state from then on.
    pub message: Option<(MessageId, MessageState)>,
    pub model: Option<ModelName>,
    pub agent: Option<AgentName>,
    pub session: Option<String>,
    pub detail: String,
}

/// Which events somebody wants; every field that is set must match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Any of these; all when empty.
    pub kinds: Vec<String>,
    pub message: Option<MessageName>,
    /// Named by the event, or the one its message was sent to.
    pub model: Option<ModelName>,
    /// Named by the event, or the one its message was sent to.
    pub agent: Option<AgentName>,
    /// The session of its message.
    pub session: Option<String>,
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum EventStart {
    #[default]
    Now,
    /// The first event that is kept.
    First,
    Behind(String),
}
