//! A session goes back to where it came from.

use broker_proto::{
    AskHandoff, Handoff, HandoffId, HandoffState, Pace, Trigger, TriggerKind, Urgency,
};

use super::Wanted;
use crate::core::{Refusal, flow::Run, handoff::Refusal as Refused};

impl Run<'_> {
    pub(super) fn give_back(&mut self, id: HandoffId, reason: &str) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        if !matches!(handoff.state, HandoffState::Active | HandoffState::Completed) {
            let state = handoff.state;
            return Err(Refused::State { id, state, wanted: "given back" }.into());
        }
        let is_its = self.state.session.get(&handoff.session).is_some_and(|session| {
            session.info.owner.model == handoff.to
                && session.info.owner.epoch == handoff.from.epoch + 1
        });
        if !is_its {
            return Err(Refused::OwnerChanged(id).into());
        }
        let reason = if reason.is_empty() { "given back" } else { reason };
        self.return_session(&handoff, reason, TriggerKind::UserRequest)
    }

    /// A handoff of its own, back to where the session came from.
    pub(in crate::core::flow) fn return_session(
        &mut self,
        handoff: &Handoff,
        reason: &str,
        kind: TriggerKind,
    ) -> Result<HandoffId, Refusal> {
        let ask = AskHandoff {
            session: handoff.session.clone(),
            to: Some(handoff.origin.clone()),
            agent: None,
            reason: reason.to_owned(),
            level: None,
            package: None,
            is_forced: true,
            at_once: false,
        };
        let trigger =
            Trigger { kind, reasoning: reason.to_owned(), confidence: 1.0, urgency: Urgency::Low };
        let (pace, returns) = (Pace::Gradually, Some(handoff.id));
        self.begin_handoff(Wanted {
            ask,
            trigger,
            pace,
            returns,
            is_lent: false,
            is_rotation: false,
        })
    }
}
