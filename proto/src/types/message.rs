//! The durable unit: a message, its recipient, and what becomes of it.

use std::{collections::BTreeMap, fmt};

use super::{
    AgentName, AnswerSummary, Failure, MessageId, ModelName, Payload, ProducerName, RoleName,
    Sender, TaskSpec, WallTime,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageType {
    Handoff,
    Consultation,
    Delegation,
    Status,
}

impl MessageType {
    /// The type's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handoff => "handoff",
            Self::Consultation => "consultation",
            Self::Delegation => "delegation",
            Self::Status => "status",
        }
    }
}

/// Share of a backlogged queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

impl Priority {
    /// The priority's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

/// Whom a message is for. Models and roles have queues that several agents share; an agent has its own mailbox.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recipient {
    Model(ModelName),
    Agent(AgentName),
    /// The agents whose hello names this role, in turn.
    Role(RoleName),
    /// Every agent that serves this model now: one copy each. Never the name of a queue.
    AgentsOf(ModelName),
}

/// A text that names no recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a recipient: agent:NAME, role:NAME, agents:MODEL and model:NAME are")]
pub struct InvalidRecipient;

impl Recipient {
    /// Reads a recipient as people write it, `agent:reviewer`, or as [`fmt::Display`] does, `agent/reviewer`.
    ///
    /// # Errors
    /// [`InvalidRecipient`] when the kind is none of model, agent, role and agents, or the name is none.
    pub fn parse(text: &str) -> Result<Self, InvalidRecipient> {
        let (kind, name) = text.split_once([':', '/']).ok_or(InvalidRecipient)?;
        let recipient = match kind {
            "model" => ModelName::parse(name).map(Self::Model),
            "agent" => AgentName::parse(name).map(Self::Agent),
            "role" => RoleName::parse(name).map(Self::Role),
            "agents" => ModelName::parse(name).map(Self::AgentsOf),
            _ => return Err(InvalidRecipient),
        };
        recipient.map_err(|_| InvalidRecipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(name) => write!(f, "model/{name}"),
            Self::Agent(name) => write!(f, "agent/{name}"),
            Self::Role(name) => write!(f, "role/{name}"),
            Self::AgentsOf(name) => write!(f, "agents/{name}"),
        }
    }
}

/// Where a message comes from in a tree of requests. Hops are counted by the broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Correlation {
    pub root: Option<MessageId>,
    pub parent: Option<MessageId>,
    pub hops: u32,
}

/// A bulk sender's own count of a message: from 1 on, and one for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numbered {
    pub producer: ProducerName,
    pub number: u64,
}

/// What a request may use with everything it leads to (I-36).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RootBudget {
    /// Input, output and cached tokens together.
    pub max_total_tokens: Option<u64>,
    pub max_total_cost_usd: Option<f64>,
}

/// A message as its sender gives it; `from` is written by the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub id: MessageId,
    pub from: Option<Sender>,
    pub to: Recipient,
    pub kind: MessageType,
    pub priority: Priority,
    pub payload: Payload,
    pub timestamp: Option<WallTime>,
    pub expires_at: Option<WallTime>,
    /// `None` is sender/session.
    pub ordering_key: Option<String>,
    pub correlation: Correlation,
    pub session: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// W3C traceparent of the sender's span.
    pub trace: Option<String>,
    /// Only a request's first message sets it.
    pub budget: Option<RootBudget>,
    /// Only on its way to the broker: it is no part of what is delivered.
    pub numbered: Option<Numbered>,
}

impl Message {
    /// A consultation with everything else at its default.
    #[must_use]
    pub fn consultation(id: MessageId, model: ModelName, payload: Payload) -> Self {
        Self::new(id, Recipient::Model(model), MessageType::Consultation, payload)
    }

    /// A delegation with everything else at its default.
    #[must_use]
    pub fn delegation(id: MessageId, to: Recipient, task: TaskSpec) -> Self {
        let payload = Payload { task: Some(Box::new(task)), ..Payload::default() };
        Self::new(id, to, MessageType::Delegation, payload)
    }

    /// A message with everything but these at its default.
    #[must_use]
    pub fn new(id: MessageId, to: Recipient, kind: MessageType, payload: Payload) -> Self {
        Self {
            id,
            from: None,
            to,
            kind,
            priority: Priority::default(),
            payload,
            timestamp: None,
            expires_at: None,
            ordering_key: None,
            correlation: Correlation::default(),
            session: None,
            labels: BTreeMap::new(),
            trace: None,
            budget: None,
            numbered: None,
        }
    }
}

/// What the broker says once a message is synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    pub message_id: MessageId,
    /// Accepted before; this is the first receipt again.
    pub is_duplicate: bool,
    pub accepted_at: WallTime,
    pub deadline: WallTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageState {
    Queued,
    /// Waits for a time: a retry, a limit that resets.
    Waiting,
    Leased,
    Done,
    Failed,
    Expired,
    Cancelled,
    Dead,
    /// Was a dead letter, and somebody purged it.
    Purged,
}

impl MessageState {
    /// Every state, in the order of its number on disk.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Waiting,
        Self::Leased,
        Self::Done,
        Self::Failed,
        Self::Expired,
        Self::Cancelled,
        Self::Dead,
        Self::Purged,
    ];

    /// Whether this state is one of the ends of a message.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Waiting | Self::Leased)
    }

    /// The state's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
            Self::Purged => "purged",
        }
    }
}

/// A message as lists show it.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageInfo {
    pub id: MessageId,
    pub from: Sender,
    pub to: Recipient,
    pub kind: MessageType,
    pub priority: Priority,
    pub state: MessageState,
    pub accepted_at: WallTime,
    pub deadline: WallTime,
    pub finished_at: Option<WallTime>,
    /// The queue it is in, while it is not finished.
    pub queue: Option<Recipient>,
    pub size_bytes: u64,
    /// Which life this is, from 1: each redrive begins another.
    pub generation: u32,
    pub summary: Option<AnswerSummary>,
    pub failure: Option<Failure>,
    pub session: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// For a message to all agents of a model: how many got a copy.
    pub copies: u32,
    pub correlation: Correlation,
}

/// One step in the life of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageChange {
    pub id: MessageId,
    pub at: WallTime,
    /// accepted, leased, attempt_failed, routed, lease_lost, finished.
    pub change: String,
    pub detail: String,
    pub state: MessageState,
}

/// One step of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceStep {
    pub change: MessageChange,
    /// Since the step before; zero for the first.
    pub since_previous: std::time::Duration,
    /// The model whose queue it entered, or that was called.
    pub model: Option<ModelName>,
    pub agent: Option<AgentName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_reads_back_as_it_is_shown_and_as_it_is_typed() {
        for text in ["model/opus", "agent/reviewer.1", "role/code-review", "agents/gpt-4o"] {
            let read = Recipient::parse(text).unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(Recipient::parse(&text.replace('/', ":")), Ok(read));
        }
        for text in ["", "opus", "model:", "role:a.b", "agents:../x", "topic:news", "agent:a/b"] {
            assert_eq!(Recipient::parse(text), Err(InvalidRecipient), "{text:?}");
        }
    }
}
