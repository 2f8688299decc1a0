//! How an agent ends a delivery: well, badly, or not at all.

use std::time::Duration;

use super::chance::Chance;

/// What an agent is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Conduct {
    /// Does all it gets, at once.
    Good,
    /// Everything an agent may do, and much that it may not.
    Mixed,
    /// Takes long over everything, and says that it goes on.
    Slow,
    /// Greets, gives credit, and never reads again.
    Deaf,
    /// Takes what it gets and never ends it.
    Idle,
}

/// What becomes of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Done {
        after: Duration,
    },
    /// As done, what it says streamed in so many pieces before.
    Streamed {
        pieces: u32,
    },
    /// As failed, half of an answer streamed before.
    Broken,
    Failed,
    Retry {
        after: Duration,
    },
    Release,
    Reject,
    /// Neither settled nor renewed.
    Abandon,
    /// Not renewed, and settled as done once the lease must have run out.
    Late,
    /// Settled as done, and once more.
    Twice,
    /// Settled one way, and then another.
    Otherwise {
        is_first_done: bool,
    },
    /// A token nobody was given, and then as done.
    Forged,
}

impl Conduct {
    /// What this agent does with this attempt of this message.
    pub(super) fn deed(self, seed: u64, id: &str, attempt: u32, is_question: bool) -> Deed {
        let mut chance = Chance::new(seed, &["deed", id, &attempt.to_string()]);
        let at_once = Deed::Done { after: Duration::ZERO };
        match self {
            Self::Good | Self::Deaf => at_once,
            Self::Idle => Deed::Abandon,
            Self::Slow => Deed::Done { after: Duration::from_millis(chance.between(20, 60)) },
            Self::Mixed => {
                let short = Duration::from_millis(chance.between(1, 120));
                let often = [
                    (40, at_once),
                    (14, Deed::Done { after: short }),
                    (8, Deed::Streamed { pieces: 3 }),
                    (8, Deed::Broken),
                    (6, Deed::Retry { after: short }),
                    (5, Deed::Release),
                    (6, Deed::Reject),
                    (6, Deed::Abandon),
                    (4, Deed::Late),
                    (5, Deed::Twice),
                    (3, Deed::Otherwise { is_first_done: true }),
                    (3, Deed::Otherwise { is_first_done: false }),
                    (3, Deed::Forged),
                    // Failures of a model count against it, and its questions go elsewhere: rare.
                    (1, Deed::Failed),
                ];
                match chance.weighted(&often) {
                    Deed::Streamed { .. } | Deed::Broken if !is_question => at_once,
                    deed => deed,
                }
            }
        }
    }
}
