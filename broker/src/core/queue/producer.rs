//! Bulk senders, which number their messages (I-8).
//!
//! Only the highest number of each producer and those of living messages are here; what else is in the window is
//! looked up in the projection, as older ids are.

use std::collections::{BTreeMap, HashMap};

use broker_proto::{MessageId, Numbered, ProducerName, Receipt, Sender};

use super::Digest;

/// Numbers back from the highest that a producer may still use.
pub const WINDOW: u64 = 4096;
/// Producers of one sender.
const MOST: usize = 256;

/// What is known here of a number.
#[derive(Debug, PartialEq, Eq)]
pub enum Counted {
    TooOld { oldest: u64 },
    TooMany { limit: usize },
    Before { digest: Digest, receipt: Receipt },
    Unknown,
}

#[derive(Debug, Default)]
struct Producer {
    highest: u64,
    /// Numbers whose messages the projection may not know.
    recent: BTreeMap<u64, MessageId>,
}

#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<Sender, BTreeMap<ProducerName, Producer>>);

impl Producers {
    /// The message of this number, or why there can be none.
    pub(super) fn find(
        &self,
        sender: &Sender,
        numbered: &Numbered,
    ) -> Result<Option<MessageId>, Counted> {
        let Some(of_sender) = self.0.get(sender) else { return Ok(None) };
        let Some(producer) = of_sender.get(&numbered.producer) else {
            let is_full = of_sender.len() >= MOST;
            return if is_full { Err(Counted::TooMany { limit: MOST }) } else { Ok(None) };
        };
        let oldest = producer.highest.saturating_sub(WINDOW - 1).max(1);
        if numbered.number < oldest {
            return Err(Counted::TooOld { oldest });
        }
        Ok(producer.recent.get(&numbered.number).copied())
    }

    /// Numbers of this producer up to `highest` are taken, even if their messages are no longer here.
    pub(super) fn skip_to(&mut self, sender: &Sender, name: &ProducerName, highest: u64) {
        let of_sender = self.0.entry(sender.clone()).or_default();
        let producer = of_sender.entry(name.clone()).or_default();
        producer.highest = producer.highest.max(highest);
    }

    pub(super) fn accept(&mut self, sender: &Sender, numbered: &Numbered, id: MessageId) {
        self.skip_to(sender, &numbered.producer, numbered.number);
        let producer = self.0.get_mut(sender).and_then(|of| of.get_mut(&numbered.producer));
        if let Some(producer) = producer {
            producer.recent.insert(numbered.number, id);
        }
    }

    /// The projection knows this number from now on.
    pub(super) fn forget(&mut self, sender: &Sender, numbered: &Numbered) {
        let producer = self.0.get_mut(sender).and_then(|of| of.get_mut(&numbered.producer));
        if let Some(producer) = producer {
            producer.recent.remove(&numbered.number);
        }
    }
}
