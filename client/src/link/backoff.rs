//! How long to wait before connecting again: not at all, then longer and longer, spread at random.

use std::time::Duration;

/// Full jitter between zero and a ceiling that doubles from `min` to `max`.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    /// The next wait; `random` is drawn evenly from all numbers.
    pub(super) fn next(&mut self, random: u64) -> Duration {
        let doublings = self.failures;
        self.failures = self.failures.saturating_add(1);
        if doublings == 0 {
            return Duration::ZERO;
        }
        let ceiling = self.min.saturating_mul(2_u32.saturating_pow(doublings)).min(self.max);
        ceiling.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Attempts since the link last stood.
    pub(super) fn attempts(&self) -> u32 {
        self.failures
    }

    /// The link stood long enough: the next loss is a first one.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The other side said that it stops: coming back at once would meet it still stopping.
    pub(super) fn skip_first(&mut self) {
        self.failures = self.failures.max(1);
    }
}

/// A wait that the other side asked for, and up to a quarter more; `random` as in [`Backoff::next`].
pub(super) fn spread(asked: Duration, random: u64) -> Duration {
    asked + (asked / 4).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceilings(backoff: &mut Backoff, count: usize) -> Vec<u128> {
        (0..count).map(|_| backoff.next(u64::MAX).as_millis()).collect()
    }

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    #[test]
    fn the_first_attempt_is_immediate_and_the_ceiling_doubles_up_to_the_maximum() {
        assert_eq!(ceilings(&mut backoff(), 6), [0, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn the_wait_is_spread_over_everything_below_the_ceiling() {
        let mut backoff = backoff();
        backoff.skip_first();
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(u64::MAX / 2).as_millis(), 200);
    }

    #[test]
    fn a_link_that_stood_long_enough_begins_anew() {
        let mut backoff = backoff();
        ceilings(&mut backoff, 5);
        backoff.reset();
        assert_eq!(ceilings(&mut backoff, 2), [0, 200]);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_spread_a_little_more() {
        let asked = Duration::from_millis(400);
        assert_eq!(spread(asked, 0), asked);
        assert_eq!(spread(asked, u64::MAX).as_millis(), 500);
        assert_eq!(spread(Duration::ZERO, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_hundred_failures_do_not_overflow() {
        assert_eq!(ceilings(&mut backoff(), 100).last(), Some(&1000));
    }
}
