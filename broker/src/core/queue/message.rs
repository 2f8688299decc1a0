//! One living message.

use std::{sync::Arc, time::Duration};

use broker_proto::{
    AgentName, AnswerSummary, AskOptions, Attempt, Failure, MessageId, MessageState, MessageType,
    ModelName, Numbered, PassedOver, Priority, Recipient, Sender, StopReason, Usage, WallTime,
};

use super::{Body, Digest, Keyed, Known, Line, Seq};
use crate::core::{
    Accepted, BootTime, Subject,
    tree::{Branch, Parent},
};

/// A million of these must fit: what few of them need is boxed.
#[derive(Debug)]
pub struct Message {
    pub seq: Seq,
    pub id: MessageId,
    pub sender: Arc<Sender>,
    pub to: Arc<Recipient>,
    /// The queue it is in, or was in last.
    pub queue: Arc<Recipient>,
    pub kind: MessageType,
    pub priority: Priority,
    /// Where it stands in its request, unless it is its first.
    pub branch: Option<Box<InTree>>,
    /// With whom it keeps its order; `None` when its sender gave neither key nor session.
    pub line: Option<Line>,
    pub digest: Digest,
    pub body: Body,
    /// When this life began: with its acceptance, or with its redrive.
    pub accepted_at: WallTime,
    pub deadline: WallTime,
    pub place: Place,
    /// The last lease given; the number of deliveries so far.
    pub epoch: u32,
    /// What became of its earlier deliveries, once there was one.
    tried: Option<Box<Tried>>,
    pub(super) timers: Option<Box<Timers>>,
    pub consultation: Option<Box<Consultation>>,
}

/// What is only to be said of a message that was delivered before.
#[derive(Debug)]
pub(super) struct Tried {
    /// The last lease that was settled without ending the message.
    pub(super) settled: Option<u32>,
    /// The attempt whose lease was lost, and whether it counts, while its stream is being closed.
    pub(super) lost_attempt: Option<LostAttempt>,
    /// Leases that ended without a settlement, the agent's fault or its machine's.
    pub(super) lost: u16,
    pub(super) generation: u32,
    pub(super) ready_at: WallTime,
    /// What it died of, while its recipient's dead letters have no room for it.
    pub(super) parked: Option<Box<(Failure, Option<Body>)>>,
}

/// Whether a lost attempt counts, and what is known of it.
type LostAttempt = (bool, Option<Box<Attempt>>);

/// What few messages have.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When a waiting message is due, on this boot's clock.
    pub(super) due: BootTime,
    /// When it is cancelled unless somebody listens again.
    pub(super) orphaned: Option<BootTime>,
    /// As its sender said it.
    pub(super) expires_at: Option<WallTime>,
    /// Its number, when its sender numbers its messages.
    pub(super) numbered: Option<Numbered>,
    /// The session of a task that an agent's mailbox or a role takes; a consultation keeps its own.
    session: Option<Box<str>>,
}

/// What a message that others led to knows of its request.
#[derive(Debug)]
pub struct InTree {
    pub branch: Branch,
    pub root: MessageId,
    pub hops: u32,
}

/// Where a living message is.
#[derive(Debug)]
pub enum Place {
    /// Accepted, not yet routed; only inside one decision.
    New,
    Ready,
    Waiting(WallTime),
    Leased(Box<Lease>),
    /// Its last attempt is over; what follows is not decided yet.
    Closing,
    /// Alive, and not delivered until something explicit happens.
    Held(Hold),
}

/// What a held message is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Worn out, and its recipient's dead letters are full (I-26).
    Parked,
    /// A person suspended it.
    Suspended,
    /// It asked its sender something back.
    InputRequired,
    /// Its session is on its way to another owner, who will get it.
    Handoff,
    /// Its session is paused.
    Paused,
}

#[derive(Debug)]
pub struct Lease {
    pub agent: AgentName,
    pub instance: String,
    /// Its length, when it was pulled.
    pub pulled: Option<Duration>,
    pub since: WallTime,
    pub ends: BootTime,
    /// No renewal goes beyond this.
    pub cap: BootTime,
}

/// What routing keeps of a consultation.
#[derive(Debug)]
pub struct Consultation {
    pub asked: ModelName,
    pub session: Option<Box<str>>,
    pub options: AskOptions,
    pub prompt_bytes: u64,
    /// Of these, the history of its session.
    pub history_bytes: u64,
    pub needs_vision: bool,
    pub max_output_tokens: Option<u32>,
    /// The place in the asked model's chain it is at.
    pub candidate: u32,
    /// Failed attempts in a row at this candidate.
    pub tries_here: u32,
    /// Some of an answer has reached the asker.
    pub shown: bool,
    /// A window it did not fit; only larger ones are tried.
    pub too_small: u64,
    pub attempts: Vec<Attempt>,
    /// Attempts before a task was taken up again; they bound nothing any more.
    pub before: usize,
    pub passed_over: Vec<PassedOver>,
    pub why: String,
}

impl Message {
    pub(super) fn accepted(accepted: &Accepted, sender: Arc<Sender>, to: Arc<Recipient>) -> Self {
        let consultation = accepted.consultation.as_ref().map(|new| {
            Box::new(Consultation {
                asked: new.asked.clone(),
                session: accepted.session.as_deref().map(Into::into),
                options: new.options.clone(),
                prompt_bytes: new.prompt_bytes,
                history_bytes: new.history_bytes,
                needs_vision: new.needs_vision,
                max_output_tokens: new.max_output_tokens,
                candidate: 0,
                tries_here: 0,
                shown: false,
                too_small: 0,
                attempts: Vec::new(),
                before: 0,
                passed_over: Vec::new(),
                why: String::new(),
            })
        });
        Self {
            seq: accepted.subject.seq,
            id: accepted.subject.id,
            sender,
            queue: Arc::clone(&to),
            to,
            kind: accepted.kind,
            priority: accepted.priority,
            branch: accepted.branch.map(|branch| {
                let root = accepted.correlation.root.unwrap_or(accepted.subject.id);
                Box::new(InTree { branch, root, hops: accepted.correlation.hops })
            }),
            line: accepted.line(),
            digest: accepted.digest,
            body: accepted.body.clone(),
            accepted_at: accepted.at,
            deadline: accepted.deadline,
            place: Place::New,
            epoch: 0,
            tried: None,
            timers: timers(accepted),
            consultation,
        }
    }

    #[must_use]
    pub fn subject(&self) -> Subject {
        Subject { seq: self.seq, id: self.id }
    }

    /// What it is known by once it has ended, by this lease.
    pub(super) fn known(&mut self, epoch: u32) -> Known {
        let numbered = self.timers.as_mut().and_then(|timers| timers.numbered.take());
        Known {
            seq: self.seq,
            id: self.id,
            sender: Arc::clone(&self.sender),
            digest: self.digest,
            accepted_at: self.accepted_at,
            deadline: self.deadline,
            ended_by: epoch,
            numbered: numbered.map(Box::new),
        }
    }

    /// The session in whose name it is worked on: of a question or a task, and of nothing else.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        match &self.consultation {
            Some(consultation) => consultation.session.as_deref(),
            None => self.timers.as_ref()?.session.as_deref(),
        }
    }

    /// The first message of its request.
    #[must_use]
    pub fn root(&self) -> Seq {
        self.branch.as_ref().map_or(self.seq, |place| place.branch.root)
    }

    /// What a message inherits that names this one as its parent.
    #[must_use]
    pub fn as_parent(&self) -> Parent {
        let sender = Sender::clone(&self.sender);
        match &self.branch {
            Some(place) => {
                Parent { sender, root: place.root, branch: place.branch, hops: place.hops }
            }
            None => Parent::first(sender, self.id, self.seq, self.kind),
        }
    }

    /// Its line, when only one of it may be out (I-11).
    #[must_use]
    pub fn strict_line(&self) -> Option<Line> {
        let is_strict = matches!(self.kind, MessageType::Handoff | MessageType::Delegation);
        self.line.filter(|_| is_strict)
    }

    pub(super) fn due(&self) -> BootTime {
        self.timers.as_ref().map_or_else(BootTime::default, |timers| timers.due)
    }

    pub(super) fn orphaned(&self) -> Option<BootTime> {
        self.timers.as_ref()?.orphaned
    }

    /// The last lease that was settled without ending the message.
    #[must_use]
    pub fn settled(&self) -> Option<u32> {
        self.tried.as_ref()?.settled
    }

    /// Leases that ended without a settlement, the agent's fault or its machine's.
    #[must_use]
    pub fn lost(&self) -> u16 {
        self.tried.as_ref().map_or(0, |tried| tried.lost)
    }

    /// The attempt whose lease was lost, and whether it counts, while its stream is being closed.
    #[must_use]
    pub fn lost_attempt(&self) -> Option<&LostAttempt> {
        self.tried.as_ref()?.lost_attempt.as_ref()
    }

    /// Which life this is, from 1: each redrive begins another (I-27).
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.tried.as_ref().map_or(1, |tried| tried.generation)
    }

    /// Since when it waits for its next delivery: since it was accepted, or since the one before ended.
    #[must_use]
    pub fn ready_at(&self) -> WallTime {
        self.tried.as_ref().map_or(self.accepted_at, |tried| tried.ready_at)
    }

    /// What it died of, while its recipient's dead letters have no room for it.
    #[must_use]
    pub fn parked(&self) -> Option<&(Failure, Option<Body>)> {
        self.tried.as_ref()?.parked.as_deref()
    }

    pub(super) fn tried(&mut self) -> &mut Tried {
        let ready_at = self.accepted_at;
        self.tried.get_or_insert_with(|| {
            Box::new(Tried {
                settled: None,
                lost_attempt: None,
                lost: 0,
                generation: 1,
                ready_at,
                parked: None,
            })
        })
    }

    /// Its agent settled its lease at `at`, and it lives on.
    pub(super) fn settle_at(&mut self, at: WallTime) {
        let epoch = self.epoch;
        let tried = self.tried();
        (tried.settled, tried.ready_at) = (Some(epoch), at);
    }

    /// Its lost attempt is settled in one way or another.
    pub(super) fn forget_lost_attempt(&mut self) {
        if let Some(tried) = &mut self.tried {
            tried.lost_attempt = None;
        }
    }

    /// The model whose queue it is in.
    #[must_use]
    pub fn model(&self) -> Option<&ModelName> {
        match &*self.queue {
            Recipient::Model(name) => Some(name),
            Recipient::Agent(_) | Recipient::Role(_) | Recipient::AgentsOf(_) => None,
        }
    }

    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match &self.place {
            Place::Leased(lease) => Some(lease),
            Place::New | Place::Ready | Place::Waiting(_) | Place::Closing | Place::Held(_) => None,
        }
    }

    #[must_use]
    pub fn state(&self) -> MessageState {
        match &self.place {
            Place::New | Place::Ready | Place::Closing => MessageState::Queued,
            Place::Waiting(_) | Place::Held(_) => MessageState::Waiting,
            Place::Leased(_) => MessageState::Leased,
        }
    }

    pub(super) fn routed(&mut self, candidate: u32, passed_over: &[PassedOver], why: &str) {
        let Some(consultation) = &mut self.consultation else { return };
        if consultation.candidate != candidate {
            consultation.tries_here = 0;
        }
        consultation.candidate = candidate;
        why.clone_into(&mut consultation.why);
        for passed in passed_over {
            consultation.passed_over.retain(|before| before.model != passed.model);
            consultation.passed_over.push(passed.clone());
        }
    }

    /// It has become a dead letter: what is only of use to the living is let go of.
    pub(super) fn die(&mut self, epoch: u32) {
        let tried = self.tried();
        tried.settled = (epoch > 0).then_some(epoch);
        tried.lost_attempt = None;
        tried.lost = 0;
        tried.parked = None;
        if let Some(timers) = &mut self.timers {
            timers.orphaned = None;
        }
        if let Some(consultation) = &mut self.consultation {
            consultation.attempts = Vec::new();
            consultation.passed_over = Vec::new();
        }
    }

    /// A new life: everything begins again but the epochs, so that no token of the last one counts.
    pub(super) fn revive(&mut self, at: WallTime, deadline: WallTime, generation: u32) {
        self.accepted_at = at;
        self.deadline = deadline;
        self.place = Place::New;
        self.queue = Arc::clone(&self.to);
        let tried = self.tried();
        tried.ready_at = at;
        tried.generation = generation;
        if let Some(consultation) = &mut self.consultation {
            consultation.candidate = 0;
            consultation.tries_here = 0;
            consultation.shown = false;
            consultation.too_small = 0;
            consultation.before = 0;
            // Whoever asked may have left long ago; who redrives wants it done.
            consultation.options.keep = true;
            consultation.options.allow_restart = true;
        }
    }

    /// The deadline of a life that begins at `now`: as long as the last one was meant to be, and never beyond what its
    /// sender said.
    pub(in crate::core) fn next_deadline(&self, now: WallTime) -> WallTime {
        let span = now.after(self.deadline.since(self.accepted_at));
        self.timers
            .as_ref()
            .and_then(|timers| timers.expires_at)
            .map_or(span, |expires_at| span.min(expires_at))
    }

    /// The attempt that its lost lease was, without a word on why it failed.
    pub(super) fn lost_at(&self, at: WallTime) -> Option<Attempt> {
        let (lease, model) = (self.lease()?, self.model()?.clone());
        Some(Attempt {
            number: self.epoch,
            model,
            agent: Some(lease.agent.clone()),
            failure: None,
            latency: at.since(lease.since),
            wait: lease.since.since(self.ready_at()),
            first_token: None,
            usage: Usage::default(),
            cost_usd: None,
        })
    }

    pub(super) fn attempt_failed(&mut self, attempt: &Attempt, shown: bool) {
        let Some(consultation) = &mut self.consultation else { return };
        consultation.tries_here += 1;
        consultation.shown |= shown;
        consultation.attempts.push(attempt.clone());
    }
}

/// What of it few messages have.
fn timers(accepted: &Accepted) -> Option<Box<Timers>> {
    let is_task = accepted.kind == MessageType::Delegation && accepted.consultation.is_none();
    let session = accepted.session.as_deref().filter(|_| is_task).map(Into::into);
    let expires_at = accepted.expires_at;
    let has_any = session.is_some() || expires_at.is_some();
    has_any.then(|| Box::new(Timers { session, expires_at, ..Timers::default() }))
}

impl Keyed for Message {
    fn seq(&self) -> Seq {
        self.seq
    }

    fn key(&self) -> (&Sender, MessageId) {
        (&self.sender, self.id)
    }
}

/// Who answered, and how, when somebody did.
#[derive(Debug)]
pub(in crate::core) struct Answered<'a> {
    pub attempt: Attempt,
    pub stop_reason: Option<StopReason>,
    pub model: &'a crate::core::policy::Model,
}

impl Consultation {
    /// The attempts of the present walk along the chain.
    pub(in crate::core) fn chain(&self) -> &[Attempt] {
        self.attempts.get(self.before..).unwrap_or_default()
    }

    /// A task is taken up again: its chain begins anew.
    pub(super) fn begin_anew(&mut self) {
        self.before = self.attempts.len();
        self.tries_here = 0;
    }

    /// Another model is asked from now on.
    pub(super) fn redirect(&mut self, to: &ModelName, why: &str) {
        self.begin_anew();
        self.asked = to.clone();
        (self.candidate, self.too_small) = (0, 0);
        why.clone_into(&mut self.why);
    }

    /// What is said of this consultation at its end.
    pub(in crate::core) fn summary(
        &self,
        id: MessageId,
        answered: Option<Answered<'_>>,
    ) -> AnswerSummary {
        let mut attempts = self.attempts.clone();
        let last = answered;
        attempts.extend(last.as_ref().map(|answered| answered.attempt.clone()));
        let called = |passed: &&PassedOver| attempts.iter().all(|a| a.model != passed.model);
        AnswerSummary {
            message_id: id,
            asked: self.asked.clone(),
            model: last.as_ref().map(|answered| answered.model.name.clone()),
            agent: last.as_ref().and_then(|answered| answered.attempt.agent.clone()),
            is_degraded: last.as_ref().is_some_and(|answered| {
                // A model that was asked for itself stands in for nobody.
                answered.model.is_degraded && answered.model.name != self.asked
            }),
            is_simulated: last.as_ref().is_some_and(|answered| answered.model.is_simulated),
            stop_reason: last.as_ref().and_then(|answered| answered.stop_reason),
            passed_over: self.passed_over.iter().filter(called).cloned().collect(),
            usage: attempts.iter().map(|a| a.usage).reduce(Usage::plus).unwrap_or_default(),
            cost_usd: attempts
                .iter()
                .map(|a| a.cost_usd)
                .try_fold(0.0, |sum, cost| Some(sum + cost?)),
            not_appended: None,
            shortened: None,
            attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000,000 messages within 400 MB: docs/benchmarks.md.
    #[test]
    fn a_living_message_is_small() {
        assert!(size_of::<Message>() <= 216, "{} bytes", size_of::<Message>());
    }
}
