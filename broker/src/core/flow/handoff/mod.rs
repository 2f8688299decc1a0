//! A session's way to another owner: begun, offered, accepted, switched in one commit, and what its messages do meanwhile.

mod build;
mod expiry;
mod give_back;
mod limit;
mod offer;
mod receiver;
mod slice;
mod switch;
mod turn;

use broker_proto::{AskHandoff, Handoff, HandoffId, HandoffState, Pace, SessionId, Trigger};

use super::Run;
use crate::core::{
    Event, Refusal, Reply,
    handoff::{
        By, Command, Event as HandoffEvent, Query, Refusal as Refused, Reply as HandoffReply,
    },
};

pub(super) use receiver::LEAST;

/// A handoff that is to begin.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) ask: AskHandoff,
    pub(super) trigger: Trigger,
    pub(super) pace: Pace,
    pub(super) returns: Option<HandoffId>,
    /// It goes back once the model that it leaves can go on.
    pub(super) is_lent: bool,
    /// Its ring moves it: it is where the ring is, and no move of its own counts.
    pub(super) is_rotation: bool,
}

impl Run<'_> {
    pub(super) fn handoff(&mut self, command: Command) -> Result<Reply, Refusal> {
        let handoff = match command {
            Command::Begin(ask) => self.ask(*ask)?,
            Command::Transfer(transfer) => self.transfer(*transfer)?,
            Command::Built(built) => self.built(*built)?,
            Command::NotBuilt { id, to, reason } => self.not_built(id, &to, &reason)?,
            Command::Accept { accept, by } => {
                self.accept(accept.id, &by, accept.manifest, accept.confirmed)?
            }
            Command::Decline { id, by, reason, for_model } => {
                self.decline(id, &by, &reason, for_model)?
            }
            Command::Complete { id, by, outcome } => self.complete(id, &by, outcome)?,
            Command::GiveBack { id, reason } => self.give_back(id, &reason)?,
            Command::SetPolicy(change) => return self.set_handoff_policy(*change),
        };
        self.finish_accepted();
        // What follows may have changed it within this commit.
        let handoff = self.state.handoff.get(handoff).cloned().ok_or(Refused::Unknown(handoff))?;
        Ok(Reply::Handoff(HandoffReply::Handoff(Box::new(handoff))))
    }

    pub(super) fn ask_handoff(&self, query: &Query) -> HandoffReply {
        let found = match query {
            Query::Get(id) => self.state.handoff.get(*id),
            Query::Of(session) => self.state.handoff.last(session),
            Query::Away(session) => {
                let away = self.state.handoff.away_of(session).cloned().collect();
                return HandoffReply::Away(away);
            }
            Query::Policy => return HandoffReply::Policy(self.handoff_policy()),
            Query::Check { session, warning_only } => {
                return HandoffReply::Check(
                    self.check_handoff(session, *warning_only).map(Box::new),
                );
            }
            Query::Status { session } => {
                let status = self.handoff_status(session.as_deref());
                return HandoffReply::Status(Box::new(status));
            }
        };
        HandoffReply::Found(found.cloned().map(Box::new))
    }

    fn handoff_changed(&mut self, handoff: Handoff) {
        let (at, handoff) = (self.now.wall, Box::new(handoff));
        self.event(Event::Handoff(Box::new(HandoffEvent::Changed { at, handoff })));
    }

    /// These handoffs of a session are not shown any more.
    pub(super) fn forget_handoffs(&mut self, session: &SessionId, ids: Vec<HandoffId>) {
        if !ids.is_empty() {
            let (at, session) = (self.now.wall, session.clone());
            self.event(Event::Handoff(Box::new(HandoffEvent::Forgotten { at, session, ids })));
        }
    }

    fn handoff_of(&self, id: HandoffId) -> Result<Handoff, Refused> {
        self.state.handoff.get(id).cloned().ok_or(Refused::Unknown(id))
    }

    /// Nothing follows; what waited for it goes on with whoever owns the session.
    pub(super) fn end_handoff(&mut self, handoff: Handoff, state: HandoffState, outcome: String) {
        let (session, ended_at) = (handoff.session.clone(), Some(self.now.wall));
        let was_pending = handoff.state.is_pending();
        self.handoff_changed(Handoff { state, ended_at, until: None, outcome, ..handoff });
        if was_pending {
            self.end_transfer(&session);
            self.release_slice(&session);
        }
    }

    fn complete(&mut self, id: HandoffId, by: &By, outcome: String) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        self.may_answer(&handoff, by)?;
        match handoff.state {
            HandoffState::Active => {
                let outcome = if outcome.is_empty() { "taken up".to_owned() } else { outcome };
                handoff.package.into_iter().for_each(|package| self.archive(package));
                self.end_handoff(handoff, HandoffState::Completed, outcome);
            }
            HandoffState::Completed => {}
            state => return Err(Refused::State { id, state, wanted: "completed" }.into()),
        }
        Ok(id)
    }

    /// After a start: packages that were being made are made again; offers go out as agents greet.
    pub(super) fn resume_handoffs(&mut self) {
        let building: Vec<Handoff> = self
            .state
            .handoff
            .all_open()
            .filter(|it| matches!(it.state, HandoffState::Building | HandoffState::Ready))
            .cloned()
            .collect();
        for handoff in building {
            self.build(handoff);
        }
        let is_still = |session: &SessionId| {
            self.state.handoff.open(session).is_none_or(|open| !open.state.is_pending())
        };
        let sessions = self.state.queue.sessions().filter_map(|name| SessionId::parse(name).ok());
        let still: Vec<SessionId> = sessions.filter(is_still).collect();
        for session in still {
            self.release_slice(&session);
        }
        let is_gone = |id: &&SessionId| self.state.session.get(id).is_none();
        let gone: Vec<SessionId> = self.state.handoff.moved().filter(is_gone).cloned().collect();
        for session in gone {
            self.forget_handoffs(&session, self.state.handoff.shown(&session));
        }
        self.resume_homecomings();
    }
}
