//! Usage: what a call took, and what its provider says is left.

use std::time::Duration;

use super::{AgentName, MessageId, ModelName, WallTime};

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Provenance {
    /// The provider said it.
    #[default]
    Reported,
    /// Computed from sizes.
    Estimated,
    /// The stream ended before the provider's final figures.
    Partial,
}

/// Tokens of one call. `None` is unknown, not zero. Input excludes cache reads and writes; output includes reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cache_read_tokens: Option<u64>,
    pub cache_write_tokens: Option<u64>,
    pub reasoning_tokens: Option<u64>,
    pub provenance: Provenance,
}

impl Usage {
    /// Both calls together. A figure that only one of them knows is that one's; what neither knows stays unknown.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
        };
        Self {
            input_tokens: sum(self.input_tokens, other.input_tokens),
            output_tokens: sum(self.output_tokens, other.output_tokens),
            cache_read_tokens: sum(self.cache_read_tokens, other.cache_read_tokens),
            cache_write_tokens: sum(self.cache_write_tokens, other.cache_write_tokens),
            reasoning_tokens: sum(self.reasoning_tokens, other.reasoning_tokens),
            provenance: match (self.provenance, other.provenance) {
                (Provenance::Partial, _) | (_, Provenance::Partial) => Provenance::Partial,
                (Provenance::Estimated, _) | (_, Provenance::Estimated) => Provenance::Estimated,
                (Provenance::Reported, Provenance::Reported) => Provenance::Reported,
            },
        }
    }
}

/// One window of a provider's limit, as its headers said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// requests, tokens, input-tokens, output-tokens, 5h, 7d.
    pub name: String,
    pub limit: Option<u64>,
    pub remaining: Option<u64>,
    pub resets_at: Option<WallTime>,
}

/// A window as `usage status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageWindow {
    pub name: String,
    pub used: Option<u64>,
    pub limit: Option<u64>,
    pub resets_at: Option<WallTime>,
    /// `requests`, `tokens`, or `usd` in billionths; empty where only its provider knows.
    pub unit: String,
}

impl UsageWindow {
    /// A window of which only the name is known.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, used: None, limit: None, resets_at: None, unit: String::new() }
    }
}

/// What was used in one span of time, whether it has a limit or not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CountedWindow {
    /// minute, 5h, day, week, month.
    pub name: String,
    pub requests: u64,
    pub tokens: u64,
    pub cost_usd: f64,
    pub resets_at: Option<WallTime>,
}

/// What the last calls of a model say of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UsageSignals {
    pub rate_limit_count: u32,
    pub slow_streak: u32,
    /// 0 to 1.
    pub error_rate: f64,
    pub avg_response_seconds: Option<f64>,
}

/// How fast something is used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UsageBurn {
    pub requests_per_hour: u64,
    pub tokens_per_hour: u64,
    pub cost_usd_per_hour: f64,
    /// 0 to 1.
    pub confidence: f64,
}

/// How near a limit is, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageLevel {
    pub level: String,
    /// The limit or signal that decides; empty where none does.
    pub cause: String,
    pub reason: String,
    /// none, log, prepare, move.
    pub action: String,
    /// How a move is made: at_once, gradually, diagnosed.
    pub pace: String,
    pub since: Option<WallTime>,
}

/// What one model has used and has left.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelUsage {
    pub model: ModelName,
    pub level: UsageLevel,
    pub windows: Vec<UsageWindow>,
    pub total: Usage,
    pub calls: u64,
    pub failures: u64,
    /// USD; `None` when a price is not known.
    pub cost_usd: Option<f64>,
    pub unavailable_until: Option<WallTime>,
    pub is_simulated: bool,
    /// The first healthy model behind it in its chain.
    pub next: Option<ModelName>,
    pub signals: UsageSignals,
    /// When the first of its limits that matter will be reached, as things go.
    pub forecast_at: Option<WallTime>,
    pub burn: UsageBurn,
    pub counted: Vec<CountedWindow>,
    /// The name of the variable that holds its key.
    pub key: String,
}

/// What was used of a key, or by everything.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopeUsage {
    /// namespace, key.
    pub kind: String,
    pub name: String,
    pub windows: Vec<UsageWindow>,
    pub counted: Vec<CountedWindow>,
    pub burn: UsageBurn,
    pub calls: u64,
    pub cost_usd: Option<f64>,
}

/// What a session has used and holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionUsage {
    pub session: String,
    /// Whose window it is in.
    pub model: Option<ModelName>,
    /// What it holds of that window.
    pub tokens: u64,
    pub context_window: Option<u64>,
    /// Tokens at which it is warned, and moved.
    pub warning_threshold: Option<u64>,
    pub switch_threshold: Option<u64>,
    pub level: UsageLevel,
    pub windows: Vec<UsageWindow>,
    pub counted: Vec<CountedWindow>,
    pub total: Usage,
    pub calls: u64,
    pub cost_usd: Option<f64>,
    /// From its first call to its last.
    pub duration: Duration,
    /// What its calls took, together.
    pub worked: Duration,
    /// 0 to 1.
    pub complexity: Option<f64>,
    /// 1 to 5.
    pub rating: Option<u32>,
    pub last_at: Option<WallTime>,
}

/// Everything that was used and is left.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageStatus {
    pub models: Vec<ModelUsage>,
    /// The namespace first, then each key.
    pub scopes: Vec<ScopeUsage>,
    pub sessions: Vec<SessionUsage>,
}

/// When a limit will be reached, as things go.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitForecast {
    /// model, key, namespace, session.
    pub kind: String,
    pub name: String,
    pub window: UsageWindow,
    pub per_hour: u64,
    /// `None`: not before it is reset.
    pub reached_at: Option<WallTime>,
    /// 0 to 1.
    pub confidence: f64,
}

/// A setting of usage, as it counts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageSetting {
    pub key: String,
    pub value: String,
    /// What the file says; `None` for what only overrides say.
    pub file: Option<String>,
    pub is_overridden: bool,
}

/// What is recorded of a call that was made elsewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UsageRecord {
    Tokens(Usage),
    RateLimit,
    Slow(Duration),
    Success,
    Error,
    Session { complexity: Option<f64>, rating: Option<u32> },
}

/// One attempt, or what was recorded of a call made elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerLine {
    pub at: WallTime,
    /// attempt, reported, recorded.
    pub source: String,
    pub model: ModelName,
    pub key: String,
    pub session: Option<String>,
    pub message: Option<MessageId>,
    pub attempt: u32,
    pub agent: Option<AgentName>,
    /// Empty when nobody said how it ended.
    pub outcome: String,
    pub usage: Usage,
    pub cost_usd: Option<f64>,
    pub latency: Option<Duration>,
    pub first_token: Option<Duration>,
}

/// Which lines of the ledger are wanted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LedgerFilter {
    pub model: Option<ModelName>,
    pub key: Option<String>,
    pub session: Option<String>,
    pub agent: Option<AgentName>,
    pub message: Option<MessageId>,
    /// `done`, or a class of failures.
    pub outcome: Option<String>,
    pub since: Option<WallTime>,
    pub until: Option<WallTime>,
}

/// A level changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChange {
    pub at: WallTime,
    /// model, session.
    pub kind: String,
    pub name: String,
    pub model: Option<ModelName>,
    pub from: String,
    pub to: UsageLevel,
    /// The calls that went wrong, where an error rate moves.
    pub diagnosis: Vec<String>,
}
