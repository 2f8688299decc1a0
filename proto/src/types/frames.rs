//! The numbers of a link's frames: nothing is lost or said twice on one stream without being seen.

/// A frame's place in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Counts from 1, without gaps.
    pub number: u64,
    /// The last frame seen of the other side.
    pub seen: u64,
}

/// A frame that does not follow the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameGap {
    #[error("frame {number} came where frame {expected} is next")]
    OutOfTurn { number: u64, expected: u64 },
    #[error("a frame says that {seen} frames were seen, of {said} that were said")]
    NeverSaid { seen: u64, said: u64 },
    #[error("a frame says that {seen} frames were seen, after one that had seen {before}")]
    Unseen { seen: u64, before: u64 },
}

/// Numbers the frames that one side of a stream says, and checks those that it hears.
#[derive(Debug, Clone, Default)]
pub struct FrameCounter {
    said: u64,
    seen: u64,
    /// What the other side has said that it saw.
    acknowledged: u64,
}

impl FrameCounter {
    /// The stamp of the next frame that is said.
    pub fn say(&mut self) -> Stamp {
        self.said += 1;
        Stamp { number: self.said, seen: self.seen }
    }

    /// Takes the stamp of a frame that was heard.
    ///
    /// # Errors
    /// [`FrameGap`] when it does not follow the one before; the stream must end.
    pub fn hear(&mut self, stamp: Stamp) -> Result<(), FrameGap> {
        let Stamp { number, seen } = stamp;
        let expected = self.seen + 1;
        if number != expected {
            return Err(FrameGap::OutOfTurn { number, expected });
        }
        if seen > self.said {
            return Err(FrameGap::NeverSaid { seen, said: self.said });
        }
        if seen < self.acknowledged {
            return Err(FrameGap::Unseen { seen, before: self.acknowledged });
        }
        self.seen = number;
        self.acknowledged = seen;
        Ok(())
    }

    /// The last frame that was heard.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64, seen: u64) -> Stamp {
        Stamp { number, seen }
    }

    #[test]
    fn each_side_numbers_its_frames_and_says_what_it_saw() {
        let (mut one, mut other) = (FrameCounter::default(), FrameCounter::default());
        for number in 1..4 {
            let said = one.say();
            assert_eq!(said, stamp(number, number - 1));
            other.hear(said).unwrap();
            one.hear(other.say()).unwrap();
        }
        assert_eq!((one.seen(), other.seen()), (3, 3));
    }

    #[test]
    fn a_gap_a_repeat_and_an_impossible_acknowledgement_are_seen() {
        let mut counter = FrameCounter::default();
        counter.say();
        counter.hear(stamp(1, 1)).unwrap();
        for (wrong, gap) in [
            (stamp(1, 1), FrameGap::OutOfTurn { number: 1, expected: 2 }),
            (stamp(3, 1), FrameGap::OutOfTurn { number: 3, expected: 2 }),
            (stamp(0, 0), FrameGap::OutOfTurn { number: 0, expected: 2 }),
            (stamp(2, 2), FrameGap::NeverSaid { seen: 2, said: 1 }),
            (stamp(2, 0), FrameGap::Unseen { seen: 0, before: 1 }),
        ] {
            assert_eq!(counter.hear(wrong), Err(gap));
        }
        counter.hear(stamp(2, 1)).unwrap();
    }
}
