//! The sessions that go with a ring: offered to the incoming member, so many at once, and how far it is with them.
//!
//! Invariant: while a ring has an owner, nothing but the ring moves the sessions of its members, except what outgrows its
//! model's window, and what somebody asks for.

use broker_proto::{
    AgentName, AskHandoff, Handoff, HandoffState, ModelName, Pace, PackageId, RotationPhase,
    RotationTrigger, SessionId, Trigger, TriggerKind, Urgency, WallTime,
};

use crate::core::{
    flow::{Run, handoff::Wanted},
    ring::{Handover, Loading, Ring, What},
    usage::Level,
};

/// Sessions that are offered at once; the next ones follow when these are taken.
const AT_ONCE: usize = 64;

impl Run<'_> {
    /// Sessions that the ring's members own, but for this one, behind `behind` in the order of their ids.
    pub(super) fn sessions_of<'a>(
        &'a self,
        ring: &'a Ring,
        but: Option<&'a AgentName>,
        behind: Option<&'a SessionId>,
    ) -> impl Iterator<Item = &'a SessionId> {
        let is_one = move |agent: &AgentName| Some(agent) != but && ring.member(agent).is_some();
        let owned = self.state.session.owned_by(is_one).map(|session| &session.info.id);
        owned.filter(move |id| behind.is_none_or(|behind| *id > behind))
    }

    /// The incoming one is there: it is offered the sessions of the others, and has as long for these as it had to come.
    pub(super) fn see(&mut self, mut ring: Ring) {
        let Some(mut handover) = ring.handover.clone() else { return };
        let Some(to) = handover.to.clone() else { return };
        handover.taken += self.loading(&ring).taken as u64;
        let next = self.sessions_of(&ring, Some(&to), handover.behind.as_ref()).take(AT_ONCE);
        let next: Vec<SessionId> = next.cloned().collect();
        handover.behind = next.last().cloned().or(handover.behind);
        let moved = next.into_iter().filter_map(|id| self.offer_session(&ring, &handover, id, &to));
        handover.handoffs = moved.collect();
        handover.phase = RotationPhase::Seen;
        handover.until = Some(self.now.wall.after(self.state.policy.rotation.accept_deadline));
        ring.handover = Some(handover);
        self.ring_changed(ring, What::Seen);
    }

    /// `None`: it cannot move, as it has no turns, is on its way, or the member serves no model. It stays where it is.
    fn offer_session(
        &mut self,
        ring: &Ring,
        handover: &Handover,
        session: SessionId,
        to: &AgentName,
    ) -> Option<broker_proto::HandoffId> {
        let model = self.model_for(&session, to)?;
        let pace = if handover.is_gradual { Pace::Gradually } else { Pace::AtOnce };
        let reasoning = format!("rotation of {}: {}", ring.role, handover.reason);
        let ask = AskHandoff {
            session,
            to: Some(model),
            agent: Some(to.clone()),
            reason: reasoning.clone(),
            level: None,
            package: None,
            is_forced: true,
            at_once: pace == Pace::AtOnce,
        };
        let kind = kind_of(handover.trigger);
        let trigger = Trigger { kind, reasoning, confidence: 1.0, urgency: Urgency::High };
        let wanted =
            Wanted { ask, trigger, pace, returns: None, is_lent: false, is_rotation: true };
        self.begin_handoff(wanted).ok()
    }

    /// The model that answers for a member: the session's own, where it serves it, but none that has reached its limit
    /// while another has not.
    fn model_for(&self, session: &SessionId, to: &AgentName) -> Option<ModelName> {
        let served = self.models_of(to);
        let own = &self.state.session.get(session)?.info.owner.model;
        let rank = |model: &&ModelName| {
            let limit = self.limit(model).map_or(Level::Healthy, |cause| cause.level);
            (limit == Level::Exhausted, *model != own)
        };
        served.iter().min_by_key(rank).cloned()
    }

    /// The models that an agent serves now, as it named them.
    pub(super) fn models_of(&self, agent: &AgentName) -> Vec<ModelName> {
        let links = self.state.agent.links_of(agent);
        links.flat_map(|(_, link)| link.models.iter().cloned()).collect()
    }

    /// How far the incoming one is with what it was offered.
    pub(super) fn loading(&self, ring: &Ring) -> Loading {
        let Some(handover) = &ring.handover else { return Loading::default() };
        let before = usize::try_from(handover.taken).unwrap_or(usize::MAX);
        let mut loading = Loading { taken: before, ..Loading::default() };
        for id in &handover.handoffs {
            match self.state.handoff.get(*id) {
                Some(it) if it.state.is_pending() => loading.pending += 1,
                Some(it) if matches!(it.state, HandoffState::Active | HandoffState::Completed) => {
                    loading.taken += 1;
                }
                Some(it) => loading.refused.push(it.outcome.clone()),
                // Its session moved on, or is no more.
                None => loading.taken += 1,
            }
        }
        if handover.phase == RotationPhase::Seen && loading.pending == 0 {
            let to = handover.to.as_ref();
            let mut left = self.sessions_of(ring, to, handover.behind.as_ref());
            loading.has_more = left.next().is_some();
        }
        let is_given = handover.taken > 0 || !handover.handoffs.is_empty();
        let has_nothing = handover.tasks == 0 && !is_given;
        loading.has_worked = has_nothing || self.state.ring.has_worked(&ring.role);
        loading
    }

    /// The packages with which sessions came to a ring's owner since its handover began.
    pub(super) fn given_to(&self, owner: &AgentName, begun_at: WallTime) -> Vec<PackageId> {
        let given = |it: &&Handoff| {
            it.begun_at >= begun_at && it.active_at.is_some() && it.agent.as_ref() == Some(owner)
        };
        let owned = self.state.session.owned_by(|agent| agent == owner);
        let last = owned.filter_map(|session| self.state.handoff.last(&session.info.id));
        last.filter(given).filter_map(|handoff| handoff.package).collect()
    }

    /// Whether a session belongs to the owner, or another member, of a ring that has an owner.
    pub(in crate::core::flow) fn is_kept_by_ring(&self, session: &SessionId) -> bool {
        let owner = self.state.session.get(session).and_then(|it| it.info.owner.agent.as_ref());
        let Some(owner) = owner else { return false };
        self.state.ring.on().any(|ring| ring.owner.is_some() && ring.member(owner).is_some())
    }
}

/// What moves a session with its ring, in the words of handoffs.
fn kind_of(trigger: RotationTrigger) -> TriggerKind {
    match trigger {
        RotationTrigger::RateLimits
        | RotationTrigger::SlowReplies
        | RotationTrigger::ErrorRate
        | RotationTrigger::Limit
        | RotationTrigger::Silent
        // Whoever worked before could not go on.
        | RotationTrigger::Begins => TriggerKind::UsageLimit,
        // Somebody drains it.
        RotationTrigger::Drained | RotationTrigger::Forced => TriggerKind::UserRequest,
    }
}
