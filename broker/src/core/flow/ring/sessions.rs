//! The sessions that go with a ring: offered to the incoming member, and how far it is with them.

use broker_proto::{
    AgentName, AskHandoff, HandoffState, ModelName, Pace, RotationPhase, SessionId, Trigger,
    TriggerKind, Urgency,
};

use crate::core::{
    flow::{Run, handoff::Wanted},
    ring::{Loading, Ring, What},
};

/// Sessions that one handover moves; the others stay with whoever owns them.
const SESSIONS: usize = 64;

impl Run<'_> {
    /// Sessions that the ring's members own, but for this one.
    pub(super) fn sessions_of(&self, ring: &Ring, but: Option<&AgentName>) -> Vec<SessionId> {
        let is_one = |agent: &AgentName| Some(agent) != but && ring.member(agent).is_some();
        let owned = self.state.session.owned_by(is_one);
        owned.take(SESSIONS).map(|session| session.info.id.clone()).collect()
    }

    /// The incoming one is there: it is offered the sessions of the others.
    pub(super) fn see(&mut self, mut ring: Ring) {
        let Some(handover) = ring.handover.clone() else { return };
        let Some(to) = handover.to.clone() else { return };
        let mut handoffs = Vec::new();
        for session in self.sessions_of(&ring, Some(&to)) {
            let Some(model) = self.model_for(&session, &to) else { continue };
            let pace = if handover.is_gradual { Pace::Gradually } else { Pace::AtOnce };
            let reason = format!("rotation of {}: {}", ring.role, handover.reason);
            let ask = AskHandoff {
                session,
                to: Some(model),
                agent: Some(to.clone()),
                reason: reason.clone(),
                level: None,
                package: None,
                is_forced: true,
                at_once: pace == Pace::AtOnce,
            };
            // The ring says where a session is: it is put there, and goes on with the ring.
            let trigger = Trigger {
                kind: TriggerKind::UserRequest,
                reasoning: reason,
                confidence: 1.0,
                urgency: Urgency::High,
            };
            // One that cannot move, as it has no turns or is on its way, stays with its owner.
            handoffs.extend(self.begin_handoff(Wanted {
                ask,
                trigger,
                pace,
                returns: None,
                is_lent: false,
            }));
        }
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Seen;
            handover.handoffs = handoffs;
        }
        self.ring_changed(ring, What::Seen);
    }

    /// The model that answers for a member: the session's own, where it serves it.
    pub(super) fn model_for(&self, session: &SessionId, to: &AgentName) -> Option<ModelName> {
        let served = self.models_of(to);
        let own = &self.state.session.get(session)?.info.owner.model;
        served.iter().find(|model| *model == own).or_else(|| served.first()).cloned()
    }

    /// The models that an agent serves now, as it named them.
    pub(super) fn models_of(&self, agent: &AgentName) -> Vec<ModelName> {
        let links = self.state.agent.links_of(agent);
        links.flat_map(|(_, link)| link.models.iter().cloned()).collect()
    }

    pub(super) fn loading(&self, ring: &Ring) -> Loading {
        let Some(handover) = &ring.handover else { return Loading::default() };
        let mut loading = Loading::default();
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
        let has_nothing = handover.tasks == 0 && handover.handoffs.is_empty();
        loading.has_worked = has_nothing || self.state.ring.has_worked(&ring.role);
        loading
    }
}
