//! Strict lines: handoffs and delegations of one key, of which one at a time is out (I-11).

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::Recipient;

use super::{Hold, Line, Message, Place, Seq};

#[derive(Debug, Default)]
pub(super) struct Strict {
    /// Leased, or between two attempts.
    out: BTreeSet<(Line, Seq)>,
    /// Waiting for a time, or held until something explicit happens.
    waiting: BTreeSet<(Line, Seq)>,
    /// Queues other than its recipient's own in which something of a line may be ready.
    strays: BTreeMap<Line, BTreeSet<Recipient>>,
}

impl Strict {
    /// Whether this message, being ready, must let others of its line end first: one that is out, or an earlier one that
    /// waits.
    pub(super) fn holds_back(&self, line: Line, seq: Seq) -> bool {
        let until = |last| (line, Seq(0))..(line, last);
        self.out.range(until(Seq(u64::MAX))).next().is_some()
            || self.waiting.range(until(seq)).next().is_some()
    }

    pub(super) fn enter(&mut self, line: Line, message: &Message) {
        let entry = (line, message.seq);
        match &message.place {
            Place::Leased(_) | Place::Closing => {
                self.out.insert(entry);
            }
            // As good as a dead letter, which holds nobody back either.
            Place::Held(Hold::Parked) => {}
            Place::Waiting(_) | Place::Held(_) => {
                self.waiting.insert(entry);
            }
            Place::Ready if message.queue != message.to => {
                self.strays.entry(line).or_default().insert(Recipient::clone(&message.queue));
            }
            Place::New | Place::Ready => {}
        }
    }

    pub(super) fn leave(&mut self, line: Line, seq: Seq) {
        self.out.remove(&(line, seq));
        self.waiting.remove(&(line, seq));
    }

    /// The queues in which this line must be looked at again, its own first.
    pub(super) fn queues(&self, line: Line, own: &Recipient) -> Vec<Recipient> {
        let strays = self.strays.get(&line).into_iter().flatten();
        std::iter::once(own).chain(strays).cloned().collect()
    }

    /// Nothing of this line is ready in `queue` any more.
    pub(super) fn forget_stray(&mut self, line: Line, queue: &Recipient) {
        let Some(strays) = self.strays.get_mut(&line) else { return };
        strays.remove(queue);
        if strays.is_empty() {
            self.strays.remove(&line);
        }
    }
}
