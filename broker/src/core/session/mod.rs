//! Sessions: where each conversation ends, who owns it, and what it is about, by the keys of stored contents.
//!
//! Entries form a chain by hash, a tree as git's: each names the one before it, and a session is a head in that tree.
//! Restoring and forking make another head; no entry ever changes or goes.
//!
//! Invariant: a session has exactly one owner (I-38), and its version rises with every change.
//! Invariant: this module knows no text: hashes, sizes and keys only.

mod event;
pub mod task;

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{
    ContentHash, EntryHash, HandedOver, MessageId, ModelName, SessionHead, SessionId, SessionInfo,
    SessionOwner, SessionPause, Unverified, WallTime,
};

pub use event::{Change, Entries, EntryRow, Event};

use super::queue::Body;

/// Consultations of one session that are known to be appended: more are not answered at once.
const ANSWERED: usize = 8;

/// Sessions at most: each is a few hundred bytes of memory.
pub const MOST_SESSIONS: usize = 100_000;

/// A session as the rules know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub info: SessionInfo,
    /// The task it is about; `None` while nobody said.
    pub task: Option<Body>,
    /// What it shares.
    pub shared: Option<Body>,
    /// The consultations whose answers were appended last.
    pub answered: Vec<MessageId>,
}

/// A point in a session's past: where it ended, and what it was about then.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Point {
    pub head: SessionHead,
    pub tokens: u64,
    pub size_bytes: u64,
    pub task: Option<Body>,
    pub shared: Option<Body>,
}

/// Entries on their way in; their bytes lie behind one another in one body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewEntries {
    pub body: Body,
    /// Where the first of them begins in it.
    pub offset: u64,
    pub entries: Vec<NewEntry>,
    /// Parts that are stored apart, unless they were before.
    pub contents: Vec<(ContentHash, Body)>,
    /// Who spoke.
    pub models: BTreeSet<ModelName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewEntry {
    /// Of its encoding.
    pub hash: ContentHash,
    /// Bytes of its encoding.
    pub length: u32,
    pub tokens: u64,
    /// With what is stored apart.
    pub size_bytes: u64,
}

/// What a change rests on; `None` rests on nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expected {
    pub head: Option<EntryHash>,
    pub version: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Start(Box<Start>),
    Write(Box<Write>),
    /// `was` is what the edit was made on.
    SetTask {
        id: SessionId,
        was: Option<Body>,
        now: Option<Body>,
        detail: String,
    },
    SetShared {
        id: SessionId,
        was: Option<Body>,
        now: Option<Body>,
        detail: String,
    },
    /// Its owner changes, in the commit of the handoff that does it.
    Own {
        id: SessionId,
        owner: SessionOwner,
        handed_over: HandedOver,
        /// What others wrote meanwhile, when it comes home.
        unverified: Option<Unverified>,
    },
    /// Nothing of it is worked on from now on; the package is of this version.
    Pause {
        id: SessionId,
        version: u64,
        pause: SessionPause,
    },
    Resume {
        id: SessionId,
    },
    /// Somebody has checked what others wrote while it was away.
    Verify {
        id: SessionId,
    },
    Delete {
        id: SessionId,
    },
}

impl Command {
    /// The parts that it stores apart.
    pub(super) fn take_contents(&mut self) -> Vec<(ContentHash, Body)> {
        match self {
            Self::Start(start) => std::mem::take(&mut start.entries.contents),
            Self::Write(write) => std::mem::take(&mut write.entries.contents),
            Self::SetTask { .. }
            | Self::SetShared { .. }
            | Self::Own { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Verify { .. }
            | Self::Delete { .. } => Vec::new(),
        }
    }
}

impl Reply {
    /// The session after a change.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Session(session) | Self::Written { session, .. } => Some(session),
            Self::Found(_) | Self::Deleted => None,
        }
    }
}

/// A session that begins: empty, at a point of another one, or with a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    pub id: SessionId,
    pub title: String,
    pub owner: ModelName,
    /// The session it is forked from, and who spoke there.
    pub from: Option<(SessionId, Vec<ModelName>)>,
    pub at: Point,
    pub entries: NewEntries,
    pub change: Change,
}

/// A session that goes on: from its head, or from an earlier point.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub id: SessionId,
    pub expected: Expected,
    pub at: Option<Point>,
    pub entries: NewEntries,
    /// What the entries say it is about: the task that they were read with, and the new one.
    pub task: Option<(Option<Body>, Option<Body>)>,
    /// What comes to be shared with them: what was, and what is now.
    pub shared: Option<(Option<Body>, Option<Body>)>,
    /// The consultation that the entries are of.
    pub answer_of: Option<MessageId>,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Get(SessionId),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// After the change.
    Session(Box<Session>),
    /// The number of the first new entry.
    Written {
        session: Box<Session>,
        first: u64,
        /// It was written before.
        is_duplicate: bool,
    },
    Found(Option<Box<Session>>),
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no session `{0}`")]
    Unknown(SessionId),
    #[error("there is a session `{0}` already")]
    Exists(SessionId),
    #[error("session `{}` went on meanwhile: it is at version {} with {}", .0.info.id, .0.info.version, count(.0.info.head.entries))]
    Moved(Box<Session>),
    #[error("session `{0}` is paused: resume it first (`brokerctl session resume {0}`)")]
    Paused(SessionId),
    #[error("session `{0}` is running: only a paused one is resumed")]
    Running(SessionId),
    #[error("{MOST_SESSIONS} sessions are kept at most: delete some")]
    TooMany,
}

/// Every session. Looked up by id; walked only when a ring passes on, and when what all of them are owed is known anew.
#[derive(Debug, Default)]
pub struct State {
    sessions: BTreeMap<SessionId, Session>,
}

impl State {
    #[must_use]
    pub fn get(&self, id: &SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// Each session's id, in order.
    pub fn ids(&self) -> impl Iterator<Item = &SessionId> {
        self.sessions.keys()
    }

    /// The sessions whose owner is one of these agents, in the order of their ids.
    pub fn owned_by<'a>(
        &'a self,
        is_one: impl Fn(&broker_proto::AgentName) -> bool + 'a,
    ) -> impl Iterator<Item = &'a Session> {
        let is_its = move |it: &&Session| it.info.owner.agent.as_ref().is_some_and(&is_one);
        self.sessions.values().filter(is_its)
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let Event::Changed { id, after, .. } = event else { return };
        match after {
            Some(session) => {
                self.sessions.insert(id.clone(), Session::clone(session));
            }
            None => {
                self.sessions.remove(id);
            }
        }
    }

    /// What `command` leads to at `now`.
    ///
    /// # Errors
    /// The [`Refusal`]; nothing has happened then.
    pub fn decide(&self, command: Command, now: WallTime) -> Result<(Vec<Event>, Reply), Refusal> {
        match command {
            Command::Start(start) => self.start(*start, now),
            Command::Write(write) => self.write(*write, now),
            Command::SetTask { id, was, now: task, detail } => {
                let session = self.known(&id)?.clone();
                if session.task != was {
                    return Err(Refusal::Moved(Box::new(session)));
                }
                let change = Change::TaskEdited;
                Ok(changed(Session { task, ..session }, change, detail, now))
            }
            Command::SetShared { id, was, now: shared, detail } => {
                let session = self.known(&id)?.clone();
                if session.shared != was {
                    return Err(Refusal::Moved(Box::new(session)));
                }
                let change = Change::SharedChanged;
                Ok(changed(Session { shared, ..session }, change, detail, now))
            }
            Command::Own { id, owner, handed_over, unverified } => {
                let mut session = self.known(&id)?.clone();
                let detail = format!(
                    "from {} to {}, handoff {}",
                    session.info.owner.model, owner.model, handed_over.handoff
                );
                (session.info.owner, session.info.handed_over) = (owner, Some(handed_over));
                let before = session.info.unverified.take();
                session.info.unverified = match unverified {
                    Some(unverified) => Some(unverified.and(before)),
                    None => before,
                };
                // It goes on with its new owner.
                session.info.pause = None;
                Ok(changed(session, Change::OwnerChanged, detail, now))
            }
            Command::Pause { id, version, pause } => {
                let mut session = self.known(&id)?.clone();
                if session.info.pause.is_some() {
                    return Err(Refusal::Paused(id));
                }
                if session.info.version != version {
                    return Err(Refusal::Moved(Box::new(session)));
                }
                let detail = pause.reason.clone();
                session.info.pause = Some(pause);
                Ok(changed(session, Change::Paused, detail, now))
            }
            Command::Resume { id } => {
                let mut session = self.known(&id)?.clone();
                if session.info.pause.take().is_none() {
                    return Err(Refusal::Running(id));
                }
                Ok(changed(session, Change::Resumed, String::new(), now))
            }
            Command::Verify { id } => {
                let mut session = self.known(&id)?.clone();
                // Said again, it is no other word.
                let Some(unverified) = session.info.unverified.take() else {
                    return Ok((Vec::new(), Reply::Session(Box::new(session))));
                };
                let Unverified { from, until, .. } = unverified;
                let detail = format!("entries {from}-{}", until.saturating_sub(1));
                Ok(changed(session, Change::Verified, detail, now))
            }
            Command::Delete { id } => {
                self.known(&id)?;
                let (change, detail) = (Change::Deleted, String::new());
                let event = Event::Changed { id, at: now, change, detail, after: None };
                Ok((vec![event], Reply::Deleted))
            }
        }
    }

    fn known(&self, id: &SessionId) -> Result<&Session, Refusal> {
        self.sessions.get(id).ok_or_else(|| Refusal::Unknown(id.clone()))
    }

    fn start(&self, start: Start, now: WallTime) -> Result<(Vec<Event>, Reply), Refusal> {
        let Start { id, title, owner, from, at, entries, change } = start;
        if self.sessions.contains_key(&id) {
            return Err(Refusal::Exists(id));
        }
        if self.sessions.len() >= MOST_SESSIONS {
            return Err(Refusal::TooMany);
        }
        let forked = at.head.entries;
        let detail = match &from {
            Some((from, _)) => format!("from {from}, {}", count(forked)),
            None => count_new(entries.entries.len()),
        };
        let (forked_from, models) = from.map(|(from, models)| ((from, forked), models)).unzip();
        let origin = forked_from.as_ref().and_then(|(from, _)| self.sessions.get(from));
        let unverified = origin.and_then(|origin| origin.info.unverified.clone()?.within(forked));
        let info = SessionInfo {
            id,
            title,
            owner: SessionOwner { model: owner, agent: None, epoch: 1 },
            head: at.head,
            tokens: at.tokens,
            size_bytes: at.size_bytes,
            version: 0,
            started_at: now,
            changed_at: now,
            forked_from,
            models: models.unwrap_or_default(),
            handed_over: None,
            pause: None,
            unverified,
        };
        let (task, shared) = (at.task, at.shared);
        let mut session = Session { info, task, shared, answered: Vec::new() };
        let mut events = append(&mut session, entries, now);
        let (changed, reply) = changed(session, change, detail, now);
        events.extend(changed);
        Ok((events, reply))
    }

    fn write(&self, write: Write, now: WallTime) -> Result<(Vec<Event>, Reply), Refusal> {
        let Write { id, expected, at, entries, task, shared, answer_of, change } = write;
        let session = self.known(&id)?;
        if answer_of.is_some_and(|of| session.answered.contains(&of)) {
            return Ok(before(session, entries.entries.len()));
        }
        if session.info.pause.is_some() {
            return Err(Refusal::Paused(id));
        }
        let is_moved = expected.head.is_some_and(|head| head != session.info.head.hash)
            || expected.version.is_some_and(|version| version != session.info.version)
            || task.as_ref().is_some_and(|(was, _)| *was != session.task)
            || shared.as_ref().is_some_and(|(was, _)| *was != session.shared);
        if is_moved {
            return self.written_before(session, expected, at.as_ref(), &entries);
        }
        let mut session = session.clone();
        if let Some(Point { head, tokens, size_bytes, task, shared }) = at {
            let info = session.info;
            let unverified = info.unverified.and_then(|of| of.within(head.entries));
            // Before what its owner took over there is nothing of it left.
            let handed_over = info.handed_over.filter(|over| over.entries <= head.entries);
            session.info =
                SessionInfo { head, tokens, size_bytes, unverified, handed_over, ..info };
            (session.task, session.shared) = (task, shared);
        }
        if let Some((_, now)) = task {
            session.task = now;
        }
        if let Some((_, now)) = shared {
            session.shared = now;
        }
        session.answered.extend(answer_of);
        let old = session.answered.len().saturating_sub(ANSWERED);
        session.answered.drain(..old);
        let first = session.info.head.entries;
        let detail = match entries.entries.len() {
            0 => format!("to {}", count(first)),
            many => count_new(many),
        };
        let mut events = append(&mut session, entries, now);
        let (changed, _) = changed(session.clone(), change, detail, now);
        events.extend(changed);
        session.info = info_of(&events).unwrap_or(session.info);
        let session = Box::new(session);
        Ok((events, Reply::Written { session, first, is_duplicate: false }))
    }

    /// The same append again, whose answer was lost, is no conflict: its entries are what the session ends with.
    fn written_before(
        &self,
        session: &Session,
        expected: Expected,
        at: Option<&Point>,
        entries: &NewEntries,
    ) -> Result<(Vec<Event>, Reply), Refusal> {
        let many = entries.entries.len() as u64;
        let hashes = entries.entries.iter().map(|entry| entry.hash);
        let end = expected.head.map(|head| hashes.fold(head, EntryHash::next));
        if many > 0 && at.is_none() && end == Some(session.info.head.hash) {
            return Ok(before(session, entries.entries.len()));
        }
        Err(Refusal::Moved(Box::new(session.clone())))
    }
}

/// So many entries are in the session already.
fn before(session: &Session, entries: usize) -> (Vec<Event>, Reply) {
    let first = session.info.head.entries.saturating_sub(entries as u64);
    let session = Box::new(session.clone());
    (Vec::new(), Reply::Written { session, first, is_duplicate: true })
}

fn info_of(events: &[Event]) -> Option<SessionInfo> {
    match events.last() {
        Some(Event::Changed { after: Some(session), .. }) => Some(session.info.clone()),
        _ => None,
    }
}

/// So many entries, in words.
#[must_use]
pub fn count(entries: u64) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}

fn count_new(entries: usize) -> String {
    if entries == 0 { String::new() } else { count(entries as u64) }
}

/// The session one version further, as an event.
fn changed(
    mut session: Session,
    change: Change,
    detail: String,
    now: WallTime,
) -> (Vec<Event>, Reply) {
    session.info.version += 1;
    session.info.changed_at = now;
    let after = Some(Box::new(session.clone()));
    let event = Event::Changed { id: session.info.id.clone(), at: now, change, detail, after };
    (vec![event], Reply::Session(Box::new(session)))
}

/// Entries of one event at most, so that a long conversation still fits frames.
const ROWS: usize = 2048;

/// Moves the head behind these entries; gives what makes them exist.
fn append(session: &mut Session, new: NewEntries, now: WallTime) -> Vec<Event> {
    let NewEntries { body, mut offset, entries, models, .. } = new;
    let mut events = Vec::new();
    for some in entries.chunks(ROWS) {
        let info = &mut session.info;
        let mut rows = Entries {
            at: now,
            first: info.head.entries,
            previous: info.head.hash,
            tokens: info.tokens,
            size_bytes: info.size_bytes,
            body: body.clone(),
            offset,
            rows: Vec::with_capacity(some.len()),
        };
        for entry in some {
            let hash = info.head.hash.next(entry.hash);
            info.head = SessionHead { entries: info.head.entries + 1, hash };
            info.tokens += entry.tokens;
            info.size_bytes += entry.size_bytes;
            offset += u64::from(entry.length);
            let NewEntry { length, tokens, size_bytes, .. } = *entry;
            rows.rows.push(EntryRow { hash, length, tokens, size_bytes });
        }
        events.push(Event::Entries(Box::new(rows)));
    }
    let known: BTreeSet<ModelName> = session.info.models.drain(..).chain(models).collect();
    session.info.models = known.into_iter().collect();
    events
}

#[cfg(test)]
mod tests;
