//! Everything one has used, and its provider's last word on its limits.

use broker_proto::{RateLimit, Usage, UsageWindow, WallTime};

/// Everything one has used through this broker, and its provider's last word on its limits.
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
            used: limit.limit.zip(limit.remaining).map(|(all, left)| all.saturating_sub(left)),
            limit: limit.limit,
            resets_at: limit.resets_at,
            ..UsageWindow::named(limit.name.clone())
        };
        self.limits.iter().filter(is_current).map(window).collect()
    }
}

/// The windows of subscriptions last hours and days; the other headers speak of a minute's bucket.
#[must_use]
pub fn matters(window: &str) -> bool {
    matches!(window, "5h" | "7d")
}
