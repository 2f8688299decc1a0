//! Usage: what a call took, and what its provider says is left.

use super::{ModelName, WallTime};

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
}

/// What one model has used and has left.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelUsage {
    pub model: ModelName,
    pub level: String,
    pub reason: String,
    pub windows: Vec<UsageWindow>,
    pub total: Usage,
    pub calls: u64,
    pub failures: u64,
    /// USD; `None` when a price is not known.
    pub cost_usd: Option<f64>,
    pub unavailable_until: Option<WallTime>,
    pub is_simulated: bool,
}
