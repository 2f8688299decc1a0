//! Roles, whose agents share a queue, and messages to all agents of a model.

use broker_proto::{MessageState, MessageType, Numbered, ProducerName, Recipient, RoleName};

use super::world::*;
use crate::core::{
    Command, Event, NewMessage, Refusal, Reply,
    agent::{Link, LinkId},
    queue::Seq,
};

fn role(name: &str) -> RoleName {
    RoleName::parse(name).unwrap()
}

fn in_ring(name: &str, messages: u32) -> Link {
    Link { roles: vec![role("reviewer")], models: vec![], ..link(name, "first", messages) }
}

impl World {
    fn to(&mut self, to: Recipient) -> NewMessage {
        let id = self.new_id();
        NewMessage { allow_future_recipient: false, ..letter(id, to) }
    }

    fn for_ring(&mut self) -> NewMessage {
        self.to(Recipient::Role(role("reviewer")))
    }

    fn for_all(&mut self, name: &str) -> NewMessage {
        let new = self.to(Recipient::AgentsOf(model(name)));
        NewMessage { kind: MessageType::Status, ..new }
    }

    fn takers(&self) -> Vec<String> {
        let agent = |link: LinkId| self.state.agent.link(link).unwrap().agent.to_string();
        self.deliveries.iter().map(|delivered| agent(delivered.link)).collect()
    }
}

#[track_caller]
fn refused(world: &mut World, new: NewMessage) -> Refusal {
    let before = format!("{:?}", world.state);
    let refusal = world.send(new).unwrap_err();
    assert_eq!(before, format!("{:?}", world.state), "I-2: surely not stored");
    refusal
}

// I-29
#[test]
fn a_ring_takes_from_its_queue_in_turn_as_far_as_each_has_credit() {
    let mut world = World::empty(policy());
    for (name, messages) in [("a", 3), ("b", 1), ("c", 9)] {
        world.greet_as(in_ring(name, messages), vec![]);
    }
    for _ in 0..8 {
        let new = world.for_ring();
        world.send(new).unwrap();
    }
    assert_eq!(world.takers(), ["a", "b", "c", "a", "c", "a", "c", "c"]);
}

// I-6
#[test]
fn a_role_nobody_ever_had_is_refused_and_one_somebody_had_waits_over_a_restart() {
    let mut world = World::empty(policy());
    let new = world.for_ring();
    assert_eq!(refused(&mut world, new.clone()), Refusal::UnknownRole(role("reviewer")));
    world.greet_as(in_ring("a", 0), vec![]);
    world.hang_up("a");
    world.restart(secs(1));

    world.send(new).unwrap();
    assert_eq!(world.deliveries.len(), 0);
    world.greet_as(in_ring("b", 1), vec![]);

    assert_eq!(world.takers(), ["b"]);
    let known = world.journal.iter().filter(|event| matches!(event, Event::RoleKnown { .. }));
    assert_eq!(known.count(), 1, "told once");
}

#[test]
fn a_future_role_gets_what_was_allowed_to_wait_for_it() {
    let mut world = World::empty(policy());
    let new = NewMessage { allow_future_recipient: true, ..world.for_ring() };
    world.send(new).unwrap();
    world.greet_as(in_ring("a", 1), vec![]);
    assert_eq!(world.takers(), ["a"]);
}

#[test]
fn roles_are_kept_for_ever_and_so_are_bounded() {
    let mut world = World::empty(policy());
    let many = (0..4096).map(|n| role(&format!("r{n}"))).collect();
    world.greet_as(Link { roles: many, ..in_ring("a", 1) }, vec![]);

    let refusal = world.decide(Command::LinkUp {
        link: LinkId(99),
        up: Box::new(in_ring("b", 1)),
        resume: vec![],
    });
    assert_eq!(refusal, Err(Refusal::TooManyRoles { known: 4096 }));
    let known = Link { roles: vec![role("r7"), role("r7")], ..in_ring("b", 1) };
    world.greet_as(known, vec![]);
}

/// Two agents of opus, the second with two links, and one of sonnet.
fn house() -> World {
    let mut world = World::empty(policy());
    for (name, instance) in [("opus-2", "a"), ("opus-1", "a"), ("opus-1", "b")] {
        let up = Link { is_exclusive: false, ..link(name, instance, 9) };
        world.greet_as(Link { models: vec![model("opus")], ..up }, vec![]);
    }
    world.with_agent("sonnet", 9)
}

// I-6, I-20
#[test]
fn every_agent_of_a_model_gets_one_copy_and_the_original_ends_with_their_number() {
    let mut world = house();
    let producer = ProducerName::parse("nightly").unwrap();
    let numbered = Some(Numbered { producer, number: 1 });
    let new = NewMessage { numbered, ..world.for_all("opus") };
    let id = new.id;

    world.send(new).unwrap();

    assert_eq!(world.takers(), ["opus-1", "opus-2"]);
    let original = world.finished(Seq(1)).unwrap();
    assert_eq!((original.state, original.copies), (MessageState::Done, 2));
    let copies: Vec<_> = world
        .journal
        .iter()
        .filter_map(|event| match event {
            Event::Accepted(accepted) if accepted.subject.id != id => Some(accepted),
            _ => None,
        })
        .collect();
    assert_eq!(copies.len(), 2);
    for copy in copies {
        assert_eq!((copy.correlation.parent, copy.correlation.root), (Some(id), Some(id)));
        assert_eq!(copy.numbered, None, "I-8: the number is the original's");
        assert_eq!(copy.subject.id.as_u128() >> 80, id.as_u128() >> 80, "as old as its original");
    }
    for seq in [Seq(2), Seq(3)] {
        world.done(seq);
        assert_eq!(world.finished(seq).unwrap().state, MessageState::Done, "I-6");
    }
}

// I-3
#[test]
fn all_copies_are_one_event() {
    let mut world = house();
    let new = world.for_all("opus");
    let now = world.now();
    let decision =
        crate::core::decide(&mut world.state, Command::Send(Box::new(new)), now).unwrap();
    let before_leases = |event: &&Event| !matches!(event, Event::Leased { .. });
    assert_eq!(decision.events.iter().take_while(before_leases).count(), 1);
    assert!(matches!(&decision.events[0], Event::FannedOut(all) if all.copies.len() == 2));
}

// I-7
#[test]
fn sending_to_all_again_makes_no_second_copies() {
    let mut world = house();
    let new = world.for_all("opus");
    let first = world.send(new.clone()).unwrap();
    world.greet_as(Link { models: vec![model("opus")], ..link("opus-3", "a", 9) }, vec![]);
    let again = world.send(new.clone()).unwrap();
    world.restart(secs(1));
    let after = world.send(new).unwrap();
    assert!(!first.is_duplicate && again.is_duplicate && after.is_duplicate);
    assert_eq!(world.deliveries.len(), 2);
}

// I-16
#[test]
fn copies_live_on_over_a_restart() {
    let mut world = World::empty(policy());
    // A link without credit.
    let up = Link { models: vec![model("opus")], ..link("opus-2", "c", 0) };
    world.greet_as(up, vec![]);
    let new = world.for_all("opus");
    world.send(new).unwrap();
    world.restart(secs(1));
    assert_eq!(world.state.queue.load(&Recipient::Agent(agent("opus-2"))).0, 1);
    world.greet_as(Link { models: vec![], is_exclusive: false, ..link("opus-2", "c", 1) }, vec![]);
    assert_eq!(world.takers(), ["opus-2"]);
}

// I-2
#[test]
fn a_message_to_all_is_stored_for_all_or_for_nobody() {
    let mut world = house();
    let new = world.for_all("local");
    assert_eq!(refused(&mut world, new), Refusal::NoRecipient(model("local")));
    let new = world.for_all("oups");
    assert!(matches!(refused(&mut world, new), Refusal::UnknownModel { .. }));
    world.state.policy.queue_messages = 0;
    let new = world.for_all("opus");
    assert!(matches!(refused(&mut world, new), Refusal::QueueFull { .. }));
    world.state.policy.queue_messages = 10;

    for n in 0..255 {
        let up = link(&format!("o{n}"), "a", 0);
        world.greet_as(Link { models: vec![model("opus")], ..up }, vec![]);
    }
    let new = world.for_all("opus");
    assert!(matches!(refused(&mut world, new), Refusal::TooManyRecipients { count: 257, .. }));
    world.hang_up("o0");
    let new = world.for_all("opus");
    world.send(new).unwrap();
    assert_eq!(world.finished(Seq(1)).unwrap().copies, 256);
}

#[test]
fn a_consultation_goes_to_a_model_or_one_agent() {
    let mut world = house();
    world.greet_as(in_ring("a", 1), vec![]);
    for to in [Recipient::Role(role("reviewer")), Recipient::AgentsOf(model("opus"))] {
        let new = NewMessage { kind: MessageType::Consultation, ..world.to(to.clone()) };
        let kind = MessageType::Consultation;
        assert_eq!(refused(&mut world, new), Refusal::WrongType { kind, to });
    }
    let new = NewMessage { kind: MessageType::Consultation, ..world.letter("sonnet") };
    assert_eq!(
        world.decide(Command::Send(Box::new(new))).map(|r| matches!(r, Reply::Receipt(_))),
        Ok(true)
    );
    assert_eq!(world.delivered(), [(Seq(1), "-".into(), 1)]);
}

// I-4
#[test]
fn a_status_never_enters_a_models_queue() {
    let mut world = World::new();
    let new = NewMessage { kind: MessageType::Status, ..world.message("opus") };
    let refusal = refused(&mut world, new);
    assert!(refusal.to_string().contains("a status never reaches a model"), "{refusal}");
}
