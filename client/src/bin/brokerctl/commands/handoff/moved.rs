//! Handoffs as people and programs read them, and which one a command is about.

use broker_client::{Client, Page};
use broker_proto::types::{
    Handoff, HandoffFilter, HandoffId, HandoffState, Hex, SessionId, SessionPoint, WallTime,
};
use serde_json::{Value, json};

use crate::{
    cli::{Global, Misused, WhichHandoff},
    commands::{consult, current},
    output,
};

/// The handoff that was named, else the last one of the session that was named, else of the current one.
pub(super) async fn chosen(
    global: &Global,
    client: &Client,
    which: WhichHandoff,
) -> anyhow::Result<Handoff> {
    let session = which.of.session;
    if let Some(id) = which.id {
        let handoff = client.handoff(id).await?;
        let other = session.filter(|session| *session != handoff.session);
        return match other {
            Some(session) => Err(of_another(&handoff, session)),
            None => Ok(handoff),
        };
    }
    let session = current::needed(global, client, session).await?;
    let last = last_of(client, &session, 1).await?.items.pop();
    let handoff = last.ok_or_else(|| Misused::NoHandoff(session.clone()))?;
    output::note(&format!("handoff {} of session {session}", handoff.id));
    Ok(handoff)
}

/// The handoff that brought a session to its owner.
pub(super) async fn brought(client: &Client, session: &SessionId) -> anyhow::Result<Handoff> {
    let info = client.session(session, &SessionPoint::Head).await?.info;
    let over = info.handed_over.ok_or_else(|| Misused::NoHandoff(session.clone()))?;
    Ok(client.handoff(over.handoff).await?)
}

pub(super) fn of_another(handoff: &Handoff, session: SessionId) -> anyhow::Error {
    Misused::OtherSession { handoff: handoff.id, of: handoff.session.clone(), session }.into()
}

/// The newest handoffs of a session.
pub(crate) async fn last_of(
    client: &Client,
    session: &SessionId,
    limit: u32,
) -> Result<Page<Handoff>, broker_client::Error> {
    let filter = HandoffFilter { session: Some(session.clone()), ..HandoffFilter::default() };
    client.list_handoffs(filter, limit, None).await
}

/// One handoff as programs read it, wherever one is told.
pub(crate) fn json(handoff: &Handoff) -> Value {
    let at = |at: Option<WallTime>| at.and_then(output::rfc3339);
    let (trigger, kept) = (&handoff.trigger, &handoff.kept);
    json!({
        "id": handoff.id.to_string(),
        "session": handoff.session.as_str(),
        "state": handoff.state.as_str(),
        "from": handoff.from.model.as_str(),
        "from_agent": handoff.from.agent.as_ref().map(ToString::to_string),
        "from_epoch": handoff.from.epoch,
        "to": handoff.to.as_str(),
        "to_agent": handoff.agent.as_ref().map(ToString::to_string),
        "trigger": trigger.kind.as_str(),
        "reason": trigger.reasoning,
        "confidence": trigger.confidence,
        "urgency": trigger.urgency.as_str(),
        "pace": handoff.pace.as_str(),
        "origin": handoff.origin.as_str(),
        "returns": handoff.returns.map(|id| id.to_string()),
        "then": handoff.then.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "tried": handoff.tried.iter().map(|tried| json!({
            "model": tried.model.as_str(),
            "agent": tried.agent.as_ref().map(ToString::to_string),
            "at": output::rfc3339(tried.at),
            "state": tried.state.as_str(),
            "reason": tried.reason,
        })).collect::<Vec<_>>(),
        "preservation_level": handoff.level.as_str(),
        "package_id": handoff.package.map(|id| id.to_string()),
        "manifest": handoff.manifest.map(|hash| Hex(&hash).to_string()),
        "hops": handoff.hops,
        "kept": {
            "entries": kept.entries, "tokens_before": kept.tokens_before, "tokens": kept.tokens,
            "whole": kept.kept, "partly": kept.partly, "dropped": kept.dropped,
            "score": kept.score, "must_keep_missing": kept.must_keep_missing,
            "moved": kept.moved, "revoked": kept.revoked,
        },
        "confirmed": handoff.confirmed,
        "at": output::rfc3339(handoff.begun_at),
        "offered_at": at(handoff.offered_at),
        "until": at(handoff.until),
        "accepted_at": at(handoff.accepted_at),
        "active_at": at(handoff.active_at),
        "ended_at": at(handoff.ended_at),
        "outcome": Some(&handoff.outcome).filter(|outcome| !outcome.is_empty()),
    })
}

/// Where a handoff stands, in one sentence.
pub(crate) fn sentence(handoff: &Handoff) -> String {
    let Handoff { id, session, to, from, .. } = handoff;
    let from = &from.model;
    let why = |outcome: &str| {
        if outcome.is_empty() { String::new() } else { format!(": {outcome}") }
    };
    let outcome = why(&handoff.outcome);
    match handoff.state {
        HandoffState::Building => format!("handoff {id}: the package for {to} is being made"),
        HandoffState::Ready => format!("handoff {id}: the package for {to} is ready"),
        HandoffState::Offered => format!("handoff {id}: {to} is asked"),
        HandoffState::Accepted => {
            format!("handoff {id}: {to} accepted; {from} ends what it has in hand")
        }
        HandoffState::Active => format!("handoff {id}: session {session} belongs to {to} now"),
        HandoffState::Completed => format!("handoff {id}: {to} took it over{outcome}"),
        HandoffState::Declined => format!("handoff {id}: nobody took it{outcome}"),
        HandoffState::Expired => format!("handoff {id}: nobody answered in time{outcome}"),
        HandoffState::Failed => format!("handoff {id}: it failed{outcome}"),
        HandoffState::Returned => format!("handoff {id}: returned{outcome}"),
    }
}

/// A handoff for people, line by line.
pub(super) fn described(handoff: &Handoff) -> String {
    let now = consult::now();
    let clock = |at: Option<WallTime>| at.map_or("-".to_owned(), |at| output::clock(at, now));
    let or = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let agent = |agent: &Option<broker_proto::types::AgentName>| {
        agent.as_ref().map(|agent| format!(", agent {agent}")).unwrap_or_default()
    };
    let trigger = &handoff.trigger;
    let kept = &handoff.kept;
    let id = |id: Option<HandoffId>| id.map(|id| id.to_string()).unwrap_or_default();
    let mut rows = vec![
        ("id", handoff.id.to_string()),
        ("session", handoff.session.to_string()),
        ("state", handoff.state.as_str().to_owned()),
        (
            "from",
            format!(
                "{}{} (epoch {})",
                handoff.from.model,
                agent(&handoff.from.agent),
                handoff.from.epoch
            ),
        ),
        ("to", format!("{}{}", handoff.to, agent(&handoff.agent))),
        ("why", format!("{}: {}", trigger.kind.as_str(), trigger.reasoning)),
        (
            "sure",
            format!("{:.0} %, urgency {}", trigger.confidence * 100.0, trigger.urgency.as_str()),
        ),
        ("begun", output::clock(handoff.begun_at, now)),
        ("offered", clock(handoff.offered_at)),
        ("accepted", clock(handoff.accepted_at)),
        ("active", clock(handoff.active_at)),
        ("ended", clock(handoff.ended_at)),
        ("outcome", or(handoff.outcome.clone())),
        ("returns", or(id(handoff.returns))),
        (
            "package",
            format!(
                "{} ({})",
                handoff.package.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                handoff.level.as_str()
            ),
        ),
    ];
    if handoff.manifest.is_some() {
        rows.push((
            "kept",
            format!(
                "{} of {} entries whole, {} in part, {} dropped; {} tokens of {}; score {:.2}",
                kept.kept,
                kept.entries,
                kept.partly,
                kept.dropped,
                kept.tokens,
                kept.tokens_before,
                kept.score
            ),
        ));
    }
    if let Some(until) = handoff.until.filter(|_| !handoff.state.is_over()) {
        rows.insert(3, ("until", output::clock(until, now)));
    }
    rows.extend(kept.must_keep_missing.iter().map(|missing| ("missing", missing.clone())));
    rows.extend(handoff.tried.iter().map(|tried| {
        let agent = agent(&tried.agent);
        ("tried", format!("{}{agent}: {}: {}", tried.model, tried.state.as_str(), tried.reason))
    }));
    rows.iter().map(|(name, value)| format!("{name:<9} {value}\n")).collect()
}
