//! Pings between models, through their agents.

use std::{fmt, time::Duration};

use super::{AgentName, ModelName};

/// What a ping says: content, which no log shows. At most 4 KiB.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PingText(pub String);

impl fmt::Debug for PingText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PingText({} bytes)", self.0.len())
    }
}

/// A ping from one model's agent to another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPing {
    pub from: ModelName,
    pub to: ModelName,
    pub text: PingText,
    /// How long to wait for both agents; `None` is the broker's default.
    pub wait: Option<Duration>,
}

/// How long a ping took, as the broker saw it pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingTrip {
    /// From the broker to an agent and back: to the sender, who sends it; to the receiver, who answers; to the sender, who
    /// has its answer.
    pub hops: Vec<PingHop>,
    /// From the sending agent to its answer, as that agent measured it.
    pub round_trip: Duration,
    /// All of it.
    pub total: Duration,
}

/// From the broker to one agent and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PingHop {
    pub agent: AgentName,
    pub took: Duration,
}
