//! The change of owner, in one commit (I-38).

use broker_proto::{HandedOver, Handoff, HandoffId, HandoffState, Recipient, SessionOwner};

use crate::core::{
    Event, Note, SliceMoved, Subject,
    flow::Run,
    handoff::unverified,
    queue::{Hold, Message, Place, Seq},
    route::Presence,
    session,
};

impl Run<'_> {
    /// Accepted ones whose old owner has nothing of theirs in hand any more, or cannot end it.
    pub(in crate::core::flow) fn finish_accepted(&mut self) {
        let accepted: Vec<HandoffId> = self
            .state
            .handoff
            .all_accepted()
            .filter(|it| !self.is_waited_for(it))
            .map(|it| it.id)
            .collect();
        for id in accepted {
            if self.is_long() {
                self.note(&Note::LookAfter { handoff: id, at: self.now.wall });
            } else {
                self.switch(id);
            }
        }
    }

    /// Whether the old owner still works on a turn of the session. A limit that is reached ends a call or does not; what
    /// runs is cut by nothing but a person's will.
    fn is_waited_for(&self, handoff: &Handoff) -> bool {
        let is_there = self.presence(&handoff.from.model) != Presence::Absent;
        is_there && self.in_hand(handoff).next().is_some()
    }

    /// Ownership, epoch, queue slice and leases, in this commit (I-38).
    pub(super) fn switch(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id).cloned() else { return };
        let Some(session) = self.state.session.get(&handoff.session) else { return };
        let owner = SessionOwner {
            model: handoff.to.clone(),
            agent: handoff.agent.clone(),
            epoch: handoff.from.epoch + 1,
        };
        // The broker died when only the first half of this was stored.
        let is_halfway = session.info.owner == owner;
        let tokens = session.info.window_tokens();
        if session.info.owner.epoch != handoff.from.epoch && !is_halfway {
            let why = "the session's owner has changed meanwhile".to_owned();
            self.end_handoff(handoff, HandoffState::Failed, why);
            return;
        }
        let entries = session.info.head.entries;
        let Some(package) = handoff.package else { return };
        let session_id = handoff.session.clone();
        let leased: Vec<Seq> = self.in_hand(&handoff).map(|it| it.seq).collect();
        for seq in &leased {
            self.lose_lease(*seq, "its session was handed off", false);
        }
        let moves = |message: &&Message| match message.place {
            Place::Ready
            | Place::Waiting(_)
            | Place::Closing
            | Place::Held(Hold::Handoff | Hold::Paused) => true,
            Place::New | Place::Leased(_) | Place::Held(_) => false,
        };
        let subjects: Vec<Subject> =
            self.slice(&handoff).filter(moves).map(Message::subject).collect();
        let (at, to) = (self.now.wall, handoff.to.clone());
        let why = format!("handed off by {}", handoff.from.model);
        let moved = subjects.clone();
        if !subjects.is_empty() {
            let slice = SliceMoved { subjects, at, to: to.clone(), why: why.clone() };
            self.event(Event::SliceMoved(Box::new(slice)));
        }
        let handed_over = HandedOver {
            handoff: id,
            package,
            entries: handoff.kept.entries,
            tokens_before: handoff.kept.tokens_before,
            tokens: handoff.kept.tokens,
        };
        let is_home = handoff.to == handoff.origin;
        let track = self.state.handoff.track(&handoff.session).filter(|_| is_home);
        let away = track.map(|track| track.away.clone()).unwrap_or_default();
        let away: Vec<Handoff> =
            away.into_iter().filter_map(|id| self.state.handoff.get(id).cloned()).collect();
        let unverified = unverified(&away, &to, entries);
        let own = session::Command::Own { id: session_id.clone(), owner, handed_over, unverified };
        self.close_bridges(&handoff.session, &format!("its session moved to {to}"));
        if is_halfway {
            self.session_holds(session_id.to_string(), to.clone(), tokens, true);
        } else {
            // It is there, as was just seen.
            let _ = self.session(own);
        }
        let mut kept = handoff.kept.clone();
        (kept.moved, kept.revoked) = (moved.len() as u64, leased.len() as u64);
        let until = at.after(self.state.policy.handoff.complete_deadline);
        let handoff_session = handoff.session.clone();
        // Its new owner is the old one of this.
        if let Some(active) = self.state.handoff.active(&handoff.session).cloned()
            && !away.iter().any(|it| it.id == active.id)
        {
            self.end_handoff(active, HandoffState::Completed, "its owner handed it on".to_owned());
        }
        self.handoff_changed(Handoff {
            state: HandoffState::Active,
            active_at: Some(at),
            until: Some(until),
            kept,
            ..handoff
        });
        self.settled_elsewhere(&handoff_session);
        for returned in away {
            self.end_handoff(returned, HandoffState::Returned, format!("given back to {to}"));
        }
        for subject in moved {
            let waits = self.state.queue.get(subject.seq).map(|message| &message.place);
            if matches!(waits, Some(Place::Ready)) {
                self.route(subject.seq, 0, &why);
            }
        }
        self.dispatch(&Recipient::Model(to));
        // What its pause kept, and was asked of others.
        self.go_on(&session_id);
    }
}
