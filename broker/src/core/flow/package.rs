//! What is asked of packages.

use broker_proto::SessionId;

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
            package::Query::Owed(sessions) => {
                let owed = sessions.iter().filter(|id| self.is_owed(id)).cloned();
                package::Reply::Owed(owed.collect())
            }
        }
    }

    /// A session that is gone, or in which nothing was said, is owed nothing.
    fn is_owed(&self, id: &SessionId) -> bool {
        let Some(session) = self.state.session.get(id) else { return false };
        let is_ready = self.state.package.is_ready(&session.info, self.now.wall);
        session.info.head.entries > 0 && !is_ready
    }
}
