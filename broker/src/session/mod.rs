//! Sessions: what reads and writes them around the rules.
//!
//! Entries are stored once, behind one another in the body of the append that brought them; what is large in them by its
//! hash. A session that grows by one turn writes that turn and its own head, however long it is.
//!
//! Invariant: whatever is asked of a session is asked of the rules last, so that nothing stored names what was not.

mod answer;
mod error;
mod learn;
mod merge;
mod point;
mod read;
mod render;
mod summary;
mod taken;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use broker_config::Sessions as Settings;
use broker_proto::{
    MessageId, ModelName, NewSessionEntry, SessionDetail, SessionId, SessionInfo, SessionPoint,
    SessionTask, SharedValue, TaskEdit, Unverified, convert::Stored as _,
};

pub use answer::Answer;
pub use error::{Conflict, Error};
pub use merge::{Import, Restore};

use learn::Statements;

use crate::{
    context::{Indexes, SaidLately, Stored},
    core::{
        Command, Query, Reply,
        queue::Body,
        session::{self, Change, Expected, NewEntries, Point, Session, Start, Write, task},
    },
    engine,
    intake::Intake,
    journal::Content,
    reply::Slots,
};

/// How often an edit is made anew because the session changed meanwhile.
pub(crate) const TRIES: usize = 16;
/// Bytes of all values that a session shares.
const SHARED: usize = 512 * 1024;
/// Bytes of a task.
const TASK: usize = 512 * 1024;

/// Reads and writes sessions.
#[derive(Debug, Clone)]
pub struct Sessions {
    pub intake: Intake,
    pub indexes: Arc<Indexes>,
    pub said: Arc<SaidLately>,
    /// Where the answers of those who sum up are waited for.
    pub slots: Slots,
    pub settings: Settings,
}

/// A session that is to begin.
#[derive(Debug, Clone, Default)]
pub struct NewSession {
    /// Drawn when nobody gave one.
    pub id: Option<SessionId>,
    /// The first configured model when nobody named one.
    pub model: Option<ModelName>,
    pub title: String,
}

/// Shared values that others have changed.
struct Sharing {
    /// What was shared and what is, as the rules take it.
    change: (Option<Body>, Option<Body>),
    contents: Vec<Content>,
}

/// A session after it was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub session: Session,
    /// The number of the first new entry.
    pub first: u64,
    /// It was written before.
    pub is_duplicate: bool,
}

impl Sessions {
    /// Begins a session.
    ///
    /// # Errors
    /// [`Error`] when there is one of this id, or no such model.
    pub async fn start(&self, new: NewSession) -> Result<Session, Error> {
        let start = self.new_start(new, Point::default(), Change::Started)?;
        self.begin(start, NewEntries::default(), Vec::new()).await
    }

    /// The session as the rules know it now.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn get(&self, id: &SessionId) -> Result<Session, Error> {
        let query = Query::Session(session::Query::Get(id.clone()));
        match self.intake.engine.query(query).await? {
            Reply::Session(session::Reply::Found(Some(session))) => Ok(*session),
            Reply::Session(session::Reply::Found(None)) => {
                Err(Error::Refused(session::Refusal::Unknown(id.clone())))
            }
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// The session at a point, its task and what it shares.
    ///
    /// # Errors
    /// [`Error`] when there is no such session or point.
    pub async fn detail(&self, id: &SessionId, at: &SessionPoint) -> Result<SessionDetail, Error> {
        let session = self.at(id, at).await?;
        let task = self.task(session.task.as_ref()).await?;
        let task = task::until(task, session.info.head.entries);
        let shared = self.shared(session.shared.as_ref()).await?;
        Ok(SessionDetail { info: session.info, task, shared })
    }

    /// Appends entries in one commit. Those of one consultation are appended once.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it does not end with `expected` any more.
    pub async fn append(
        &self,
        id: &SessionId,
        entries: Vec<NewSessionEntry>,
        expected: Expected,
        answer_of: Option<MessageId>,
    ) -> Result<Written, Error> {
        if entries.is_empty() {
            return Err(Error::Empty);
        }
        let statements = Statements::of(&entries);
        // Refused before anything is stored.
        self.get(id).await?;
        let prepared = self.prepare(entries).await?;
        for _ in 0..TRIES {
            let seen = self.get(id).await?;
            let learnt = self.learn(&seen, seen.info.head.entries, &statements).await?;
            let mut contents = prepared.contents.clone();
            let mut write = Write {
                id: id.clone(),
                expected,
                at: None,
                entries: prepared.entries.clone(),
                task: None,
                shared: None,
                answer_of,
                change: Change::Appended,
            };
            let is_learnt = learnt.is_some();
            if let Some(learnt) = learnt {
                // What is stated names its entry, and that its number.
                write.expected.head.get_or_insert(seen.info.head.hash);
                write.task = Some(learnt.change);
                contents.extend(learnt.contents);
            }
            let written = self.write(write, contents, seen.info.version).await;
            if !(is_learnt && matches!(written, Err(Error::Conflict(_)))) {
                return written;
            }
            let now = self.get(id).await?.info;
            let is_callers = expected.head.is_some_and(|head| head != now.head.hash)
                || expected.version.is_some_and(|version| version != now.version);
            if is_callers {
                return written;
            }
        }
        Err(Error::Busy(id.clone()))
    }

    /// Changes what a session is about: all edits or none.
    ///
    /// # Errors
    /// [`Error::Edit`] for the first that cannot be made.
    pub async fn edit(
        &self,
        id: &SessionId,
        edits: &[TaskEdit],
    ) -> Result<(Session, SessionTask), Error> {
        let words: Vec<String> = edits.iter().map(TaskEdit::in_words).collect();
        self.change_task(id, words.join(", "), |task| task::edit(task, edits)).await
    }

    /// Somebody has checked what others wrote while the session was away. Gives the session, and what that was.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn verify(&self, id: &SessionId) -> Result<(Session, Option<Unverified>), Error> {
        let was = self.get(id).await?.info.unverified;
        let command = session::Command::Verify { id: id.clone() };
        Ok((self.command(command, Vec::new()).await?, was))
    }

    async fn change_task(
        &self,
        id: &SessionId,
        detail: String,
        change: impl Fn(&SessionTask) -> Result<SessionTask, task::EditError>,
    ) -> Result<(Session, SessionTask), Error> {
        for _ in 0..TRIES {
            let session = self.get(id).await?;
            let task = change(&self.task(session.task.as_ref()).await?)?;
            let stored = task.clone().encode();
            if stored.len() > TASK {
                return Err(Error::TooLarge { what: "task", limit: TASK });
            }
            let stored = self.intake.bodies.store(stored).await?;
            let (id, was, now) = (id.clone(), session.task, Some(stored.body));
            let command = session::Command::SetTask { id, was, now, detail: detail.clone() };
            match self.command(command, stored.contents).await {
                Err(Error::Refused(session::Refusal::Moved(_))) => {}
                other => return Ok((other?, task)),
            }
        }
        Err(Error::Busy(id.clone()))
    }

    /// Sets one shared value.
    ///
    /// # Errors
    /// [`Error::Edit`] when it is not JSON, or there are too many.
    pub async fn set_shared(&self, id: &SessionId, value: SharedValue) -> Result<Session, Error> {
        let detail = format!("set {}", value.key);
        let value = SharedValue { set_at: self.intake.clock.now().wall, ..value };
        self.change_shared(id, detail, |shared| task::set_shared(shared, value.clone())).await
    }

    /// Takes one shared value back.
    ///
    /// # Errors
    /// [`Error::Edit`] when there is none of this key.
    pub async fn delete_shared(&self, id: &SessionId, key: &str) -> Result<Session, Error> {
        let detail = format!("deleted {key}");
        self.change_shared(id, detail, |shared| task::delete_shared(shared, key)).await
    }

    /// What is shared once these values are set, to be stored with what brings them; nothing when there are none.
    async fn sharing(
        &self,
        was: Option<&Body>,
        values: Vec<SharedValue>,
    ) -> Result<Option<Sharing>, Error> {
        if values.is_empty() {
            return Ok(None);
        }
        let set_at = self.intake.clock.now().wall;
        let mut shared = self.shared(was).await?;
        for value in values {
            shared = task::set_shared(&shared, SharedValue { set_at, ..value })?;
        }
        let stored = self.stored_shared(shared).await?;
        Ok(Some(Sharing { change: (was.cloned(), Some(stored.body)), contents: stored.contents }))
    }

    async fn stored_shared(&self, shared: Vec<SharedValue>) -> Result<Stored, Error> {
        let stored = shared.encode();
        if stored.len() > SHARED {
            return Err(Error::TooLarge { what: "shared context", limit: SHARED });
        }
        Ok(self.intake.bodies.store(stored).await?)
    }

    async fn change_shared(
        &self,
        id: &SessionId,
        detail: String,
        change: impl Fn(&[SharedValue]) -> Result<Vec<SharedValue>, task::EditError>,
    ) -> Result<Session, Error> {
        for _ in 0..TRIES {
            let session = self.get(id).await?;
            let shared = change(&self.shared(session.shared.as_ref()).await?)?;
            let stored = self.stored_shared(shared).await?;
            let (id, was, now) = (id.clone(), session.shared, Some(stored.body));
            let command = session::Command::SetShared { id, was, now, detail: detail.clone() };
            match self.command(command, stored.contents).await {
                Err(Error::Refused(session::Refusal::Moved(_))) => {}
                other => return other,
            }
        }
        Err(Error::Busy(id.clone()))
    }

    /// Deletes a session. Forks of it stay as they are.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub async fn delete(&self, id: &SessionId) -> Result<(), Error> {
        let command = session::Command::Delete { id: id.clone() };
        match self.intake.engine.command(Command::Session(Box::new(command))).await? {
            Reply::Session(session::Reply::Deleted) => Ok(()),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// What a stored task says; nothing is an empty one.
    async fn task(&self, stored: Option<&Body>) -> Result<SessionTask, Error> {
        let Some(body) = stored else { return Ok(SessionTask::default()) };
        Ok(SessionTask::decode(self.intake.bodies.load(body).await?)?)
    }

    async fn shared(&self, stored: Option<&Body>) -> Result<Vec<SharedValue>, Error> {
        let Some(body) = stored else { return Ok(Vec::new()) };
        Ok(Vec::decode(self.intake.bodies.load(body).await?)?)
    }

    fn new_start(&self, new: NewSession, at: Point, change: Change) -> Result<Start, Error> {
        let owner = match new.model {
            Some(model) => self.intake.model(&model)?,
            None => self.first_model()?,
        };
        let id = match new.id {
            Some(id) => id,
            None => self.draw_id()?,
        };
        let entries = NewEntries::default();
        Ok(Start { id, title: new.title, owner, from: None, at, entries, change })
    }

    fn first_model(&self) -> Result<ModelName, Error> {
        let first = self.intake.models.iter().next().ok_or(Error::NoModel)?;
        ModelName::parse(&first.name).map_err(|_| Error::NoModel)
    }

    fn draw_id(&self) -> Result<SessionId, Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Error::NoRandomness)?;
        let id = MessageId::from_parts(self.intake.clock.now().wall, u128::from_le_bytes(random));
        SessionId::parse(&id.to_string().to_lowercase()).map_err(|_| Error::NoRandomness)
    }

    async fn begin(
        &self,
        mut start: Start,
        entries: NewEntries,
        contents: Vec<Content>,
    ) -> Result<Session, Error> {
        start.entries = entries;
        self.command(session::Command::Start(Box::new(start)), contents).await
    }

    async fn command(
        &self,
        command: session::Command,
        contents: Vec<Content>,
    ) -> Result<Session, Error> {
        let command = Command::Session(Box::new(command));
        match self.intake.engine.with_contents(command, contents).await? {
            Reply::Session(session::Reply::Session(session)) => Ok(*session),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// `seen` is the version that the caller knows, for what it is told of a conflict.
    async fn write(
        &self,
        write: Write,
        contents: Vec<Content>,
        seen: u64,
    ) -> Result<Written, Error> {
        let expected = write.expected;
        let command = Command::Session(Box::new(session::Command::Write(Box::new(write))));
        match self.intake.engine.with_contents(command, contents).await.map_err(Error::from) {
            Ok(Reply::Session(session::Reply::Written { session, first, is_duplicate })) => {
                Ok(Written { session: *session, first, is_duplicate })
            }
            Ok(_) => Err(Error::Engine(engine::Error::Unknown)),
            Err(Error::Refused(session::Refusal::Moved(now))) => {
                Err(self.conflict(*now, expected, seen).await?)
            }
            Err(error) => Err(error),
        }
    }
}

/// A session's figures, without its keys.
impl From<Session> for SessionInfo {
    fn from(session: Session) -> Self {
        session.info
    }
}
