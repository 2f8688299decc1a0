//! I-36: what one request may lead to; and what of a queue is kept for replies (I-28).

use broker_proto::{Correlation, MessageType, RootBudget, Sender, Usage};

use super::world::*;
use crate::core::{Command, NewMessage, Query, Refusal, Reply, SettleCommand, queue::Seq};

impl World {
    /// A message from `scribe` to itself, because of one that it works on.
    fn child_of(&mut self, seq: Seq, kind: MessageType) -> NewMessage {
        let scribe = Sender::parse("scribe").unwrap();
        let id = self.state.queue.get(seq).unwrap().id;
        let found = self.run(Command::Query(Query::Parent(scribe.clone(), id)));
        let Reply::Parent(Some(parent)) = found else { panic!("scribe does not work on {seq:?}") };
        let correlation =
            Correlation { root: Some(parent.root), parent: Some(id), hops: parent.hops + 1 };
        let letter = self.letter("scribe");
        NewMessage { sender: scribe, kind, correlation, parent: Some(parent), ..letter }
    }

    fn root(&mut self, kind: MessageType, budget: Option<RootBudget>) -> Seq {
        let letter = self.letter("scribe");
        self.ask_this(NewMessage { kind, budget, ..letter })
    }

    fn settle_with_usage(&mut self, seq: Seq, usage: Usage) {
        let settle = SettleCommand { usage, ..self.settlement(seq, done()) };
        self.settle_with(settle).unwrap();
    }
}

#[track_caller]
fn refused(world: &mut World, new: NewMessage) -> (&'static str, String) {
    let before = format!("{:?}", world.state);
    let refusal = world.send(new).unwrap_err();
    assert_eq!(before, format!("{:?}", world.state), "I-2: surely not stored");
    match refusal {
        Refusal::Budget { bound, limit } => (bound, limit),
        other => panic!("{other}"),
    }
}

fn scribe() -> World {
    World::empty(policy()).with_agent("scribe", 1_000)
}

#[test]
fn a_request_leads_eight_hops_far() {
    let mut world = scribe();
    let mut last = world.root(MessageType::Status, None);
    for hop in 1..=8 {
        let next = world.child_of(last, MessageType::Status);
        assert_eq!(next.correlation.hops, hop);
        last = world.ask_this(next);
    }

    let ninth = world.child_of(last, MessageType::Status);

    assert_eq!(refused(&mut world, ninth), ("hops", "8".into()));
}

#[test]
fn delegations_are_four_deep() {
    let mut world = scribe();
    let mut last = world.root(MessageType::Delegation, None);
    for _ in 2..=4 {
        let next = world.child_of(last, MessageType::Delegation);
        last = world.ask_this(next);
    }

    let fifth = world.child_of(last, MessageType::Delegation);
    let word = world.child_of(last, MessageType::Status);

    assert_eq!(refused(&mut world, fifth), ("delegation depth", "4".into()));
    world.send(word).unwrap();
}

#[test]
fn a_request_leads_to_so_many_messages_over_a_restart_too() {
    let mut world = scribe();
    world.state.policy.bounds.messages = 4;
    let root = world.root(MessageType::Status, None);
    for _ in 0..2 {
        let child = world.child_of(root, MessageType::Status);
        let child = world.ask_this(child);
        world.done(child);
    }
    world.restart(secs(1));
    world.greet_as(link("scribe", "first", 1_000), vec![world.token(root)]);
    let third = world.child_of(root, MessageType::Status);
    world.send(third).unwrap();

    let fourth = world.child_of(root, MessageType::Status);

    assert_eq!(refused(&mut world, fourth), ("messages", "4".into()));
    let other = world.root(MessageType::Status, None);
    let of_another = world.child_of(other, MessageType::Status);
    world.send(of_another).unwrap();
}

#[test]
fn what_a_request_led_to_uses_its_tokens() {
    let mut world = scribe();
    let budget = RootBudget { max_total_tokens: Some(100), max_total_cost_usd: None };
    let root = world.root(MessageType::Status, Some(budget));
    for used in [60, 40] {
        let child = world.child_of(root, MessageType::Status);
        let child = world.ask_this(child);
        world.settle_with_usage(child, tokens(used - 10, 10));
    }

    let third = world.child_of(root, MessageType::Status);

    assert_eq!(refused(&mut world, third), ("tokens", "100".into()));
}

#[test]
fn what_a_request_led_to_uses_its_money() {
    let mut world = World::new().with_agent("scribe", 10);
    let budget = RootBudget { max_total_tokens: None, max_total_cost_usd: Some(0.01) };
    let root = world.root(MessageType::Status, Some(budget));
    let consultation = world.message("opus");
    let asks = world.child_of(root, MessageType::Consultation);
    let asked = NewMessage {
        parent: asks.parent,
        correlation: asks.correlation,
        sender: asks.sender,
        ..consultation
    };
    let asked = world.ask_this(asked);
    world.settle_with_usage(asked, tokens(0, 500));

    let next = world.child_of(root, MessageType::Status);

    assert_eq!(refused(&mut world, next), ("cost in USD", "0.01".into()));
}

#[test]
fn only_the_first_message_sets_the_budget() {
    let mut world = scribe();
    let root = world.root(MessageType::Status, None);
    let none = RootBudget { max_total_tokens: Some(0), max_total_cost_usd: Some(0.0) };
    let child = NewMessage { budget: Some(none), ..world.child_of(root, MessageType::Status) };
    let child = world.ask_this(child);

    let next = world.child_of(child, MessageType::Status);

    world.send(next).unwrap();
}

#[test]
fn a_request_is_forgotten_an_hour_after_nothing_of_it_is_alive() {
    let mut world = scribe();
    let root = world.root(MessageType::Status, None);
    let child = world.child_of(root, MessageType::Status);
    let child = world.ask_this(child);
    for seq in [child, root] {
        world.done(seq);
    }
    assert!(world.state.tree.get(root).is_some());

    world.advance(secs(3_600));

    assert_eq!(world.state.tree.get(root), None);
}

#[test]
fn a_request_is_remembered_while_anything_of_it_is_alive() {
    let mut world = World::empty(policy()).with_agent("scribe", 1);
    let root = world.root(MessageType::Status, None);
    let child = world.child_of(root, MessageType::Status);
    world.ask_this(child);
    world.done(root);

    world.advance(secs(3 * 3_600));

    assert!(world.state.tree.get(root).is_some());
}

// I-28: two full queues cannot block each other.
#[test]
fn a_reply_takes_the_tenth_that_is_kept_for_it() {
    let mut world = scribe();
    world.state.policy.queue_messages = 10;
    let asker = Sender::parse("asker").unwrap();
    let question = NewMessage { sender: asker, ..world.letter("scribe") };
    let question = world.ask_this(question);
    for _ in 0..9 {
        let filler = world.letter("asker");
        world.send(filler).unwrap();
    }
    let tenth = world.letter("asker");
    assert!(matches!(world.send(tenth), Err(Refusal::QueueFull { .. })));

    let to = broker_proto::Recipient::Agent(agent("asker"));
    let reply = NewMessage { to, ..world.child_of(question, MessageType::Status) };
    world.send(reply.clone()).unwrap();
    let id = world.new_id();
    let second = world.send(NewMessage { id, ..reply }).unwrap_err();

    assert!(matches!(second, Refusal::QueueFull { limit, .. } if limit == "10 messages"));
}
