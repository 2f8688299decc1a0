//! Entries of the sessions that were read lately, so that a question to one that has grown by a turn reads that turn.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use broker_proto::{Part, SessionEntry, SessionHead, SessionId};

/// Bytes of entries that are kept, of all sessions together.
const KEPT: u64 = 16 * 1024 * 1024;
/// What an entry takes beside its parts.
const AROUND: u64 = 256;

/// The entries up to a head.
#[derive(Debug, Clone, Default)]
pub struct Said {
    head: SessionHead,
    /// What is large in them is named by its hash.
    light: Vec<SessionEntry>,
    /// With everything in its place.
    whole: Vec<SessionEntry>,
    bytes: u64,
}

impl Said {
    /// Where it ends.
    #[must_use]
    pub fn head(&self) -> SessionHead {
        self.head
    }

    #[must_use]
    pub fn light(&self) -> &[SessionEntry] {
        &self.light
    }

    #[must_use]
    pub fn whole(&self) -> &[SessionEntry] {
        &self.whole
    }

    /// Goes on with these entries, given in both forms, if the first of them follows. `false`: they are of another
    /// conversation, and nothing has changed.
    #[must_use]
    pub fn grow(&mut self, light: Vec<SessionEntry>, whole: Vec<SessionEntry>) -> bool {
        if light.first().is_some_and(|first| first.previous != self.head.hash) {
            return false;
        }
        if let Some(last) = light.last() {
            self.head = SessionHead { entries: last.number + 1, hash: last.hash };
        }
        let size = |entry: &SessionEntry| {
            AROUND + entry.entry.parts.iter().map(Part::inline_bytes).sum::<u64>()
        };
        self.bytes += light.iter().chain(&whole).map(size).sum::<u64>();
        self.light.extend(light);
        self.whole.extend(whole);
        true
    }
}

/// The entries of a few sessions. Written by whoever makes a history.
#[derive(Debug, Default)]
pub struct SaidLately {
    /// The one used last is the last.
    kept: Mutex<VecDeque<(SessionId, Arc<Said>)>>,
}

impl SaidLately {
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<Arc<Said>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(of, _)| of == id).map(|(_, said)| Arc::clone(said))
    }

    /// Keeps them for the next time; the oldest make room, and what is too large for all of it is not kept.
    pub fn keep(&self, id: SessionId, said: Arc<Said>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(of, _)| *of != id);
        kept.push_back((id, said));
        let mut bytes: u64 = kept.iter().map(|(_, said)| said.bytes).sum();
        while bytes > KEPT {
            let Some((_, oldest)) = kept.pop_front() else { return };
            bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::{Entry, EntryHash, EntryKind, Role};

    use super::*;

    fn entry(number: u8, size: usize) -> SessionEntry {
        SessionEntry {
            number: u64::from(number),
            kind: EntryKind::Turn,
            entry: Entry {
                role: Role::User,
                name: String::new(),
                parts: vec![Part::Text("x".repeat(size))],
            },
            model: None,
            created_at: None,
            tokens: 0,
            previous: number.checked_sub(1).map_or(EntryHash::NONE, |n| EntryHash([n + 1; 32])),
            hash: EntryHash([number + 1; 32]),
        }
    }

    fn said(size: usize) -> Said {
        let mut said = Said::default();
        assert!(said.grow(vec![entry(0, size)], vec![entry(0, size)]));
        said
    }

    #[test]
    fn entries_follow_one_another_or_change_nothing() {
        let mut said = said(1);
        assert!(!said.grow(vec![entry(2, 1)], vec![entry(2, 1)]));
        assert_eq!(said.head().entries, 1);
        assert!(said.grow(vec![entry(1, 1)], vec![entry(1, 1)]));
        assert_eq!((said.head().entries, said.whole().len()), (2, 2));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let lately = SaidLately::default();
        let id = |name: &str| SessionId::parse(name).unwrap();
        let third = usize::try_from(KEPT / 6).unwrap();
        for name in ["a", "b", "c"] {
            lately.keep(id(name), Arc::new(said(third)));
        }
        let is_kept = |name: &str| lately.get(&id(name)).is_some();
        assert_eq!([is_kept("a"), is_kept("b"), is_kept("c")], [false, true, true]);
        lately.keep(id("large"), Arc::new(said(3 * third)));
        assert!(!is_kept("large") && !is_kept("c"));
    }
}
