//! `[routing]` and `[thresholds]`: which model is asked next, and when usage becomes a level.

use std::time::Duration;

use crate::rule::{count, duration, hours, millis, mins, percent, secs};
use crate::section::section;

section! {
    /// `[routing]`: retries, chains, breakers, probes.
    Routing ["routing"] {
        /// The longest a rate-limited model is waited for before the chain goes on. At most `max_total`.
        patience: Duration = secs(5), duration(millis(0)..=hours(1));
        /// Provider calls for one message, over the whole chain.
        max_attempts: u32 = 8, count(1..=100);
        /// Time for one message over the whole chain, waits included.
        max_total: Duration = mins(10), duration(millis(1)..=hours(24));
        /// Failures in a row that open a model's breaker.
        breaker_failures: u32 = 3, count(1..=1_000);
        /// How long a breaker stays open the first time. At most `breaker_open_max`.
        breaker_open: Duration = secs(10), duration(millis(1)..=hours(24));
        /// How long a breaker stays open at most; each failed probe doubles the time up to this.
        breaker_open_max: Duration = mins(5), duration(millis(1)..=hours(24));
        /// When a model whose time of return is unknown is probed.
        probe_after: Duration = secs(60), duration(millis(1)..=hours(24));
        /// When a model without credit is probed: a person may have paid.
        credit_probe_after: Duration = mins(5), duration(millis(1)..=hours(24));
        /// How long a model without any connected agent is waited for before the chain goes on.
        agent_grace: Duration = secs(5), duration(millis(0)..=hours(1));
        /// The fewest output tokens worth a call; a cost cap that leaves less is refused.
        min_output_tokens: u32 = 16, count(1..=1_000_000);
    }
}

section! {
    /// `[thresholds]`: when usage becomes a level. Shares are whole percent.
    Thresholds ["thresholds"] {
        /// Percent of the nearest limit at which a model is `warning`. Below `critical`.
        warning: u8 = 70, percent();
        /// Percent at which it is `critical`. Below `exhausted`.
        critical: u8 = 85, percent();
        /// Percent at which it is `exhausted`.
        exhausted: u8 = 100, percent();
        /// Percent below its threshold that a level needs to be left again. Below `warning`.
        margin: u8 = 5, percent();
        /// Percent of the model's window at which a session is warned. Below `session_switch`.
        session_warning: u8 = 75, percent();
        /// Percent of the model's window at which a session moves to another model.
        session_switch: u8 = 90, percent();
        /// Rate limits within `rate_limit_window` at which a model is `exhausted`; one short of it is `warning`.
        rate_limits: u32 = 3, count(1..=64);
        /// The time over which rate limits are counted.
        rate_limit_window: Duration = secs(60), duration(millis(1)..=hours(24));
        /// Slow replies in a row at which a model is `exhausted`; one short of it is `warning`.
        slow_replies: u32 = 5, count(1..=64);
        /// A reply whose first token takes longer than this is slow.
        slow_after: Duration = secs(10), duration(millis(1)..=hours(1));
        /// Percent of errors among the last `error_calls` at which a model is `exhausted`; one short of it is `warning`.
        error_rate: u8 = 30, percent();
        /// The calls over which errors are counted.
        error_calls: u32 = 20, count(1..=64);
        /// The fewest calls that give an error rate. At most `error_calls`.
        error_min: u32 = 10, count(1..=64);
    }
}
