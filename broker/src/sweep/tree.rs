//! Which entries of sessions somebody can still read: those on the way from a head to the root.
//!
//! Entries belong to no session; a fork's way leads through those of its origin. So what a deleted session said goes only
//! when no version of a session that lives, or was deleted a short while ago, ends behind it.

use std::collections::{BTreeMap, HashSet};

use broker_proto::{EntryHash, SessionId, WallTime};

use crate::{
    core::session::{Entries, Event},
    journal::BatchNo,
};

/// The heads of sessions, as of one batch.
#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Of those that live: where each of their versions ends, without those on the way to the next.
    living: BTreeMap<SessionId, Vec<EntryHash>>,
    deleted: Vec<Deleted>,
    /// What was appended last: the entry it follows, and its own last one.
    appended: Option<(EntryHash, EntryHash)>,
}

/// A session that was deleted.
#[derive(Debug)]
struct Deleted {
    id: SessionId,
    at: WallTime,
    batch: BatchNo,
    heads: Vec<EntryHash>,
}

impl Heads {
    pub(super) fn note(&mut self, batch: BatchNo, event: &Event) {
        match event {
            Event::Entries(entries) => {
                let Some(last) = entries.rows.last().map(|row| row.hash) else { return };
                self.appended = match self.appended.take() {
                    Some((from, end)) if end == entries.previous => Some((from, last)),
                    _ => Some((entries.previous, last)),
                };
            }
            Event::Changed { id, after: Some(session), .. } => {
                let head = session.info.head.hash;
                let heads = self.living.entry(id.clone()).or_default();
                match (heads.last_mut(), self.appended.take()) {
                    (Some(last), Some((from, end))) if *last == from && end == head => *last = head,
                    (Some(last), _) if *last == head => {}
                    _ => heads.push(head),
                }
            }
            Event::Changed { id, at, after: None, .. } => {
                let heads = self.living.remove(id).unwrap_or_default();
                self.deleted.push(Deleted { id: id.clone(), at: *at, batch, heads });
            }
        }
    }

    /// Those that live from now on, and whether any is gone: deleted at `before` or earlier.
    pub(super) fn at(self, before: WallTime) -> Living {
        let mut heads: HashSet<EntryHash> = self.living.into_values().flatten().collect();
        let mut gone: BTreeMap<SessionId, BatchNo> = BTreeMap::new();
        for Deleted { id, at, batch, heads: of_deleted } in self.deleted {
            if at > before {
                heads.extend(of_deleted);
            } else {
                let last = gone.entry(id).or_insert(batch);
                *last = batch.max(*last);
            }
        }
        Living { heads, gone }
    }
}

/// Whose entries stay, and which sessions are gone.
#[derive(Debug, Default)]
pub(super) struct Living {
    heads: HashSet<EntryHash>,
    /// The last batch that speaks of each.
    gone: BTreeMap<SessionId, BatchNo>,
}

impl Living {
    pub(super) fn is_all(&self) -> bool {
        self.gone.is_empty()
    }

    /// Whether this version of a session was deleted with it. What the batch says in which it went is kept.
    pub(super) fn is_gone(&self, batch: BatchNo, id: &SessionId) -> bool {
        self.gone.get(id).is_some_and(|last| batch < *last)
    }
}

/// Runs of entries, each behind the one it follows, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Tree {
    runs: Vec<Run>,
    hashes: Vec<EntryHash>,
}

#[derive(Debug)]
struct Run {
    previous: EntryHash,
    /// Of its hashes.
    ends: usize,
}

impl Tree {
    pub(super) fn add(&mut self, entries: &Entries) {
        self.hashes.extend(entries.rows.iter().map(|row| row.hash));
        self.runs.push(Run { previous: entries.previous, ends: self.hashes.len() });
    }

    /// Of each run, whether one of its entries is on a living way. What is behind such an entry comes from its body too.
    pub(super) fn reached(&self, living: &Living) -> Vec<bool> {
        let mut wanted = living.heads.clone();
        let mut reached = vec![false; self.runs.len()];
        // No entry comes before the one it follows, so each is asked for before it is looked at.
        for (place, run) in self.runs.iter().enumerate().rev() {
            let first = place.checked_sub(1).map_or(0, |before| self.runs[before].ends);
            let hashes = &self.hashes[first..run.ends];
            if hashes.iter().any(|hash| wanted.contains(hash)) {
                reached[place] = true;
                wanted.insert(run.previous);
            }
        }
        reached
    }
}
