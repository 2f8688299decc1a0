//! What the rules take from the configuration.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::ModelName;

use super::{handoff, ring, usage::Budgets};

/// Settings of the rules. Times, counts and bytes as the configuration's manual describes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub models: BTreeMap<ModelName, Model>,
    pub lease: Duration,
    /// A lease is renewed up to this long in all.
    pub lease_cap: Duration,
    /// Lost leases after which a message is dead.
    pub max_lost_leases: u32,
    pub default_deadline: Duration,
    pub max_lifetime: Duration,
    /// How long work goes on after its asker left.
    pub return_window: Duration,
    pub queue_messages: u64,
    pub queue_bytes: u64,
    pub store_reserve: Reserve,
    pub bounds: Bounds,
    /// Dead letters that one recipient's hold before what follows is parked.
    pub dead_letters: u64,
    pub dead_letter_bytes: u64,
    pub routing: Routing,
    pub thresholds: Thresholds,
    pub budgets: Budgets,
    pub handoff: handoff::Settings,
    pub rotation: ring::Settings,
}

/// What one request may lead to (I-36).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub hops: u32,
    /// Delegations below one another.
    pub depth: u32,
    pub messages: u64,
}

/// What the store keeps free for settling and expiry: whichever is more (I-28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    pub bytes: u64,
    /// Of the whole disk.
    pub percent: u8,
}

impl Reserve {
    /// Bytes kept free on a disk of `whole` bytes.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        self.bytes.max(whole / 100 * u64::from(self.percent))
    }
}

/// How attempts, waits and chains are bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The longest wait for a rate limit before the chain goes on.
    pub patience: Duration,
    pub max_attempts: u32,
    /// No further attempt begins later than this after a message was accepted.
    pub max_total: Duration,
    /// Failures in a row that open a model's breaker.
    pub breaker_failures: u32,
    pub breaker_open: Duration,
    pub breaker_open_max: Duration,
    /// When a model is tried again whose time of return is unknown.
    pub probe_after: Duration,
    pub credit_probe_after: Duration,
    /// How long a model without an agent is still waited for.
    pub agent_grace: Duration,
    /// A budget that leaves fewer output tokens than this buys no answer.
    pub min_output_tokens: u32,
}

/// When usage becomes a level. Shares are percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub warning: u8,
    pub critical: u8,
    pub exhausted: u8,
    /// So far below its threshold a level is left again.
    pub margin: u8,
    /// Of the model's own window.
    pub session_warning: u8,
    pub session_switch: u8,
    pub rate_limits: u32,
    pub rate_limit_window: Duration,
    pub slow_replies: u32,
    pub slow_after: Duration,
    pub error_rate: u8,
    pub error_calls: u32,
    pub error_min: u32,
}

/// As shipped; a test compares it with the configuration.
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            warning: 70,
            critical: 85,
            exhausted: 100,
            margin: 5,
            session_warning: 75,
            session_switch: 90,
            rate_limits: 3,
            rate_limit_window: Duration::from_secs(60),
            slow_replies: 5,
            slow_after: Duration::from_secs(10),
            error_rate: 30,
            error_calls: 20,
            error_min: 10,
        }
    }
}

/// What routing and display need to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub name: ModelName,
    /// Its place in the configuration; lists follow it.
    pub place: usize,
    pub provider: String,
    pub id: String,
    /// This model, then those that answer in its place, in order.
    pub chain: Vec<ModelName>,
    /// Tokens.
    pub context_window: u64,
    pub max_output_tokens: u64,
    pub has_vision: bool,
    /// `None` when no price is known.
    pub prices: Option<Prices>,
    pub bytes_per_token: f64,
    /// How able it is beside the others, higher is abler.
    pub tier: u8,
    pub is_degraded: bool,
    pub is_simulated: bool,
    /// Models of one account share its credit and its key.
    pub account: String,
    /// The name of the variable that holds its key; its account where it has none.
    pub key: String,
    /// Models of one family share a rate limit.
    pub family: String,
}

/// USD per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    pub input: f64,
    pub output: f64,
    pub cache_read: f64,
    pub cache_write: f64,
}
