//! Sessions, and the parts that their entries store apart.

use super::Run;
use crate::core::{Event, Refusal, Reply, session};

impl Run<'_> {
    pub(super) fn session(&mut self, mut command: session::Command) -> Result<Reply, Refusal> {
        let contents = command.take_contents();
        let (events, reply) = self.state.session.decide(command, self.now.wall)?;
        // Nothing new: what it would have stored apart was stored then.
        if !events.is_empty() {
            for (hash, body) in contents {
                self.event(Event::ContentStored { hash, at: self.now.wall, body });
            }
        }
        for event in events {
            self.event(Event::Session(Box::new(event)));
        }
        if let Some(session) = reply.session() {
            let (id, owner) = (session.info.id.to_string(), session.info.owner.model.clone());
            self.session_holds(id, owner, session.info.tokens);
        }
        Ok(Reply::Session(reply))
    }

    pub(super) fn session_query(&self, query: &session::Query) -> session::Reply {
        match query {
            session::Query::Get(id) => {
                session::Reply::Found(self.state.session.get(id).cloned().map(Box::new))
            }
        }
    }
}
