//! What happened: journalled events, and volatile notes that are not.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::{
    AgentName, AnswerSummary, Attempt, ContentHash, Correlation, Failure, HandoffId, MessageId,
    MessageState, MessageType, ModelName, Numbered, PassedOver, Priority, Recipient, RoleName,
    RootBudget, Sender, SessionId, WallTime,
};

use super::{
    BootTime,
    agent::LinkId,
    queue::{Body, Digest, Hold, Line, Seq},
    route::ModelRoute,
    tree::{Branch, Parent, Tree},
    usage::{self, ModelTotals},
};

/// Which message an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject {
    pub seq: Seq,
    pub id: MessageId,
}

/// A message as it was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub subject: Subject,
    pub at: WallTime,
    pub sender: Sender,
    pub to: Recipient,
    pub kind: MessageType,
    pub priority: Priority,
    pub digest: Digest,
    pub body: Body,
    pub deadline: WallTime,
    pub session: Option<String>,
    pub ordering_key: Option<String>,
    pub correlation: Correlation,
    pub labels: BTreeMap<String, String>,
    /// As its sender said it; a new life goes no further (I-27).
    pub expires_at: Option<WallTime>,
    pub consultation: Option<super::NewConsultation>,
    pub numbered: Option<Numbered>,
    /// Where it stands in its request; `None` for a request's first.
    pub branch: Option<Branch>,
    pub budget: Option<RootBudget>,
}

impl Accepted {
    /// What a message inherits that names this one as its parent.
    #[must_use]
    pub fn as_parent(&self) -> Parent {
        let (sender, id) = (self.sender.clone(), self.subject.id);
        match self.branch {
            Some(branch) => {
                let root = self.correlation.root.unwrap_or(id);
                Parent { sender, root, branch, hops: self.correlation.hops }
            }
            None => Parent::first(sender, id, self.subject.seq, self.kind),
        }
    }

    /// Messages to one recipient with one ordering key, by default `sender/session`, keep their order (I-10). Without
    /// either, a message is ordered by its priority and its number alone.
    #[must_use]
    pub fn line(&self) -> Option<Line> {
        let default = || Some(format!("{}/{}", self.sender, self.session.as_ref()?));
        let key = self.ordering_key.clone().or_else(default)?;
        Some(Line::of(&self.to, &key))
    }
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub subject: Subject,
    pub at: WallTime,
    pub state: MessageState,
    /// The last lease that was settled, whose settlement may come again; 0 when none was.
    pub epoch: u32,
    /// For a consultation: every attempt, the figures, who answered.
    pub summary: Option<AnswerSummary>,
    pub failure: Option<Failure>,
    /// The answer, or what arrived of it.
    pub reply: Option<Body>,
    /// For a message to all agents of a model: how many got a copy.
    pub copies: u32,
}

/// A message to all agents of a model: one event, so that every copy is in one commit, however many there are.
#[derive(Debug, Clone, PartialEq)]
pub struct FannedOut {
    pub original: Accepted,
    /// At most 256, numbered behind the original.
    pub copies: Vec<Copied>,
}

/// What waited for a session's old owner, or was worked on by it, goes to the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceMoved {
    pub subjects: Vec<Subject>,
    pub at: WallTime,
    pub to: ModelName,
    pub why: String,
}

impl SliceMoved {
    /// One message at a time.
    fn steps(&self) -> impl Iterator<Item = Event> {
        self.subjects.iter().map(|subject| {
            let (at, to, why) = (self.at, self.to.clone(), self.why.clone());
            Event::Redirected(Box::new(Redirected { subject: *subject, at, to, why }))
        })
    }
}

/// A message is asked of another model from now on, and stands at the beginning of that one's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirected {
    pub subject: Subject,
    pub at: WallTime,
    pub to: ModelName,
    pub why: String,
}

/// One agent's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub subject: Subject,
    pub agent: AgentName,
}

impl FannedOut {
    /// What it stands for: the original's acceptance and end, and between them each copy in its agent's mailbox.
    fn steps(&self) -> impl Iterator<Item = Event> {
        let original = &self.original;
        let (subject, at) = (original.subject, original.at);
        let copies = self.copies.iter().flat_map(move |copy| {
            let to = Recipient::Agent(copy.agent.clone());
            let correlation = Correlation {
                root: original.correlation.root.or(Some(subject.id)),
                parent: Some(subject.id),
                ..original.correlation
            };
            let accepted = Accepted {
                subject: copy.subject,
                to: to.clone(),
                correlation,
                // The number is the original's, and what comes of its copies belongs to its request.
                numbered: None,
                branch: original.branch.or(Some(Branch { root: subject.seq, depth: 0 })),
                ..original.clone()
            };
            let routed = Event::Routed {
                subject: copy.subject,
                at,
                queue: to,
                candidate: 0,
                wait_until: None,
                passed_over: Vec::new(),
                why: format!("copy of {}", subject.id),
            };
            [Event::Accepted(Box::new(accepted)), routed]
        });
        let end = Event::Finished(Box::new(Finished {
            subject,
            at,
            state: MessageState::Done,
            epoch: 0,
            summary: None,
            failure: None,
            reply: None,
            copies: u32::try_from(self.copies.len()).unwrap_or(u32::MAX),
        }));
        [Event::Accepted(Box::new(original.clone()))].into_iter().chain(copies).chain([end])
    }
}

/// Journalled, in this order, for ever.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Accepted(Box<Accepted>),
    FannedOut(Box<FannedOut>),
    /// Placed in a queue, or set to wait for it until a time.
    Routed {
        subject: Subject,
        at: WallTime,
        queue: Recipient,
        /// The chain's place, for a consultation.
        candidate: u32,
        wait_until: Option<WallTime>,
        passed_over: Vec<PassedOver>,
        why: String,
    },
    /// Kept in this queue until something explicit happens.
    Held {
        subject: Subject,
        at: WallTime,
        queue: Recipient,
        hold: Hold,
        why: String,
    },
    Leased {
        subject: Subject,
        at: WallTime,
        epoch: u32,
        agent: AgentName,
        instance: String,
        /// Its length when it was pulled; on a link it is the policy's.
        pulled: Option<Duration>,
    },
    AttemptFailed {
        subject: Subject,
        at: WallTime,
        attempt: Box<Attempt>,
        shown: bool,
    },
    LeaseLost {
        subject: Subject,
        at: WallTime,
        epoch: u32,
        why: String,
        counts: bool,
    },
    /// A delivery from a mailbox failed. What follows is another event.
    DeliveryFailed {
        subject: Subject,
        at: WallTime,
        epoch: u32,
        agent: AgentName,
        failure: Box<Failure>,
    },
    /// Worn out, and its recipient's dead letters are full: kept in its queue until they have room (I-26).
    Parked {
        subject: Subject,
        at: WallTime,
        queue: Recipient,
        failure: Box<Failure>,
        reply: Option<Body>,
    },
    /// A task asked its requester something; the attempt that did so is over.
    TaskAsked {
        subject: Subject,
        at: WallTime,
        /// From 1.
        number: u32,
        question: Body,
        attempt: Option<Box<Attempt>>,
    },
    /// The answer to the question that is open.
    TaskAnswered {
        subject: Subject,
        at: WallTime,
        /// Made by whoever answered.
        id: MessageId,
        digest: Digest,
        answer: Body,
        has_images: bool,
    },
    /// The attempt that a suspension ended, and what it had shown.
    TaskStopped {
        subject: Subject,
        at: WallTime,
        attempt: Option<Box<Attempt>>,
        partial: Option<Body>,
    },
    Finished(Box<Finished>),
    /// A dead letter begins a new life, under its id and with its epochs going on (I-27).
    Redriven {
        subject: Subject,
        at: WallTime,
        deadline: WallTime,
        generation: u32,
    },
    /// A dead letter is gone for good; its id stays known.
    Purged {
        subject: Subject,
        at: WallTime,
    },
    /// The wall clock jumped this far ahead of broker time, and is not believed yet; `None`: it is believed from now on,
    /// or was set right (I-23).
    ClockJumped {
        at: WallTime,
        ahead: Option<Duration>,
    },
    /// Whether anything is delivered from a queue, from now on.
    QueuePaused {
        queue: Recipient,
        at: WallTime,
        is_paused: bool,
    },
    /// What routing says of one model from now on.
    RouteChanged {
        model: ModelName,
        at: WallTime,
        route: ModelRoute,
    },
    /// What one model has used, from now on: as it was told before every call was.
    UsageChanged {
        model: ModelName,
        at: WallTime,
        totals: Box<ModelTotals>,
    },
    /// An agent's token, by its hash; `None` revokes it.
    TokenChanged {
        agent: AgentName,
        at: WallTime,
        hash: Option<[u8; 32]>,
    },
    /// An agent has greeted with this role.
    RoleKnown {
        role: RoleName,
        at: WallTime,
    },
    /// What a request has led to, from now on; `None` when it is forgotten.
    TreeChanged {
        root: Seq,
        at: WallTime,
        tree: Option<Box<Tree>>,
    },
    ContentStored {
        hash: ContentHash,
        at: WallTime,
        body: Body,
    },
    /// Nothing refers to this part any more: from now on it was never uploaded.
    ContentForgotten {
        hash: ContentHash,
        at: WallTime,
    },
    Session(Box<super::session::Event>),
    Package(Box<super::package::Event>),
    Handoff(Box<super::handoff::Event>),
    Bridge(Box<super::handoff::bridge::Changed>),
    Ring(Box<super::ring::Event>),
    SliceMoved(Box<SliceMoved>),
    Redirected(Box<Redirected>),
    Usage(usage::Event),
}

impl Event {
    /// The message this event is about, if it is about one.
    #[must_use]
    pub fn subject(&self) -> Option<Subject> {
        match self {
            Self::Accepted(accepted) => Some(accepted.subject),
            Self::FannedOut(fanned) => Some(fanned.original.subject),
            Self::Finished(finished) => Some(finished.subject),
            Self::Redirected(redirected) => Some(redirected.subject),
            Self::Routed { subject, .. }
            | Self::Held { subject, .. }
            | Self::Leased { subject, .. }
            | Self::AttemptFailed { subject, .. }
            | Self::LeaseLost { subject, .. }
            | Self::TaskAsked { subject, .. }
            | Self::TaskAnswered { subject, .. }
            | Self::TaskStopped { subject, .. }
            | Self::DeliveryFailed { subject, .. }
            | Self::Parked { subject, .. }
            | Self::Redriven { subject, .. }
            | Self::Purged { subject, .. } => Some(*subject),
            Self::RouteChanged { .. }
            | Self::UsageChanged { .. }
            | Self::TokenChanged { .. }
            | Self::RoleKnown { .. }
            | Self::ClockJumped { .. }
            | Self::QueuePaused { .. }
            | Self::TreeChanged { .. }
            | Self::ContentStored { .. }
            | Self::ContentForgotten { .. }
            | Self::Session(_)
            | Self::Package(_)
            | Self::Handoff(_)
            | Self::Bridge(_)
            | Self::Ring(_)
            // Each message's step has its own.
            | Self::SliceMoved(_)
            | Self::Usage(_) => None,
        }
    }

    /// The stored bytes that this event refers to. What no event refers to is swept away, so that none may be left out.
    #[must_use]
    pub fn bodies(&self) -> Vec<&Body> {
        match self {
            Self::Accepted(accepted) => vec![&accepted.body],
            Self::FannedOut(fanned) => vec![&fanned.original.body],
            Self::Finished(finished) => finished.reply.iter().collect(),
            Self::Parked { reply, .. } => reply.iter().collect(),
            Self::TaskAsked { question, .. } => vec![question],
            Self::TaskAnswered { answer, .. } => vec![answer],
            Self::TaskStopped { partial, .. } => partial.iter().collect(),
            Self::ContentStored { body, .. } => vec![body],
            Self::Routed { .. }
            | Self::Held { .. }
            | Self::Leased { .. }
            | Self::AttemptFailed { .. }
            | Self::LeaseLost { .. }
            | Self::DeliveryFailed { .. }
            | Self::Redriven { .. }
            | Self::Purged { .. }
            | Self::ClockJumped { .. }
            | Self::QueuePaused { .. }
            | Self::RouteChanged { .. }
            | Self::UsageChanged { .. }
            | Self::TokenChanged { .. }
            | Self::RoleKnown { .. }
            | Self::TreeChanged { .. }
            | Self::ContentForgotten { .. }
            | Self::Handoff(_)
            | Self::Bridge(_)
            | Self::Ring(_)
            | Self::SliceMoved(_)
            | Self::Redirected(_)
            | Self::Usage(_) => Vec::new(),
            Self::Session(event) => event.bodies(),
            Self::Package(event) => event.body().into_iter().collect(),
        }
    }

    /// Hands out the steps that this event stands for: itself, unless it is one over a set.
    pub fn each(&self, mut step: impl FnMut(&Self)) {
        match self {
            Self::FannedOut(fanned) => fanned.steps().for_each(|event| step(&event)),
            Self::SliceMoved(moved) => moved.steps().for_each(|event| step(&event)),
            _ => step(self),
        }
    }
}

/// Volatile: true for this run of the broker only.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A lease runs until `ends`, renewed or begun.
    LeaseRuns {
        seq: Seq,
        ends: BootTime,
        cap: Option<BootTime>,
    },
    /// A waiting message is due at `due`.
    WaitRuns {
        seq: Seq,
        due: BootTime,
    },
    /// Nobody listens to this consultation; it is cancelled at `until` unless somebody does again.
    Orphaned {
        seq: Seq,
        until: Option<BootTime>,
    },
    /// Finished messages up to this number are found in the projection from now on.
    Projected {
        finish_no: u64,
    },
    /// A window this consultation did not fit.
    TooSmall {
        seq: Seq,
        window: u64,
    },
    /// The attempt whose stream is being closed.
    LostAttempt {
        seq: Seq,
        attempt: Option<Box<Attempt>>,
        counts: bool,
    },
    LinkUp {
        link: LinkId,
        up: Box<super::agent::Link>,
    },
    LinkDown {
        link: LinkId,
        at: BootTime,
    },
    Credit {
        link: LinkId,
        messages: u32,
        size_bytes: u64,
    },
    Spent {
        link: LinkId,
        size_bytes: u64,
    },
    /// Nothing is leased, or nothing to this agent, until it is over.
    Drain {
        agent: Option<AgentName>,
        at: BootTime,
        is_over: bool,
    },
    /// The one message that may try a model whose return is in question.
    Probing {
        model: ModelName,
        seq: Option<Seq>,
    },
    /// A model's queue is to be routed again, piece by piece.
    Sweep {
        model: ModelName,
        is_due: bool,
    },
    /// A queue has more to deliver than one decision did.
    Unserved {
        queue: Recipient,
        is_due: bool,
    },
    /// An agent is waited for from now on, though it is not linked.
    Away {
        agent: AgentName,
        at: BootTime,
    },
    /// Nobody waits for it any more.
    ToldAway {
        agent: AgentName,
    },

    /// What waited for this model's agent has been routed again.
    ToldAbsent {
        model: ModelName,
    },
    /// A link of a ring took a delivery: the next one is another's turn.
    TookTurn {
        queue: Recipient,
        link: LinkId,
    },
    /// A bridge's package could not be made, for this reason.
    NotSynced {
        session: SessionId,
        to: ModelName,
        problem: String,
    },
    /// The agents of a model were told to load it for a prompt of so many tokens.
    Warmed {
        model: ModelName,
        tokens: u64,
        at: BootTime,
    },
    /// When time alone may change a level.
    LookAtUsage {
        subject: usage::Subject,
        at: Option<WallTime>,
    },
    /// When a session's next checkpoint is due; `None`: none is.
    LookAtCheckpoint {
        session: SessionId,
        at: Option<WallTime>,
    },
    /// When to look at a handoff that is pending or active.
    LookAfter {
        handoff: HandoffId,
        at: WallTime,
    },
    /// When to look whether a model can take back the sessions that it lent; `None`: not at all.
    LookHome {
        model: ModelName,
        at: Option<WallTime>,
    },
    /// Something of this request is still alive.
    TreeLives {
        root: Seq,
        at: WallTime,
    },
    /// How a call or a delivery of a ring's member ended.
    Heard {
        agent: AgentName,
        heard: usage::Heard,
        /// It says something against that member.
        is_against: bool,
    },
    /// The broker runs since `at`; these models have no agent yet.
    Started {
        at: BootTime,
        grace: Duration,
        models: Vec<ModelName>,
    },
}
