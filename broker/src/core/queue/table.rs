//! Messages by number and by key, in as few bytes as a million of them allows.
//!
//! Numbers only rise, so those that are here lie close together: each is one pointer in a run of its neighbours. By its
//! key it is found through a table that holds the number alone and asks the message for the rest.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
};

use broker_proto::{MessageId, Sender};
use hashbrown::{HashTable, hash_table::Entry};

use super::Seq;

/// Neighbours in one run: a message that outlives its own costs a whole run.
const RUN: u64 = 32;

/// What a table holds of a message says whose it is.
pub(super) trait Keyed {
    fn seq(&self) -> Seq;
    fn key(&self) -> (&Sender, MessageId);
}

#[derive(Debug)]
struct Run<T> {
    places: Box<[Option<Box<T>>]>,
    taken: usize,
}

#[derive(Debug)]
pub(super) struct Table<T> {
    runs: BTreeMap<u64, Run<T>>,
    /// The newest of each sender and id.
    keys: HashTable<Seq>,
    /// Drawn anew by each process, so that nobody can choose ids that meet. It decides nothing.
    hasher: RandomState,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { runs: BTreeMap::new(), keys: HashTable::new(), hasher: RandomState::new() }
    }
}

impl<T: Keyed> Table<T> {
    pub(super) fn get(&self, seq: Seq) -> Option<&T> {
        place(&self.runs, seq)
    }

    pub(super) fn get_mut(&mut self, seq: Seq) -> Option<&mut T> {
        let run = self.runs.get_mut(&(seq.0 / RUN))?;
        run.places[(seq.0 % RUN) as usize].as_deref_mut()
    }

    pub(super) fn find(&self, sender: &Sender, id: MessageId) -> Option<&T> {
        let is_it = |seq: &Seq| has_key(&self.runs, *seq, (sender, id));
        let seq = self.keys.find(self.hasher.hash_one((sender, id)), is_it)?;
        self.get(*seq)
    }

    pub(super) fn insert(&mut self, message: T) {
        let Self { runs, keys, hasher } = self;
        let (seq, hash) = (message.seq(), hasher.hash_one(message.key()));
        let run = runs.entry(seq.0 / RUN).or_insert_with(|| Run {
            places: std::iter::repeat_with(|| None).take(RUN as usize).collect(),
            taken: 0,
        });
        let before = run.places[(seq.0 % RUN) as usize].replace(Box::new(message));
        run.taken += usize::from(before.is_none());
        let hash_of =
            |seq: &Seq| place(runs, *seq).map_or(0, |message| hasher.hash_one(message.key()));
        let is_it =
            |other: &Seq| place(runs, seq).is_some_and(|new| has_key(runs, *other, new.key()));
        match keys.entry(hash, is_it, hash_of) {
            Entry::Occupied(mut same) => *same.get_mut() = seq,
            Entry::Vacant(free) => {
                free.insert(seq);
            }
        }
    }

    pub(super) fn remove(&mut self, seq: Seq) -> Option<Box<T>> {
        let hash = self.hasher.hash_one(self.get(seq)?.key());
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
        places.map(|message| message.seq())
    }
}

fn place<T>(runs: &BTreeMap<u64, Run<T>>, seq: Seq) -> Option<&T> {
    runs.get(&(seq.0 / RUN))?.places[(seq.0 % RUN) as usize].as_deref()
}

fn has_key<T: Keyed>(runs: &BTreeMap<u64, Run<T>>, seq: Seq, key: (&Sender, MessageId)) -> bool {
    place(runs, seq).is_some_and(|message| message.key() == key)
}
