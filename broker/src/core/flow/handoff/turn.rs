//! Turns of sessions: before one is asked, while its session moves, and when it is answered.

use std::collections::BTreeSet;

use broker_proto::{HandoffState, ModelName, Pace, SessionId};

use crate::core::{
    flow::Run,
    queue::{Hold, Seq},
};

impl Run<'_> {
    /// A turn of a session is asked: one whose owner cannot go on moves first, and the turn with it.
    pub(in crate::core::flow) fn before_turn(&mut self, seq: Seq) {
        let Some((session, asked)) = self.turn_of(seq) else { return };
        let Some(owner) = self.state.session.get(&session).map(|it| it.info.owner.model.clone())
        else {
            return;
        };
        if owner != asked || !self.state.policy.handoff.auto {
            return;
        }
        if let Some(open) = self.state.handoff.open(&session)
            && open.state.is_pending()
        {
            return;
        }
        self.recount(&session);
        let is_kept = self.is_kept_by_ring(&session);
        match self.limit_of_turn(seq, &session, &owner) {
            // A model's limit is its ring's to answer; what outgrows its window has to leave.
            Some((_, true)) if is_kept => {}
            // Where nobody is better, the turn is routed as any other.
            Some((trigger, is_lent)) => {
                self.move_or_tell(&session, &trigger, Pace::AtOnce, is_lent);
            }
            None => self.advise(&session, self.prompt_of(seq).own),
        }
    }

    fn turn_of(&self, seq: Seq) -> Option<(SessionId, ModelName)> {
        let consultation = self.state.queue.get(seq)?.consultation.as_ref()?;
        let session = consultation.session.as_deref()?;
        if consultation.options.no_fallback {
            return None;
        }
        Some((SessionId::parse(session).ok()?, consultation.asked.clone()))
    }

    /// Holds a turn whose session is on its way; says whether it did.
    pub(in crate::core::flow) fn is_held_for_handoff(&mut self, seq: Seq) -> bool {
        let Some((session, asked)) = self.turn_of(seq) else { return false };
        let is_moving = self
            .state
            .handoff
            .open(&session)
            .is_some_and(|open| open.state.is_pending() && open.from.model == asked);
        if is_moving {
            self.hold(seq, Hold::Handoff, "its session is being handed off");
        }
        is_moving
    }

    /// The owner of a session answered a turn: a handoff to it has done what it was for.
    pub(in crate::core::flow) fn turn_answered(
        &mut self,
        session: &SessionId,
        by: &BTreeSet<ModelName>,
    ) {
        let Some(active) = self.state.handoff.active(session) else { return };
        if !by.contains(&active.to) {
            return;
        }
        let active = active.clone();
        let outcome = format!("{} answered a turn", active.to);
        active.package.into_iter().for_each(|package| self.archive(package));
        self.end_handoff(active, HandoffState::Completed, outcome);
    }
}
