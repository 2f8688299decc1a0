//! The two clocks of the machine, read in one place.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use broker_proto::WallTime;
use rustix::time::{ClockId, clock_gettime};

use crate::core::{BootTime, BrokerClock, Jump, Now};

/// How often an idle broker looks whether the wall clock has jumped.
const LOOK: Duration = Duration::from_secs(10);

/// Gives the moment of a decision.
pub trait Clock: std::fmt::Debug + Send + Sync {
    fn now(&self) -> Now;

    /// A jump of the wall clock that is not believed yet.
    fn jump(&self) -> Option<Jump> {
        None
    }

    /// Believes the wall clock; says whether it had jumped.
    fn confirm(&self) -> bool {
        false
    }

    /// How often it wants to be looked at when nothing else happens.
    fn looks_every(&self) -> Option<Duration> {
        None
    }
}

/// The machine's clocks, as the rules make broker time of them (I-23).
#[derive(Debug, Default)]
pub struct SystemClock {
    /// Guards the reading too, so that one reading is never taken for a step back behind another.
    rule: Mutex<BrokerClock>,
}

impl SystemClock {
    /// A clock that gives nothing below `stored`, the highest broker time in the store.
    #[must_use]
    pub fn not_below(stored: WallTime) -> Self {
        Self { rule: Mutex::new(BrokerClock::not_below(stored)) }
    }

    fn rule(&self) -> MutexGuard<'_, BrokerClock> {
        self.rule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mut rule = self.rule();
        let wall = WallTime::from_system(SystemTime::now());
        let boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(boot.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(boot.tv_nsec).unwrap_or(0);
        rule.read(wall, BootTime(Duration::new(seconds, nanos)))
    }

    fn jump(&self) -> Option<Jump> {
        self.rule().jump()
    }

    fn confirm(&self) -> bool {
        self.rule().confirm()
    }

    fn looks_every(&self) -> Option<Duration> {
        Some(LOOK)
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
