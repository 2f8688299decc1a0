//! The bounds of a request (I-36), and what counts against them.

use broker_proto::{AgentName, MessageId, MessageType, RootBudget, Sender, Usage};

use super::Run;
use crate::core::{
    Event, NewMessage, Note, Refusal,
    queue::Seq,
    tree::{Branch, Parent, Tree},
    usage,
};

impl Run<'_> {
    /// The message of this id that the sender works on.
    pub(super) fn parent(&self, sender: &Sender, id: MessageId) -> Option<Parent> {
        let agent = AgentName::parse(sender.as_str()).ok()?;
        let leased = self.state.queue.leased_by(&agent);
        let mut leased = leased.into_iter().filter_map(|seq| self.state.queue.get(seq));
        leased.find(|message| message.id == id).map(crate::core::queue::Message::as_parent)
    }

    pub(super) fn check_bounds(&self, new: &NewMessage) -> Result<(), Refusal> {
        let Some(parent) = &new.parent else { return Ok(()) };
        let bounds = self.state.policy.bounds;
        let tree = self.tree(parent.branch.root);
        let depth = branch(new).map_or(0, |branch| branch.depth);
        let is_spent = |used: u64, most: Option<u64>| most.is_some_and(|most| used >= most);
        let past = |bound: &'static str, limit: &dyn ToString| {
            Err(Refusal::Budget { bound, limit: limit.to_string() })
        };
        let budget = tree.budget;
        if parent.hops >= bounds.hops {
            past("hops", &bounds.hops)
        } else if new.kind == MessageType::Delegation && depth > bounds.depth {
            past("delegation depth", &bounds.depth)
        } else if tree.messages >= bounds.messages {
            past("messages", &bounds.messages)
        } else if is_spent(tree.tokens, budget.max_total_tokens) {
            past("tokens", &budget.max_total_tokens.unwrap_or(0))
        } else if budget.max_total_cost_usd.is_some_and(|most| tree.cost_usd >= most) {
            past("cost in USD", &budget.max_total_cost_usd.unwrap_or(0.0))
        } else {
            Ok(())
        }
    }

    /// Counts an accepted message towards its request, where there is anything to count.
    pub(super) fn count_message(&mut self, seq: Seq, budget: Option<RootBudget>) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let root = message.root();
        if root == seq && budget.is_none() {
            return;
        }
        let mut tree = self.tree(root);
        if root == seq {
            tree.budget = budget.unwrap_or_default();
        } else {
            tree.messages += 1;
        }
        self.set_tree(root, Some(tree));
    }

    /// Counts what a call used towards the request of its message.
    pub(super) fn count_usage(&mut self, seq: Seq, used: Usage) {
        let Some(message) = self.state.queue.get(seq) else { return };
        let root = message.root();
        let Some(mut tree) = self.state.tree.get(root) else { return };
        let prices = message.model().and_then(|model| self.model(model)).and_then(|m| m.prices);
        let tokens = [
            used.input_tokens,
            used.output_tokens,
            used.cache_read_tokens,
            used.cache_write_tokens,
        ];
        let tokens = tokens.into_iter().flatten().fold(0, u64::saturating_add);
        let cost = usage::cost(prices, used).unwrap_or(0.0);
        if tokens == 0 && cost == 0.0 {
            return;
        }
        tree.tokens = tree.tokens.saturating_add(tokens);
        tree.cost_usd += cost;
        self.set_tree(root, Some(tree));
    }

    /// A request in which nothing is alive is forgotten after a while.
    pub(super) fn look_at_tree(&mut self, root: Seq) {
        if self.state.tree.has_living(root) || self.state.queue.get(root).is_some() {
            self.note(&Note::TreeLives { root, at: self.now.wall });
        } else {
            self.set_tree(root, None);
        }
    }

    /// A request that was never counted has its first message and no budget.
    fn tree(&self, root: Seq) -> Tree {
        self.state.tree.get(root).unwrap_or(Tree { messages: 1, ..Tree::default() })
    }

    fn set_tree(&mut self, root: Seq, tree: Option<Tree>) {
        self.event(Event::TreeChanged { root, at: self.now.wall, tree: tree.map(Box::new) });
    }
}

/// Where a new message stands in its request; `None` for a request's first.
pub(super) fn branch(new: &NewMessage) -> Option<Branch> {
    let parent = new.parent.as_ref()?;
    let is_delegation = u32::from(new.kind == MessageType::Delegation);
    Some(Branch { root: parent.branch.root, depth: parent.branch.depth + is_delegation })
}
