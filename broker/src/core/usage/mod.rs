//! Usage: what each model has used, what it has left, and which level that is.

use std::collections::BTreeMap;

use broker_proto::{FailureClass, ModelName, RateLimit, Usage, UsageWindow, WallTime};

use super::{
    Event,
    policy::{Prices, Thresholds},
};

/// How near a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Healthy,
    Warning,
    Critical,
    Exhausted,
}

impl Level {
    /// The level's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Exhausted => "EXHAUSTED",
        }
    }
}

impl Thresholds {
    /// The level of `used` of `limit`; a limit of nothing is no limit.
    #[must_use]
    pub fn level(&self, used: u64, limit: u64) -> Level {
        let reached = |percent: u8| {
            u128::from(used) * 100 >= u128::from(limit) * u128::from(percent) && limit > 0
        };
        match () {
            () if reached(self.exhausted) => Level::Exhausted,
            () if reached(self.critical) => Level::Critical,
            () if reached(self.warning) => Level::Warning,
            () => Level::Healthy,
        }
    }
}

/// Everything one model has used through this broker, and its provider's last word on its limits.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelTotals {
    pub calls: u64,
    pub failures: u64,
    pub usage: Usage,
    /// USD of the calls whose cost is known.
    pub cost_usd: f64,
    /// Calls whose cost is not known.
    pub unpriced: u64,
    pub limits: Vec<RateLimit>,
}

impl ModelTotals {
    /// These totals and one call more.
    #[must_use]
    pub fn with(
        mut self,
        usage: Usage,
        cost: Option<f64>,
        failed: bool,
        limits: &[RateLimit],
    ) -> Self {
        self.calls += 1;
        self.failures += u64::from(failed);
        self.usage = self.usage.plus(usage);
        match cost {
            Some(cost) => self.cost_usd += cost,
            None => self.unpriced += 1,
        }
        if !limits.is_empty() {
            self.limits = limits.to_vec();
        }
        self
    }

    /// USD; `None` when the cost of some call is not known.
    #[must_use]
    pub fn known_cost(&self) -> Option<f64> {
        (self.unpriced == 0).then_some(self.cost_usd)
    }

    /// The provider's windows that have not been reset since.
    #[must_use]
    pub fn windows(&self, now: WallTime) -> Vec<UsageWindow> {
        let is_current = |limit: &&RateLimit| limit.resets_at.is_none_or(|at| at > now);
        let window = |limit: &RateLimit| UsageWindow {
            name: limit.name.clone(),
            used: limit.limit.zip(limit.remaining).map(|(all, left)| all.saturating_sub(left)),
            limit: limit.limit,
            resets_at: limit.resets_at,
        };
        self.limits.iter().filter(is_current).map(window).collect()
    }

    /// The level of the nearest limit that matters. Windows of a minute only delay; they raise no level.
    #[must_use]
    pub fn level(&self, thresholds: Thresholds, now: WallTime) -> (Level, String) {
        let levels = self.windows(now).into_iter().filter(|w| matters(&w.name)).filter_map(|w| {
            let (used, limit) = (w.used?, w.limit?);
            Some((thresholds.level(used, limit), format!("{used} of {limit} {}", w.name)))
        });
        let highest = levels.max_by_key(|(level, _)| *level);
        match highest {
            Some((level, reason)) if level > Level::Healthy => (level, reason),
            _ => (Level::Healthy, String::new()),
        }
    }
}

/// The windows of subscriptions last hours and days; the other headers speak of a minute's bucket.
fn matters(window: &str) -> bool {
    matches!(window, "5h" | "7d")
}

/// USD of one call; `None` when a price or a count is not known.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
pub fn cost(prices: Option<Prices>, usage: Usage) -> Option<f64> {
    let prices = prices?;
    if prices == (Prices { input: 0.0, output: 0.0, cache_read: 0.0, cache_write: 0.0 }) {
        return Some(0.0);
    }
    let dollars = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
    Some(
        dollars(usage.input_tokens?, prices.input)
            + dollars(usage.output_tokens?, prices.output)
            + dollars(usage.cache_read_tokens.unwrap_or(0), prices.cache_read)
            + dollars(usage.cache_write_tokens.unwrap_or(0), prices.cache_write),
    )
}

/// Whether a provider that failed so has certainly not worked, so that an unknown figure is nothing.
#[must_use]
pub fn is_unbilled(class: FailureClass) -> bool {
    match class {
        FailureClass::RateLimited
        | FailureClass::QuotaExhausted
        | FailureClass::CreditExhausted
        | FailureClass::ContextTooLong
        | FailureClass::RequestTooLarge
        | FailureClass::InvalidRequest
        | FailureClass::CredentialsRejected
        | FailureClass::ModelNotFound
        | FailureClass::Unreachable => true,
        // These can come in the middle of an answer.
        FailureClass::Overloaded
        | FailureClass::ContentRefused
        | FailureClass::Timeout
        | FailureClass::Truncated
        | FailureClass::MalformedReply
        | FailureClass::AgentLost
        | FailureClass::Budget
        | FailureClass::Cancelled
        | FailureClass::Internal => false,
    }
}

#[derive(Debug, Default)]
pub struct State {
    models: BTreeMap<ModelName, ModelTotals>,
}

impl State {
    #[must_use]
    pub fn get(&self, model: &ModelName) -> ModelTotals {
        self.models.get(model).cloned().unwrap_or_default()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if let Event::UsageChanged { model, totals, .. } = event {
            self.models.insert(model.clone(), (**totals).clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { warning: 70, critical: 85, exhausted: 100 };

    #[track_caller]
    fn check(used: u64, limit: u64, want: Level) {
        assert_eq!(THRESHOLDS.level(used, limit), want, "{used} of {limit}");
    }

    #[test]
    fn level_rises_at_each_threshold() {
        check(69, 100, Level::Healthy);
        check(70, 100, Level::Warning);
        check(85, 100, Level::Critical);
        check(100, 100, Level::Exhausted);
        check(u64::MAX, u64::MAX, Level::Exhausted);
        check(0, 0, Level::Healthy);
    }

    #[test]
    fn cost_is_unknown_where_a_count_or_a_price_is() {
        let prices = Prices { input: 4.0, output: 20.0, cache_read: 0.2, cache_write: 5.0 };
        let usage = Usage {
            input_tokens: Some(1_000_000),
            output_tokens: Some(100_000),
            cache_read_tokens: Some(1_000_000),
            ..Usage::default()
        };
        assert_eq!(cost(Some(prices), usage), Some(4.0 + 2.0 + 0.2));
        assert_eq!(cost(None, usage), None);
        assert_eq!(cost(Some(prices), Usage { output_tokens: None, ..usage }), None);
    }

    #[test]
    fn minute_windows_raise_no_level() {
        let limit = |name: &str| RateLimit {
            name: name.into(),
            limit: Some(100),
            remaining: Some(1),
            resets_at: None,
        };
        let of = |name| ModelTotals { limits: vec![limit(name)], ..ModelTotals::default() };
        assert_eq!(of("tokens").level(THRESHOLDS, WallTime(0)).0, Level::Healthy);
        assert_eq!(of("5h").level(THRESHOLDS, WallTime(0)).0, Level::Critical);
    }
}
