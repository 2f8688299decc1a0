//! The processes behind the agents: what each was given, and what it still works on.

use std::{collections::VecDeque, time::Duration};

use broker_proto::{AgentName, MessageId, Recipient, RoleName, WallTime};

use crate::{
    app::rehearsal::{agent, model},
    core::{
        Delivered,
        agent::{Link, LinkId},
        queue::Seq,
    },
};

/// What one process is to its agent.
#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) agent: &'static str,
    models: &'static [&'static str],
    roles: &'static [&'static str],
    /// It is alone under its name.
    is_exclusive: bool,
}

const fn alone(agent: &'static str, models: &'static [&'static str]) -> Speaker {
    Speaker { agent, models, roles: &[], is_exclusive: true }
}

const fn pooled(agent: &'static str, models: &'static [&'static str]) -> Speaker {
    Speaker { agent, models, roles: &["ring"], is_exclusive: false }
}

pub(super) const NAMES: [Speaker; 6] = [
    alone("reviewer", &[]),
    alone("opus", &["opus"]),
    alone("sonnet", &["sonnet"]),
    pooled("pool", &["opus", "local"]),
    pooled("pool", &["opus", "local"]),
    pooled("puller", &[]),
];

/// Whether an agent of this name may ever be given what is in a queue.
pub(super) fn serves(name: &AgentName, queue: &Recipient) -> bool {
    let mut speakers = NAMES.iter().filter(|speaker| speaker.agent == name.as_str());
    match queue {
        Recipient::Agent(agent) => agent == name,
        Recipient::Model(model) => speakers.any(|it| it.models.contains(&model.as_str())),
        Recipient::Role(role) => speakers.any(|it| it.roles.contains(&role.as_str())),
        Recipient::AgentsOf(_) => false,
    }
}

/// The right to settle one delivery, as its agent knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) seq: Seq,
    pub(super) epoch: u32,
    pub(super) id: MessageId,
}

#[derive(Debug, Default)]
pub(super) struct Process {
    number: usize,
    pub(super) link: Option<LinkId>,
    instance: u32,
    /// Frames on their way to it over its link.
    pub(super) inbox: VecDeque<Token>,
    /// Calls of it that take what there is, and what they are answered with.
    pub(super) pulls: Vec<LinkId>,
    pulled: VecDeque<Token>,
    pub(super) is_stalled: bool,
    pub(super) held: Vec<Token>,
    /// Every token that ever reached this agent's machine.
    pub(super) seen: Vec<Token>,
}

impl Process {
    pub(super) fn new(number: usize) -> Self {
        Self { number, ..Self::default() }
    }

    pub(super) fn agent(&self) -> &'static str {
        NAMES[self.number].agent
    }

    pub(super) fn instance(&self) -> String {
        format!("{}.{}", self.number, self.instance)
    }

    /// The stream is gone, and what was on its way.
    pub(super) fn hang_up(&mut self) -> Option<LinkId> {
        self.inbox.clear();
        self.link.take()
    }

    /// A new process has nothing of what the old one held.
    pub(super) fn die(&mut self) {
        self.instance += 1;
        self.pulled.clear();
        self.held.clear();
        self.is_stalled = false;
    }

    pub(super) fn hello(&self, credit: u32, bytes: u64) -> Link {
        let Speaker { agent: name, models, roles, is_exclusive } = NAMES[self.number];
        Link {
            agent: agent(name),
            instance: self.instance(),
            is_exclusive,
            models: models.iter().map(|name| model(name)).collect(),
            roles: roles.iter().map(|name| RoleName::parse(name).unwrap()).collect(),
            stands_by: Vec::new(),
            capacity: 4,
            since: WallTime(0),
            credit_messages: credit,
            credit_bytes: bytes,
            resumes: None,
            pull: None,
        }
    }

    /// As the service greets for a call that pulls.
    pub(super) fn pull(&self, link: LinkId, credit: u32, bytes: u64, lease: Duration) -> Link {
        Link {
            instance: format!("pull-{}", link.0),
            is_exclusive: false,
            roles: Vec::new(),
            stands_by: Vec::new(),
            pull: Some(lease),
            ..self.hello(credit, bytes)
        }
    }

    pub(super) fn has(&self, link: LinkId) -> bool {
        self.link == Some(link) || self.pulls.contains(&link)
    }

    pub(super) fn deliver(&mut self, delivered: &Delivered) {
        let Delivered { seq, epoch, id, link, .. } = *delivered;
        let way = if self.link == Some(link) { &mut self.inbox } else { &mut self.pulled };
        way.push_back(Token { seq, epoch, id });
    }

    /// Takes in what has arrived, unless it does not read.
    pub(super) fn read(&mut self) {
        if self.is_stalled {
            return;
        }
        for token in self.inbox.drain(..).chain(self.pulled.drain(..)) {
            self.held.push(token);
            self.seen.push(token);
        }
    }

    /// A frame that told it to stop arrived.
    pub(super) fn revoke(&mut self, seq: Seq, epoch: u32) {
        self.held.retain(|token| (token.seq, token.epoch) != (seq, epoch));
    }
}
