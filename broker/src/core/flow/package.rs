//! What is asked of packages.

use super::Run;
use crate::core::{Event, Refusal, Reply, package};

impl Run<'_> {
    pub(super) fn package(&mut self, command: package::Command) -> Result<Reply, Refusal> {
        let (events, replaced) = self.state.package.decide(command, self.now.wall)?;
        for event in events {
            self.event(Event::Package(Box::new(event)));
        }
        Ok(Reply::Package(package::Reply::Saved { replaced }))
    }

    pub(super) fn ask_package(&self, query: &package::Query) -> package::Reply {
        match query {
            package::Query::Keys => package::Reply::Keys(self.state.package.keys()),
            package::Query::Nonce(nonce) => package::Reply::Nonce(self.state.package.seen(nonce)),
            package::Query::Owed(sessions) => {
                package::Reply::Owed(sessions.iter().flat_map(|id| self.owed(id)).collect())
            }
            package::Query::Hops(session) => package::Reply::Hops(self.state.package.hops(session)),
        }
    }
}
