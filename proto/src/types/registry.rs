//! Models, agents and tokens as lists show them.

use std::time::Duration;

use super::{AgentName, ModelName, RoleName, WallTime};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    pub name: ModelName,
    pub provider: String,
    /// The provider's id.
    pub id: String,
    /// Tokens.
    pub context_window: u64,
    /// HEALTHY, WARNING, CRITICAL or EXHAUSTED.
    pub level: String,
    /// Whether it would be called now: nothing shuts or holds it, and an agent serves it.
    pub is_available: bool,
    /// Why it is not called now; of one that is, why its level is not HEALTHY. Empty where all is well.
    pub reason: String,
    pub is_simulated: bool,
    pub is_degraded: bool,
    pub has_vision: bool,
    pub unavailable_until: Option<WallTime>,
    /// Agents connected that serve it.
    pub agents: u32,
    pub queued: u64,
    pub leased: u64,
    pub fallback: Vec<ModelName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    pub name: AgentName,
    pub is_connected: bool,
    pub is_exclusive: bool,
    pub models: Vec<ModelName>,
    pub capacity: u32,
    pub leased: u32,
    pub free_credit: u32,
    pub since: WallTime,
    pub instance: String,
    pub roles: Vec<RoleName>,
    /// Nothing new is given to it.
    pub is_draining: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    pub name: AgentName,
    pub created_at: WallTime,
}

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    pub version: String,
    /// Broker to agent and back; `None` when only the broker was asked.
    pub round_trip: Option<Duration>,
    pub agent: Option<AgentName>,
    /// The journal's kind.
    pub journal: String,
}

/// Whom to give nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// `None`: every agent.
    pub agent: Option<AgentName>,
    pub deadline: Duration,
    pub step: DrainStep,
    /// The broker stops once it is drained, at the latest at the deadline.
    pub stops: bool,
    /// How long the answer may wait for the end.
    pub wait: Duration,
}

/// What is to become of a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainStep {
    Begin,
    /// Deliveries go on.
    Undo,
    /// Nothing: it is only asked how far it is.
    Look,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    pub is_draining: bool,
    /// Leases that are still out.
    pub running: u64,
}

/// Broker time, and what the wall clock did to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockInfo {
    pub broker_time: super::WallTime,
    pub jump: Option<ClockJump>,
}

/// The wall clock jumped ahead and is not believed yet: nothing expires by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// How far it is ahead of broker time.
    pub ahead: std::time::Duration,
    /// When it is believed although nobody confirmed it.
    pub believed_in: std::time::Duration,
}
