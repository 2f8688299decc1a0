//! A question that belongs to a session: what was said before goes along, and the broker appends both sides once it is
//! answered.
//!
//! The session and how the answer is appended are written into the message; whoever reads the answer only says what was
//! appended.

use broker_client::{Append, Client, Error, Shortened};
use broker_proto::types::{
    APPEND_LABEL, Handoff, HandoffId, HandoffState, Message, MessageName, MessageState, ModelName,
    SessionDetail, SessionEntry, SessionId, SessionPoint,
};

use super::{Tell, input, report::Owner};
use crate::{
    cli::{Misused, QuestionArgs},
    commands::{current, session},
    output,
};

/// Entries at a session's end among which an answer is looked for.
const LOOKED_AT: u64 = 16;
/// How advice is appended.
const ADVICE: &str = "advice";

/// The session that a question belongs to.
#[derive(Debug)]
pub(super) struct Thread {
    detail: SessionDetail,
    /// The values it shares go along, and the answer is advice.
    is_advice: bool,
    /// The handoff that brought it to its owner, as long as that one has not answered in it.
    news: Option<Handoff>,
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
            let news = unanswered(client, &detail).await?;
            Ok(Some(Thread { detail, is_advice, news }))
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
    /// Puts what was said before into a question; stderr tells where not all goes along as it was said.
    ///
    /// # Errors
    /// When the session cannot be read.
    pub(super) async fn put_into(
        &self,
        client: &Client,
        message: &mut Message,
    ) -> anyhow::Result<()> {
        let append = if self.is_advice { Append::Advice } else { Append::Turn };
        let id = &self.detail.info.id;
        let short = session::render::in_short;
        match client.ask_in(&self.detail, message, append).await? {
            Some(Shortened::ForWindow(rendering)) => {
                let short = short(&rendering);
                output::note(&format!("session {id} does not fit the window: {short}"));
            }
            // What it has whole is nothing to tell of.
            Some(Shortened::TakenOver(rendering)) if !rendering.dropped.is_empty() => {
                let (to, short) = (&message.to, short(&rendering));
                output::note(&format!("{to} knows session {id} as it was handed over: {short}"));
            }
            Some(Shortened::TakenOver(_)) | None => {}
        }
        Ok(())
    }

    /// Who owns the session now, and what brought it there; whether that is news since the last question.
    ///
    /// # Errors
    /// When the broker cannot say.
    pub(super) async fn owner(&self, client: &Client) -> Result<Option<Owner>, Error> {
        let before = &self.detail.info;
        let now = match client.session(&before.id, &SessionPoint::Head).await {
            Ok(detail) => detail.info,
            // Deleted meanwhile, which is told with the answer.
            Err(err) if err.reason() == Some("UNKNOWN_SESSION") => return Ok(None),
            Err(err) => return Err(err),
        };
        let has_moved = now.owner.epoch != before.owner.epoch;
        let handoff = match (now.handed_over, &self.news) {
            (Some(over), Some(news)) if over.handoff == news.id => Some(news.clone()),
            (Some(over), _) => found(client, over.handoff).await?,
            (None, _) => None,
        };
        let is_news = has_moved || self.news.is_some();
        Ok(Some(Owner { owner: now.owner, has_changed: is_news, handoff }))
    }
}

/// The handoff that brought a session to its owner, as long as that one has not answered in it.
async fn unanswered(client: &Client, detail: &SessionDetail) -> Result<Option<Handoff>, Error> {
    let Some(over) = detail.info.handed_over else { return Ok(None) };
    let is_first =
        |it: &Handoff| it.state == HandoffState::Active || over.entries == detail.info.head.entries;
    Ok(found(client, over.handoff).await?.filter(is_first))
}

/// A handoff that may be forgotten by now.
pub(crate) async fn found(client: &Client, id: HandoffId) -> Result<Option<Handoff>, Error> {
    match client.handoff(id).await {
        Err(err) if err.reason() == Some("UNKNOWN_HANDOFF") => Ok(None),
        found => found.map(Some),
    }
}

/// Says why a session belongs to another model than before, as long as that model has not answered in it.
pub(super) fn tell_owner(thread: &Thread) {
    if let Some(handoff) = &thread.news {
        output::note(&owned(handoff));
    }
}

/// Says that the session of a question was handed off while it was asked.
pub(super) async fn tell_moved(client: &Client, thread: &Thread) {
    let epoch = thread.detail.info.owner.epoch;
    match thread.owner(client).await {
        Ok(Some(Owner { owner, handoff: Some(handoff), .. })) if owner.epoch != epoch => {
            output::note(&owned(&handoff));
        }
        Ok(_) => {}
        Err(err) => output::note(&format!("cannot look at who owns its session: {err}")),
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

/// Says what the broker appended to the session of a question that has ended, if it belongs to one.
pub(super) async fn tell(client: &Client, message: impl Into<MessageName>, tell: Tell) {
    match appended(client, message.into()).await {
        Ok(Appended::Entries(told)) if tell == Tell::All => output::note(&told),
        Ok(Appended::Nothing(why)) => output::note(&why),
        Ok(Appended::Entries(_) | Appended::Unknown) => {}
        Err(err) => output::note(&format!("cannot look at its session: {err}")),
    }
}

/// What became of a question's entries, in words.
enum Appended {
    Entries(String),
    Nothing(String),
    /// It belongs to no session, or that went on since.
    Unknown,
}

async fn appended(client: &Client, name: MessageName) -> Result<Appended, Error> {
    let (info, _) = client.message(name.clone(), false).await?;
    let how = info.labels.get(APPEND_LABEL).map(String::as_str);
    let Some((session, how)) = info.session.as_deref().zip(how) else {
        return Ok(Appended::Unknown);
    };
    // Of no session of the broker's, whatever else it may group by that word.
    let Ok(session) = SessionId::parse(session) else { return Ok(Appended::Unknown) };
    if info.state != MessageState::Done {
        return Ok(Appended::Nothing(format!("nothing was appended to session {session}")));
    }
    let poll = client.poll(name, std::time::Duration::ZERO).await?;
    let summary = poll.summary;
    if let Some(what) = summary.as_ref().and_then(|summary| summary.shortened.as_ref()) {
        output::note(what);
    }
    if let Some(why) = summary.as_ref().and_then(|summary| summary.not_appended.as_ref()) {
        let told = format!("{why}: nothing was appended to session {session}");
        return Ok(Appended::Nothing(told));
    }
    let model = summary.and_then(|summary| summary.model);
    let head = match client.session(&session, &SessionPoint::Head).await {
        Ok(detail) => detail.info.head,
        Err(Error::Refused { reason, .. }) if reason == "UNKNOWN_SESSION" => {
            let told = format!("session {session} is gone: nothing was appended");
            return Ok(Appended::Nothing(told));
        }
        Err(err) => return Err(err),
    };
    let from = head.entries.saturating_sub(LOOKED_AT);
    let last = client.session_entries(&session, &SessionPoint::Head, from, usize::MAX).await?;
    let is_answer = |it: &&SessionEntry| it.model == model && it.entry.parts == poll.parts;
    let Some(answer) = last.iter().rev().find(is_answer).map(|entry| entry.number) else {
        // It went on since, or was not there any more.
        return Ok(Appended::Unknown);
    };
    Ok(Appended::Entries(if how == ADVICE {
        format!("session {session}: entry {answer} appended")
    } else {
        format!("session {session}: entries {}-{answer} appended", answer.saturating_sub(1))
    }))
}
