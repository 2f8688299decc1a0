//! Rings as they go round: what an owner's calls say of it, who takes over, and what moves with that.

mod sessions;
mod set;
mod shown;
mod standing;
mod turn;

use broker_proto::{AgentName, Recipient, RoleName, RotationPhase};

use super::Run;
use crate::core::{
    Effect, Event, Refusal, Reply,
    agent::LinkId,
    ring::{
        self, Call, Command, Event as RingEvent, Query, Reply as RingReply, Ring, Standing, Step,
        What,
    },
};

impl Run<'_> {
    pub(super) fn ring(&mut self, command: Command) -> Result<Reply, Refusal> {
        let role = match command {
            Command::Set(set) => self.set_ring(set)?,
            Command::Force(force) => self.force_ring(force)?,
            Command::NotWoken { role, to, reason } => {
                self.not_woken(&role, &to, &reason);
                role
            }
        };
        self.look_at_rings();
        Ok(Reply::Ring(self.ask_ring(&Query::Get(Some(role)))))
    }

    pub(super) fn ask_ring(&self, Query::Get(role): &Query) -> RingReply {
        let is_meant = |ring: &&Ring| role.as_ref().is_none_or(|role| ring.role == *role);
        let rings = self.state.ring.rings().filter(is_meant);
        RingReply::Rings(rings.map(|ring| self.shown_ring(ring)).collect())
    }

    fn not_woken(&mut self, role: &RoleName, to: &AgentName, reason: &str) {
        let Some(ring) = self.state.ring.get(role).cloned() else { return };
        let waits = ring.handover.as_ref().is_some_and(|handover| {
            handover.phase == RotationPhase::Woken && handover.to.as_ref() == Some(to)
        });
        if waits {
            self.pass_over(ring, to, &format!("could not be woken: {reason}"));
        }
    }

    fn ring_changed(&mut self, ring: Ring, what: What) {
        let at = self.now.wall;
        self.event(Event::Ring(Box::new(RingEvent { at, ring, what })));
    }

    /// Whoever is woken when the broker starts is woken again.
    pub(super) fn resume_rings(&mut self) {
        let woken: Vec<Ring> =
            self.state.ring.on().filter(|it| it.is_handing_over()).cloned().collect();
        for ring in woken {
            self.wake_member(&ring);
        }
    }

    fn wake_member(&mut self, ring: &Ring) {
        let Some(handover) = &ring.handover else { return };
        let (RotationPhase::Woken, Some(to)) = (handover.phase, &handover.to) else { return };
        if self.standing(ring, to).is_there {
            return;
        }
        let call = Call {
            role: ring.role.clone(),
            from: handover.from.clone(),
            to: to.clone(),
            reason: handover.reason.clone(),
            at: self.now.wall,
        };
        let links: Vec<LinkId> = self.state.ring.standby_of(&ring.role, to).collect();
        if self.state.policy.rotation.woken.contains(to) {
            self.effect(Effect::Wake(Box::new(call.clone())));
        }
        if !links.is_empty() {
            self.effect(Effect::WakeOver { links, call: Box::new(call) });
        }
    }

    /// Keeps what was heard against owners, so that a restart does not forget it.
    fn keep_heard(&mut self) {
        while let Some(mut ring) = self.state.ring.unsaid().cloned() {
            let Some(owner) = &ring.owner else { return };
            ring.heard = self.state.ring.signals(owner);
            let reason = self.readings_of(owner);
            self.ring_changed(ring, What::Heard { reason });
        }
    }

    /// Takes every step that is due. Each either ends a handover, brings it nearer to its end, or rules a member out.
    pub(super) fn look_at_rings(&mut self) {
        self.keep_heard();
        let roles: Vec<RoleName> = self.state.ring.on().map(|ring| ring.role.clone()).collect();
        for role in roles {
            while let Some((ring, step)) = self.next_step(&role) {
                self.take_step(ring, step);
            }
        }
    }

    fn next_step(&self, role: &RoleName) -> Option<(Ring, Step)> {
        let ring = self.state.ring.get(role).filter(|ring| ring.is_on)?;
        let standings: Vec<Standing> =
            ring.members.iter().map(|member| self.standing(ring, &member.agent)).collect();
        let deadline = self.state.policy.rotation.accept_deadline;
        let step = ring::step(ring, &standings, &self.loading(ring), deadline, self.now.wall)?;
        Some((ring.clone(), step))
    }

    fn take_step(&mut self, mut ring: Ring, step: Step) {
        match step {
            Step::Detect(why) => self.detect(ring, why, None),
            Step::Save => self.save(ring),
            Step::Wake(to) => {
                let until = self.now.wall.after(self.state.policy.rotation.accept_deadline);
                if let Some(handover) = &mut ring.handover {
                    handover.phase = RotationPhase::Woken;
                    (handover.to, handover.until) = (Some(to), Some(until));
                    handover.begin_again();
                }
                self.ring_changed(ring.clone(), What::Woken);
                self.wake_member(&ring);
            }
            Step::See => self.see(ring),
            Step::Accept => self.accept_ring(ring),
            Step::Resume => self.resume(ring),
            Step::PassOver { member, reason } => self.pass_over(ring, &member, &reason),
            Step::Stay { reason } => {
                ring.handover = None;
                let queue = Recipient::Role(ring.role.clone());
                self.ring_changed(ring, What::Stayed { reason });
                self.dispatch(&queue);
            }
            Step::Stop { why, back_at } => {
                ring.stop(self.now.wall, why, back_at);
                self.ring_changed(ring, What::Stopped);
            }
        }
    }
}
