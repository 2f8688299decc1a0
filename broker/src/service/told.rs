//! Events in words, for people and scripts. No content: names, numbers, and why.

use broker_proto::{AgentName, HandoffKept, MessageState, ModelName, Recipient, WallTime};

use crate::core::{Event, Redirected, Subject, handoff, package, ring, session, usage};

/// One event in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: &'static str,
    pub(super) at: WallTime,
    pub(super) detail: String,
    /// The message it is about, and its state from then on.
    pub(super) message: Option<(Subject, MessageState)>,
    /// The model it names first: the queue, the one that was called, the one that changed.
    pub(super) model: Option<ModelName>,
    pub(super) agent: Option<AgentName>,
    /// The session it is about, where it is about one itself.
    pub(super) session: Option<String>,
}

/// Every kind that is told, in the order of a life. `docs/events.md` lists them.
pub(super) const KINDS: [&str; 52] = [
    "accepted",
    "routed",
    "held",
    "leased",
    "attempt_failed",
    "task_asked",
    "task_answered",
    "task_stopped",
    "lease_lost",
    "delivery_failed",
    "parked",
    "finished",
    "redriven",
    "purged",
    "queue_paused",
    "queue_resumed",
    "clock_jump",
    "clock_settled",
    "model_available",
    "model_unavailable",
    "usage_changed",
    "level_changed",
    "usage_policy_set",
    "usage_reset",
    "token_created",
    "token_revoked",
    "role_known",
    "content_stored",
    "content_forgotten",
    "session_changed",
    "package_saved",
    "package_archived",
    "package_deleted",
    "key_trusted",
    "key_removed",
    "handoff",
    "handoff_policy_set",
    "handoff_advised",
    "handoffs_forgotten",
    "bridge",
    "redirected",
    "rotation_set",
    "rotation_detected",
    "rotation_saved",
    "handoff_initiated",
    "rotation_seen",
    "handoff_accepted",
    "rotation_resumed",
    "rotation_passed_over",
    "rotation_stayed",
    "rotation_signal",
    "rotation_stopped",
];

impl Told {
    fn new(kind: &'static str, at: WallTime, detail: impl Into<String>) -> Self {
        Self {
            kind,
            at,
            detail: detail.into(),
            message: None,
            model: None,
            agent: None,
            session: None,
        }
    }

    fn of(self, subject: Subject, state: MessageState) -> Self {
        Self { message: Some((subject, state)), ..self }
    }

    fn queue(self, queue: &Recipient) -> Self {
        match queue {
            Recipient::Model(model) | Recipient::AgentsOf(model) => {
                Self { model: Some(model.clone()), ..self }
            }
            Recipient::Agent(agent) => Self { agent: Some(agent.clone()), ..self },
            Recipient::Role(_) => self,
        }
    }

    fn model(self, model: Option<&ModelName>) -> Self {
        Self { model: model.cloned(), ..self }
    }

    fn agent(self, agent: Option<&AgentName>) -> Self {
        Self { agent: agent.cloned(), ..self }
    }
}

/// What an event says; `None` for one over a set, whose steps are told instead.
pub(super) fn told(event: &Event) -> Option<Told> {
    Some(match event {
        // A count is no step in anybody's life.
        Event::FannedOut(_) | Event::SliceMoved(_) | Event::TreeChanged { .. } => return None,
        Event::Accepted(accepted) => {
            let detail = format!("{} to {}", accepted.kind.as_str(), accepted.to);
            Told::new("accepted", accepted.at, detail)
                .of(accepted.subject, MessageState::Queued)
                .queue(&accepted.to)
        }
        Event::Routed { subject, at, queue, wait_until, why, .. } => {
            let state =
                if wait_until.is_some() { MessageState::Waiting } else { MessageState::Queued };
            Told::new("routed", *at, format!("to {queue}: {why}")).of(*subject, state).queue(queue)
        }
        Event::Held { subject, at, queue, why, .. } => {
            Told::new("held", *at, why).of(*subject, MessageState::Waiting).queue(queue)
        }
        Event::Leased { subject, at, epoch, agent, .. } => {
            Told::new("leased", *at, format!("attempt {epoch} by {agent}"))
                .of(*subject, MessageState::Leased)
                .agent(Some(agent))
        }
        Event::AttemptFailed { subject, at, attempt, .. } => {
            let why = attempt.failure.as_ref().map_or(String::new(), |failure| {
                format!("{}: {}", failure.class.as_str(), failure.detail)
            });
            Told::new("attempt_failed", *at, format!("{}: {why}", attempt.model))
                .of(*subject, MessageState::Queued)
                .model(Some(&attempt.model))
                .agent(attempt.agent.as_ref())
        }
        Event::TaskAsked { subject, at, number, attempt, .. } => {
            Told::new("task_asked", *at, format!("question {number}"))
                .of(*subject, MessageState::Leased)
                .model(attempt.as_ref().map(|attempt| &attempt.model))
        }
        Event::TaskAnswered { subject, at, .. } => {
            Told::new("task_answered", *at, "").of(*subject, MessageState::Waiting)
        }
        Event::TaskStopped { subject, at, .. } => {
            Told::new("task_stopped", *at, "what it had shown is kept")
                .of(*subject, MessageState::Waiting)
        }
        Event::LeaseLost { subject, at, why, .. } => {
            Told::new("lease_lost", *at, why).of(*subject, MessageState::Queued)
        }
        Event::DeliveryFailed { subject, at, agent, failure, .. } => {
            let why = format!("{}: {}", failure.class.as_str(), failure.detail);
            Told::new("delivery_failed", *at, why)
                .of(*subject, MessageState::Queued)
                .agent(Some(agent))
        }
        Event::Parked { subject, at, queue, failure, .. } => {
            let why = format!("{}; its recipient's dead letters are full", failure.class.as_str());
            Told::new("parked", *at, why).of(*subject, MessageState::Waiting).queue(queue)
        }
        Event::Redriven { subject, at, generation, .. } => {
            Told::new("redriven", *at, format!("life {generation}"))
                .of(*subject, MessageState::Queued)
        }
        Event::Purged { subject, at } => {
            Told::new("purged", *at, "").of(*subject, MessageState::Purged)
        }
        Event::ClockJumped { at, ahead: Some(ahead) } => {
            let ahead = ahead.as_secs();
            let detail = format!("the wall clock is {ahead} s ahead; expiry by it is halted");
            Told::new("clock_jump", *at, detail)
        }
        Event::ClockJumped { at, ahead: None } => Told::new("clock_settled", *at, ""),
        Event::QueuePaused { queue, at, is_paused } => {
            let kind = if *is_paused { "queue_paused" } else { "queue_resumed" };
            Told::new(kind, *at, queue.to_string()).queue(queue)
        }
        Event::Finished(finished) => {
            let summary = finished.summary.as_ref();
            let detail = match (&finished.failure, summary.and_then(|done| done.model.as_ref())) {
                (Some(failure), _) => format!("{}: {}", failure.class.as_str(), failure.detail),
                (None, Some(model)) => format!("answered by {model}"),
                (None, None) if finished.copies > 0 => format!("{} copies", finished.copies),
                (None, None) => String::new(),
            };
            Told::new("finished", finished.at, detail)
                .of(finished.subject, finished.state)
                .model(summary.and_then(|done| done.model.as_ref()))
                .agent(summary.and_then(|done| done.agent.as_ref()))
        }
        Event::RouteChanged { model, at, route } => match &route.shut {
            Some(shut) => Told::new("model_unavailable", *at, &shut.reason).model(Some(model)),
            None => Told::new("model_available", *at, "").model(Some(model)),
        },
        Event::UsageChanged { model, at, totals } => {
            let detail = format!("{} calls, {} failed", totals.calls, totals.failures);
            Told::new("usage_changed", *at, detail).model(Some(model))
        }
        Event::Usage(event) => return told_of_usage(event),
        Event::TokenChanged { agent, at, hash } => {
            let kind = if hash.is_some() { "token_created" } else { "token_revoked" };
            Told::new(kind, *at, agent.as_str()).agent(Some(agent))
        }
        Event::RoleKnown { role, at } => Told::new("role_known", *at, role.as_str()),
        Event::Session(event) => match event.as_ref() {
            session::Event::Entries(_) => return None,
            session::Event::Changed { id, at, change, detail, after } => {
                let behind = if detail.is_empty() { "" } else { ": " };
                let detail = format!("{id} {}{behind}{detail}", change.as_str());
                let owner = after.as_ref().map(|session| &session.info.owner.model);
                let session = Some(id.to_string());
                Told { session, ..Told::new("session_changed", *at, detail).model(owner) }
            }
        },
        Event::ContentStored { hash, at, body } => {
            Told::new("content_stored", *at, format!("{hash}: {} bytes", body.size_bytes))
        }
        Event::ContentForgotten { hash, at } => {
            Told::new("content_forgotten", *at, format!("{hash}: nothing refers to it"))
        }
        Event::Package(event) => return package(event),
        Event::Redirected(redirected) => {
            let Redirected { subject, at, to, why } = redirected.as_ref();
            Told::new("redirected", *at, format!("to {to}: {why}"))
                .of(*subject, MessageState::Queued)
                .model(Some(to))
        }
        Event::Handoff(event) => handoff(event),
        Event::Bridge(changed) => bridge(changed),
        Event::Ring(event) => ring(event),
    })
}

fn bridge(changed: &handoff::bridge::Changed) -> Told {
    let (bridge, why) = (&changed.bridge, &changed.why);
    let ends = format!("{} to {}", bridge.from, bridge.to);
    let detail = match (changed.is_open, why.as_str()) {
        (true, _) => format!("opened: {ends}"),
        (false, "") => format!("closed: {ends}"),
        (false, why) => format!("closed: {ends}: {why}"),
    };
    let told = Told::new("bridge", changed.at, detail).model(Some(&bridge.to));
    Told { session: Some(bridge.session.to_string()), ..told }
}

/// Of a handoff where it stands, and why; its contents are its package's.
fn handoff(event: &handoff::Event) -> Told {
    let (at, handoff) = match event {
        handoff::Event::Changed { at, handoff } => (at, handoff),
        handoff::Event::PolicySet { at, overrides } => {
            let set = overrides.iter().map(|(key, value)| format!("{key} = {value}"));
            return Told::new("handoff_policy_set", *at, set.collect::<Vec<_>>().join(", "));
        }
        handoff::Event::Forgotten { at, session, ids } => {
            let detail = format!("{} of session {session}", ids.len());
            let told = Told::new("handoffs_forgotten", *at, detail);
            return Told { session: Some(session.to_string()), ..told };
        }
        handoff::Event::Advised { at, session, advised } => {
            let (detail, to) = match advised {
                Some(handoff::Advised { to, trigger }) => {
                    let kind = trigger.kind.as_str();
                    (format!("to {to}, {kind}: {}", trigger.reasoning), Some(to))
                }
                None => ("nothing any more".to_owned(), None),
            };
            let told = Told::new("handoff_advised", *at, detail).model(to);
            return Told { session: Some(session.to_string()), ..told };
        }
    };
    let (id, from, to) = (handoff.id, &handoff.from.model, &handoff.to);
    let (state, trigger) = (handoff.state.as_str(), handoff.trigger.kind.as_str());
    let why = &handoff.trigger.reasoning;
    let mut detail = format!("{id}: {state}, {from} to {to}, {trigger}: {why}");
    for tried in &handoff.tried {
        let agent = tried.agent.as_ref().map(|agent| format!(" (agent {agent})"));
        let (agent, how) = (agent.unwrap_or_default(), tried.state.as_str().to_lowercase());
        detail.push_str(&format!("; tried {}{agent}: {how}, {}", tried.model, tried.reason));
    }
    if handoff.manifest.is_some() {
        let HandoffKept { kept, partly, dropped, moved, revoked, .. } = &handoff.kept;
        detail.push_str(&format!("; kept {kept} entries, {partly} in part, lost {dropped}"));
        detail.push_str(&format!("; moved {moved} messages, revoked {revoked} leases"));
    }
    if !handoff.outcome.is_empty() {
        detail.push_str(&format!("; outcome: {}", handoff.outcome));
    }
    let told = Told::new("handoff", *at, detail).model(Some(to)).agent(handoff.agent.as_ref());
    Told { session: Some(handoff.session.to_string()), ..told }
}

/// Of a ring what happened to it, with the fields that a heartbeat of seed 003 has.
fn ring(event: &ring::Event) -> Told {
    let ring::Event { at, ring, what } = event;
    let role = &ring.role;
    let name = |agent: Option<&AgentName>| agent.map_or("-", AgentName::as_str).to_owned();
    let handover = ring.handover.as_ref();
    let from = handover.and_then(|it| it.from.as_ref());
    let to = handover.and_then(|it| it.to.as_ref());
    let reason = handover.map_or("", |it| it.reason.as_str());
    let trigger = handover.map_or("", |it| it.trigger.as_str());
    let tasks = handover.map_or(0, |it| it.tasks);
    let sessions = handover.map_or(0, |it| it.sessions);
    let (of, to_name) = (name(from), name(to));
    let (kind, agent, detail) = match what {
        ring::What::Set => {
            let members: Vec<&str> = ring.members.iter().map(|it| it.agent.as_str()).collect();
            let state = if ring.is_on { "on" } else { "off" };
            let pause = ring.pause.as_secs();
            let detail = format!("{state}, {}, pause={pause}s", members.join(" "));
            ("rotation_set", ring.owner.as_ref(), detail)
        }
        ring::What::Detected => {
            ("rotation_detected", from, format!("from={of} trigger={trigger} reason={reason}"))
        }
        ring::What::Saved => {
            ("rotation_saved", from, format!("from={of} tasks={tasks} sessions={sessions}"))
        }
        ring::What::Woken => {
            ("handoff_initiated", from, format!("from={of} to={to_name} reason={reason}"))
        }
        ring::What::Heard { reason } => ("rotation_signal", ring.owner.as_ref(), reason.clone()),
        ring::What::Seen => ("rotation_seen", to, format!("to={to_name} from={of}")),
        ring::What::Accepted => {
            ("handoff_accepted", to, format!("to={to_name} from={of} tasks_received={tasks}"))
        }
        ring::What::Resumed { packages } => {
            let archived = packages.len();
            ("rotation_resumed", ring.owner.as_ref(), format!("archived={archived}"))
        }
        ring::What::PassedOver { member, reason } => {
            ("rotation_passed_over", Some(member), format!("{member} reason={reason}"))
        }
        ring::What::Stayed { reason } => {
            ("rotation_stayed", ring.owner.as_ref(), format!("nobody took it: {reason}"))
        }
        ring::What::Stopped => {
            let why = ring.stopped.as_ref().map_or("", |it| it.why.as_str());
            ("rotation_stopped", None, why.to_owned())
        }
    };
    Told::new(kind, *at, format!("{role}: {detail}")).agent(agent)
}

/// Of a package its id, its ends and its size; never what it is about.
fn package(event: &package::Event) -> Option<Told> {
    Some(match event {
        package::Event::Saved(saved) => {
            let header = &saved.info.header;
            let to = header.recipient.as_ref().map_or("any model", ModelName::as_str);
            let (id, from, bytes) = (header.id, &header.sender, saved.info.size_bytes);
            let detail = format!("{id}: {from} to {to}, {bytes} bytes");
            Told::new("package_saved", saved.at, detail).model(header.recipient.as_ref())
        }
        package::Event::Deleted { id, at, .. } => Told::new("package_deleted", *at, id.to_string()),
        package::Event::Archived { id, at } => Told::new("package_archived", *at, id.to_string()),
        package::Event::Trusted { name, at, key: Some(key) } => {
            Told::new("key_trusted", *at, format!("{name}: {key}"))
        }
        package::Event::Trusted { name, at, key: None } => {
            Told::new("key_removed", *at, name.as_str())
        }
        // Bookkeeping.
        package::Event::Forgotten { .. } => return None,
    })
}

fn told_of_usage(event: &usage::Event) -> Option<Told> {
    Some(match event {
        usage::Event::Counted(call) => {
            let ended = match call.ended {
                usage::Ended::Unknown => "",
                usage::Ended::Done => ": done",
                usage::Ended::Failed(class) => &format!(": {}", class.as_str()),
            };
            let tokens = usage::tokens(call.usage);
            let detail = format!("{}{ended}, {tokens} tokens", call.source.as_str());
            let told = Told::new("usage_changed", call.at, detail).model(Some(&call.model));
            told.agent(call.agent.as_ref())
        }
        usage::Event::LevelChanged(change) => {
            let mut detail = format!(
                "{}: {} -> {}, {}",
                change.subject.scope(),
                change.from.as_str(),
                change.to.as_str(),
                change.reason
            );
            if change.action != usage::Action::None {
                detail.push_str(&format!("; {}", change.action.as_str()));
            }
            if !change.diagnosis.is_empty() {
                detail.push_str(&format!("; calls: {}", change.diagnosis.join(", ")));
            }
            Told::new("level_changed", change.at, detail).model(change.model.as_ref())
        }
        usage::Event::PolicySet { at, overrides } => {
            let set: Vec<String> =
                overrides.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            Told::new("usage_policy_set", *at, set.join(", "))
        }
        usage::Event::Reset { scope, at } => {
            let told = Told::new("usage_reset", *at, scope.to_string());
            match scope {
                usage::Scope::Model(model) => told.model(Some(model)),
                _ => told,
            }
        }
        // Counts and reservations are no step in anybody's life.
        usage::Event::Holds { .. }
        | usage::Event::Said(_)
        | usage::Event::Forgotten { .. }
        | usage::Event::Metered { .. }
        | usage::Event::Reserved(_)
        | usage::Event::Released { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::KINDS;

    /// A subscriber can filter by whatever is told.
    #[test]
    fn every_kind_that_is_told_is_in_the_list() {
        let source = include_str!("told.rs").split("pub(super) fn told(").nth(1).unwrap();
        let source = source.split("#[cfg(test)]").next().unwrap();
        let is_kind = |word: &&str| {
            word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let told: Vec<&str> = source.split('"').skip(1).step_by(2).filter(is_kind).collect();
        assert!(told.len() >= KINDS.len(), "{told:?}");
        for kind in told {
            assert!(KINDS.contains(&kind), "{kind}");
        }
    }
}
