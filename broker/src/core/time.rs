//! The two clocks a decision may look at.

use std::time::Duration;

use broker_proto::WallTime;

/// Time since the machine started, suspend included. Leases and waits run on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// This time moved on by `by`.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// The moment of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Broker time: the wall clock, never below a value used before. Deadlines run on it.
    pub wall: WallTime,
    pub boot: BootTime,
}

impl Now {
    /// The boot time at which the wall clock will show `at`, as seen from now.
    #[must_use]
    pub fn boot_at(self, at: WallTime) -> BootTime {
        self.boot.after(at.since(self.wall))
    }
}
