//! Agents: whose name is proved by which token, who is linked, and what each may still be given.
//!
//! Invariant: nothing is leased to a link without credit (I-29).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{AgentName, ModelName, Recipient, RoleName, WallTime};

use super::{
    BootTime, Event, Note,
    planted::{self, Bug},
};

/// Processes of one name that are told from new ones.
const REMEMBERED: usize = 16;

/// Deliveries a link may have credit for; more is taken as this. What goes out to it fits its channel by far.
pub const MAX_CREDIT: u32 = 4096;

/// One stream of one agent, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A link as its hello described it, with what it may still be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub agent: AgentName,
    pub instance: String,
    /// The link it goes on from, when it has proved that it does.
    pub resumes: Option<LinkId>,
    /// The length of its leases, when it is a pull: one call that takes what there is and goes.
    pub pull: Option<Duration>,
    pub is_exclusive: bool,
    pub models: Vec<ModelName>,
    pub roles: Vec<RoleName>,
    /// It takes nothing, and stands by for the member of its name in the rings of these roles.
    pub stands_by: Vec<RoleName>,
    pub capacity: u32,
    pub since: WallTime,
    pub credit_messages: u32,
    pub credit_bytes: u64,
}

impl Link {
    /// It stands beside the links of its name: it takes over nothing, and nothing takes it over.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.pull.is_some() || !self.stands_by.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub hash: [u8; 32],
    pub created_at: WallTime,
}

#[derive(Debug, Default)]
pub struct State {
    links: BTreeMap<LinkId, Link>,
    serving: BTreeMap<Recipient, BTreeSet<LinkId>>,
    tokens: BTreeMap<AgentName, Token>,
    /// Every role that an agent has ever greeted with.
    roles: BTreeSet<RoleName>,
    /// Whose turn it was last in each ring.
    turns: BTreeMap<Recipient, LinkId>,
    /// The processes that greeted last under each name, newest last.
    greeted: BTreeMap<AgentName, Vec<String>>,
    /// Nothing is leased to anybody.
    drains: bool,
    /// Nothing is leased to these.
    draining: BTreeSet<AgentName>,
    /// Since when a model that was served is not.
    absent: BTreeMap<ModelName, BootTime>,
    /// Since when an agent is not linked, while it is waited for.
    away: BTreeMap<AgentName, BootTime>,
    started: BootTime,
    grace: Duration,
}

impl State {
    #[must_use]
    pub fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link)
    }

    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// The links of one agent, oldest first.
    pub fn links_of(&self, agent: &AgentName) -> impl Iterator<Item = (LinkId, &Link)> {
        let agent = agent.clone();
        self.links().filter(move |(_, link)| link.agent == agent)
    }

    pub fn tokens(&self) -> impl Iterator<Item = (&AgentName, &Token)> {
        self.tokens.iter()
    }

    #[must_use]
    pub fn token(&self, agent: &AgentName) -> Option<&Token> {
        self.tokens.get(agent)
    }

    /// Whether this process has greeted before, since the broker runs and as far as is remembered.
    #[must_use]
    pub fn has_greeted(&self, agent: &AgentName, instance: &str) -> bool {
        self.greeted.get(agent).is_some_and(|all| all.iter().any(|known| known == instance))
    }

    /// Whether an agent has ever greeted with this role.
    #[must_use]
    pub fn knows_role(&self, role: &RoleName) -> bool {
        self.roles.contains(role)
    }

    /// Roles that agents have greeted with.
    #[must_use]
    pub fn roles(&self) -> usize {
        self.roles.len()
    }

    /// The agents that serve a queue now, each once, in the order of their names.
    #[must_use]
    pub fn names_serving(&self, queue: &Recipient) -> BTreeSet<AgentName> {
        let links = self.serving.get(queue).into_iter().flatten();
        links.filter_map(|id| self.links.get(id)).map(|link| link.agent.clone()).collect()
    }

    /// Whether nothing is leased: to anybody, or to this agent.
    #[must_use]
    pub fn is_draining(&self, agent: Option<&AgentName>) -> bool {
        self.drains || agent.is_some_and(|agent| self.draining.contains(agent))
    }

    /// The links that serve a queue, oldest first.
    pub fn links_serving(&self, queue: &Recipient) -> impl Iterator<Item = LinkId> {
        self.serving.get(queue).into_iter().flatten().copied()
    }

    /// How many links serve a queue.
    #[must_use]
    pub fn serving(&self, queue: &Recipient) -> usize {
        self.serving.get(queue).map_or(0, BTreeSet::len)
    }

    /// The link that takes the next message of this size from a queue: the one with the most free credit; in a role
    /// the next one behind the last that took, so that all who have credit take in turn. `only`: none but this agent's.
    #[must_use]
    pub fn taker(
        &self,
        queue: &Recipient,
        size_bytes: u64,
        only: Option<&AgentName>,
    ) -> Option<LinkId> {
        let able = self
            .serving
            .get(queue)?
            .iter()
            .filter_map(|id| self.links.get(id).map(|link| (*id, link)))
            .filter(|(_, link)| link.credit_messages > 0 && link.credit_bytes >= size_bytes)
            .filter(|(_, link)| only.is_none_or(|only| link.agent == *only));
        if let Recipient::Role(_) = queue {
            let last = self.turns.get(queue).copied().unwrap_or(LinkId(0));
            return able.min_by_key(|(id, _)| (*id <= last, *id)).map(|(id, _)| id);
        }
        able.max_by_key(|(id, link)| (link.credit_messages, std::cmp::Reverse(*id)))
            .map(|(id, _)| id)
    }

    /// Whether this link takes one more message of this size.
    #[must_use]
    pub fn has_room(&self, link: LinkId, size_bytes: u64) -> bool {
        let link = self.links.get(&link);
        link.is_some_and(|link| link.credit_messages > 0 && link.credit_bytes >= size_bytes)
    }

    /// The most bytes that one message of a queue may have now; `None` when no link takes one. `only`: of this agent.
    #[must_use]
    pub fn room(&self, queue: &Recipient, only: Option<&AgentName>) -> Option<u64> {
        let links = self.serving.get(queue)?.iter().filter_map(|id| self.links.get(id));
        let links = links.filter(|link| only.is_none_or(|only| link.agent == *only));
        links.filter(|link| link.credit_messages > 0).map(|link| link.credit_bytes).max()
    }

    /// Whether a model nobody serves has been without an agent for longer than the grace.
    #[must_use]
    pub fn is_absent(&self, model: &ModelName, now: BootTime) -> bool {
        let queue = Recipient::Model(model.clone());
        self.serving(&queue) == 0 && self.given_up_at(model) <= now
    }

    fn given_up_at(&self, model: &ModelName) -> BootTime {
        self.absent.get(model).copied().unwrap_or(self.started).after(self.grace)
    }

    /// Models whose grace has just ended, so that what waits for them goes on.
    #[must_use]
    pub fn newly_absent(&self, now: BootTime) -> Vec<ModelName> {
        let is_new = |(model, since): (&ModelName, &BootTime)| {
            (since.after(self.grace) <= now).then(|| model.clone())
        };
        self.absent.iter().filter_map(is_new).collect()
    }

    /// Until when an agent is waited for that is away; `None` when it is there, or when nobody waits for it.
    #[must_use]
    pub fn expected_until(&self, agent: &AgentName, now: BootTime) -> Option<BootTime> {
        let until = self.away.get(agent)?.after(self.grace);
        (until > now).then_some(until)
    }

    /// Agents that have been away for as long as anybody waits for them.
    #[must_use]
    pub fn newly_away(&self, now: BootTime) -> Vec<AgentName> {
        let is_over = |(agent, since): (&AgentName, &BootTime)| {
            (since.after(self.grace) <= now).then(|| agent.clone())
        };
        self.away.iter().filter_map(is_over).collect()
    }

    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        let since = self.absent.values().chain(self.away.values());
        since.map(|since| since.after(self.grace)).min()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        if let Event::RoleKnown { role, .. } = event {
            self.roles.insert(role.clone());
        }
        if let Event::TokenChanged { agent, at, hash } = event {
            match hash {
                Some(hash) => {
                    let token = Token { hash: *hash, created_at: *at };
                    self.tokens.insert(agent.clone(), token);
                }
                None => {
                    self.tokens.remove(agent);
                }
            }
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::LinkUp { link, up } => {
                if !self.draining.contains(&up.agent) {
                    self.serve(*link, up);
                }
                self.away.remove(&up.agent);
                self.links.insert(*link, (**up).clone());
                if up.is_beside() {
                    return;
                }
                let greeted = self.greeted.entry(up.agent.clone()).or_default();
                greeted.retain(|known| *known != up.instance);
                greeted.push(up.instance.clone());
                if greeted.len() > REMEMBERED {
                    greeted.remove(0);
                }
            }
            Note::LinkDown { link, at } => {
                if let Some(gone) = self.links.remove(link) {
                    self.unserve(*link, &gone, *at);
                    if self.links_of(&gone.agent).next().is_none() {
                        self.away.insert(gone.agent, *at);
                    }
                }
            }
            Note::Away { agent, at } => {
                self.away.insert(agent.clone(), *at);
            }
            Note::ToldAway { agent } => {
                self.away.remove(agent);
            }
            Note::Drain { agent: None, is_over, .. } => self.drains = !is_over,
            // To its models' queues it is as good as gone: after the grace they go elsewhere.
            Note::Drain { agent: Some(agent), at, is_over } => {
                if *is_over {
                    self.draining.remove(agent);
                } else {
                    self.draining.insert(agent.clone());
                }
                let links: Vec<(LinkId, Link)> =
                    self.links_of(agent).map(|(id, link)| (id, link.clone())).collect();
                for (id, link) in links {
                    if *is_over {
                        self.serve(id, &link);
                    } else {
                        self.unserve(id, &link, *at);
                    }
                }
            }
            Note::Credit { link, messages, size_bytes } => {
                if let Some(link) = self.links.get_mut(link) {
                    link.credit_messages =
                        link.credit_messages.saturating_add(*messages).min(MAX_CREDIT);
                    link.credit_bytes = link.credit_bytes.saturating_add(*size_bytes);
                }
            }
            Note::Spent { .. } if planted::is(Bug::CreditIgnored) => {}
            Note::Spent { link, size_bytes } => {
                if let Some(link) = self.links.get_mut(link) {
                    link.credit_messages = link.credit_messages.saturating_sub(1);
                    link.credit_bytes = link.credit_bytes.saturating_sub(*size_bytes);
                }
            }
            Note::TookTurn { queue, link } => {
                self.turns.insert(queue.clone(), *link);
            }
            Note::Started { at, grace, models } => {
                self.started = *at;
                self.grace = *grace;
                self.away.clear();
                self.absent = models.iter().map(|model| (model.clone(), *at)).collect();
            }
            Note::ToldAbsent { model } => {
                self.absent.remove(model);
            }
            Note::LeaseRuns { .. }
            | Note::WaitRuns { .. }
            | Note::Orphaned { .. }
            | Note::Unserved { .. }
            | Note::TooSmall { .. }
            | Note::LostAttempt { .. }
            | Note::Projected { .. }
            | Note::Probing { .. }
            | Note::Sweep { .. }
            | Note::TreeLives { .. }
            | Note::LookAtUsage { .. }
            | Note::NotSynced { .. }
            | Note::Warmed { .. }
            | Note::LookHome { .. }
            | Note::LookAfter { .. }
            | Note::LookAtCheckpoint { .. }
            | Note::Heard { .. } => {}
        }
    }
}

impl State {
    fn serve(&mut self, id: LinkId, link: &Link) {
        for queue in queues(link) {
            if let Recipient::Model(model) = &queue {
                self.absent.remove(model);
            }
            self.serving.entry(queue).or_default().insert(id);
        }
    }

    fn unserve(&mut self, id: LinkId, link: &Link, at: BootTime) {
        for queue in queues(link) {
            let Some(left) = self.serving.get_mut(&queue) else { continue };
            left.remove(&id);
            if left.is_empty() {
                self.serving.remove(&queue);
                self.turns.remove(&queue);
                if let Recipient::Model(model) = queue {
                    self.absent.insert(model, at);
                }
            }
        }
    }
}

/// The queues a link takes from: its models', its roles', and its own mailbox.
pub(super) fn queues(link: &Link) -> impl Iterator<Item = Recipient> + use<> {
    let own = link.stands_by.is_empty().then(|| Recipient::Agent(link.agent.clone()));
    let models = link.models.clone().into_iter().map(Recipient::Model);
    models.chain(link.roles.clone().into_iter().map(Recipient::Role)).chain(own)
}
