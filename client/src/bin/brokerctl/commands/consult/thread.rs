//! A question that belongs to a session: what was said before goes along, and both sides are appended once it is
//! answered.
//!
//! The session and how the answer is appended are written into the message, so that `poll` and `attach` append it too,
//! whoever comes first; the message's id keeps it from being appended twice.

use broker_client::Client;
use broker_proto::types::{
    Entry, EntryKind, Message, MessageName, MessageState, ModelName, NewSessionEntry, Part, Role,
    SessionDetail, SessionId, SessionPoint, SharedValue, WallTime,
};

use super::input;
use crate::{
    cli::{Misused, QuestionArgs},
    commands::{current, session},
    output,
};

/// The label that says how an answer is appended.
const LABEL: &str = "session";
const TURN: &str = "turn";
const ADVICE: &str = "advice";

/// The session that a question belongs to.
#[derive(Debug)]
pub(super) struct Thread {
    detail: SessionDetail,
    /// The values it shares go along, and the answer is advice.
    is_advice: bool,
}

/// The session that is named by the flag or the environment; a question asks for none by itself.
///
/// # Errors
/// When there is no such session, or the shared context of none is asked for.
pub(super) async fn of(client: &Client, args: &QuestionArgs) -> anyhow::Result<Option<Thread>> {
    let id = match &args.session {
        Some(id) => Some(id.clone()),
        None => current::of_environment()?,
    };
    let is_advice = args.wants_shared();
    match id {
        Some(id) => {
            let detail = client.session(&id, &SessionPoint::Head).await?;
            Ok(Some(Thread { detail, is_advice }))
        }
        None if is_advice => Err(Misused::SharedOfNone.into()),
        None => Ok(None),
    }
}

/// The model that is asked: the one that was named, else the session's owner.
///
/// # Errors
/// [`Misused::NoModel`] when there is neither.
pub(super) fn model(args: &QuestionArgs, thread: Option<&Thread>) -> Result<ModelName, Misused> {
    match (&args.model, thread) {
        (Some(model), _) => input::model_name(model),
        (None, Some(thread)) => Ok(thread.detail.info.owner.model.clone()),
        (None, None) => Err(Misused::NoModel),
    }
}

impl Thread {
    /// Puts what was said before into a question to `model`, behind its system prompt: all of it where that fits the
    /// model's window, else what the question needs of it and the newest turns, which stderr tells.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub(super) async fn put_into(
        &self,
        client: &Client,
        message: &mut Message,
        model: ModelName,
    ) -> anyhow::Result<()> {
        let info = &self.detail.info;
        let mut before = Vec::new();
        if self.is_advice && !self.detail.shared.is_empty() {
            before.push(system(shared(&self.detail.shared)));
        }
        if info.head.entries > 0 {
            // What comes since belongs to the next question.
            let at = SessionPoint::Version(info.version);
            let next = super::text_of(&message.payload.request);
            let history = client.session_history(&info.id, &at, Some(model), &next).await?;
            if let Some(rendering) = history.rendering {
                let short = session::render::in_short(&rendering);
                output::note(&format!("session {} does not fit the window: {short}", info.id));
            }
            before.extend(history.entries);
        }
        let context = &mut message.payload.context;
        let at = context.iter().take_while(|entry| entry.role == Role::System).count();
        context.splice(at..at, before);
        message.session = Some(info.id.to_string());
        let how = if self.is_advice { ADVICE } else { TURN };
        message.labels.insert(LABEL.to_owned(), how.to_owned());
        Ok(())
    }
}

fn system(text: String) -> Entry {
    Entry { role: Role::System, name: String::new(), parts: vec![Part::Text(text)] }
}

fn shared(values: &[SharedValue]) -> String {
    let line = |value: &SharedValue| {
        let source = if value.source.is_empty() {
            String::new()
        } else {
            format!(" (from {})", value.source)
        };
        format!("\n- {}: {}{source}", value.key, value.value)
    };
    format!("Shared context:{}", values.iter().map(line).collect::<String>())
}

/// Appends both sides of a question that was asked in a session, or only the advice; says what it did.
///
/// # Errors
/// When that cannot be done; the session is then as it was.
pub(super) async fn append(client: &Client, message: impl Into<MessageName>) -> anyhow::Result<()> {
    let name = message.into();
    let (info, payload) = client.message(name.clone(), true).await?;
    let how = info.labels.get(LABEL).map(String::as_str);
    let Some((session, how)) = info.session.as_deref().zip(how) else { return Ok(()) };
    // Of no session of the broker's, whatever else it may group by that word.
    let Ok(session) = SessionId::parse(session) else { return Ok(()) };
    if info.state != MessageState::Done {
        output::note(&format!("nothing was appended to session {session}"));
        return Ok(());
    }
    let poll = client.poll(name, std::time::Duration::ZERO).await?;
    let model = poll.summary.as_ref().and_then(|summary| summary.model.clone());
    let asked = payload.map(|payload| payload.request).unwrap_or_default();
    let answered = answer(how, model, poll.parts, info.finished_at);
    let mut entries = vec![said(Role::User, None, asked, Some(info.accepted_at)), answered];
    if how == ADVICE {
        entries.remove(0);
    }
    let many = entries.len();
    match client.append_answer(&session, entries, info.id).await {
        Ok((_, _, true)) => Ok(()),
        Ok((now, first, false)) => {
            let last = first + many as u64 - 1;
            let which = if first == last {
                format!("entry {first}")
            } else {
                format!("entries {first}-{last}")
            };
            output::note(&format!("session {}: {which} appended", now.id));
            Ok(())
        }
        Err(err) => {
            output::note(&format!("answered, but nothing was appended to session {session}"));
            Err(err.into())
        }
    }
}

fn answer(
    how: &str,
    model: Option<ModelName>,
    parts: Vec<Part>,
    at: Option<WallTime>,
) -> NewSessionEntry {
    let name = model.as_ref().map(ToString::to_string);
    let mut answer = said(Role::Assistant, model, parts, at);
    if how == ADVICE {
        answer.kind = EntryKind::Advice;
        answer.entry.name = name.unwrap_or_default();
    }
    answer
}

fn said(
    role: Role,
    model: Option<ModelName>,
    parts: Vec<Part>,
    created_at: Option<WallTime>,
) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts };
    NewSessionEntry { kind: EntryKind::Turn, entry, model, created_at }
}

/// The same for a question whose end is only looked at: one that cannot be appended is told, and the look goes on.
pub(super) async fn append_if_ended(client: &Client, message: impl Into<MessageName>) {
    if let Err(err) = append(client, message).await {
        output::note(&format!("cannot append to its session: {err}"));
    }
}
