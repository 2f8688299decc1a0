//! How a consultation may be answered, and where it would go.

use std::time::Duration;

use super::ModelName;

/// What the asker allows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AskOptions {
    /// Call the named model, even an unavailable one, and fail instead of moving on.
    pub no_fallback: bool,
    /// The asker accepts a restart or another model after text was shown.
    pub allow_restart: bool,
    pub max_cost_usd: Option<f64>,
    /// Input and output together, over all attempts.
    pub max_tokens: Option<u64>,
    pub deadline: Option<Duration>,
    /// How long the work goes on after the asker left; `None` is the broker's default.
    pub return_window: Option<Duration>,
    /// The work goes on whether anyone listens or not.
    pub keep: bool,
}

/// One model of a chain, as [`RouteExplanation`] judges it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub model: ModelName,
    pub is_chosen: bool,
    /// Why it would be passed over; empty when it would not.
    pub reason: String,
    /// Tokens.
    pub context_window: u64,
    pub estimated_input_tokens: u64,
    pub estimated_cost_usd: Option<f64>,
    pub max_output_tokens: Option<u32>,
    pub is_degraded: bool,
}

/// Where a consultation would go.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteExplanation {
    pub asked: ModelName,
    pub candidates: Vec<Candidate>,
    /// What would happen, in one sentence.
    pub decision: String,
}
