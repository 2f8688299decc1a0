//! When a child that ended is started again: at once the first time, then ever later, until it has run well for a while.

use std::time::Duration;

use broker_config::Up;

/// The restarts of one child. Pure: time is passed in.
#[derive(Debug, Clone)]
pub(crate) struct Restarts {
    first_wait: Duration,
    longest_wait: Duration,
    stable_after: Duration,
    /// Ends in a row, each after less than `stable_after`.
    ends: u32,
}

impl Restarts {
    /// As `[up]` of the configuration says.
    pub(crate) fn new(settings: &Up) -> Self {
        Self {
            first_wait: settings.restart_min,
            longest_wait: settings.restart_max,
            stable_after: settings.stable_after,
            ends: 0,
        }
    }

    /// How long to wait, now that the child ended after it `ran` so long.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        self.ends = if ran >= self.stable_after { 1 } else { self.ends.saturating_add(1) };
        match self.ends {
            1 => Duration::ZERO,
            ends => {
                let doublings = (ends - 2).min(31);
                self.first_wait.saturating_mul(1 << doublings).min(self.longest_wait)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts() -> Restarts {
        Restarts::new(&Up {
            restart_min: Duration::from_secs(1),
            restart_max: Duration::from_secs(5),
            stable_after: Duration::from_secs(30),
        })
    }

    fn waits(restarts: &mut Restarts, ran: u64, times: usize) -> Vec<u64> {
        (0..times).map(|_| restarts.after(Duration::from_secs(ran)).as_secs()).collect()
    }

    #[test]
    fn first_restart_is_immediate_and_the_wait_doubles_up_to_its_most() {
        assert_eq!(waits(&mut restarts(), 1, 6), [0, 1, 2, 4, 5, 5]);
    }

    #[test]
    fn a_child_that_ran_well_is_forgiven() {
        let mut restarts = restarts();
        waits(&mut restarts, 1, 4);

        assert_eq!(waits(&mut restarts, 30, 1), [0]);
        assert_eq!(waits(&mut restarts, 1, 1), [1]);
    }

    #[test]
    fn the_wait_never_overflows() {
        assert_eq!(waits(&mut restarts(), 0, 100).last(), Some(&5));
    }
}
