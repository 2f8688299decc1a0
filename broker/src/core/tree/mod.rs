//! Requests and what they led to: the messages, tokens and cost of each tree (I-36).
//!
//! A message whose sender was given another, and names it as the parent, belongs to that one's request. A request that
//! led to nothing and has no budget costs nothing here.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use broker_proto::{MessageId, MessageType, RootBudget, Sender, WallTime};

use super::{BootTime, Event, Note, Now, queue::Seq};

/// How long a request is remembered in which nothing is alive: what was given out may still lead to something.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// A message's place in the tree of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// The request's first message.
    pub root: Seq,
    /// Delegations from there to here.
    pub depth: u32,
}

/// What a message inherits from the one that its sender was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    pub sender: Sender,
    pub root: MessageId,
    pub branch: Branch,
    pub hops: u32,
}

impl Parent {
    /// A request's own first message as a parent.
    #[must_use]
    pub fn first(sender: Sender, id: MessageId, seq: Seq, kind: MessageType) -> Self {
        let depth = u32::from(kind == MessageType::Delegation);
        Self { sender, root: id, branch: Branch { root: seq, depth }, hops: 0 }
    }
}

/// What a request has led to, and what it may.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tree {
    pub messages: u64,
    pub tokens: u64,
    pub cost_usd: f64,
    pub budget: RootBudget,
}

#[derive(Debug, Default)]
pub struct State {
    trees: HashMap<Seq, (WallTime, Tree)>,
    /// When each is to be looked at: whether it can be forgotten.
    looks: BTreeSet<(WallTime, Seq)>,
    /// The request of each living message that is not its first.
    members: HashMap<Seq, Seq>,
    living: HashMap<Seq, u64>,
}

impl State {
    #[must_use]
    pub fn get(&self, root: Seq) -> Option<Tree> {
        self.trees.get(&root).map(|(_, tree)| *tree)
    }

    /// Whether anything but the first message of a request is alive.
    #[must_use]
    pub fn has_living(&self, root: Seq) -> bool {
        self.living.contains_key(&root)
    }

    /// A request in which nothing was counted for a while.
    #[must_use]
    pub fn idle(&self, now: Now) -> Option<Seq> {
        self.looks.first().filter(|(at, _)| *at <= now.wall).map(|(_, root)| *root)
    }

    pub(super) fn next_deadline(&self, now: Now) -> Option<BootTime> {
        self.looks.first().map(|(at, _)| now.boot_at(*at))
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Accepted(accepted) => {
                let Some(branch) = accepted.branch else { return };
                self.members.insert(accepted.subject.seq, branch.root);
                *self.living.entry(branch.root).or_default() += 1;
            }
            Event::Finished(finished) => {
                let Some(root) = self.members.remove(&finished.subject.seq) else { return };
                let Some(living) = self.living.get_mut(&root) else { return };
                *living -= 1;
                if *living == 0 {
                    self.living.remove(&root);
                }
            }
            Event::TreeChanged { root, at, tree } => {
                if let Some((look, _)) = self.trees.remove(root) {
                    self.looks.remove(&(look, *root));
                }
                if let Some(tree) = tree {
                    self.look_at(*root, at.after(REMEMBERED), **tree);
                }
            }
            _ => {}
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        let Note::TreeLives { root, at } = note else { return };
        let Some((look, tree)) = self.trees.remove(root) else { return };
        self.looks.remove(&(look, *root));
        self.look_at(*root, at.after(REMEMBERED), tree);
    }

    fn look_at(&mut self, root: Seq, look: WallTime, tree: Tree) {
        self.trees.insert(root, (look, tree));
        self.looks.insert((look, root));
    }
}
