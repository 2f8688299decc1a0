//! The two clocks of the machine, read in one place.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use broker_proto::WallTime;
use rustix::time::{ClockId, clock_gettime};

use crate::core::{BootTime, Now};

/// Gives the moment of a decision.
pub trait Clock: std::fmt::Debug + Send + Sync {
    fn now(&self) -> Now;
}

/// The machine's clocks. Broker time never steps back, whatever the wall clock does (I-23).
#[derive(Debug, Default)]
pub struct SystemClock {
    /// The highest wall time given so far, in milliseconds.
    highest: AtomicU64,
}

impl SystemClock {
    /// A clock that gives nothing below `stored`, the highest broker time in the store.
    #[must_use]
    pub fn not_below(stored: WallTime) -> Self {
        Self { highest: AtomicU64::new(stored.0) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = WallTime::from_system(SystemTime::now()).0;
        let wall = self.highest.fetch_max(wall, Ordering::Relaxed).max(wall);
        let boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        Now { wall: WallTime(wall), boot: BootTime(Duration::new(seconds, nanos)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_time_never_falls_below_what_was_stored() {
        let far = WallTime(u64::MAX / 2);
        let clock = SystemClock::not_below(far);
        assert_eq!(clock.now().wall, far);
    }
}
