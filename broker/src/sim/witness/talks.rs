//! What sessions say, by what was stored: every entry follows one that is there, and what was said together stands so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use broker_proto::{EntryHash, SessionHead, SessionId};

use super::{Checked, Violation, must};
use crate::{
    core::session::{Change, Entries, Event, Point, Session},
    sim::talk::Append,
};

#[derive(Debug, Default)]
pub(in crate::sim) struct Talks {
    /// Each entry that was ever stored: which it follows, and its number.
    entries: HashMap<EntryHash, (EntryHash, u64)>,
    /// Every version of every session, the first first.
    sessions: BTreeMap<SessionId, Vec<Point>>,
    deleted: BTreeSet<SessionId>,
    pub(in crate::sim) appends: Vec<Append>,
    stored: BTreeSet<usize>,
    /// Stored entries whose session has yet to say that it ends with them: what they follow, the last, whose they are.
    open: Option<(EntryHash, EntryHash, usize)>,
}

impl Talks {
    pub(in crate::sim) fn alive(&self) -> Vec<SessionId> {
        self.sessions.keys().filter(|id| !self.deleted.contains(id)).cloned().collect()
    }

    /// What a session was in each of its versions.
    pub(in crate::sim) fn points(&self, id: &SessionId) -> Vec<Point> {
        self.sessions.get(id).cloned().unwrap_or_default()
    }

    /// Every session that was ever there, and what is left of it.
    pub(in crate::sim) fn sessions(
        &self,
    ) -> impl Iterator<Item = (&SessionId, Option<(u64, &Point)>)> {
        self.sessions.iter().map(|(id, points)| {
            let now = points.last().map(|point| (points.len() as u64, point));
            (id, now.filter(|_| !self.deleted.contains(id)))
        })
    }

    /// The entries that end with this one, the first first.
    pub(in crate::sim) fn chain(&self, mut hash: EntryHash) -> Vec<EntryHash> {
        let mut chain = Vec::new();
        while let Some((previous, _)) = self.entries.get(&hash) {
            chain.push(hash);
            hash = *previous;
        }
        chain.reverse();
        chain
    }

    /// What was answered with OK is stored (I-1).
    pub(in crate::sim) fn is_kept(&self, append: usize) -> Checked {
        let is_kept = self.stored.contains(&append);
        must!(is_kept, "I-1", "append {append} is OK, and its turns are not there");
        Ok(())
    }

    pub(super) fn event(&mut self, event: &Event) -> Checked {
        match event {
            Event::Entries(entries) => self.entries(entries),
            Event::Changed { id, change, after: None, .. } => {
                must!(*change == Change::Deleted, "session", "{id} goes as {change:?}");
                let is_news = self.deleted.insert(id.clone());
                must!(is_news, "session", "{id} is deleted twice");
                Ok(())
            }
            Event::Changed { id, change, after: Some(after), .. } => {
                self.changed(id, *change, after)
            }
        }
    }

    fn entries(&mut self, entries: &Entries) -> Checked {
        let Entries { previous, first, rows, .. } = entries;
        must!(self.open.is_none(), "session", "entries of two appends lie in one another");
        let number = self.length(*previous);
        must!(number == Some(*first), "session", "entry {first} follows {previous:?}");
        let is_it = |append: &Append| {
            let hashes = append.said.iter().scan(*previous, |hash, said| {
                *hash = hash.next(*said);
                Some(*hash)
            });
            hashes.eq(rows.iter().map(|row| row.hash))
        };
        let Some(at) = self.appends.iter().position(is_it) else {
            let what = format!("entry {first} begins what nobody said so");
            return Err(Violation { rule: "session", what });
        };
        let expected = self.appends[at].expected;
        let is_where = expected.is_none_or(|expected| expected == *previous);
        must!(is_where, "session", "append {at} follows {previous:?} in place of {expected:?}");
        let mut last = *previous;
        for (row, number) in rows.iter().zip(*first..) {
            self.entries.insert(row.hash, (last, number));
            last = row.hash;
        }
        self.stored.insert(at);
        self.open = Some((*previous, last, at));
        Ok(())
    }

    fn length(&self, hash: EntryHash) -> Option<u64> {
        if hash == EntryHash::NONE {
            return Some(0);
        }
        self.entries.get(&hash).map(|(_, number)| number + 1)
    }

    fn changed(&mut self, id: &SessionId, change: Change, after: &Session) -> Checked {
        let head = after.info.head;
        let points = self.sessions.get(id).map(Vec::as_slice).unwrap_or_default();
        let is_gone = self.deleted.contains(id);
        must!(!is_gone, "session", "{id} was deleted, and is {change:?}");
        let version = points.len() as u64 + 1;
        must!(after.info.version == version, "session", "{id} has no version {version}");
        let length = self.length(head.hash);
        must!(length == Some(head.entries), "session", "{id} ends where nothing is: {head:?}");
        let was = points.last().map_or(SessionHead::EMPTY, |point| point.head);
        match (change, self.open.take()) {
            (Change::Appended, Some((previous, last, append))) => {
                let is_its = self.appends[append].session == *id;
                let goes_on = previous == was.hash && last == head.hash && is_its;
                must!(goes_on, "session", "{id} ends with {head:?} after append {append}");
            }
            (Change::Restored, None) => {
                let was_there = points.iter().any(|point| point.head == head);
                must!(was_there, "session", "{id} goes back to where it never was");
            }
            (Change::OwnerChanged, None) => {
                must!(head == was, "session", "{id} changes its owner, and ends with {head:?}");
            }
            (Change::Started, None) => {
                must!(head == SessionHead::EMPTY, "session", "{id} begins with {head:?}");
            }
            (Change::Forked, None) => {
                let from = after.info.forked_from.as_ref().map(|(from, _)| from);
                let origin = from.and_then(|from| self.sessions.get(from));
                let was_there = origin.is_some_and(|it| it.iter().any(|point| point.head == head));
                must!(was_there, "session", "{id} is forked from where {from:?} never was");
            }
            (change, open) => {
                let what = format!("{id} is {change:?} with {open:?}");
                return Err(Violation { rule: "session", what });
            }
        }
        let (tokens, size_bytes) = (after.info.tokens, after.info.size_bytes);
        let (task, shared) = (after.task.clone(), after.shared.clone());
        let point = Point { head, tokens, size_bytes, task, shared };
        self.sessions.entry(id.clone()).or_default().push(point);
        Ok(())
    }
}
