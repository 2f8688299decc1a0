//! Broker time, made of what the machine's two clocks show (I-23).
//!
//! Invariant: it never falls below what it, or the store, has shown before.
//! Invariant: a wall clock that jumped ahead of the boot-time clock is not believed at once: broker time goes on with
//! the boot-time clock, so that nothing expires by the jump alone. The boot-time clock counts suspend, so a machine that
//! slept has not jumped. What is due by both clocks still ends, and nothing is delivered at or after its deadline.

use std::time::Duration;

use broker_proto::WallTime;

use super::{BootTime, Now};

/// How far the wall clock may step ahead and be believed.
const STEP: Duration = Duration::from_secs(60);
/// After this long, by the boot-time clock, a jump is believed although nobody confirmed it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A jump of the wall clock that is not believed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// How far the wall clock is ahead of broker time.
    pub ahead: Duration,
    /// When it is believed without a word.
    pub believed_at: BootTime,
    /// Broker time when it was noticed, and the boot-time clock then.
    from: (WallTime, BootTime),
}

#[derive(Debug, Default)]
pub struct BrokerClock {
    highest: WallTime,
    /// What the two clocks showed last.
    last: Option<(WallTime, BootTime)>,
    jump: Option<Jump>,
}

impl BrokerClock {
    /// A clock that shows nothing below `stored`.
    #[must_use]
    pub fn not_below(stored: WallTime) -> Self {
        Self { highest: stored, ..Self::default() }
    }

    /// Broker time, now that the machine's clocks show this.
    pub fn read(&mut self, wall: WallTime, boot: BootTime) -> Now {
        if let (None, Some(last)) = (self.jump, self.last) {
            let steady = went_on(last, boot);
            let ahead = wall.since(steady);
            if ahead > STEP {
                let from = (self.highest.max(steady), boot);
                self.jump = Some(Jump { ahead, believed_at: boot.after(PATIENCE), from });
            }
        }
        self.last = Some((wall, boot));
        let mut time = wall;
        if let Some(jump) = &mut self.jump {
            let steady = went_on(jump.from, boot);
            jump.ahead = wall.since(steady);
            // Waited for long enough, or set right again.
            if boot >= jump.believed_at || jump.ahead <= STEP {
                self.jump = None;
            } else {
                time = steady;
            }
        }
        self.highest = self.highest.max(time);
        Now { wall: self.highest, boot }
    }

    /// The jump that is not believed yet.
    #[must_use]
    pub fn jump(&self) -> Option<Jump> {
        self.jump
    }

    /// Believes the wall clock from now on. Says whether there was anything to believe.
    pub fn confirm(&mut self) -> bool {
        self.jump.take().is_some()
    }
}

/// What a clock that showed `then` shows at `boot` when it goes on steadily.
fn went_on((wall, since): (WallTime, BootTime), boot: BootTime) -> WallTime {
    wall.after(boot.0.saturating_sub(since.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_767_225_600_000;

    /// The machine's clocks, as a test sets them.
    struct Machine {
        clock: BrokerClock,
        wall: WallTime,
        boot: BootTime,
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    impl Machine {
        fn new() -> Self {
            let wall = WallTime(START);
            let mut machine =
                Self { clock: BrokerClock::default(), wall, boot: BootTime(secs(1_000)) };
            assert_eq!(machine.read(), 0);
            machine
        }

        /// Seconds of broker time since the start.
        fn read(&mut self) -> u64 {
            self.clock.read(self.wall, self.boot).wall.since(WallTime(START)).as_secs()
        }

        fn pass(&mut self, seconds: u64) -> u64 {
            self.wall = self.wall.after(secs(seconds));
            self.boot = self.boot.after(secs(seconds));
            self.read()
        }

        fn step(&mut self, seconds: u64) -> u64 {
            self.wall = self.wall.after(secs(seconds));
            self.read()
        }

        fn step_back(&mut self, seconds: u64) -> u64 {
            self.wall = WallTime(self.wall.0 - seconds * 1_000);
            self.read()
        }
    }

    // I-23
    #[test]
    fn it_follows_the_wall_clock_and_never_steps_back() {
        let mut machine = Machine::new();
        assert_eq!(machine.pass(10), 10);
        assert_eq!(machine.step_back(5), 10);
        assert_eq!(machine.pass(3), 10);
        assert_eq!(machine.pass(4), 12);
        let mut clock = BrokerClock::not_below(WallTime(START + 5_000));
        let now = clock.read(WallTime(START), BootTime(secs(1)));
        assert_eq!((now.wall, clock.jump()), (WallTime(START + 5_000), None));
    }

    // I-23
    #[test]
    fn a_step_of_up_to_a_minute_is_believed_and_a_longer_one_is_a_jump() {
        let mut machine = Machine::new();
        assert_eq!(machine.step(60), 60);
        assert_eq!(machine.clock.jump(), None);

        assert_eq!(machine.step(61), 60);
        assert_eq!(machine.clock.jump().map(|jump| jump.ahead), Some(secs(61)));
        assert_eq!(machine.pass(30), 90);
    }

    // I-23
    #[test]
    fn a_jump_is_believed_once_confirmed_or_after_ten_minutes() {
        let mut machine = Machine::new();
        machine.step(3_600);
        assert!(machine.clock.confirm());
        assert_eq!((machine.read(), machine.clock.confirm()), (3_600, false));

        machine.step(7_200);
        assert_eq!(machine.pass(599), 3_600 + 599);
        assert_eq!(machine.pass(1), 3_600 + 7_200 + 600);
        assert_eq!(machine.clock.jump(), None);
    }

    // I-23
    #[test]
    fn a_clock_that_is_set_right_again_has_left_no_trace() {
        let mut machine = Machine::new();
        machine.step(1_000_000);
        machine.pass(20);
        assert_eq!(machine.step_back(1_000_000), 20);
        assert_eq!((machine.pass(5), machine.clock.jump()), (25, None));
    }

    // I-23
    #[test]
    fn a_machine_that_slept_has_not_jumped() {
        let mut machine = Machine::new();
        assert_eq!(machine.pass(100_000), 100_000);
        assert_eq!(machine.clock.jump(), None);
    }
}
