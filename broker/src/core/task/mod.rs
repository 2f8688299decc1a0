//! Tasks: what is a delegation's own, beside the message that carries it: its state, what it asked back, the answers.
//!
//! Invariant: a task's questions are answered in order; at most the last one is open.
//! Invariant: this module knows neither queues nor models, only what was asked and answered.

mod state;

use std::collections::BTreeMap;

use broker_proto::{MessageId, WallTime};

pub use state::{may_become, of_end, of_message};

use super::{
    Event,
    queue::{Body, Digest, Seq},
};

/// Questions of one task at most; one that asks more has lost its way.
pub const MOST_QUESTIONS: usize = 16;
/// Bytes of all questions and answers of one task at most: they go with each of its deliveries.
pub const MOST_BYTES: u64 = 256 * 1024;

/// A question to the requester, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// From 1.
    pub number: u32,
    pub question: Body,
    pub asked_at: WallTime,
    pub answer: Option<Answer>,
}

/// What the requester said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Made by whoever answered: the same again changes nothing.
    pub id: MessageId,
    pub digest: Digest,
    pub body: Body,
    pub at: WallTime,
}

#[derive(Debug, Default)]
pub struct State {
    /// Of living tasks that have asked something. Looked up, never walked.
    exchanges: BTreeMap<Seq, Vec<Exchange>>,
}

impl State {
    /// What a task has asked so far, oldest first.
    #[must_use]
    pub fn exchanges(&self, seq: Seq) -> &[Exchange] {
        self.exchanges.get(&seq).map_or(&[], Vec::as_slice)
    }

    /// The question that waits for its answer.
    #[must_use]
    pub fn open(&self, seq: Seq) -> Option<&Exchange> {
        self.exchanges(seq).last().filter(|exchange| exchange.answer.is_none())
    }

    /// Bytes of everything that was asked and answered.
    #[must_use]
    pub fn size_bytes(&self, seq: Seq) -> u64 {
        self.exchanges(seq).iter().map(Exchange::size_bytes).sum()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::TaskAsked { subject, at, number, question, .. } => {
                let (number, question) = (*number, question.clone());
                let exchange = Exchange { number, question, asked_at: *at, answer: None };
                self.exchanges.entry(subject.seq).or_default().push(exchange);
            }
            Event::TaskAnswered { subject, at, id, digest, answer, .. } => {
                let asked = self.exchanges.get_mut(&subject.seq).and_then(|all| all.last_mut());
                let Some(exchange) = asked else { return };
                let (id, digest, body) = (*id, *digest, answer.clone());
                exchange.answer = Some(Answer { id, digest, body, at: *at });
            }
            Event::Finished(finished) => {
                self.exchanges.remove(&finished.subject.seq);
            }
            _ => {}
        }
    }
}

impl Exchange {
    /// Bytes of the question and its answer.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.question.size_bytes + self.answer.as_ref().map_or(0, |answer| answer.body.size_bytes)
    }
}
