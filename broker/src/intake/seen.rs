//! Which ids of a sender memory may have forgotten, so that only those are looked up.
//!
//! Ids rise with time. One above all that a sender used some seconds ago was used in those seconds or never, and what was
//! used so lately is still in memory, whatever became of it.

use std::time::Duration;

use broker_proto::MessageId;

use crate::core::BootTime;

/// Three turns are far less than an ended message is remembered: see `engine::REMEMBER`.
const TURN: Duration = Duration::from_secs(3);

/// The highest ids of one sender: of long ago, of the turn before, and of this one.
#[derive(Debug)]
pub struct Seen {
    floor: Option<MessageId>,
    before: Option<MessageId>,
    now: Option<MessageId>,
    turned: BootTime,
    /// Which load of the state this is about.
    load: u64,
}

impl Seen {
    /// A sender whose highest id in the store is `newest`.
    pub(super) fn new(newest: Option<MessageId>, at: BootTime, load: u64) -> Self {
        Self { floor: newest, before: None, now: None, turned: at, load }
    }

    /// Notes `id`, and says whether memory may have forgotten it.
    pub(super) fn note(&mut self, id: MessageId, at: BootTime, load: u64) -> bool {
        let since = at.0.saturating_sub(self.turned.0);
        // A state that was loaded anew knows nothing of what had ended.
        if since >= 2 * TURN || self.load != load {
            self.floor = self.floor.max(self.before).max(self.now);
            (self.before, self.now) = (None, None);
        } else if since >= TURN {
            self.floor = self.floor.max(self.before);
            self.before = self.now.take();
        }
        if since >= TURN || self.load != load {
            (self.turned, self.load) = (at, load);
        }
        self.now = self.now.max(Some(id));
        Some(id) <= self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime(Duration::from_millis(millis))
    }

    fn id(number: u128) -> MessageId {
        MessageId::from_u128(number)
    }

    #[test]
    fn ids_of_a_moment_may_come_in_any_order() {
        let mut seen = Seen::new(Some(id(5)), at(0), 0);
        assert!(seen.note(id(5), at(1), 0));
        for number in [9, 7, 8, 7] {
            assert!(!seen.note(id(number), at(2), 0), "{number}");
        }
    }

    /// I-7: however seldom or often its sender sends, an id of three turns ago is looked up.
    #[test]
    fn an_id_of_three_turns_ago_may_be_forgotten() {
        for step in [10, 700, 2_999, 3_000, 4_500, 5_999, 6_000, 9_000] {
            for first in [0, 1, 1_500, 2_999] {
                let mut seen = Seen::new(None, at(0), 0);
                seen.note(id(10), at(first), 0);
                let mut now = first;
                while now + step < first + 9_000 {
                    now += step;
                    seen.note(id(11), at(now), 0);
                }
                assert!(seen.note(id(10), at(first + 9_000), 0), "{step} {first}");
            }
        }
    }

    #[test]
    fn a_state_that_was_loaded_anew_knows_no_id() {
        let mut seen = Seen::new(None, at(0), 0);
        assert!(!seen.note(id(7), at(1), 0));
        assert!(seen.note(id(7), at(2), 1));
        assert!(!seen.note(id(8), at(2), 1));
    }
}
