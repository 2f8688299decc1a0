//! The processes behind the agents: what each was given, and what it still works on.

use std::collections::VecDeque;

use broker_proto::{MessageId, WallTime};

use crate::{
    app::rehearsal::{agent, model},
    core::{
        Delivered,
        agent::{Link, LinkId},
        queue::Seq,
    },
};

/// Each process: the agent it speaks for, the models it serves, whether it is alone under its name.
pub(super) const NAMES: [(&str, &[&str], bool); 5] = [
    ("reviewer", &[], true),
    ("opus", &["opus"], true),
    ("sonnet", &["sonnet"], true),
    ("pool", &["opus", "local"], false),
    ("pool", &["opus", "local"], false),
];

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
        NAMES[self.number].0
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
        self.held.clear();
        self.is_stalled = false;
    }

    pub(super) fn hello(&self, credit: u32, bytes: u64) -> Link {
        let (name, models, is_exclusive) = NAMES[self.number];
        Link {
            agent: agent(name),
            instance: self.instance(),
            is_exclusive,
            models: models.iter().map(|name| model(name)).collect(),
            roles: Vec::new(),
            capacity: 4,
            since: WallTime(0),
            credit_messages: credit,
            credit_bytes: bytes,
            resumes: None,
            pull: None,
        }
    }

    pub(super) fn deliver(&mut self, delivered: &Delivered) {
        let Delivered { seq, epoch, id, .. } = *delivered;
        self.inbox.push_back(Token { seq, epoch, id });
    }

    /// Takes in what has arrived, unless it does not read.
    pub(super) fn read(&mut self) {
        if self.is_stalled {
            return;
        }
        for token in self.inbox.drain(..) {
            self.held.push(token);
            self.seen.push(token);
        }
    }

    /// A frame that told it to stop arrived.
    pub(super) fn revoke(&mut self, seq: Seq, epoch: u32) {
        self.held.retain(|token| (token.seq, token.epoch) != (seq, epoch));
    }
}
