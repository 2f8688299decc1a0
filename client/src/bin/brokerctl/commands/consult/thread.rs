//! A question that belongs to a session: what was said before goes along, and the broker appends both sides once it is
//! answered.
//!
//! The session and how the answer is appended are written into the message; whoever reads the answer only says what was
//! appended.

use broker_client::{Client, Error};
use broker_proto::types::{
    APPEND_LABEL, Entry, HISTORY_LABEL, Handoff, HandoffState, HistoryRange, Message, MessageName,
    MessageState, ModelName, Part, Role, SessionDetail, SessionEntry, SessionId, SessionInfo,
    SessionPoint, SharedValue,
};

use super::input;
use crate::{
    cli::{Misused, QuestionArgs},
    commands::{current, session},
    output,
};

/// Entries at a session's end among which an answer is looked for.
const LOOKED_AT: u64 = 16;
/// How an answer is appended.
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
        let (mut before, mut made) = (Vec::new(), None);
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
            made = Some((before.len(), history.entries.len()));
            before.extend(history.entries);
        }
        let context = &mut message.payload.context;
        let at = context.iter().take_while(|entry| entry.role == Role::System).count();
        if let Some((first, count)) = made.filter(|(_, count)| *count > 0) {
            // Another model of the chain may have a smaller window.
            let range = HistoryRange { version: info.version, first: at + first, count };
            message.labels.insert(HISTORY_LABEL.to_owned(), range.to_string());
        }
        context.splice(at..at, before);
        message.session = Some(info.id.to_string());
        let how = if self.is_advice { ADVICE } else { TURN };
        message.labels.insert(APPEND_LABEL.to_owned(), how.to_owned());
        Ok(())
    }
}

/// Says why a session belongs to another model than before, as long as that model has not answered in it.
///
/// # Errors
/// When the handoff cannot be looked up.
pub(super) async fn tell_owner(client: &Client, thread: &Thread) -> anyhow::Result<()> {
    let info = &thread.detail.info;
    let Some(over) = info.handed_over else { return Ok(()) };
    let handoff = client.handoff(over.handoff).await?;
    if handoff.state == HandoffState::Active || over.entries == info.head.entries {
        output::note(&owned(&handoff));
    }
    Ok(())
}

/// Says that the session of a question was handed off while it was asked.
pub(super) async fn tell_moved(client: &Client, thread: &Thread) {
    match moved(client, &thread.detail.info).await {
        Ok(Some(handoff)) => output::note(&owned(&handoff)),
        Ok(None) => {}
        Err(err) => output::note(&format!("cannot look at who owns its session: {err}")),
    }
}

async fn moved(client: &Client, before: &SessionInfo) -> Result<Option<Handoff>, Error> {
    let now = match client.session(&before.id, &SessionPoint::Head).await {
        Ok(detail) => detail.info,
        // Deleted meanwhile, which is told with the answer.
        Err(err) if err.reason() == Some("UNKNOWN_SESSION") => return Ok(None),
        Err(err) => return Err(err),
    };
    match now.handed_over.filter(|_| now.owner.epoch != before.owner.epoch) {
        Some(over) => client.handoff(over.handoff).await.map(Some),
        None => Ok(None),
    }
}

/// `session s: owned by sonnet since a handoff from opus at 10:04:05 UTC (usage_limit: its window is full)`
pub(crate) fn owned(handoff: &Handoff) -> String {
    let (from, to, trigger) = (&handoff.from.model, &handoff.to, &handoff.trigger);
    let at = handoff.active_at.map(|at| format!(" at {}", output::clock(at, super::now())));
    format!(
        "session {}: owned by {to} since a handoff from {from}{} ({}: {})",
        handoff.session,
        at.unwrap_or_default(),
        trigger.kind.as_str(),
        trigger.reasoning
    )
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

/// Says what the broker appended to the session of a question that has ended, if it belongs to one.
pub(super) async fn tell(client: &Client, message: impl Into<MessageName>) {
    match appended(client, message.into()).await {
        Ok(Some(told)) => output::note(&told),
        Ok(None) => {}
        Err(err) => output::note(&format!("cannot look at its session: {err}")),
    }
}

async fn appended(client: &Client, name: MessageName) -> Result<Option<String>, Error> {
    let (info, _) = client.message(name.clone(), false).await?;
    let how = info.labels.get(APPEND_LABEL).map(String::as_str);
    let Some((session, how)) = info.session.as_deref().zip(how) else { return Ok(None) };
    // Of no session of the broker's, whatever else it may group by that word.
    let Ok(session) = SessionId::parse(session) else { return Ok(None) };
    if info.state != MessageState::Done {
        return Ok(Some(format!("nothing was appended to session {session}")));
    }
    let poll = client.poll(name, std::time::Duration::ZERO).await?;
    let summary = poll.summary;
    if let Some(what) = summary.as_ref().and_then(|summary| summary.shortened.as_ref()) {
        output::note(what);
    }
    if let Some(why) = summary.as_ref().and_then(|summary| summary.not_appended.as_ref()) {
        return Ok(Some(format!("{why}: nothing was appended to session {session}")));
    }
    let model = summary.and_then(|summary| summary.model);
    let head = match client.session(&session, &SessionPoint::Head).await {
        Ok(detail) => detail.info.head,
        Err(Error::Refused { reason, .. }) if reason == "UNKNOWN_SESSION" => {
            return Ok(Some(format!("session {session} is gone: nothing was appended")));
        }
        Err(err) => return Err(err),
    };
    let from = head.entries.saturating_sub(LOOKED_AT);
    let last = client.session_entries(&session, &SessionPoint::Head, from, usize::MAX).await?;
    let is_answer = |it: &&SessionEntry| it.model == model && it.entry.parts == poll.parts;
    let Some(answer) = last.iter().rev().find(is_answer).map(|entry| entry.number) else {
        // It went on since, or was not there any more.
        return Ok(None);
    };
    Ok(Some(if how == ADVICE {
        format!("session {session}: entry {answer} appended")
    } else {
        format!("session {session}: entries {}-{answer} appended", answer.saturating_sub(1))
    }))
}
