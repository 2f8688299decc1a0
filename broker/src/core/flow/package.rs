//! What is asked of packages.

use super::Run;
use crate::core::{Event, Refusal, Reply, package};

impl Run<'_> {
    pub(super) fn package(&mut self, command: package::Command) -> Result<Reply, Refusal> {
        let events = self.state.package.decide(command, self.now.wall)?;
        for event in events {
            self.event(Event::Package(Box::new(event)));
        }
        Ok(Reply::None)
    }

    pub(super) fn ask_package(&self, query: &package::Query) -> package::Reply {
        match query {
            package::Query::Keys => package::Reply::Keys(self.state.package.keys()),
            package::Query::Nonce(nonce) => package::Reply::Nonce(self.state.package.seen(nonce)),
        }
    }
}
