//! The agent that has a session: its turns are for that process, while it is there and for a time after.

use std::time::Duration;

use broker_proto::{AgentName, Recipient, SessionId};

use super::Run;
use crate::core::{
    Note,
    agent::LinkId,
    queue::{Message, Place, Seq},
};

/// Who may take a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taker {
    /// Whoever serves the model.
    Anyone,
    /// The agent that has the session.
    Link(LinkId),
    /// That agent, which is away, and is waited for.
    Nobody,
}

impl Run<'_> {
    /// Who may take a message from a queue: a turn goes where its session is.
    pub(super) fn taker_of(&self, seq: Seq, queue: &Recipient) -> Taker {
        let Some(agent) = self.owning_agent(seq, queue) else { return Taker::Anyone };
        let size = self.delivered_bytes(seq);
        let is_its =
            |link: &LinkId| self.state.agent.link(*link).is_some_and(|link| link.agent == *agent);
        let own: Vec<LinkId> = self.state.agent.links_serving(queue).filter(is_its).collect();
        let free = own.iter().find(|link| self.state.agent.has_room(**link, size));
        match free.or(own.first()) {
            Some(link) => Taker::Link(*link),
            None if self.waits_for(agent).is_some() => Taker::Nobody,
            None => Taker::Anyone,
        }
    }

    /// The agent that has a turn's session, where it is a turn of the session's own model.
    fn owning_agent(&self, seq: Seq, queue: &Recipient) -> Option<&AgentName> {
        let Recipient::Model(model) = queue else { return None };
        let session = self.state.queue.get(seq)?.consultation.as_ref()?.session.as_deref()?;
        let owner = &self.state.session.get(&SessionId::parse(session).ok()?)?.info.owner;
        owner.agent.as_ref().filter(|_| owner.model == *model)
    }

    /// For how long an agent that is away is still waited for. One that is drained, or that serves other models now, is
    /// waited for no more.
    fn waits_for(&self, agent: &AgentName) -> Option<Duration> {
        let is_draining = self.state.agent.is_draining(Some(agent));
        let until = self.state.agent.expected_until(agent, self.now.boot)?;
        (!is_draining).then(|| until.0.saturating_sub(self.now.boot.0))
    }

    /// Why a turn waits, or is answered by another process than the one that has its session.
    pub(super) fn with_own_agent(&self, seq: Seq, queue: &Recipient, why: &str) -> String {
        let Some(agent) = self.owning_agent(seq, queue) else { return why.to_owned() };
        match (self.taker_of(seq, queue), self.waits_for(agent)) {
            (Taker::Nobody, Some(left)) => {
                let left = left.as_secs_f64();
                format!("{why}; waits up to {left:.0} s for agent {agent}, which has its session")
            }
            (Taker::Anyone, _) => {
                format!("{why}; agent {agent}, which has its session, is away")
            }
            _ => why.to_owned(),
        }
    }

    /// After a start nobody is linked: whoever has a session is waited for.
    pub(super) fn expect_owners(&mut self) {
        let owners = self.state.session.owned_by(|_| true);
        let owners: std::collections::BTreeSet<AgentName> =
            owners.filter_map(|session| session.info.owner.agent.clone()).collect();
        for agent in owners {
            self.note(&Note::Away { agent, at: self.now.boot });
        }
    }

    /// Nobody waits for an agent any more: what waited for it goes to others of its model.
    pub(super) fn stop_waiting_for(&mut self, agent: &AgentName) {
        let of = self.state.session.owned_by(|owner| owner == agent);
        let sessions: Vec<SessionId> = of.map(|session| session.info.id.clone()).collect();
        self.note(&Note::ToldAway { agent: agent.clone() });
        for session in sessions {
            let is_ready = |message: &&Message| {
                matches!(message.place, Place::Ready)
                    && self.owning_agent(message.seq, &message.queue).is_some()
            };
            let waiting = self.state.queue.of_session(session.as_str()).filter(is_ready);
            let waiting: Vec<Seq> = waiting.map(|message| message.seq).collect();
            for seq in waiting {
                self.tell_taker(seq, &format!("agent {agent}, which has its session, is away"));
            }
        }
    }

    /// It stays where it is, and says why somebody else may take it.
    fn tell_taker(&mut self, seq: Seq, why: &str) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let Some(consultation) = &message.consultation else { return };
        let (queue, candidate) = (Recipient::clone(&message.queue), consultation.candidate);
        self.event(crate::core::Event::Routed {
            subject: message.subject(),
            at: self.now.wall,
            queue: queue.clone(),
            candidate,
            wait_until: None,
            passed_over: Vec::new(),
            why: why.to_owned(),
        });
        self.dispatch(&queue);
    }
}
