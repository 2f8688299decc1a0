//! Giving out leases, and renewing them.

use std::time::Duration;

use broker_proto::{AgentName, Recipient, Routed, Sender};

use super::{Run, own::Taker};
use crate::core::{
    Delivered, Effect, Event, Note, Refusal, Reply,
    agent::LinkId,
    planted,
    queue::{Message, Place, Seq},
    ring,
    route::{self, Gate},
};

/// Leases that one decision may give out, so that a batch stays small; the next tick comes at once.
const DISPATCH_STEPS: usize = 32;
/// Messages of each priority looked at for one that may pass a shut gate and fits a link's credit.
const LOOK_AHEAD: usize = 64;

impl Run<'_> {
    /// Leases what is ready in a queue to links that have credit for it, one after the other.
    pub(super) fn dispatch(&mut self, queue: &Recipient) {
        for _ in 0..DISPATCH_STEPS {
            let Some((seq, link)) = self.next_lease(queue) else {
                if self.state.queue.unserved() == Some(queue) {
                    self.note(&Note::Unserved { queue: queue.clone(), is_due: false });
                }
                return;
            };
            // What was free when it was routed may be reserved by now.
            if self.is_short(seq) {
                self.route_anew(seq);
            } else {
                self.lease(seq, link, queue);
            }
        }
        self.note(&Note::Unserved { queue: queue.clone(), is_due: true });
    }

    fn is_short(&self, seq: Seq) -> bool {
        let model = self.state.queue.get(seq).and_then(Message::model);
        model.and_then(|model| self.model(model)).is_some_and(|m| self.afford(seq, m).is_err())
    }

    fn route_anew(&mut self, seq: Seq) {
        let message = self.state.queue.get(seq).and_then(|message| message.consultation.as_ref());
        let Some(candidate) = message.map(|consultation| consultation.candidate) else { return };
        self.route(seq, candidate, "its budget is reserved");
    }

    fn next_lease(&self, queue: &Recipient) -> Option<(Seq, LinkId)> {
        let ready = self.state.queue.ready(queue)?;
        let is_stopped = self.state.agent.is_draining(None) || self.state.queue.is_paused(queue);
        if ready.is_empty() || is_stopped {
            return None;
        }
        let gate = match queue {
            Recipient::Model(model) => self.state.route.gate(model, self.now),
            Recipient::Agent(_) | Recipient::Role(_) | Recipient::AgentsOf(_) => Gate::Open,
        };
        let only = match queue {
            Recipient::Role(role) => match self.state.ring.taker(role) {
                ring::Taker::Anyone => None,
                ring::Taker::Only(owner) => Some(owner),
                ring::Taker::Nobody => return None,
            },
            Recipient::Model(_) | Recipient::Agent(_) | Recipient::AgentsOf(_) => None,
        };
        let room = self.state.agent.room(queue, only)?;
        let fits = |seq| self.state.queue.get(seq).is_some_and(|m| m.body.size_bytes <= room);
        let is_its = |seq| match self.taker_of(seq, queue) {
            Taker::Anyone => true,
            Taker::Link(link) => self.state.agent.has_room(link, self.delivered_bytes(seq)),
            Taker::Nobody => false,
        };
        let may_go = |seq| self.is_deliverable(seq, queue) && fits(seq) && is_its(seq);
        let next = match gate {
            // However many wait before it: they wait for what it finds out.
            Gate::Probing(prober) if may_go(prober) => prober,
            _ => planted::in_turn(ready.in_turn(LOOK_AHEAD))
                .find(|seq| self.may_pass(gate, *seq) && may_go(*seq))?,
        };
        let size = self.delivered_bytes(next);
        let taker = match self.taker_of(next, queue) {
            Taker::Link(link) => Some(link),
            Taker::Anyone | Taker::Nobody => self.state.agent.taker(queue, size, only),
        };
        taker.map(|link| (next, link))
    }

    /// Ready in this queue, and not at or after its deadline, whether a tick has come since or not (I-22).
    fn is_deliverable(&self, seq: Seq, queue: &Recipient) -> bool {
        self.state.queue.get(seq).is_some_and(|message| {
            matches!(message.place, Place::Ready)
                && *message.queue == *queue
                && !planted::is_past(message.deadline, self.now.wall)
                && !self.state.queue.is_held_back(seq)
        })
    }

    /// A shut gate lets through who tries the model, and who asked for it and no other.
    fn may_pass(&self, gate: Gate, seq: Seq) -> bool {
        let insists = || {
            let message = self.state.queue.get(seq);
            message.and_then(|m| m.consultation.as_ref()).is_some_and(|c| c.options.no_fallback)
        };
        match gate {
            // The first through a gate that is due becomes the one that tries.
            Gate::Open | Gate::Due => true,
            Gate::Probing(prober) => {
                prober == seq || insists() || self.state.queue.is_held_back(prober)
            }
            Gate::Shut => insists(),
        }
    }

    /// What a delivery takes of a link's byte credit: the message, and what its task asked back.
    pub(super) fn delivered_bytes(&self, seq: Seq) -> u64 {
        let message = self.state.queue.get(seq).map_or(0, |message| message.body.size_bytes);
        message + self.state.task.size_bytes(seq)
    }

    fn lease(&mut self, seq: Seq, link: LinkId, queue: &Recipient) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(to) = self.state.agent.link(link) else { return };
        let (agent, instance, pulled) = (to.agent.clone(), to.instance.clone(), to.pull);
        let lease_left = planted::lease(pulled.unwrap_or(self.state.policy.lease));
        let (subject, epoch) = (message.subject(), planted::next_epoch(message.epoch));
        let size_bytes = self.delivered_bytes(seq);
        let model = message.model().cloned();
        let policy = model.as_ref().and_then(|name| self.model(name));
        let (cap, history_room) = match (&message.consultation, policy) {
            (Some(consultation), Some(model)) => {
                let (needs, least) =
                    (consultation.needs(), self.state.policy.routing.min_output_tokens);
                let history_room = needs.fit(model, least).ok().and_then(|fit| fit.history);
                (route::output_cap(model, &needs, least).ok().flatten(), history_room)
            }
            _ => (None, None),
        };
        let mut delivered = Delivered {
            link,
            seq,
            id: message.id,
            sender: Sender::clone(&message.sender),
            epoch,
            generation: message.generation(),
            body: message.body.clone(),
            model: model.clone(),
            deadline: message.deadline,
            max_output_tokens: cap,
            history_room,
            exchanges: self.state.task.exchanges(seq).to_vec(),
            lease_left,
        };
        let to = agent.clone();
        self.event(Event::Leased { subject, at: self.now.wall, epoch, agent, instance, pulled });
        if let Some(most) = model.as_ref().and_then(|model| self.reserve(seq, model)) {
            delivered.max_output_tokens =
                Some(delivered.max_output_tokens.unwrap_or(most).min(most));
        }
        let boot = self.now.boot;
        self.note(&Note::LeaseRuns {
            seq,
            ends: boot.after(lease_left),
            cap: Some(boot.after(self.state.policy.lease_cap)),
        });
        self.note(&Note::Spent { link, size_bytes });
        if let Recipient::Role(_) = queue {
            self.note(&Note::TookTurn { queue: queue.clone(), link });
        }
        if let (Some(model), Recipient::Model(_)) = (model, queue)
            && self.state.route.gate(&model, self.now) == Gate::Due
        {
            self.note(&Note::Probing { model, seq: Some(seq) });
        }
        self.begin_attempt(seq, epoch, &to);
        self.effect(Effect::Deliver(Box::new(delivered)));
    }

    /// Opens a consultation's stream for an attempt; again after a restart, when its agent is back.
    pub(super) fn begin_attempt(&mut self, seq: Seq, epoch: u32, agent: &AgentName) {
        let Some(routed) = self.routed(seq, epoch, agent).map(Box::new) else { return };
        let Some(message) = self.state.queue.get(seq) else { return };
        let (id, sender) = (message.id, Sender::clone(&message.sender));
        self.effect(Effect::AttemptBegins { seq, id, sender, routed });
    }

    fn routed(&self, seq: Seq, attempt: u32, agent: &AgentName) -> Option<Routed> {
        let message = self.state.queue.get(seq)?;
        let consultation = message.consultation.as_ref()?;
        let model = self.model(message.model()?)?;
        let called = |passed: &&broker_proto::PassedOver| {
            passed.model != model.name
                && consultation.attempts.iter().all(|a| a.model != passed.model)
        };
        Some(Routed {
            model: model.name.clone(),
            agent: Some(agent.clone()),
            attempt,
            why: consultation.why.clone(),
            attempts: consultation.attempts.clone(),
            passed_over: consultation.passed_over.iter().filter(called).cloned().collect(),
            is_degraded: model.is_degraded && model.name != consultation.asked,
            is_simulated: model.is_simulated,
        })
    }

    /// Lets one lease run on; never cuts it short (I-16).
    pub(super) fn extend(
        &mut self,
        agent: &AgentName,
        seq: Seq,
        epoch: u32,
        by: Duration,
    ) -> Result<Reply, Refusal> {
        let message = self.state.queue.get(seq);
        let current = message.filter(|message| message.epoch == epoch).and_then(Message::lease);
        let Some(lease) = current.filter(|lease| lease.agent == *agent) else {
            return Err(Refusal::LeaseLost(message.map(|message| message.id)));
        };
        let boot = self.now.boot;
        let ends = boot.after(by).min(lease.cap).max(lease.ends);
        self.note(&Note::LeaseRuns { seq, ends, cap: None });
        Ok(Reply::Extended(ends.0.saturating_sub(boot.0)))
    }

    /// Lets leases run on from now, up to their cap (I-15).
    pub(super) fn renew(&mut self, agent: &AgentName, leases: &[(Seq, u32)]) {
        for (seq, epoch) in leases {
            let Some(message) = self.state.queue.get(*seq) else { continue };
            let Some(lease) = message.lease() else { continue };
            if message.epoch != *epoch || lease.agent != *agent {
                continue;
            }
            let length = lease.pulled.unwrap_or(self.state.policy.lease);
            let ends = self.now.boot.after(length).min(lease.cap).max(lease.ends);
            self.note(&Note::LeaseRuns { seq: *seq, ends, cap: None });
        }
    }
}
