//! A session that is paused: what runs for it is suspended with what it has so far, what waits is kept, nothing new begins.

use broker_proto::{HandoffId, MessageType, SessionId};

use super::Run;
use crate::core::{
    NewMessage, Refusal, handoff,
    queue::{Hold, Message, Place, Seq},
    session,
};

const WHY: &str = "its session is paused";

impl Run<'_> {
    /// Whether a session may be paused now: one that is on its way to another owner, and not paused for that, is let arrive
    /// first.
    pub(super) fn may_pause(
        &self,
        id: &SessionId,
        transfer: Option<HandoffId>,
    ) -> Result<(), Refusal> {
        let on_its_way = self.state.handoff.open(id).filter(|open| open.state.is_pending());
        match on_its_way.filter(|open| Some(open.id) != transfer) {
            None => Ok(()),
            Some(open) => {
                let (id, session, state) = (open.id, id.clone(), open.state);
                Err(handoff::Refusal::UnderWay { id, session, state }.into())
            }
        }
    }

    /// Every question and task of a session that is in hand or waits at a model.
    pub(super) fn stop_work(&mut self, session: &SessionId) {
        let stops = |message: &&Message| match message.place {
            Place::Ready | Place::Waiting(_) | Place::Leased(_) => true,
            Place::New | Place::Closing | Place::Held(_) => false,
        };
        let of = self.state.queue.of_session(session.as_str()).filter(stops);
        let seqs: Vec<Seq> = of.map(|message| message.seq).collect();
        for seq in seqs {
            self.suspend(seq, Hold::Paused, WHY);
        }
    }

    /// What its pause kept goes on where it was, at the beginning of its chain.
    pub(super) fn go_on(&mut self, session: &SessionId) {
        let held = |message: &&Message| matches!(message.place, Place::Held(Hold::Paused));
        let of = self.state.queue.of_session(session.as_str()).filter(held);
        let seqs: Vec<Seq> = of.map(|message| message.seq).collect();
        for seq in seqs {
            match self.state.queue.get(seq).map(|message| message.consultation.is_some()) {
                Some(true) => self.begin(seq, "its session goes on"),
                // Where it was kept: its ring may have moved it there.
                Some(false) => self.take_up(seq, "its session goes on"),
                None => {}
            }
        }
    }

    /// Holds a question or a task whose session is paused; says whether it did.
    pub(super) fn is_held_by_pause(&mut self, seq: Seq) -> bool {
        let session = self.state.queue.get(seq).and_then(Message::session);
        let is_paused = session.is_some_and(|name| self.is_paused(name));
        if is_paused {
            self.hold(seq, Hold::Paused, WHY);
        }
        is_paused
    }

    /// A paused session takes nothing new: whoever asks learns it at once, and not at the deadline.
    pub(super) fn check_not_paused(&self, new: &NewMessage) -> Result<(), Refusal> {
        let name = new.session.as_deref().filter(|_| is_work(new.kind));
        match name.filter(|name| self.is_paused(name)).map(SessionId::parse) {
            Some(Ok(id)) => Err(session::Refusal::Paused(id).into()),
            _ => Ok(()),
        }
    }

    fn is_paused(&self, name: &str) -> bool {
        let id = SessionId::parse(name).ok();
        let session = id.and_then(|id| self.state.session.get(&id));
        session.is_some_and(|session| session.info.pause.is_some())
    }
}

/// What a pause stops.
pub(super) fn is_work(kind: MessageType) -> bool {
    matches!(kind, MessageType::Consultation | MessageType::Delegation)
}
