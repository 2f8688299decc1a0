//! What the rules take from the configuration.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::ModelName;

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

/// Shares of a limit, in percent, at which a level begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    pub warning: u8,
    pub critical: u8,
    pub exhausted: u8,
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
    pub is_degraded: bool,
    pub is_simulated: bool,
    /// Models of one account share its credit and its key.
    pub account: String,
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
