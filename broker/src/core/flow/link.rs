//! Links: who greets, what they still hold, what they may be given; and the state after a start.

use std::collections::BTreeSet;

use broker_proto::{AgentName, Attempt, FailureClass, ModelName, Recipient, RoleName};

use super::Run;
use crate::core::{
    Draining, Effect, Event, Note, Refusal, Reply, Resumed,
    agent::{self, Link, LinkId},
    queue::{Message, Place, Seq},
    route,
};

/// How the broker's own senders begin.
const RESERVED: &str = "broker.";
/// Roles that are remembered at most: they are kept for ever.
const MAX_ROLES: usize = 4096;

impl Run<'_> {
    /// A greeting. A newer link of an exclusive name takes over; a new process of it ends what the old one held.
    ///
    /// # Errors
    /// [`Refusal::TooManyRoles`] when it brings more new ones than there is room for.
    pub(super) fn link_up(
        &mut self,
        link: LinkId,
        up: Link,
        resume: &[(Seq, u32)],
    ) -> Result<Reply, Refusal> {
        self.learn_roles(&up)?;
        let queues: Vec<Recipient> = agent::queues(&up).collect();
        if up.is_beside() {
            // One call beside whatever links there are: it takes over nothing, and nothing takes it over.
            self.note(&Note::LinkUp { link, up: Box::new(up) });
            queues.iter().for_each(|queue| self.dispatch(queue));
            return Ok(Reply::Resumed(Vec::new()));
        }
        let takes_over: Vec<LinkId> = self
            .state
            .agent
            .links_of(&up.agent)
            .filter(|(_, old)| !old.is_beside())
            .filter(|(_, old)| old.is_exclusive || up.is_exclusive || old.instance == up.instance)
            .map(|(id, _)| id)
            .collect();
        for old in takes_over {
            self.note(&Note::LinkDown { link: old, at: self.now.boot });
            self.effect(Effect::Supersede { link: old });
        }
        let is_new_process =
            up.resumes.is_none() && !self.state.agent.has_greeted(&up.agent, &up.instance);
        if is_new_process {
            // What was drained has been started again.
            let agent = Some(up.agent.clone());
            self.note(&Note::Drain { agent, at: self.now.boot, is_over: true });
        }
        let models = up.models.clone();
        let resumed = self.take_over_leases(&up, resume);
        self.note(&Note::LinkUp { link, up: Box::new(up) });
        if is_new_process {
            for model in models {
                self.configuration_may_have_changed(&model);
            }
        }
        self.route_absent();
        for queue in queues {
            self.dispatch(&queue);
        }
        self.offer_to(link);
        Ok(Reply::Resumed(resumed))
    }

    /// Whoever proves a name may take any role; it is known from then on, so that messages may wait for its ring.
    fn learn_roles(&mut self, up: &Link) -> Result<(), Refusal> {
        let new: BTreeSet<&RoleName> =
            up.roles.iter().filter(|role| !self.state.agent.knows_role(role)).collect();
        let known = self.state.agent.roles();
        if !new.is_empty() && known + new.len() > MAX_ROLES {
            return Err(Refusal::TooManyRoles { known });
        }
        for role in new {
            self.event(Event::RoleKnown { role: role.clone(), at: self.now.wall });
        }
        Ok(())
    }

    /// Keeps what the greeting process still works on, and ends what it cannot know of or has lost.
    fn take_over_leases(&mut self, up: &Link, resume: &[(Seq, u32)]) -> Vec<Resumed> {
        let mut resumed = Vec::new();
        for seq in self.state.queue.leased_by(&up.agent) {
            let Some(message) = self.state.queue.get(seq) else { continue };
            let Some(lease) = message.lease() else { continue };
            let (id, epoch) = (message.id, message.epoch);
            let held = (seq, epoch);
            let is_same_process = lease.instance == up.instance;
            if is_same_process && resume.contains(&held) {
                resumed.push(Resumed { seq, epoch, id });
            } else if is_same_process {
                // Its delivery never arrived, so nobody worked on it.
                self.lose_lease(seq, "its delivery was lost with the link", false);
            } else if up.is_exclusive && lease.pulled.is_none() {
                self.lose_lease(seq, "a new process of its agent took over", true);
            }
        }
        for lease in &resumed {
            self.renew(&up.agent, &[(lease.seq, lease.epoch)]);
            self.begin_attempt(lease.seq, lease.epoch, &up.agent);
        }
        resumed
    }

    /// A new process may have a new key or address, so what only a person could mend is tried again.
    fn configuration_may_have_changed(&mut self, model: &ModelName) {
        let waits_for_a_person =
            self.state.route.shut(model).is_some_and(|shut| shut.until.is_none());
        if waits_for_a_person {
            self.reroute(vec![(model.clone(), route::ModelRoute::default())]);
        }
    }

    /// An agent has come: what waits for others that are absent may go to it.
    fn route_absent(&mut self) {
        let absent: Vec<ModelName> = self
            .state
            .policy
            .models
            .keys()
            .filter(|model| {
                let queue = Recipient::Model((*model).clone());
                self.state.agent.is_absent(model, self.now.boot)
                    && self.state.queue.ready(&queue).is_some_and(|ready| !ready.is_empty())
            })
            .cloned()
            .collect();
        for model in absent {
            self.note(&Note::Sweep { model, is_due: true });
        }
    }

    pub(super) fn credit(
        &mut self,
        link: LinkId,
        messages: u32,
        size_bytes: u64,
    ) -> Result<Reply, Refusal> {
        let Some(up) = self.state.agent.link(link) else {
            return Err(Refusal::LinkClosed(link.0));
        };
        let queues: Vec<Recipient> = agent::queues(up).collect();
        self.note(&Note::Credit { link, messages, size_bytes });
        for queue in queues {
            self.dispatch(&queue);
        }
        Ok(Reply::None)
    }

    /// Begins or ends a drain; running attempts go on (I-16).
    pub(super) fn drain(
        &mut self,
        agent: Option<&AgentName>,
        is_over: bool,
    ) -> Result<Reply, Refusal> {
        if let Some(name) = agent
            && self.state.agent.token(name).is_none()
            && self.state.agent.links_of(name).next().is_none()
        {
            return Err(Refusal::UnknownAgent(name.to_string()));
        }
        let queues: Vec<Recipient> = match agent {
            None => self.state.queue.waiting_queues().cloned().collect(),
            Some(name) => {
                let links = self.state.agent.links_of(name);
                links.flat_map(|(_, link)| agent::queues(link)).collect()
            }
        };
        self.note(&Note::Drain { agent: agent.cloned(), at: self.now.boot, is_over });
        if is_over {
            self.route_absent();
            queues.iter().for_each(|queue| self.dispatch(queue));
        }
        Ok(Reply::Drain(self.draining(agent)))
    }

    pub(super) fn draining(&self, agent: Option<&AgentName>) -> Draining {
        let queue = &self.state.queue;
        let running = agent.map_or_else(|| queue.leased(), |name| queue.leased_by(name).len());
        Draining { is_draining: self.state.agent.is_draining(agent), running }
    }

    pub(super) fn set_token(
        &mut self,
        agent: AgentName,
        hash: Option<[u8; 32]>,
    ) -> Result<Reply, Refusal> {
        if hash.is_none() && self.state.agent.token(&agent).is_none() {
            return Err(Refusal::UnknownToken(agent.to_string()));
        }
        // What the broker asks by itself is known by its sender. A name that was taken before can still be given up.
        if hash.is_some() && agent.as_str().starts_with(RESERVED) {
            return Err(Refusal::ReservedName(agent.to_string()));
        }
        self.event(Event::TokenChanged { agent, at: self.now.wall, hash });
        Ok(Reply::None)
    }

    /// The state was loaded: leases run again at full length (I-16), waits as far as they had still to go.
    pub(super) fn recovered(&mut self) {
        let boot = self.now.boot;
        let policy = &self.state.policy;
        let (shortest, cap) = (policy.lease, policy.lease_cap);
        let models = policy.models.keys().cloned().collect();
        self.note(&Note::Started {
            at: boot,
            grace: self.state.policy.routing.agent_grace,
            models,
        });
        self.expect_owners();
        for seq in self.state.queue.living() {
            let Some(message) = self.state.queue.get(seq) else { continue };
            let epoch = message.epoch;
            match &message.place {
                Place::Leased(lease) => {
                    let length = lease.pulled.unwrap_or(shortest);
                    let (ends, cap) = (boot.after(length), Some(boot.after(cap)));
                    self.note(&Note::LeaseRuns { seq, ends, cap });
                }
                Place::Waiting(until) => {
                    let due = self.now.boot_at(*until);
                    self.note(&Note::WaitRuns { seq, due });
                }
                // The broker stopped between two commits of one story; it goes on here.
                Place::Closing => self.sealed(seq, epoch, false, None),
                Place::New => self.begin(seq, "asked"),
                Place::Ready if self.is_stranded(seq) => {
                    self.route(seq, 0, "its model is no longer configured");
                }
                Place::Ready | Place::Held(_) => {}
            }
            self.recall(seq);
            self.expect_asker(seq);
        }
        // The dead letters may be given more room than before.
        let recipients: Vec<Recipient> = self.state.queue.dead().recipients().cloned().collect();
        for recipient in recipients {
            self.unpark(&recipient);
        }
        // What time has changed while no broker ran, and what a new configuration says.
        self.assess_all();
        self.resume_handoffs();
        self.expect_checkpoints();
        self.resume_rings();
    }

    fn is_stranded(&self, seq: Seq) -> bool {
        let message = self.state.queue.get(seq);
        message.and_then(Message::model).is_some_and(|model| self.model(model).is_none())
    }

    /// What was noted of a consultation before the start, as far as its events show it.
    fn recall(&mut self, seq: Seq) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        let is_too_long = |attempt: &&Attempt| {
            attempt.failure.as_ref().is_some_and(|f| f.class == FailureClass::ContextTooLong)
        };
        let too_long = consultation.attempts.iter().filter(is_too_long);
        let window = too_long.filter_map(|a| self.model(&a.model)).map(|m| m.context_window).max();
        // A lease that began after the model was to be tried again is the one that tries it.
        let probes = message.lease().zip(message.model()).and_then(|(lease, model)| {
            let until = self.state.route.shut(model)?.until?;
            (until <= lease.since && self.state.route.prober(model).is_none())
                .then(|| model.clone())
        });
        if let Some(window) = window {
            self.note(&Note::TooSmall { seq, window });
        }
        if let Some(model) = probes {
            self.note(&Note::Probing { model, seq: Some(seq) });
        }
    }
}
