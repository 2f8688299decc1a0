//! What is asked of a session's old owner and not answered yet: held until it is known who gets it.

use broker_proto::{Handoff, HandoffId, SessionId};

use crate::core::{
    flow::Run,
    queue::{Hold, Message, Place, Seq},
};

impl Run<'_> {
    /// What is asked of a session's old owner and not answered yet. What was asked of it and of nobody else is not the
    /// session's turn.
    pub(super) fn slice<'a>(&'a self, handoff: &'a Handoff) -> impl Iterator<Item = &'a Message> {
        let of_session = self.state.queue.of_session(handoff.session.as_str());
        of_session.filter(|message| {
            message.consultation.as_ref().is_some_and(|consultation| {
                consultation.asked == handoff.from.model && !consultation.options.no_fallback
            })
        })
    }

    /// What of it the old owner works on. What its chain has given to another is that one's.
    pub(super) fn in_hand<'a>(&'a self, handoff: &'a Handoff) -> impl Iterator<Item = &'a Message> {
        let is_its = |message: &&Message| message.model() == Some(&handoff.from.model);
        self.slice(handoff).filter(|message| message.lease().is_some()).filter(is_its)
    }

    /// Keeps what waits for the old owner until it is known who gets it.
    pub(super) fn hold_slice(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id) else { return };
        let waits = |message: &&Message| matches!(message.place, Place::Ready | Place::Waiting(_));
        let seqs: Vec<Seq> = self.slice(handoff).filter(waits).map(|message| message.seq).collect();
        for seq in seqs {
            self.hold(seq, Hold::Handoff, "its session is being handed off");
        }
    }

    pub(in crate::core::flow) fn release_slice(&mut self, session: &SessionId) {
        let held = |message: &&Message| matches!(message.place, Place::Held(Hold::Handoff));
        let seqs: Vec<Seq> = self
            .state
            .queue
            .of_session(session.as_str())
            .filter(held)
            .map(|message| message.seq)
            .collect();
        for seq in seqs {
            self.route(seq, 0, "its session stays with its owner");
        }
    }
}
