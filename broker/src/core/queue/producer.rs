//! Bulk senders, which number their messages (I-8).
//!
//! Only the highest number of each producer is here, and those in the window whose messages live or ended a moment ago;
//! what else is in the window is looked up in the projection, as older ids are.

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
    /// Numbers of the window whose messages the projection may not know.
    recent: BTreeMap<u64, MessageId>,
}

impl Producer {
    /// Its oldest number that may still be used.
    fn oldest(&self) -> u64 {
        self.highest.saturating_sub(WINDOW - 1).max(1)
    }

    /// Numbers up to this one are taken: what the window leaves behind is refused, whoever's it was.
    fn skip_to(&mut self, number: u64) {
        self.highest = self.highest.max(number);
        while self.recent.first_key_value().is_some_and(|(first, _)| *first < self.oldest()) {
            self.recent.pop_first();
        }
    }
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
        let oldest = producer.oldest();
        if numbered.number < oldest {
            return Err(Counted::TooOld { oldest });
        }
        Ok(producer.recent.get(&numbered.number).copied())
    }

    /// Numbers of this producer up to `highest` are taken, even if their messages are no longer here.
    pub(super) fn skip_to(&mut self, sender: &Sender, name: &ProducerName, highest: u64) {
        let of_sender = self.0.entry(sender.clone()).or_default();
        of_sender.entry(name.clone()).or_default().skip_to(highest);
    }

    /// Gives the number back under the one copy of the producer's name that all its messages share.
    pub(super) fn accept(
        &mut self,
        sender: &Sender,
        numbered: &Numbered,
        id: MessageId,
    ) -> Numbered {
        let of_sender = self.0.entry(sender.clone()).or_default();
        let known = of_sender.get_key_value(&numbered.producer).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| numbered.producer.clone());
        let producer = of_sender.entry(name.clone()).or_default();
        producer.recent.insert(numbered.number, id);
        producer.skip_to(numbered.number);
        Numbered { producer: name, number: numbered.number }
    }

    /// The projection knows this number from now on.
    pub(super) fn forget(&mut self, sender: &Sender, numbered: &Numbered) {
        let producer = self.0.get_mut(sender).and_then(|of| of.get_mut(&numbered.producer));
        if let Some(producer) = producer {
            producer.recent.remove(&numbered.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_window_has_left_is_not_kept() {
        let sender = Sender::parse("opus").unwrap();
        let producer = ProducerName::parse("loader").unwrap();
        let mut producers = Producers::default();
        for number in 1..=3 * WINDOW {
            let numbered = Numbered { producer: producer.clone(), number };
            producers.accept(&sender, &numbered, MessageId::from_u128(number.into()));
        }

        let kept = &producers.0[&sender][&producer].recent;
        let (first, last) = (2 * WINDOW + 1, 3 * WINDOW);
        assert_eq!(kept.len() as u64, WINDOW);
        assert_eq!(kept.keys().next().zip(kept.keys().last()), Some((&first, &last)));
    }
}
