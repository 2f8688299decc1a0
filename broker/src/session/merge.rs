//! Restoring and importing, also onto a session that went on meanwhile. Turns are never mixed: one side is kept, or the
//! other, or both as two sessions.

use broker_proto::{
    EntryHash, ModelName, NewSessionEntry, OnConflict, SessionHead, SessionId, SessionOutcome,
    SessionPoint, SessionTask, SharedValue,
};

use super::{Conflict, Error, NewSession, Sessions, learn::Statements, write::Prepared};
use crate::{
    core::session::{Change, Expected, NewEntries, Point, Session, Write},
    journal::Content,
};

/// A point that is to be the head again.
#[derive(Debug, Clone)]
pub struct Restore {
    pub id: SessionId,
    pub to: SessionPoint,
    /// The version that the caller has seen.
    pub expected: Option<u64>,
    pub on_conflict: OnConflict,
    /// Of the fork, where there is one.
    pub new_id: Option<SessionId>,
}

/// A conversation that is to be a session, or what one goes on with.
#[derive(Debug, Clone, Default)]
pub struct Import {
    pub id: Option<SessionId>,
    pub entries: Vec<NewSessionEntry>,
    /// What it is about, beside what it states; taken in with it or not at all.
    pub task: SessionTask,
    /// What comes to be shared with it.
    pub shared: Vec<SharedValue>,
    /// Of a new session.
    pub model: Option<ModelName>,
    pub title: String,
    pub on_conflict: OnConflict,
    /// Of the fork, where there is one.
    pub new_id: Option<SessionId>,
}

/// A conversation on its way into a session.
struct Coming {
    new: NewEntries,
    contents: Vec<Content>,
    statements: Statements,
    shared: Vec<SharedValue>,
}

/// How a conversation that is imported relates to the session it goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Same,
    /// The session is where the conversation begins.
    Ahead,
    /// The session went on behind the end of the conversation, or both went on apart.
    Conflict,
}

/// `chain` is the conversation's, entry by entry.
fn relation(session: SessionHead, chain: &[EntryHash]) -> Relation {
    let at = usize::try_from(session.entries).unwrap_or(usize::MAX);
    let end = chain.last().copied().unwrap_or(EntryHash::NONE);
    if end == session.hash {
        Relation::Same
    } else if at == 0 || chain.get(at - 1) == Some(&session.hash) {
        Relation::Ahead
    } else {
        Relation::Conflict
    }
}

/// `new` without its first `skip` entries.
fn without_first(new: NewEntries, skip: usize) -> NewEntries {
    NewEntries { entries: new.entries.into_iter().skip(skip).collect(), ..new }
}

impl Sessions {
    /// Makes an earlier point the head again.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the session went on and nobody chose what to do then.
    pub async fn restore(&self, restore: Restore) -> Result<(Session, SessionOutcome), Error> {
        let Restore { id, to, expected, on_conflict, new_id } = restore;
        let now = self.get(&id).await?;
        let then = self.at(&id, &to).await?;
        let (at, contents) = self.point(then.clone()).await?;
        let write = Write {
            id: id.clone(),
            expected: Expected { head: None, version: Some(expected.unwrap_or(now.info.version)) },
            at: Some(at),
            entries: NewEntries::default(),
            task: None,
            shared: None,
            answer_of: None,
            change: Change::Restored,
        };
        let seen = expected.unwrap_or(now.info.version);
        let conflict = match self.write(write.clone(), contents.clone(), seen).await {
            // It went on and came back to what the caller had seen.
            Err(Error::Conflict(conflict)) if conflict.keys.is_empty() => {
                let expected = Expected { head: Some(conflict.head.hash), version: None };
                let write = Write { expected, ..write.clone() };
                match self.write(write, contents.clone(), conflict.version).await {
                    Err(Error::Conflict(conflict)) => conflict,
                    done => return done.map(|done| (done.session, SessionOutcome::Done)),
                }
            }
            Err(Error::Conflict(conflict)) => conflict,
            done => return done.map(|done| (done.session, SessionOutcome::Done)),
        };
        match on_conflict {
            OnConflict::Fail => Err(Error::Conflict(conflict)),
            OnConflict::Keep => Ok((self.get(&id).await?, SessionOutcome::Kept)),
            OnConflict::Replace => {
                let write = Write { expected: Expected::default(), ..write };
                let done = self.write(write, contents, seen).await?;
                Ok((done.session, SessionOutcome::Replaced))
            }
            OnConflict::Fork => {
                let new = NewSession { id: new_id, ..NewSession::default() };
                Ok((self.fork_at(then, new).await?, SessionOutcome::Forked))
            }
        }
    }

    /// Takes a conversation in, all of it or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the session has what the conversation has not, and nobody chose what to do then.
    pub async fn import(&self, import: Import) -> Result<(Session, SessionOutcome), Error> {
        let Import { id, entries, task, shared, model, title, on_conflict, new_id } = import;
        if entries.is_empty() {
            return Err(Error::Empty);
        }
        let known = match &id {
            Some(id) => match self.get(id).await {
                Ok(session) => Some(session),
                Err(Error::Refused(crate::core::session::Refusal::Unknown(_))) => None,
                Err(error) => return Err(error),
            },
            None => None,
        };
        let statements = Statements::of(&entries).with(task);
        let Prepared { entries: new, contents, stay: _stay } = self.prepare(entries).await?;
        // Each way in is apart from this future, which all of them would make large.
        let coming = |new| Coming { new, contents, statements, shared };
        let Some(session) = known else {
            let new_session = NewSession { id, model, title };
            let imported = coming(new);
            return Ok((
                Box::pin(self.begin_with(new_session, imported)).await?,
                SessionOutcome::Done,
            ));
        };
        let chain: Vec<EntryHash> = new
            .entries
            .iter()
            .scan(EntryHash::NONE, |hash, entry| {
                *hash = hash.next(entry.hash);
                Some(*hash)
            })
            .collect();
        match (relation(session.info.head, &chain), on_conflict) {
            (Relation::Same, _) => Ok((session, SessionOutcome::Unchanged)),
            (Relation::Ahead, _) => Box::pin(self.go_on(session, coming(new))).await,
            (Relation::Conflict, OnConflict::Fail) => {
                Err(Error::Conflict(Box::new(self.against(&session, &chain).await?)))
            }
            (Relation::Conflict, OnConflict::Keep) => Ok((session, SessionOutcome::Kept)),
            (Relation::Conflict, OnConflict::Replace) => {
                // What the session is about and shares stays.
                let at = Point {
                    task: session.task.clone(),
                    shared: session.shared.clone(),
                    ..Point::default()
                };
                let done = Box::pin(self.take_in(session, Some(at), coming(new))).await?;
                Ok((done, SessionOutcome::Replaced))
            }
            (Relation::Conflict, OnConflict::Fork) => {
                let model = model.or(Some(session.info.owner.model));
                let new_session = NewSession { id: new_id, model, title };
                let imported = coming(new);
                Ok((
                    Box::pin(self.begin_with(new_session, imported)).await?,
                    SessionOutcome::Forked,
                ))
            }
        }
    }

    /// A session that begins with a conversation.
    async fn begin_with(&self, new: NewSession, coming: Coming) -> Result<Session, Error> {
        let Coming { new: entries, mut contents, statements, shared } = coming;
        let (task, more) = self.learn_from_start(&statements).await?;
        contents.extend(more);
        let sharing = self.sharing(None, shared).await?;
        let (change, more) = sharing.map(|sharing| (sharing.change, sharing.contents)).unzip();
        contents.extend(more.unwrap_or_default());
        let shared = change.and_then(|(_, now)| now);
        let at = Point { task, shared, ..Point::default() };
        let start = self.new_start(new, at, Change::Imported)?;
        self.begin(start, entries, contents).await
    }

    /// The rest of a conversation that a session is the beginning of.
    async fn go_on(
        &self,
        session: Session,
        mut coming: Coming,
    ) -> Result<(Session, SessionOutcome), Error> {
        let skip = usize::try_from(session.info.head.entries).unwrap_or(usize::MAX);
        let skipped: u64 =
            coming.new.entries.iter().take(skip).map(|it| u64::from(it.length)).sum();
        coming.new = without_first(coming.new, skip);
        coming.new.offset = skipped;
        coming.statements = coming.statements.behind(skip);
        Ok((self.take_in(session, None, coming).await?, SessionOutcome::Done))
    }

    /// Entries behind a session's head, or behind `at`, with what they bring: one commit.
    async fn take_in(
        &self,
        session: Session,
        at: Option<Point>,
        coming: Coming,
    ) -> Result<Session, Error> {
        let Coming { new, mut contents, statements, shared } = coming;
        let first = at.as_ref().map_or(session.info.head.entries, |at| at.head.entries);
        let learnt = self.learn(&session, first, &statements).await?;
        let (task, more) = learnt.map(|learnt| (learnt.change, learnt.contents)).unzip();
        contents.extend(more.unwrap_or_default());
        let sharing = self.sharing(session.shared.as_ref(), shared).await?;
        let (shared, more) = sharing.map(|sharing| (sharing.change, sharing.contents)).unzip();
        contents.extend(more.unwrap_or_default());
        let write = Write {
            id: session.info.id.clone(),
            expected: Expected { head: Some(session.info.head.hash), version: None },
            at,
            entries: new,
            task,
            shared,
            answer_of: None,
            change: Change::Imported,
        };
        Ok(self.write(write, contents, session.info.version).await?.session)
    }

    /// What a conversation and a session have in common, and what not.
    async fn against(&self, session: &Session, chain: &[EntryHash]) -> Result<Conflict, Error> {
        let own = self.chain(session.info.head.hash).await?;
        let common = own.iter().zip(chain).take_while(|(one, other)| one == other).count() as u64;
        let hash = chain.last().copied().unwrap_or(EntryHash::NONE);
        let other = SessionHead { entries: chain.len() as u64, hash };
        Ok(Conflict {
            id: session.info.id.clone(),
            version: session.info.version,
            head: session.info.head,
            other,
            common,
            keys: entries_from(common, session.info.head.entries.max(other.entries)),
        })
    }

    /// What a session has become, beside what its caller had seen.
    pub(super) async fn conflict(
        &self,
        now: Session,
        expected: Expected,
        seen: u64,
    ) -> Result<Error, Error> {
        let (id, info) = (&now.info.id, &now.info);
        let (projection, batch) = (&self.intake.projection, self.intake.engine.head());
        let version = expected.version.unwrap_or(seen);
        let then = projection.session_version(id.clone(), version, batch).await?;
        let mut conflict = Conflict {
            id: id.clone(),
            version: info.version,
            head: info.head,
            other: SessionHead { entries: 0, hash: expected.head.unwrap_or(EntryHash::NONE) },
            common: 0,
            keys: Vec::new(),
        };
        let chain = self.chain(info.head.hash).await?;
        match (expected.head, then) {
            // It ended with that once, or never did.
            (Some(head), _) => {
                let at = chain.iter().position(|hash| *hash == head).map_or(0, |at| at + 1);
                conflict.other.entries = at as u64;
                conflict.common = at as u64;
                conflict.keys = entries_from(conflict.common, info.head.entries);
            }
            (None, Some(then)) => {
                let parted = self.parted(&then.session, &now).await?;
                conflict.other = parted.head;
                conflict.common = parted.common_entries;
                let most = parted.head.entries.max(parted.other_head.entries);
                conflict.keys = entries_from(conflict.common, most);
                conflict.keys.extend(parted.keys);
            }
            (None, None) => {
                let point = SessionPoint::Version(version);
                return Ok(Error::NoPoint { id: id.clone(), point });
            }
        }
        Ok(Error::Conflict(Box::new(conflict)))
    }
}

/// The entries that differ, as a key.
fn entries_from(common: u64, most: u64) -> Vec<String> {
    match most.checked_sub(common) {
        None | Some(0) => Vec::new(),
        Some(1) => vec![format!("entries.{common}")],
        Some(_) => vec![format!("entries.{common}-{}", most - 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_ahead_only_of_its_own_beginning() {
        let hash = |n: u8| EntryHash([n; 32]);
        let chain = [hash(1), hash(2), hash(3)];
        let head = |entries, n| SessionHead { entries, hash: hash(n) };
        assert_eq!(relation(SessionHead::EMPTY, &chain), Relation::Ahead);
        assert_eq!(relation(head(2, 2), &chain), Relation::Ahead);
        assert_eq!(relation(head(3, 3), &chain), Relation::Same);
        assert_eq!(relation(head(2, 9), &chain), Relation::Conflict);
        assert_eq!(relation(head(4, 4), &chain), Relation::Conflict);
        assert_eq!(relation(head(3, 9), &chain), Relation::Conflict);
    }

    #[test]
    fn differing_entries_are_one_key() {
        assert_eq!(entries_from(2, 2), Vec::<String>::new());
        assert_eq!(entries_from(2, 3), ["entries.2"]);
        assert_eq!(entries_from(2, 5), ["entries.2-4"]);
    }
}
