//! A consultation's two sides on their way into its session: made ready before its answer is committed, and appended in
//! the same commit, whoever reads the answer or not.

use broker_proto::{
    APPEND_LABEL, Entry, EntryKind, Message, MessageId, MessageType, ModelName, NewSessionEntry,
    Part, Recipient, Role, SessionId, WallTime, convert::Stored as _,
};

use super::{Error, Sessions, learn::Statements};
use crate::{
    core::{
        Event,
        queue::Seq,
        session::{Change, Expected, NewEntries, Refusal, Write},
    },
    journal::Content,
};

/// What a session goes on with once its consultation is done. Whoever holds it keeps the parts where they are.
#[derive(Debug)]
pub struct Answer {
    pub session: SessionId,
    pub of: MessageId,
    entries: NewEntries,
    contents: Vec<Content>,
    statements: Vec<NewSessionEntry>,
}

/// A consultation that belongs to a session, as it was accepted.
struct Asked {
    session: SessionId,
    of: MessageId,
    kind: EntryKind,
    question: Vec<Part>,
    at: WallTime,
    model: Option<ModelName>,
}

impl Sessions {
    /// The two sides of a consultation that is answered with `parts`, or the advice alone; nothing when no session is to
    /// go on with it.
    ///
    /// # Errors
    /// [`Error`] when what it names cannot be read or stored.
    pub async fn answer(&self, seq: Seq, parts: &[Part]) -> Result<Option<Answer>, Error> {
        let Some(asked) = self.asked(seq).await? else { return Ok(None) };
        let Asked { session, of, kind, question, at, model } = asked;
        let mut answer =
            said(Role::Assistant, model.clone(), parts.to_vec(), self.intake.clock.now().wall);
        answer.kind = kind;
        let entries = match kind {
            EntryKind::Turn => vec![said(Role::User, None, question, at), answer],
            EntryKind::Advice => {
                answer.entry.name = model.map(|model| model.to_string()).unwrap_or_default();
                vec![answer]
            }
        };
        let statements = entries.clone();
        let (entries, contents) = self.encode(entries).await?;
        Ok(Some(Answer { session, of, entries, contents, statements }))
    }

    /// What is appended to the session as it is now, with what the answer says of its task; nothing when the session is
    /// gone. Without `learns` it is appended to whatever the session has become.
    ///
    /// # Errors
    /// [`Error`] when the session cannot be read.
    pub async fn append_of(
        &self,
        answer: &Answer,
        learns: bool,
    ) -> Result<Option<(Write, Vec<Content>)>, Error> {
        let seen = match self.get(&answer.session).await {
            Ok(seen) => seen,
            Err(Error::Refused(Refusal::Unknown(_))) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut contents = answer.contents.clone();
        let mut write = Write {
            id: answer.session.clone(),
            expected: Expected::default(),
            at: None,
            entries: answer.entries.clone(),
            task: None,
            shared: None,
            answer_of: Some(answer.of),
            change: Change::Appended,
        };
        let first = seen.info.head.entries;
        let statements = Statements::of(&answer.statements);
        if learns && let Some(learnt) = self.learn(&seen, first, &statements).await? {
            // What is stated names its entry, and that its number.
            write.expected.head = Some(seen.info.head.hash);
            write.task = Some(learnt.change);
            contents.extend(learnt.contents);
        }
        Ok(Some((write, contents)))
    }

    async fn asked(&self, seq: Seq) -> Result<Option<Asked>, Error> {
        let life = self.intake.projection.life(seq, self.intake.engine.head()).await?;
        let model = life.iter().rev().find_map(|step| match &step.event {
            Event::Routed { queue: Recipient::Model(model), .. } => Some(model.clone()),
            Event::Redirected(redirected) => Some(redirected.to.clone()),
            _ => None,
        });
        let Some(Event::Accepted(accepted)) = life.into_iter().next().map(|step| step.event) else {
            return Ok(None);
        };
        let kind = match accepted.labels.get(APPEND_LABEL).map(String::as_str) {
            Some("turn") => EntryKind::Turn,
            Some("advice") => EntryKind::Advice,
            _ => return Ok(None),
        };
        // A session of another word than the broker's own may group whatever its sender likes.
        let named = accepted.session.as_deref().and_then(|name| SessionId::parse(name).ok());
        let Some(session) = named.filter(|_| accepted.kind == MessageType::Consultation) else {
            return Ok(None);
        };
        let message = Message::decode(self.intake.bodies.load(&accepted.body).await?)?;
        let (of, at) = (accepted.subject.id, accepted.at);
        let question = message.payload.request;
        Ok(Some(Asked { session, of, kind, question, at, model }))
    }
}

fn said(
    role: Role,
    model: Option<ModelName>,
    parts: Vec<Part>,
    created_at: WallTime,
) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts };
    NewSessionEntry { kind: EntryKind::Turn, entry, model, created_at: Some(created_at) }
}
