//! The living messages, by number and by key, in as few bytes as a million of them allows.
//!
//! Numbers only rise, so those alive lie close together: a message is one pointer in a run of its neighbours. By its key
//! it is found through a table that holds the number alone and asks the message for the rest.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use broker_proto::{MessageId, Sender};
use hashbrown::{HashTable, hash_table::Entry};

use super::{Message, Seq};

/// Neighbours in one run.
const RUN: u64 = 128;

#[derive(Debug)]
struct Run {
    places: Box<[Option<Box<Message>>]>,
    taken: usize,
}

#[derive(Debug, Default)]
pub(super) struct Messages {
    runs: BTreeMap<u64, Run>,
    /// The newest living message of each sender and id.
    keys: HashTable<Seq>,
    /// Drawn anew by each process, so that nobody can choose ids that meet. It decides nothing.
    hasher: RandomState,
}

impl Messages {
    pub(super) fn get(&self, seq: Seq) -> Option<&Message> {
        place(&self.runs, seq)
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut Message> {
        let run = self.runs.get_mut(&(seq.0 / RUN))?;
        run.places[(seq.0 % RUN) as usize].as_deref_mut()
    }

    pub(super) fn find(&self, sender: &Sender, id: MessageId) -> Option<&Message> {
        let is_it = |seq: &Seq| is(place(&self.runs, *seq), sender, id);
        let seq = self.keys.find(self.hasher.hash_one((sender, id)), is_it)?;
        self.get(*seq)
    }

    pub(super) fn insert(&mut self, message: Message) {
        let Self { runs, keys, hasher } = self;
        let (seq, id, sender) = (message.seq, message.id, Arc::clone(&message.sender));
        let run = runs.entry(seq.0 / RUN).or_insert_with(|| Run {
            places: std::iter::repeat_with(|| None).take(RUN as usize).collect(),
            taken: 0,
        });
        let before = run.places[(seq.0 % RUN) as usize].replace(Box::new(message));
        run.taken += usize::from(before.is_none());
        let hash_of = |seq: &Seq| {
            place(runs, *seq).map_or(0, |message| hasher.hash_one((&message.sender, message.id)))
        };
        let is_it = |seq: &Seq| is(place(runs, *seq), &sender, id);
        match keys.entry(hasher.hash_one((&sender, id)), is_it, hash_of) {
            Entry::Occupied(mut same) => *same.get_mut() = seq,
            Entry::Vacant(free) => {
                free.insert(seq);
            }
        }
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Box<Message>> {
        let message = self.get(seq)?;
        let hash = self.hasher.hash_one((&message.sender, message.id));
        if let Ok(found) = self.keys.find_entry(hash, |other| *other == seq) {
            found.remove();
        }
        let run = self.runs.get_mut(&(seq.0 / RUN))?;
        let message = run.places[(seq.0 % RUN) as usize].take();
        run.taken -= usize::from(message.is_some());
        if run.taken == 0 {
            self.runs.remove(&(seq.0 / RUN));
        }
        message
    }

    /// Their numbers, in order.
    pub(super) fn seqs(&self) -> impl Iterator<Item = Seq> {
        let places = self.runs.values().flat_map(|run| run.places.iter().flatten());
        places.map(|message| message.seq)
    }
}

fn place(runs: &BTreeMap<u64, Run>, seq: Seq) -> Option<&Message> {
    runs.get(&(seq.0 / RUN))?.places[(seq.0 % RUN) as usize].as_deref()
}

fn is(message: Option<&Message>, sender: &Sender, id: MessageId) -> bool {
    message.is_some_and(|message| message.id == id && *message.sender == *sender)
}
