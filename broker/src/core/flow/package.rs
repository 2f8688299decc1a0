//! What is asked of packages.

use broker_proto::{ModelName, PackageId, Recipient};

use super::Run;
use crate::core::{Effect, Event, Note, Refusal, Reply, agent::LinkId, package};

/// The provider whose models have to be loaded before they answer.
const LOADS: &str = "ollama";

impl Run<'_> {
    pub(super) fn package(&mut self, command: package::Command) -> Result<Reply, Refusal> {
        let (events, replaced) = self.state.package.decide(command, self.now.wall)?;
        for event in events {
            let likely = match &event {
                package::Event::Saved(saved) => {
                    let of = saved.of.as_ref().filter(|of| of.is_ahead);
                    saved.info.header.recipient.clone().zip(of.map(|of| of.kept.tokens))
                }
                _ => None,
            };
            self.event(Event::Package(Box::new(event)));
            if let Some((to, tokens)) = likely {
                self.warm(to, tokens);
            }
        }
        Ok(Reply::Package(package::Reply::Saved { replaced }))
    }

    /// The work that a package was made for goes on.
    pub(super) fn archive(&mut self, id: PackageId) {
        if self.state.package.may_archive(id) {
            let event = package::Event::Archived { id, at: self.now.wall };
            self.event(Event::Package(Box::new(event)));
        }
    }

    /// Whoever is likely to go on is loaded before it has to, where its provider loads models.
    fn warm(&mut self, model: ModelName, tokens: u64) {
        let loads = self.model(&model).is_some_and(|model| model.provider == LOADS);
        if !loads || !self.state.package.is_cold(&model, tokens, self.now.boot) {
            return;
        }
        let queue = Recipient::Model(model.clone());
        let serving = self.state.agent.links_serving(&queue);
        let stays =
            |link: &LinkId| self.state.agent.link(*link).is_some_and(|link| link.pull.is_none());
        let links: Vec<LinkId> = serving.filter(stays).collect();
        if links.is_empty() {
            return;
        }
        self.note(&Note::Warmed { model: model.clone(), tokens, at: self.now.boot });
        self.effect(Effect::Warm { links, model, tokens });
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
