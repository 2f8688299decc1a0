//! Who owns a session, by what was stored: one owner at every moment, and never another without a handoff (I-38).

use std::collections::BTreeMap;

use broker_proto::{Handoff, HandoffId, HandoffState as State, SessionId, SessionOwner};

use super::{Checked, must};
use crate::core::session::{Change, Event};

#[derive(Debug, Default)]
pub(in crate::sim) struct Moves {
    /// Of sessions that are there.
    owners: BTreeMap<SessionId, SessionOwner>,
    handoffs: BTreeMap<HandoffId, Handoff>,
    /// Owners that were written by the frame that is read, and whose handoff has yet to say so.
    written: BTreeMap<SessionId, SessionOwner>,
}

/// Whether a handoff that was in one state may be in the other next.
fn follows(was: Option<State>, is: State) -> bool {
    let Some(was) = was else { return is == State::Building };
    // The next receiver, or none.
    let passed_on = [State::Building, State::Declined, State::Expired, State::Failed];
    match was {
        State::Building => is == State::Ready || passed_on.contains(&is),
        State::Ready => is == State::Offered || passed_on.contains(&is),
        State::Offered => is == State::Accepted || passed_on.contains(&is),
        State::Accepted => is == State::Active || passed_on.contains(&is),
        State::Active => matches!(is, State::Active | State::Completed | State::Failed),
        State::Completed => is == State::Returned,
        State::Declined | State::Expired | State::Failed | State::Returned => false,
    }
}

impl Moves {
    /// The handoffs of a session, oldest first.
    pub(in crate::sim) fn of(&self, session: &SessionId) -> Vec<Handoff> {
        self.handoffs.values().filter(|it| it.session == *session).cloned().collect()
    }

    pub(in crate::sim) fn owner(&self, session: &SessionId) -> Option<&SessionOwner> {
        self.owners.get(session)
    }

    pub(super) fn session(&mut self, event: &Event) -> Checked {
        let Event::Changed { id, change, after, .. } = event else { return Ok(()) };
        let Some(after) = after else {
            self.owners.remove(id);
            self.handoffs.retain(|_, handoff| handoff.session != *id);
            return Ok(());
        };
        let owner = &after.info.owner;
        match self.owners.insert(id.clone(), owner.clone()) {
            None => must!(owner.epoch == 1, "I-38", "{id} begins with {owner:?}"),
            Some(was) if *change == Change::OwnerChanged => {
                must!(owner.epoch == was.epoch + 1, "I-38", "{id} goes from {was:?} to {owner:?}");
                self.written.insert(id.clone(), owner.clone());
            }
            Some(was) => {
                must!(was == *owner, "I-38", "{id} is {change:?} from {was:?} to {owner:?}")
            }
        }
        Ok(())
    }

    pub(super) fn handoff(&mut self, handoff: &Handoff) -> Checked {
        let Handoff { id, session, state, to, from, .. } = handoff;
        must!(
            self.owners.contains_key(session),
            "I-38",
            "{id} is of {session}, which is not there"
        );
        let was = self.handoffs.get(id).map(|before| before.state);
        must!(follows(was, *state), "I-38", "{id} is {state:?} after {was:?}");
        if !state.is_over() {
            let mut others = self.handoffs.values().filter(|it| it.session == *session);
            let other = others.find(|other| other.id != *id && !other.state.is_over());
            must!(other.is_none(), "I-38", "{id} and {other:?} are open at once");
        }
        if *state == State::Active && was != Some(State::Active) {
            let owner = self.written.remove(session);
            let is_its = owner
                .as_ref()
                .is_some_and(|owner| owner.model == *to && owner.epoch == from.epoch + 1);
            must!(is_its, "I-38", "{id} to {to} is active with the owner {owner:?}");
        }
        self.handoffs.insert(*id, handoff.clone());
        Ok(())
    }

    /// The end of a frame: what changes an owner is all of it or nothing.
    pub(super) fn frame_ends(&mut self) -> Checked {
        must!(self.written.is_empty(), "I-38", "owners without a handoff: {:?}", self.written);
        Ok(())
    }

    /// Nothing goes on for ever.
    pub(super) fn at_rest(&self) -> Checked {
        let pending = self.pending();
        must!(pending.is_none(), "I-38", "it never ends: {pending:?}");
        Ok(())
    }

    /// One that is still on its way.
    pub(in crate::sim) fn pending(&self) -> Option<&Handoff> {
        self.handoffs.values().find(|handoff| handoff.state.is_pending())
    }
}
