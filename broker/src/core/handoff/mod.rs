//! Handoffs: which sessions are on their way to another owner, how far each is, and how often they moved.
//!
//! `BUILDING → READY → OFFERED → ACCEPTED → ACTIVE → COMPLETED`, with the ends `DECLINED`, `EXPIRED`, `FAILED` and
//! `RETURNED`. What leads from one to the next, and what it does to queues and sessions, is `flow::handoff`'s.
//!
//! Invariant: a session has at most one handoff that is pending or active.
//! Invariant: until `ACTIVE` the old owner is the owner; the change is one commit (I-38).

pub mod arbiter;
pub mod bridge;
pub mod policy;
mod settings;
pub mod trigger;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_proto::{
    AcceptHandoff, AgentName, AskHandoff, Handoff, HandoffCheck, HandoffId, HandoffKept,
    HandoffPolicyChange, HandoffState, HandoffStatus, ModelName, PackageId, SessionId,
    SessionPause, Trigger, TriggerKind, Unverified, UsageSetting, WallTime,
};

pub use arbiter::{Candidate, Case, Unfit, Verdict};
pub use settings::Settings;

use super::{BootTime, Now};

/// Handoffs of one session that are shown; of more the oldest are forgotten.
pub const KEPT: usize = 256;
/// Moves of a session that are remembered, for cool-down and loops.
const RECENT: usize = 16;

/// Journalled.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A handoff as it is from now on.
    Changed { at: WallTime, handoff: Box<Handoff> },
    /// What overrides the file from now on: all of it.
    PolicySet { at: WallTime, overrides: BTreeMap<String, String> },
    /// A session is better off elsewhere; `None`: no more. Nobody moves it for that, unless `auto_switch` says so.
    Advised { at: WallTime, session: SessionId, advised: Option<Advised> },
    /// These are no longer shown: their session has many newer ones, or is gone.
    Forgotten { at: WallTime, session: SessionId, ids: Vec<HandoffId> },
}

/// Where a session is better off, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Advised {
    pub to: ModelName,
    pub trigger: Trigger,
}

impl Event {
    #[must_use]
    pub fn at(&self) -> WallTime {
        match self {
            Self::Changed { at, .. }
            | Self::PolicySet { at, .. }
            | Self::Advised { at, .. }
            | Self::Forgotten { at, .. } => *at,
        }
    }
}

/// Who speaks for a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// Whoever may open the socket: a person who does what an agent would.
    Person,
    Agent(AgentName),
}

/// A package that was made for a handoff.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    pub id: HandoffId,
    /// Whom it was made for: a handoff may have gone on to the next meanwhile.
    pub to: ModelName,
    pub package: PackageId,
    pub manifest: [u8; 32],
    /// `moved` and `revoked` are the core's.
    pub kept: HandoffKept,
}

/// A session that goes on in another process: paused, and offered there, in one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// With the package of the pause.
    pub ask: AskHandoff,
    /// Of the session that the package was made of.
    pub version: u64,
    /// Without its handoff, which is not known yet.
    pub pause: SessionPause,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Begin(Box<AskHandoff>),
    Transfer(Box<Transfer>),
    Built(Box<Built>),
    /// No package could be made for this receiver.
    NotBuilt {
        id: HandoffId,
        to: ModelName,
        reason: String,
    },
    Accept {
        accept: AcceptHandoff,
        by: By,
    },
    Decline {
        id: HandoffId,
        by: By,
        reason: String,
        /// It speaks for every agent of its model.
        for_model: bool,
    },
    Complete {
        id: HandoffId,
        by: By,
        outcome: String,
    },
    GiveBack {
        id: HandoffId,
        reason: String,
    },
    SetPolicy(Box<HandoffPolicyChange>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Of those that are remembered here: pending, active, or the last of a session.
    Get(HandoffId),
    /// The one of a session that is pending or active, else its last.
    Of(SessionId),
    /// Those that took a session away from where it goes back to, oldest first.
    Away(SessionId),
    Policy,
    /// Whether a session, by its name, is to be handed off now.
    Check {
        session: String,
        warning_only: bool,
    },
    /// Of every model; of the sessions for which there is something to say, or of the one that is named.
    Status {
        session: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Handoff(Box<Handoff>),
    Found(Option<Box<Handoff>>),
    Away(Vec<Handoff>),
    Policy(Vec<UsageSetting>),
    /// `None`: nothing is known of such a session.
    Check(Option<Box<HandoffCheck>>),
    Status(Box<HandoffStatus>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no handoff {0}")]
    Unknown(HandoffId),
    #[error("handoff {id} is {}: it cannot be {wanted} now", .state.as_str())]
    State { id: HandoffId, state: HandoffState, wanted: &'static str },
    #[error("handoff {id} of session `{session}` is under way ({}): decline it first, or wait", .state.as_str())]
    UnderWay { id: HandoffId, session: SessionId, state: HandoffState },
    #[error("session `{0}` has no turns yet: there is nothing to hand off")]
    NoTurns(SessionId),
    #[error("session `{session}` belongs to {owner} already")]
    Owner { session: SessionId, owner: ModelName },
    #[error("session `{session}` is with agent {agent} already")]
    HasIt { session: SessionId, agent: AgentName },
    #[error("handoff {id} is not offered to {who}")]
    NotYours { id: HandoffId, who: String },
    #[error(
        "that is not the manifest of the package of handoff {0}: fetch the package again, and verify it"
    )]
    Manifest(HandoffId),
    #[error("the offer of handoff {0} has expired")]
    Late(HandoffId),
    #[error("{model} cannot take it: {reason}")]
    Unfit { model: ModelName, reason: String },
    #[error("no other model can take it: {reason}")]
    Nobody { reason: String, until: Option<WallTime> },
    #[error("handoff {0} has nowhere to go back to: its session's owner was chosen")]
    NoOrigin(HandoffId),
    #[error("the session's owner has changed since handoff {0} began")]
    OwnerChanged(HandoffId),
    #[error(transparent)]
    Policy(#[from] policy::Invalid),
}

/// One change of owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    pub id: HandoffId,
    pub from: ModelName,
    pub to: ModelName,
    pub at: WallTime,
}

/// What is known of a session's moves.
#[derive(Debug, Clone, Default)]
pub struct Track {
    /// The one that is pending or active, else the last.
    pub last: Option<HandoffId>,
    /// The one that is active: it stays so while another is pending.
    pub active: Option<HandoffId>,
    /// Where it goes back to; `None` while it is where somebody put it.
    pub origin: Option<ModelName>,
    /// The handoffs that took it away from there.
    pub away: Vec<HandoffId>,
    /// Automatic moves since then.
    pub hops: u32,
    /// Oldest first.
    pub recent: VecDeque<Hop>,
    /// Every one that is shown.
    pub shown: BTreeSet<HandoffId>,
}

#[derive(Debug, Default)]
pub struct State {
    /// Those that are pending or active, the last of each session, and those that took it away from its origin.
    handoffs: BTreeMap<HandoffId, Handoff>,
    /// Those that are pending or active: few, whatever the others are.
    open: BTreeSet<HandoffId>,
    /// Of those, whose owner changes next.
    accepted: BTreeSet<HandoffId>,
    /// When each of them is looked at, the next first; for an active one volatile after its first time.
    due: BTreeSet<(WallTime, HandoffId)>,
    due_of: BTreeMap<HandoffId, WallTime>,
    tracks: BTreeMap<SessionId, Track>,
    number: u128,
    /// By the model they left: sessions that go back there by themselves.
    lent: BTreeMap<ModelName, BTreeSet<SessionId>>,
    /// When to look whether these models can take theirs back; volatile.
    homes: BTreeMap<ModelName, WallTime>,
    /// When the next checkpoints of sessions are due; volatile.
    checkpoints: BTreeMap<SessionId, WallTime>,
    /// Sessions that are better off elsewhere: where, and why.
    advised: BTreeMap<SessionId, Advised>,
    /// What the file says; what counts is `Policy::handoff`.
    file: Settings,
    overrides: BTreeMap<String, String>,
}

impl State {
    #[must_use]
    pub fn new(file: &Settings) -> Self {
        Self { file: file.clone(), ..Self::default() }
    }

    /// What the file says.
    #[must_use]
    pub fn file(&self) -> &Settings {
        &self.file
    }

    #[must_use]
    pub fn overrides(&self) -> &BTreeMap<String, String> {
        &self.overrides
    }

    /// The id of the next one, which begins at `now`.
    #[must_use]
    pub fn next_id(&self, now: WallTime) -> HandoffId {
        HandoffId::from_parts(now, self.number + 1)
    }

    #[must_use]
    pub fn get(&self, id: HandoffId) -> Option<&Handoff> {
        self.handoffs.get(&id)
    }

    /// The one of a session that is pending or active, else its last.
    #[must_use]
    pub fn last(&self, session: &SessionId) -> Option<&Handoff> {
        let last = self.handoffs.get(&self.tracks.get(session)?.last?)?;
        let active = || self.active(session).unwrap_or(last);
        Some(if last.state.is_over() { active() } else { last })
    }

    /// The one whose new owner has not answered yet.
    #[must_use]
    pub fn active(&self, session: &SessionId) -> Option<&Handoff> {
        self.handoffs.get(&self.tracks.get(session)?.active?)
    }

    /// The one of a session that is pending or active.
    #[must_use]
    pub fn open(&self, session: &SessionId) -> Option<&Handoff> {
        self.last(session).filter(|handoff| !handoff.state.is_over())
    }

    #[must_use]
    pub fn track(&self, session: &SessionId) -> Option<&Track> {
        self.tracks.get(session)
    }

    /// Every one that is pending or active, oldest first.
    pub fn all_open(&self) -> impl Iterator<Item = &Handoff> {
        self.open.iter().filter_map(|id| self.handoffs.get(id))
    }

    /// Every one that was accepted and whose owner has not changed yet, oldest first.
    pub fn all_accepted(&self) -> impl Iterator<Item = &Handoff> {
        self.accepted.iter().filter_map(|id| self.handoffs.get(id))
    }

    /// Sessions that are away from where they belong, and where that is.
    pub fn away(&self) -> impl Iterator<Item = (&SessionId, &ModelName)> {
        self.tracks.iter().filter_map(|(session, track)| Some((session, track.origin.as_ref()?)))
    }

    /// The first one whose state ends by itself now.
    #[must_use]
    pub fn due(&self, now: Now) -> Option<HandoffId> {
        self.due.first().filter(|(at, _)| *at <= now.wall).map(|(_, id)| *id)
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<BootTime> {
        let states = self.due.first().map(|(at, _)| *at).into_iter();
        let looks = self.homes.values().chain(self.checkpoints.values()).copied();
        states.chain(looks).min().map(|at| now.boot_at(at))
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let handoff = match event {
            Event::Changed { handoff, .. } => handoff,
            Event::Forgotten { session, ids, .. } => {
                let Some(track) = self.tracks.get_mut(session) else { return };
                ids.iter().for_each(|id| _ = track.shown.remove(id));
                // Only a session that is gone leaves its last one behind.
                if track.last.is_some_and(|last| ids.contains(&last)) {
                    self.forget(session);
                }
                return;
            }
            Event::PolicySet { overrides, .. } => {
                self.overrides.clone_from(overrides);
                return;
            }
            Event::Advised { session, advised, .. } => {
                self.advised.remove(session);
                self.advised.extend(advised.clone().map(|advised| (session.clone(), advised)));
                return;
            }
        };
        let lender = self.lender(&handoff.session);
        self.number = self.number.max(handoff.id.number());
        let track = self.tracks.entry(handoff.session.clone()).or_default();
        track.shown.insert(handoff.id);
        let is_newest = track.last.is_none_or(|last| last.number() <= handoff.id.number());
        let before = track.last.filter(|last| is_newest && *last != handoff.id);
        if is_newest {
            track.last = Some(handoff.id);
        }
        let left_behind = handoff.active_at.map(|at| track.moved(handoff, at)).unwrap_or_default();
        self.handoffs.insert(handoff.id, Handoff::clone(handoff));
        if handoff.state == HandoffState::Active {
            track.active = Some(handoff.id);
        } else if track.active == Some(handoff.id) {
            track.active = None;
        }
        if handoff.state.is_over() {
            self.open.remove(&handoff.id);
        } else {
            self.open.insert(handoff.id);
        }
        if handoff.state == HandoffState::Accepted {
            self.accepted.insert(handoff.id);
        } else {
            self.accepted.remove(&handoff.id);
        }
        if handoff.state == HandoffState::Returned {
            track.away.retain(|id| *id != handoff.id);
        }
        let kept = |id: &HandoffId| {
            track.last == Some(*id) || track.active == Some(*id) || track.away.contains(id)
        };
        let done = [handoff.id].into_iter().chain(before).chain(left_behind);
        for id in done.filter(|id| !kept(id)) {
            self.handoffs.remove(&id);
        }
        self.look_at(handoff.id, handoff.until.filter(|_| !handoff.state.is_over()));
        self.lend(&handoff.session, lender);
    }

    /// Looks at it then; `None`: not by the clock.
    fn look_at(&mut self, id: HandoffId, at: Option<WallTime>) {
        if let Some(before) = self.due_of.remove(&id) {
            self.due.remove(&(before, id));
        }
        if let Some(at) = at {
            self.due.insert((at, id));
            self.due_of.insert(id, at);
        }
    }

    /// Looks at one that is pending or active again.
    pub(super) fn look_after(&mut self, id: HandoffId, at: WallTime) {
        if self.open.contains(&id) {
            self.look_at(id, Some(at));
        }
    }

    /// The model that a session goes back to by itself.
    fn lender(&self, session: &SessionId) -> Option<ModelName> {
        let track = self.tracks.get(session)?;
        let mut away = track.away.iter().filter_map(|id| self.handoffs.get(id));
        track.origin.clone().filter(|_| away.any(|handoff| handoff.is_lent))
    }

    /// Keeps `lent` as the session's track is; `before` is what it was.
    fn lend(&mut self, session: &SessionId, before: Option<ModelName>) {
        let now = self.lender(session);
        if now == before {
            return;
        }
        if let Some(before) = before
            && let Some(sessions) = self.lent.get_mut(&before)
        {
            sessions.remove(session);
            if sessions.is_empty() {
                self.lent.remove(&before);
            }
        }
        if let Some(now) = now {
            self.lent.entry(now).or_default().insert(session.clone());
        }
    }

    /// Sessions that go back to this model by themselves, once it can go on.
    pub fn lent_by(&self, model: &ModelName) -> impl Iterator<Item = &SessionId> {
        self.lent.get(model).into_iter().flatten()
    }

    /// Models that sessions go back to by themselves.
    pub fn lenders(&self) -> impl Iterator<Item = &ModelName> {
        self.lent.keys()
    }

    /// The handoffs that took a session away from where it goes back to, oldest first.
    pub fn away_of(&self, session: &SessionId) -> impl Iterator<Item = &Handoff> {
        let away = self.tracks.get(session).map(|track| track.away.as_slice()).unwrap_or_default();
        away.iter().filter_map(|id| self.handoffs.get(id))
    }

    /// The oldest of a session that are not to be shown any more.
    #[must_use]
    pub fn past(&self, session: &SessionId) -> Vec<HandoffId> {
        let Some(track) = self.tracks.get(session) else { return Vec::new() };
        let many = track.shown.len().saturating_sub(KEPT);
        let is_needed = |id: &HandoffId| {
            track.last == Some(*id) || track.active == Some(*id) || track.away.contains(id)
        };
        track.shown.iter().copied().filter(|id| !is_needed(id)).take(many).collect()
    }

    /// Sessions that have moved.
    pub fn moved(&self) -> impl Iterator<Item = &SessionId> {
        self.tracks.keys()
    }

    /// Every one of a session that is shown.
    #[must_use]
    pub fn shown(&self, session: &SessionId) -> Vec<HandoffId> {
        self.tracks.get(session).map(|it| it.shown.iter().copied().collect()).unwrap_or_default()
    }

    /// Where a session is better off.
    #[must_use]
    pub fn advised(&self, session: &SessionId) -> Option<&Advised> {
        self.advised.get(session)
    }

    /// A model that may be able to take its sessions back: it is time to look.
    #[must_use]
    pub fn home_due(&self, now: Now) -> Option<&ModelName> {
        self.homes.iter().find(|(_, at)| **at <= now.wall).map(|(model, _)| model)
    }

    /// A session whose checkpoint is due.
    #[must_use]
    pub fn checkpoint_due(&self, now: Now) -> Option<&SessionId> {
        self.checkpoints.iter().find(|(_, at)| **at <= now.wall).map(|(session, _)| session)
    }

    pub(super) fn look_at_checkpoint(&mut self, session: &SessionId, at: Option<WallTime>) {
        self.checkpoints.remove(session);
        self.checkpoints.extend(at.map(|at| (session.clone(), at)));
    }

    /// Looks then, or before; `None`: not at all.
    pub(super) fn look_home(&mut self, model: &ModelName, at: Option<WallTime>) {
        match at {
            None => {
                self.homes.remove(model);
            }
            Some(at) => {
                let look = self.homes.entry(model.clone()).or_insert(at);
                *look = at.min(*look);
            }
        }
    }

    /// A session is no more, and neither are its moves.
    pub(super) fn forget(&mut self, session: &SessionId) {
        self.advised.remove(session);
        self.checkpoints.remove(session);
        let lender = self.lender(session);
        let Some(track) = self.tracks.remove(session) else { return };
        for id in track.away.into_iter().chain(track.last).chain(track.active) {
            self.look_at(id, None);
            self.open.remove(&id);
            self.accepted.remove(&id);
            self.handoffs.remove(&id);
        }
        self.lend(session, lender);
    }
}

/// What was written in a session since the first of `away` took it from `home`; of `entries` there are now. `None` where
/// nothing was.
#[must_use]
pub fn unverified(away: &[Handoff], home: &ModelName, entries: u64) -> Option<Unverified> {
    let from = away.first()?.kept.entries;
    let mut by: Vec<ModelName> = Vec::new();
    for handoff in away {
        if handoff.to != *home && !by.contains(&handoff.to) {
            by.push(handoff.to.clone());
        }
    }
    let is_any = from < entries && !by.is_empty();
    is_any.then(|| Unverified { home: home.clone(), from, until: entries, by })
}

impl Track {
    /// Its owner changed with this handoff; gives those that nothing leads back over any more.
    fn moved(&mut self, handoff: &Handoff, at: WallTime) -> Vec<HandoffId> {
        if self.recent.iter().any(|hop| hop.id == handoff.id) {
            return Vec::new();
        }
        let (from, to) = (handoff.from.model.clone(), handoff.to.clone());
        self.recent.push_back(Hop { id: handoff.id, from, to, at });
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        // Somebody put it there, or its ring did.
        let is_put = handoff.trigger.kind == TriggerKind::UserRequest || handoff.hops == 0;
        let is_home = handoff.to == handoff.origin;
        self.origin = Some(handoff.origin.clone()).filter(|_| !is_put && !is_home);
        self.hops = if is_put || is_home { 0 } else { handoff.hops };
        let left_behind =
            if is_put && !is_home { std::mem::take(&mut self.away) } else { Vec::new() };
        if !is_home && handoff.state != HandoffState::Returned {
            self.away.push(handoff.id);
        }
        left_behind
    }
}

#[cfg(test)]
mod tests;
