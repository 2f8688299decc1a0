//! `[links]` and `[streams]`: the agents' side and the askers' side of a consultation.

use std::time::Duration;

use crate::rule::{count, duration, hours, kib, mib, millis, mins, secs, size};
use crate::section::section;

section! {
    /// `[links]`: agents' streams and their leases.
    Links ["links"] {
        /// How often an agent says it is alive; each heartbeat renews its leases. Below `lease`.
        heartbeat: Duration = secs(5), duration(millis(1)..=hours(1));
        /// A link on which no heartbeat has come for this long is closed, though its connection stands. Above `heartbeat`.
        heartbeat_deadline: Duration = secs(20), duration(millis(2)..=hours(6));
        /// How long a delivery belongs to an agent that is no longer heard.
        lease: Duration = secs(15), duration(millis(1)..=hours(6));
        /// The longest one delivery may be held, however often it is renewed. At least `lease`.
        lease_cap: Duration = hours(6), duration(millis(1)..=hours(24 * 7));
        /// The lease of a delivery taken with `PullMessages`, unless the call names another.
        pull_lease: Duration = secs(120), duration(secs(5)..=mins(30));
        /// How long a new link may take to say `Hello`.
        hello_deadline: Duration = secs(10), duration(millis(1)..=mins(10));
        /// Lost leases after which a message becomes a dead letter.
        max_lost_leases: u32 = 5, count(1..=20);
        /// The bytes an agent may have in hand at once, unless it grants another number.
        byte_credit: u64 = mib(8), size(kib(64)..=mib(1024));
        /// An agent's first wait before it connects again. At most `reconnect_max`.
        reconnect_min: Duration = millis(200), duration(millis(1)..=hours(1));
        /// An agent's longest wait before it connects again.
        reconnect_max: Duration = secs(10), duration(millis(1)..=hours(1));
    }
}

section! {
    /// `[streams]`: the answer streams of those who ask.
    Streams ["streams"] {
        /// How long an asker whose stream dropped may take to come back before its work is cancelled.
        return_window: Duration = secs(30), duration(millis(0)..=hours(24));
        /// The bytes of one answer that are kept for those who read it.
        slot_bytes: u64 = mib(8), size(kib(64)..=mib(1024));
        /// A stream on which nothing has moved for this long is closed.
        idle: Duration = mins(5), duration(millis(1)..=hours(24));
    }
}
