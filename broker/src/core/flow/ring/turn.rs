//! A handover: what moves is written down, the owner changes in one commit, and work goes on.

use broker_proto::{AgentName, HandoffState, MessageType, PackageId, Recipient, RotationPhase};

use crate::core::{
    Event,
    flow::Run,
    queue::{Message, Place, Seq},
    ring::{Exhausted, Handover, Ring, Unfit, What},
};

impl Run<'_> {
    pub(super) fn detect(&mut self, mut ring: Ring, why: Exhausted, only: Option<AgentName>) {
        ring.handover = Some(Handover {
            phase: RotationPhase::Detected,
            trigger: why.trigger,
            reason: why.reason,
            is_gradual: why.is_gradual,
            from: ring.owner.clone(),
            to: None,
            only,
            begun_at: self.now.wall,
            until: None,
            tasks: 0,
            sessions: 0,
            handoffs: Vec::new(),
            behind: None,
            taken: 0,
            tried: Vec::new(),
        });
        self.ring_changed(ring, What::Detected);
    }

    pub(super) fn save(&mut self, mut ring: Ring) {
        let tasks = self.tasks(&ring) as u64;
        let sessions = self.sessions_of(&ring, None, None).count() as u64;
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Saved;
            (handover.tasks, handover.sessions) = (tasks, sessions);
        }
        self.ring_changed(ring, What::Saved);
    }

    /// What the next owner finds: what waits for the role or for its owner, and what the owner works on.
    pub(super) fn tasks(&self, ring: &Ring) -> usize {
        let queue = Recipient::Role(ring.role.clone());
        let waiting = usize::try_from(self.state.queue.load(&queue).0).unwrap_or(usize::MAX);
        let of = |owner: &AgentName| self.leased(ring, owner).len() + self.addressed(owner).len();
        waiting + ring.owner.as_ref().map_or(0, of)
    }

    /// What a member works on of the role's queue.
    pub(super) fn leased(&self, ring: &Ring, agent: &AgentName) -> Vec<Seq> {
        let queue = Recipient::Role(ring.role.clone());
        let is_of = |seq: &Seq| self.state.queue.get(*seq).is_some_and(|it| *it.queue == queue);
        self.state.queue.leased_by(agent).into_iter().filter(is_of).collect()
    }

    /// Tasks that wait in an agent's own mailbox. What else is addressed to it is its own.
    pub(super) fn addressed(&self, agent: &AgentName) -> Vec<Seq> {
        let queue = Recipient::Agent(agent.clone());
        let ready = self.state.queue.ready(&queue).map(|ready| ready.all()).unwrap_or_default();
        let is_task = |message: &Message| {
            message.kind == MessageType::Delegation
                && message.consultation.is_none()
                && matches!(message.place, Place::Ready)
        };
        let is_task = |seq: &Seq| self.state.queue.get(*seq).is_some_and(is_task);
        ready.into_iter().filter(is_task).collect()
    }

    /// The change of owner: with it goes what the one before works on, and what is addressed to it.
    pub(super) fn accept_ring(&mut self, mut ring: Ring) {
        let Some(to) = ring.handover.as_ref().and_then(|it| it.to.clone()) else { return };
        let (at, tasks) = (self.now.wall, self.tasks(&ring) as u64);
        let from = ring.owner.clone();
        let (leased, addressed) = match &from {
            Some(from) => (self.leased(&ring, from), self.addressed(from)),
            None => (Vec::new(), Vec::new()),
        };
        ring.pass_to(&to, at);
        let mut is_gradual = false;
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Loaded;
            (handover.until, handover.tasks) = (None, tasks);
            is_gradual = handover.is_gradual;
        }
        let queue = Recipient::Role(ring.role.clone());
        self.ring_changed(ring, What::Accepted);
        if !is_gradual {
            for seq in leased {
                self.lose_lease(seq, "its ring has another owner", false);
            }
        }
        for seq in addressed {
            let Some(message) = self.state.queue.get(seq) else { continue };
            self.event(Event::Routed {
                subject: message.subject(),
                at,
                queue: queue.clone(),
                candidate: 0,
                wait_until: None,
                passed_over: Vec::new(),
                why: format!("its ring passed on to {to}"),
            });
        }
        self.dispatch(&queue);
    }

    /// The owner works: nobody needs what it was given any more.
    pub(super) fn resume(&mut self, mut ring: Ring) {
        let begun_at = ring.handover.take().map(|handover| handover.begun_at);
        let packages: Vec<PackageId> = match (&ring.owner, begun_at) {
            (Some(owner), Some(begun_at)) => self.given_to(owner, begun_at),
            _ => Vec::new(),
        };
        self.ring_changed(ring, What::Resumed { packages: packages.clone() });
        for package in packages {
            self.archive(package);
        }
    }

    /// The next one is asked; this one not before a pause is over.
    pub(super) fn pass_over(&mut self, mut ring: Ring, member: &AgentName, reason: &str) {
        let until = Some(self.now.wall.after(ring.pause));
        let handoffs = ring.handover.as_ref().map(|it| it.handoffs.clone()).unwrap_or_default();
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Saved;
            (handover.to, handover.until) = (None, None);
            handover.begin_again();
            handover.tried.push(member.clone());
        }
        if let Some(member) = ring.member_mut(member) {
            member.shut = Some(Unfit { reason: reason.to_owned(), until });
        }
        let (member, why) = (member.clone(), reason.to_owned());
        self.ring_changed(ring, What::PassedOver { member, reason: why });
        for id in handoffs {
            let Some(open) = self.state.handoff.get(id).cloned() else { continue };
            if open.state.is_pending() {
                let outcome = format!("its receiver was passed over: {reason}");
                self.end_handoff(open, HandoffState::Expired, outcome);
            }
        }
    }
}
