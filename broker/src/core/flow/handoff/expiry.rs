//! The time of a state is over.

use broker_proto::{Handoff, HandoffId, HandoffState, Pace};

use super::limit::of_limit;
use crate::core::{Note, flow::Run, route::Presence};

impl Run<'_> {
    /// The time of a state is over.
    pub(in crate::core::flow) fn handoff_is_due(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id).cloned() else { return };
        match handoff.state {
            HandoffState::Building | HandoffState::Ready => {
                self.next_receiver(handoff, HandoffState::Failed, "no package was made in time");
            }
            HandoffState::Offered => {
                self.next_receiver(handoff, HandoffState::Expired, "no answer in time");
            }
            HandoffState::Accepted => self.switch(id),
            HandoffState::Active => self.look_after(handoff),
            _ => {}
        }
    }

    /// A new owner that has not answered yet: one whose agents are gone hands on.
    fn look_after(&mut self, handoff: Handoff) {
        let session = handoff.session.clone();
        let is_moving = self.state.handoff.open(&session).is_some_and(|open| open.id != handoff.id);
        let is_there = self.presence(&handoff.to) != Presence::Absent;
        // A ring finds out by itself that its owner is silent, and moves it.
        if is_moving || is_there || self.is_kept_by_ring(&session) {
            // Nothing has happened: that is no event.
            let at = self.now.wall.after(self.state.policy.handoff.complete_deadline);
            self.note(&Note::LookAfter { handoff: handoff.id, at });
            return;
        }
        let reason = format!("no agent of {} is left to go on", handoff.to);
        self.end_handoff(handoff, HandoffState::Failed, reason.clone());
        // Where nobody can, its turns are routed one by one, and the next of them tries again.
        if self.state.policy.handoff.auto {
            self.move_or_tell(&session, &of_limit(&reason), Pace::AtOnce, false);
        }
    }
}
