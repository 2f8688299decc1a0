//! Queues and dead letters, as an operator sees them.

use super::{AgentName, FailureClass, MessageInfo, MessageState, ModelName, Recipient, WallTime};

/// How many messages were sent to a recipient, and where they stand (I-33).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub accepted: u64,
    pub queued: u64,
    pub waiting: u64,
    pub leased: u64,
    pub done: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub expired: u64,
    pub dead: u64,
    pub purged: u64,
}

impl Counters {
    /// The counter of a state.
    pub fn of(&mut self, state: MessageState) -> &mut u64 {
        match state {
            MessageState::Queued => &mut self.queued,
            MessageState::Waiting => &mut self.waiting,
            MessageState::Leased => &mut self.leased,
            MessageState::Done => &mut self.done,
            MessageState::Failed => &mut self.failed,
            MessageState::Expired => &mut self.expired,
            MessageState::Cancelled => &mut self.cancelled,
            MessageState::Dead => &mut self.dead,
            MessageState::Purged => &mut self.purged,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, mut other: Self) -> Self {
        self.accepted += other.accepted;
        for state in MessageState::ALL {
            *self.of(state) += *other.of(state);
        }
        self
    }

    /// Whether every accepted message stands somewhere, and only once.
    #[must_use]
    pub fn is_balanced(mut self) -> bool {
        self.accepted == MessageState::ALL.into_iter().map(|state| *self.of(state)).sum::<u64>()
    }
}

/// One queue. What it holds now may have been sent to another recipient; `counters` are of what was sent to this one,
/// wherever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueInfo {
    pub queue: Recipient,
    /// Nothing is delivered from it until it is resumed.
    pub is_paused: bool,
    /// Messages are parked because the dead letters are full.
    pub is_degraded: bool,
    /// Why it is not as it should be; empty when it is.
    pub reason: String,
    pub ready: u64,
    pub leased: u64,
    /// Bytes of the ready messages.
    pub size_bytes: u64,
    /// Links that serve it.
    pub links: u64,
    pub dead_bytes: u64,
    pub parked: u64,
    pub counters: Counters,
}

/// A message that nobody could finish, kept until somebody redrives or purges it.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its `failure` is the reason, its `finished_at` the time.
    pub info: MessageInfo,
    pub deliveries: u32,
    /// Every delivery that did not end well, oldest first; empty in lists.
    pub trials: Vec<Trial>,
}

/// One delivery that did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Of which life.
    pub generation: u32,
    /// The delivery's number.
    pub number: u32,
    pub agent: Option<AgentName>,
    /// `None` for a mailbox.
    pub model: Option<ModelName>,
    pub began_at: Option<WallTime>,
    pub ended_at: WallTime,
    pub class: FailureClass,
    pub detail: String,
}

/// What became of dead letters that were redriven or purged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LettersHandled {
    pub done: u64,
    /// Left where they are: which, and why.
    pub skipped: Vec<(super::MessageName, String)>,
}
