//! A session that goes on in another process: paused, offered and resumed there. Where that comes to nothing, it goes on with
//! its owner, in the commit that ends the handoff.

use broker_proto::{HandoffId, SessionId};

use super::Run;
use crate::core::{
    Refusal,
    handoff::{Refusal as Refused, Transfer},
    session,
};

impl Run<'_> {
    /// Both or neither: what speaks against either is asked before the first of them.
    pub(super) fn transfer(&mut self, transfer: Transfer) -> Result<HandoffId, Refusal> {
        let Transfer { ask, version, mut pause } = transfer;
        let session = ask.session.clone();
        let pausing = |pause| session::Command::Pause { id: session.clone(), version, pause };
        self.state.session.decide(pausing(pause.clone()), self.now.wall)?;
        let id = self.ask(ask)?;
        pause.handoff = Some(id);
        // As was just seen, it may be paused.
        let _ = self.session(pausing(pause));
        Ok(id)
    }

    /// The transfer of a session is over, and nobody took it.
    pub(super) fn end_transfer(&mut self, id: &SessionId) {
        if self.transferred_by(id).is_some() {
            // It is paused, as was just seen.
            let _ = self.session(session::Command::Resume { id: id.clone() });
        }
    }

    /// The transfer that a session is paused for.
    fn transferred_by(&self, id: &SessionId) -> Option<HandoffId> {
        self.state.session.get(id)?.info.pause.as_ref()?.handoff
    }

    /// Whether somebody may resume a session: one that is on its way is let arrive first.
    pub(super) fn may_resume(&self, id: &SessionId) -> Result<(), Refusal> {
        let on_its_way = self.transferred_by(id).and_then(|_| self.state.handoff.open(id));
        match on_its_way.filter(|open| open.state.is_pending()) {
            None => Ok(()),
            Some(open) => {
                let (id, session, state) = (open.id, id.clone(), open.state);
                Err(Refused::UnderWay { id, session, state }.into())
            }
        }
    }
}
