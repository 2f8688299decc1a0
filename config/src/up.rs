//! `[up]` and `[simulator]`: what `brokerctl up` starts, and how.

use std::time::Duration;

use crate::rule::{count, duration, flag, hours, millis, mins, secs};
use crate::section::section;

section! {
    /// `[up]`: how `brokerctl up` keeps its children running.
    Up ["up"] {
        /// The wait before a child's second restart; the first is immediate. At most `restart_max`.
        restart_min: Duration = secs(1), duration(millis(1)..=hours(1));
        /// The longest wait before a restart; the wait doubles up to this.
        restart_max: Duration = secs(30), duration(millis(1)..=hours(1));
        /// A child that ran this long is well again: its next restart is immediate.
        stable_after: Duration = secs(30), duration(millis(1)..=hours(24));
    }
}

section! {
    /// `[simulator]`: `provider-sim`, which speaks the providers' wires on loopback.
    Simulator ["simulator"] {
        /// Whether every model is answered by `provider-sim`; each is then marked as simulated.
        enabled: bool = false, flag();
        /// The pace of an answer, in tokens per second.
        tokens_per_second: u32 = 200, count(1..=1_000_000);
        /// How long the first token of an answer takes.
        first_token: Duration = millis(40), duration(millis(0)..=mins(10));
    }
}
