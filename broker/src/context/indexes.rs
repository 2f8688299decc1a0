//! Indexes of the sessions that were read lately, so that one that has grown by a turn is indexed by a turn.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use broker_proto::{SessionEntry, SessionHead, SessionId};

use super::{choose::Index, render::turn};

/// Bytes of text in all indexes that are kept. In memory it is about six times as much.
const KEPT: usize = 4 * 1024 * 1024;

/// An index of all entries up to a head.
#[derive(Debug, Default)]
pub struct Indexed {
    head: SessionHead,
    index: Index,
}

impl Indexed {
    /// Where the indexed conversation ends.
    #[must_use]
    pub fn head(&self) -> SessionHead {
        self.head
    }

    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Goes on with `entries`, if the first of them follows what is indexed. `false`: it is of another conversation,
    /// and nothing has changed.
    #[must_use]
    pub fn grow(&mut self, entries: &[SessionEntry]) -> bool {
        if entries.first().is_some_and(|first| first.previous != self.head.hash) {
            return false;
        }
        for entry in entries {
            self.index.push(turn(entry));
            self.head = SessionHead { entries: entry.number + 1, hash: entry.hash };
        }
        true
    }
}

/// A few indexes, by their sessions. Written by whoever renders.
#[derive(Debug, Default)]
pub struct Indexes {
    /// The one used last is the last.
    kept: Mutex<VecDeque<(SessionId, Indexed)>>,
}

impl Indexes {
    /// Takes out the one of a session; another one who wants it meanwhile makes his own.
    #[must_use]
    pub fn take(&self, id: &SessionId) -> Option<Indexed> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(of, _)| of == id)?;
        kept.remove(place).map(|(_, indexed)| indexed)
    }

    /// Keeps one for the next time; the oldest make room.
    pub fn keep(&self, id: SessionId, indexed: Indexed) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(of, _)| *of != id);
        kept.push_back((id, indexed));
        let mut bytes: usize = kept.iter().map(|(_, indexed)| indexed.index.text_bytes()).sum();
        while bytes > KEPT {
            let Some((_, oldest)) = kept.pop_front() else { return };
            bytes -= oldest.index.text_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::{Entry, EntryHash, EntryKind, Part, Role};

    use super::*;

    fn hash(number: u64) -> EntryHash {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        EntryHash(hash)
    }

    /// Entries `from..to` of one conversation.
    fn entries(from: u64, to: u64, size: usize) -> Vec<SessionEntry> {
        let entry = |number: u64| SessionEntry {
            number,
            kind: EntryKind::Turn,
            entry: Entry {
                role: Role::User,
                name: String::new(),
                parts: vec![Part::Text(format!("turn {number} {}", "x".repeat(size)))],
            },
            model: None,
            created_at: None,
            tokens: 0,
            previous: number.checked_sub(1).map_or(EntryHash::NONE, hash),
            hash: hash(number),
        };
        (from..to).map(entry).collect()
    }

    #[test]
    fn what_goes_on_is_indexed_by_what_is_new_and_another_conversation_is_refused() {
        let mut indexed = Indexed::default();
        assert!(indexed.grow(&entries(0, 3, 0)));
        assert!(indexed.grow(&entries(3, 5, 0)));
        assert_eq!((indexed.index().len(), indexed.head().entries), (5, 5));
        assert!(!indexed.grow(&entries(3, 5, 0)), "it does not follow");
        assert!(indexed.grow(&[]));
        assert_eq!(indexed.head(), SessionHead { entries: 5, hash: hash(4) });
    }

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    fn indexed(to: u64, size: usize) -> Indexed {
        let mut indexed = Indexed::default();
        assert!(indexed.grow(&entries(0, to, size)));
        indexed
    }

    #[test]
    fn the_index_of_a_session_is_taken_out_by_one() {
        let indexes = Indexes::default();
        indexes.keep(id("a"), indexed(2, 0));
        indexes.keep(id("b"), indexed(3, 0));
        indexes.keep(id("a"), indexed(4, 0));
        let taken = |name: &str| indexes.take(&id(name)).map(|it| it.head.entries);
        assert_eq!((taken("a"), taken("a"), taken("b")), (Some(4), None, Some(3)));
    }

    #[test]
    fn the_oldest_make_room() {
        let indexes = Indexes::default();
        for (name, size) in [("a", KEPT / 3), ("b", KEPT / 3), ("c", KEPT / 2)] {
            indexes.keep(id(name), indexed(1, size));
        }
        let is_kept = ["a", "b", "c"].map(|name| indexes.take(&id(name)).is_some());
        assert_eq!(is_kept, [false, true, true]);
        indexes.keep(id("large"), indexed(1, KEPT + 1));
        assert!(indexes.take(&id("large")).is_none(), "larger than all that is kept");
    }
}
