//! Sessions, and the parts that their entries store apart.

use broker_proto::HandoffState;

use super::Run;
use crate::core::{Append, Event, Refusal, Reply, session};

impl Run<'_> {
    pub(super) fn session(&mut self, mut command: session::Command) -> Result<Reply, Refusal> {
        let contents = command.take_contents();
        let deleted = match &command {
            session::Command::Delete { id } => Some(id.clone()),
            _ => None,
        };
        let is_handed_over = matches!(command, session::Command::Own { .. });
        let (mut stopped, mut resumed) = (None, None);
        match &command {
            session::Command::Pause { id, pause, .. } => {
                self.may_pause(id, pause.handoff)?;
                stopped = Some(id.clone());
            }
            session::Command::Resume { id } => {
                self.may_resume(id)?;
                resumed = Some(id.clone());
            }
            _ => {}
        }
        let (events, reply) = self.state.session.decide(command, self.now.wall)?;
        if let Some(open) = deleted.as_ref().and_then(|id| self.state.handoff.open(id)).cloned() {
            // Else a restart would find it on its way, and nothing to hand off.
            self.end_handoff(open, HandoffState::Failed, "its session was deleted".to_owned());
        }
        let moved = deleted.as_ref().map(|id| self.state.handoff.shown(id)).unwrap_or_default();
        // Nothing new: what it would have stored apart was stored then.
        if !events.is_empty() {
            for (hash, body) in contents {
                self.event(Event::ContentStored { hash, at: self.now.wall, body });
            }
        }
        for event in events {
            self.event(Event::Session(Box::new(event)));
        }
        if let Some(id) = stopped {
            self.stop_work(&id);
        }
        if let Some(id) = resumed {
            self.go_on(&id);
            self.goes_on(&id);
        }
        if let Some(id) = deleted {
            self.go_on(&id);
            self.close_bridges(&id, "its session was deleted");
            self.release_slice(&id);
            self.forget_handoffs(&id, moved);
        }
        if let Some(session) = reply.session() {
            let (id, owner) = (session.info.id.to_string(), session.info.owner.model.clone());
            self.session_holds(id, owner, session.info.window_tokens(), is_handed_over);
            self.session_went_on(&session.info.id);
        }
        Ok(Reply::Session(reply))
    }

    /// Whether an answer can be appended as it is: what it was read with must still be what its session is about. What
    /// will always stand against it is given as the reason, and is none against the answer.
    pub(super) fn may_append(&self, append: Option<&Append>) -> Result<Option<String>, Refusal> {
        let write = match append {
            None => return Ok(None),
            Some(Append::Cannot(why)) => return Ok(Some(why.clone())),
            Some(Append::Write(write)) => write,
        };
        let Some(session) = self.state.session.get(&write.id) else {
            return Ok(Some(format!("session {} is gone", write.id)));
        };
        let head = write.expected.head.is_none_or(|head| head == session.info.head.hash);
        let task = write.task.as_ref().is_none_or(|(was, _)| *was == session.task);
        if head && task {
            return Ok(None);
        }
        Err(session::Refusal::Moved(Box::new(session.clone())).into())
    }

    /// Appends an answer behind its end, in one commit with it.
    pub(super) fn append_answer(&mut self, append: Option<Append>) -> Reply {
        let write = match append {
            None => return Reply::None,
            Some(Append::Cannot(_)) => return Reply::NotAppended,
            Some(Append::Write(write)) => write,
        };
        let (id, by) = (write.id.clone(), write.entries.models.clone());
        match self.session(session::Command::Write(write)) {
            Ok(_) => {
                self.turn_answered(&id, &by);
                Reply::None
            }
            // Whether it can be appended was asked before, so the session is gone.
            Err(_) => Reply::NotAppended,
        }
    }

    pub(super) fn session_query(&self, query: &session::Query) -> session::Reply {
        match query {
            session::Query::Get(id) => {
                session::Reply::Found(self.state.session.get(id).cloned().map(Box::new))
            }
        }
    }
}
