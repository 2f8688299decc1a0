//! Whose turn it was: order, strict keys and the shares of the priorities (I-10, I-11, I-12), and who may be given what.

use std::collections::BTreeMap;

use broker_proto::{AgentName, Priority, Recipient, WallTime};

use super::{
    Checked, Witness,
    kept::{Kept, Place},
    must,
};
use crate::{
    core::queue::{Hold, Seq},
    sim::agent::serves,
};

/// First deliveries of one of these follow the sequence (I-10).
type Lane = (Recipient, String, Priority);

/// Shares of low, normal, high and urgent, and a whole round of them.
const SHARES: [i64; 4] = [1, 2, 4, 8];
const ROUND: i64 = 15;
/// Deliveries by which a lane may be ahead of its share or behind it at any moment.
const SLACK: i64 = 3;

/// Deliveries of one queue since its lanes are as they are.
#[derive(Debug, Default)]
struct Shared {
    /// By priority, while all four could have been served.
    given: [i64; 4],
    /// Since one of `low` could have been.
    passed_low: i64,
}

#[derive(Debug)]
pub(super) struct Turns {
    /// No message is too large for a link's credit, so that nothing lets others pass.
    is_roomy: bool,
    firsts: BTreeMap<Lane, Seq>,
    shared: BTreeMap<Recipient, Shared>,
}

impl Turns {
    pub(super) fn new(is_roomy: bool) -> Self {
        Self { is_roomy, firsts: BTreeMap::new(), shared: BTreeMap::new() }
    }

    pub(super) fn begin_anew(&mut self) {
        self.shared.clear();
    }

    /// I-10; a question or task for a model moves from queue to queue, and its place in the chain decides.
    fn first(&mut self, kept: &Kept) -> Checked {
        if kept.epoch > 0 || kept.was_passed || matches!(kept.to, Recipient::Model(_)) {
            return Ok(());
        }
        let key = match &kept.line {
            Some((_, key)) => key.clone(),
            None if self.is_roomy => format!("{}/", kept.sender),
            None => return Ok(()),
        };
        let before = self.firsts.insert((kept.to.clone(), key, kept.priority), kept.seq);
        let is_next = before.is_none_or(|before| before < kept.seq);
        must!(is_next, "I-10", "message {} comes after {before:?}", kept.seq.0);
        Ok(())
    }

    /// I-12, for one delivery out of lanes of which these had something to give.
    fn share(&mut self, kept: &Kept, had: [bool; 4]) -> Checked {
        let shared = self.shared.entry(kept.queue.clone()).or_default();
        let low = Priority::Low as usize;
        let is_passed = kept.priority != Priority::Low && had[low];
        shared.passed_low = if is_passed { shared.passed_low + 1 } else { 0 };
        let (seq, passed) = (kept.seq.0, shared.passed_low);
        must!(passed <= ROUND, "I-12", "{passed} pass the head of low, the last is {seq}");
        if had != [true; 4] {
            shared.given = [0; 4];
            return Ok(());
        }
        shared.given[kept.priority as usize] += 1;
        let (given, total) = (shared.given, shared.given.iter().sum::<i64>());
        let is_fair = given
            .iter()
            .zip(SHARES)
            .all(|(given, share)| (given * ROUND - total * share).abs() <= SLACK * ROUND);
        must!(is_fair, "I-12", "{given:?} of {total} deliveries up to {seq}");
        Ok(())
    }
}

impl Witness {
    /// Whether it is this message's turn, in a queue that gives anything, and this agent's to have it.
    pub(super) fn may_be_leased(&mut self, seq: Seq, agent: &AgentName, at: WallTime) -> Checked {
        let Some(kept) = self.kept.get(&seq) else { return Ok(()) };
        let queue = &kept.queue;
        must!(serves(agent, queue), "recipient", "{agent} gets {seq:?}, which is for {queue}");
        must!(!self.paused.contains(queue), "pause", "{seq:?} leaves {queue}, which is paused");
        if let Some(other) = self.holds_back(kept) {
            let place = self.kept[&other].place;
            must!(false, "I-11", "{seq:?} is leased while {other:?} of its key is {place:?}");
        }
        let is_mailbox = !matches!(queue, Recipient::Model(_));
        let had = (self.turns.is_roomy && is_mailbox).then(|| self.deliverable(queue, at));
        self.turns.first(kept)?;
        had.map_or(Ok(()), |had| self.turns.share(kept, had))
    }

    /// The other message of its strict key that must end first: one that is out, or an earlier one that waits.
    fn holds_back(&self, kept: &Kept) -> Option<Seq> {
        let line = kept.strict_line()?;
        let waits = |other: &Kept| match other.place {
            Place::Waiting
            | Place::Held(Hold::Suspended | Hold::InputRequired | Hold::Handoff | Hold::Paused) => {
                true
            }
            // As good as a dead letter, which holds nobody back either.
            Place::Held(Hold::Parked) => false,
            Place::New | Place::Ready | Place::Leased | Place::Closing => false,
        };
        let holds = |other: &&Kept| {
            let is_of_line = other.seq != kept.seq && other.strict_line() == Some(line);
            let comes_first = other.is_out() || other.seq < kept.seq && waits(other);
            is_of_line && other.end.is_none() && comes_first
        };
        self.kept.values().find(holds).map(|other| other.seq)
    }

    /// Of which priorities a queue has something that may go now: of each key the first.
    fn deliverable(&self, queue: &Recipient, at: WallTime) -> [bool; 4] {
        let mut had = [false; 4];
        let mut heads = Vec::new();
        let is_ready =
            |kept: &&Kept| kept.end.is_none() && kept.place == Place::Ready && kept.queue == *queue;
        for kept in self.kept.values().filter(is_ready) {
            let head = kept.line.as_ref().map(|line| (line, kept.priority));
            if head.is_some() && heads.contains(&head) {
                continue;
            }
            heads.push(head);
            had[kept.priority as usize] |= at < kept.deadline && self.holds_back(kept).is_none();
        }
        had
    }
}
