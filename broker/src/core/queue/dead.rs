//! Dead letters: kept, within bounds, until somebody redrives or purges them; and what is parked while there is no room.
//!
//! Invariant: nothing leaves here but by an event that names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use broker_proto::Recipient;

use super::{Message, Seq};

/// The dead letters of one recipient.
#[derive(Debug, Default)]
struct Shelf {
    letters: BTreeSet<Seq>,
    size_bytes: u64,
    /// Alive, and worn out: they come in as soon as there is room (I-26).
    parked: BTreeSet<Seq>,
}

#[derive(Debug, Default)]
pub struct Dead {
    letters: BTreeMap<Seq, Message>,
    shelves: BTreeMap<Recipient, Shelf>,
}

impl Dead {
    #[must_use]
    pub fn get(&self, seq: Seq) -> Option<&Message> {
        self.letters.get(&seq)
    }

    /// Dead letters of a recipient, and their bytes.
    #[must_use]
    pub fn load(&self, recipient: &Recipient) -> (u64, u64) {
        self.shelves
            .get(recipient)
            .map_or((0, 0), |shelf| (shelf.letters.len() as u64, shelf.size_bytes))
    }

    /// How many messages are parked because a recipient's dead letters are full.
    #[must_use]
    pub fn parked(&self, recipient: &Recipient) -> u64 {
        self.shelves.get(recipient).map_or(0, |shelf| shelf.parked.len() as u64)
    }

    #[must_use]
    pub fn first_parked(&self, recipient: &Recipient) -> Option<Seq> {
        self.shelves.get(recipient)?.parked.first().copied()
    }

    /// Recipients that have, or had, dead letters.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.shelves.keys()
    }

    /// Dead letters behind `after`, in the order of their numbers; of one recipient, or of all.
    #[must_use]
    pub fn behind(&self, after: Seq, of: Option<&Recipient>, most: usize) -> Vec<Seq> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        match of {
            None => self.letters.range(behind).map(|(seq, _)| *seq).take(most).collect(),
            Some(recipient) => self
                .shelves
                .get(recipient)
                .map(|shelf| shelf.letters.range(behind).copied().take(most).collect())
                .unwrap_or_default(),
        }
    }

    pub(super) fn insert(&mut self, message: Message) {
        let shelf = self.shelves.entry(Recipient::clone(&message.to)).or_default();
        shelf.letters.insert(message.seq);
        shelf.size_bytes += message.body.size_bytes;
        self.letters.insert(message.seq, message);
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Message> {
        let message = self.letters.remove(&seq)?;
        if let Some(shelf) = self.shelves.get_mut(&*message.to) {
            shelf.letters.remove(&seq);
            shelf.size_bytes = shelf.size_bytes.saturating_sub(message.body.size_bytes);
        }
        Some(message)
    }

    pub(super) fn park(&mut self, recipient: &Recipient, seq: Seq) {
        self.shelves.entry(recipient.clone()).or_default().parked.insert(seq);
    }

    pub(super) fn unpark(&mut self, recipient: &Recipient, seq: Seq) {
        if let Some(shelf) = self.shelves.get_mut(recipient) {
            shelf.parked.remove(&seq);
        }
    }
}
