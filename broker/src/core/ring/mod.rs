//! Rings: agents of one role of which one works at a time, and who of them comes next.
//!
//! A handover has six phases: the outgoing one cannot go on (`detected`), what moves is written down (`saved`), the
//! incoming one is woken (`woken`), it is there (`seen`), it owns the ring (`loaded`), and it works (`resumed`). What
//! that does to queues and sessions is `flow::ring`'s.
//!
//! Invariant: a ring that is on has one owner, or is stopped; the change of owner is one event.
//! Invariant: until the incoming one has taken over, the outgoing one is the owner.

mod settings;
mod step;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{
    AgentName, ForceRotation, HandoffId, PackageId, Pick, RoleName, RotationPhase, RotationTrigger,
    SessionId, SetRotation, WallTime,
};

pub use settings::Settings;
pub use step::{Exhausted, Loading, Standing, Step, Unfit, Waker, step};

use super::{
    BootTime, Note, Now,
    agent::{Link, LinkId},
    usage::Signals,
};

/// Members of one ring.
pub const MOST_MEMBERS: usize = 64;
/// Rings; each is looked at after every command.
pub const MOST_RINGS: usize = 256;
/// Nobody waits longer for a member that works again.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// A ring as it is from now on, and what made it so. Journalled.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub at: WallTime,
    pub ring: Ring,
    pub what: What,
}

/// What happened to a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Somebody said who is in it, and how it goes round.
    Set,
    /// One of its owner's calls or deliveries says something against it; `reason`: what the last ones come to.
    Heard {
        reason: String,
    },
    Detected,
    Saved,
    Woken,
    Seen,
    /// It has another owner.
    Accepted,
    /// The new owner works. What it took over is not needed any more: these packages are archived.
    Resumed {
        packages: Vec<PackageId>,
    },
    PassedOver {
        member: AgentName,
        reason: String,
    },
    /// Nobody took it, and its owner goes on.
    Stayed {
        reason: String,
    },
    /// Nobody can work.
    Stopped,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    pub role: RoleName,
    pub is_on: bool,
    pub pick: Pick,
    pub pause: Duration,
    /// In their order, each once.
    pub members: Vec<Member>,
    pub owner: Option<AgentName>,
    /// Who was the owner last, or is.
    pub last: Option<AgentName>,
    /// Owners so far.
    pub epoch: u64,
    /// Since when it has this owner.
    pub since: WallTime,
    pub handover: Option<Handover>,
    /// Set where it is on and has no owner.
    pub stopped: Option<Stopped>,
    /// The owner's last calls and deliveries, as of the last that says something against it: what a restart begins with.
    pub heard: Signals,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub agent: AgentName,
    /// Why it is not asked for a while.
    pub shut: Option<Unfit>,
    /// How often it became the owner, and how long it was in all.
    pub turns: u64,
    pub owned: Duration,
}

impl Member {
    #[must_use]
    pub fn new(agent: AgentName) -> Self {
        Self { agent, shut: None, turns: 0, owned: Duration::ZERO }
    }
}

/// A ring on its way to another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    pub phase: RotationPhase,
    pub trigger: RotationTrigger,
    pub reason: String,
    /// What the outgoing one works on may end there.
    pub is_gradual: bool,
    pub from: Option<AgentName>,
    pub to: Option<AgentName>,
    /// The only one that is asked.
    pub only: Option<AgentName>,
    pub begun_at: WallTime,
    pub until: Option<WallTime>,
    pub tasks: u64,
    pub sessions: u64,
    /// Of the sessions that are offered now: so many at once, in the order of their ids.
    pub handoffs: Vec<HandoffId>,
    /// The last session that was looked at, and how many of those before these were taken.
    pub behind: Option<SessionId>,
    pub taken: u64,
    /// Who was asked and did not take it.
    pub tried: Vec<AgentName>,
}

impl Handover {
    /// Another member is to be asked: it is offered everything.
    pub fn begin_again(&mut self) {
        self.handoffs.clear();
        (self.behind, self.taken) = (None, 0);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    pub since: WallTime,
    /// Why, by member.
    pub why: String,
    /// When the first may come back, as far as that is known.
    pub back_at: Option<WallTime>,
}

/// Who is to be woken, for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub role: RoleName,
    pub from: Option<AgentName>,
    pub to: AgentName,
    pub reason: String,
    pub at: WallTime,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Set(SetRotation),
    Force(ForceRotation),
    /// A member's wake hook failed, or did not end in time.
    NotWoken {
        role: RoleName,
        to: AgentName,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// One ring, or all.
    Get(Option<RoleName>),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Rings(Vec<broker_proto::Rotation>),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "there is no ring of role `{0}`: `brokerctl rotation set --role {0} --members ..` makes one"
    )]
    Unknown(RoleName),
    #[error("a ring needs members, in their order")]
    NoMembers,
    #[error("`{0}` stands twice in the ring: each member has one place")]
    Twice(AgentName),
    #[error("no agent is called `{0}`: create its token first, or start it")]
    UnknownAgent(AgentName),
    #[error("a ring has at most {MOST_MEMBERS} members")]
    TooMany,
    #[error("{MOST_RINGS} rings are kept at most")]
    TooManyRings,
    #[error(
        "a pause of {pause:?} is shorter than the {accept:?} that a member may take to accept: who handed on would be asked again before the next one answers"
    )]
    ShortPause { pause: Duration, accept: Duration },
    #[error("a pause is at most {LONGEST_PAUSE:?}")]
    LongPause,
    #[error("the ring of role `{0}` is off")]
    Off(RoleName),
    #[error("`{agent}` is no member of the ring of role `{role}`")]
    NoMember { role: RoleName, agent: AgentName },
    #[error("`{0}` is the owner already")]
    Owner(AgentName),
    #[error("nobody else is in the ring of role `{0}`")]
    Alone(RoleName),
    #[error("the ring of role `{role}` is being handed on ({}): wait for it", .phase.as_str())]
    UnderWay { role: RoleName, phase: RotationPhase },
    #[error("`{agent}` cannot take it: {reason}")]
    Unfit { agent: AgentName, reason: String },
}

/// Who may take from a role's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker<'a> {
    /// There is no ring.
    Anyone,
    Only(&'a AgentName),
    Nobody,
}

#[derive(Debug, Default)]
pub struct State {
    rings: BTreeMap<RoleName, Ring>,
    /// Who serves which roles; volatile, as is everything below.
    links: BTreeMap<LinkId, (AgentName, Vec<RoleName>)>,
    /// Who stands by for whom.
    standby: BTreeMap<LinkId, (AgentName, Vec<RoleName>)>,
    /// Since when nothing is heard of a member that was there.
    gone: BTreeMap<(RoleName, AgentName), BootTime>,
    started: BootTime,
    /// The last calls and deliveries of each member, since it became an owner.
    heard: BTreeMap<AgentName, Signals>,
    /// Rings whose owner's were heard against it, and are not kept yet.
    unsaid: BTreeSet<RoleName>,
    /// Rings whose owner has ended some work since it took over.
    worked: BTreeSet<RoleName>,
}

impl State {
    #[must_use]
    pub fn get(&self, role: &RoleName) -> Option<&Ring> {
        self.rings.get(role)
    }

    pub fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.rings.values()
    }

    /// The rings that go round.
    pub fn on(&self) -> impl Iterator<Item = &Ring> {
        self.rings.values().filter(|ring| ring.is_on)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    /// Who may take from the queue of this role.
    #[must_use]
    pub fn taker(&self, role: &RoleName) -> Taker<'_> {
        match self.rings.get(role) {
            Some(ring) if ring.is_on => ring.taker(),
            _ => Taker::Anyone,
        }
    }

    /// The open links of a member that carry the role.
    pub fn links_of<'a>(
        &'a self,
        role: &'a RoleName,
        agent: &'a AgentName,
    ) -> impl Iterator<Item = LinkId> + 'a {
        self.links.iter().filter_map(move |(link, (name, roles))| {
            (name == agent && roles.contains(role)).then_some(*link)
        })
    }

    /// The links that stand by for a member.
    pub fn standby_of<'a>(
        &'a self,
        role: &'a RoleName,
        agent: &'a AgentName,
    ) -> impl Iterator<Item = LinkId> + 'a {
        self.standby.iter().filter_map(move |(link, (name, roles))| {
            (name == agent && roles.contains(role)).then_some(*link)
        })
    }

    /// When a member of which nothing is heard counts as silent; `None` while it is there.
    #[must_use]
    pub fn silent_at(
        &self,
        role: &RoleName,
        agent: &AgentName,
        silence: Duration,
    ) -> Option<BootTime> {
        if self.links_of(role, agent).next().is_some() {
            return None;
        }
        let gone = self.gone.get(&(role.clone(), agent.clone())).copied();
        Some(gone.unwrap_or(self.started).after(silence))
    }

    #[must_use]
    pub fn signals(&self, agent: &AgentName) -> Signals {
        self.heard.get(agent).cloned().unwrap_or_default()
    }

    /// A ring with something to keep.
    #[must_use]
    pub fn unsaid(&self) -> Option<&Ring> {
        self.rings.get(self.unsaid.first()?)
    }

    #[must_use]
    pub fn has_worked(&self, role: &RoleName) -> bool {
        self.worked.contains(role)
    }

    /// Whether anybody asks how this agent's calls end.
    #[must_use]
    pub fn is_member(&self, agent: &AgentName) -> bool {
        self.on().any(|ring| ring.member(agent).is_some())
    }

    pub(super) fn next_deadline(&self, silence: Duration, now: Now) -> Option<BootTime> {
        let of = |ring: &Ring| {
            // While somebody is asked, nobody else is.
            let wall = match &ring.handover {
                Some(handover) if ring.is_handing_over() => handover.until,
                _ => ring.stopped.as_ref().and_then(|stopped| stopped.back_at),
            };
            let owner = ring.owner.as_ref().filter(|_| !ring.is_handing_over());
            let silent = owner.and_then(|owner| self.silent_at(&ring.role, owner, silence));
            wall.map(|at| now.boot_at(at)).into_iter().chain(silent).min()
        };
        self.on().filter_map(of).min()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let ring = &event.ring;
        let before = self.rings.insert(ring.role.clone(), ring.clone());
        self.unsaid.remove(&ring.role);
        if before.is_none() {
            self.recall();
        }
        let owner = ring.owner.as_ref();
        if before.is_some_and(|before| before.owner.as_ref() != owner) {
            self.worked.remove(&ring.role);
            // A fresh start.
            if let Some(owner) = owner {
                self.heard.remove(owner);
            }
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::LinkUp { link, up } => self.link_up(*link, up),
            Note::LinkDown { link, at } => {
                self.standby.remove(link);
                let Some((agent, roles)) = self.links.remove(link) else { return };
                for role in roles {
                    self.gone.insert((role, agent.clone()), *at);
                }
            }
            Note::Heard { agent, heard, is_against } => {
                self.heard.entry(agent.clone()).or_default().hear(*heard);
                if *is_against {
                    let owned = self.on().filter(|it| it.owner.as_ref() == Some(agent));
                    let owned: Vec<RoleName> = owned.map(|ring| ring.role.clone()).collect();
                    self.unsaid.extend(owned);
                }
                if heard.ended == super::usage::Ended::Done {
                    let owned = self.rings.values().filter(|it| it.owner.as_ref() == Some(agent));
                    self.worked.extend(owned.map(|ring| ring.role.clone()));
                }
            }
            Note::Started { at, .. } => {
                // A broker that starts has heard nothing of anybody, but for what it kept.
                self.started = *at;
                self.links.clear();
                self.standby.clear();
                self.gone.clear();
                self.heard.clear();
                self.worked.clear();
                self.unsaid.clear();
                self.recall();
            }
            _ => {}
        }
    }

    /// What was kept of the owners' calls.
    fn recall(&mut self) {
        for ring in self.rings.values() {
            if let Some(owner) = ring.owner.as_ref().filter(|it| !self.heard.contains_key(it)) {
                self.heard.insert(owner.clone(), ring.heard.clone());
            }
        }
    }

    fn link_up(&mut self, link: LinkId, up: &Link) {
        if !up.stands_by.is_empty() {
            self.standby.insert(link, (up.agent.clone(), up.stands_by.clone()));
            return;
        }
        if up.roles.is_empty() {
            return;
        }
        for role in &up.roles {
            self.gone.remove(&(role.clone(), up.agent.clone()));
        }
        self.links.insert(link, (up.agent.clone(), up.roles.clone()));
    }
}

impl Ring {
    #[must_use]
    pub fn member(&self, agent: &AgentName) -> Option<&Member> {
        self.members.iter().find(|member| member.agent == *agent)
    }

    pub fn member_mut(&mut self, agent: &AgentName) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.agent == *agent)
    }

    /// Whether somebody is being asked to take it.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.handover.as_ref().is_some_and(|handover| handover.phase < RotationPhase::Loaded)
    }

    fn taker(&self) -> Taker<'_> {
        let Some(owner) = &self.owner else { return Taker::Nobody };
        let is_held = |handover: &Handover| {
            // Who was only asked to hand on, or is slow, works until somebody has taken over.
            handover.phase < RotationPhase::Loaded
                && !handover.is_gradual
                && handover.trigger != RotationTrigger::Forced
        };
        if self.handover.as_ref().is_some_and(is_held) { Taker::Nobody } else { Taker::Only(owner) }
    }

    /// The owner's time ends.
    fn leave(&mut self, at: WallTime) {
        let Some(owner) = self.owner.take() else { return };
        self.heard = Signals::default();
        let (owned, until) = (at.since(self.since), at.after(self.pause));
        let handover = self.handover.as_ref();
        let is_away = handover.is_some_and(|it| {
            matches!(it.trigger, RotationTrigger::Silent | RotationTrigger::Drained)
        });
        let reason = format!("pauses: {}", handover.map_or("", |it| it.reason.as_str()));
        if let Some(member) = self.member_mut(&owner) {
            member.owned += owned;
            // Who is not there is not asked as long as that is so, and has nothing to recover from.
            member.shut = (!is_away).then_some(Unfit { reason, until: Some(until) });
        }
    }

    /// Another one is the owner from now on; the one before pauses.
    pub fn pass_to(&mut self, to: &AgentName, at: WallTime) {
        self.leave(at);
        self.owner = Some(to.clone());
        self.last = Some(to.clone());
        self.epoch += 1;
        self.since = at;
        self.stopped = None;
        if let Some(member) = self.member_mut(to) {
            member.shut = None;
            member.turns += 1;
        }
    }

    /// Nobody is the owner from now on.
    pub fn stop(&mut self, at: WallTime, why: String, back_at: Option<WallTime>) {
        self.leave(at);
        self.handover = None;
        let since = self.stopped.as_ref().map_or(at, |stopped| stopped.since);
        self.stopped = Some(Stopped { since, why, back_at });
    }
}
