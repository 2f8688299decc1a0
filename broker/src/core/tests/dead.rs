use broker_proto::{FailureClass, MessageState};

use super::world::*;
use crate::core::{Outcome, queue::Seq};

// I-25
#[test]
fn five_lost_leases_make_a_message_dead_with_the_chain_of_attempts() {
    let mut world = World::new();
    let seq = world.ask("opus");

    world.advance(LEASE * 5 - secs(1));
    assert_eq!(world.end(seq), None);
    world.advance(secs(1));

    assert_eq!(world.end(seq), Some(MessageState::Dead));
    let lost = ("opus".to_owned(), Some(FailureClass::AgentLost));
    assert_eq!(world.attempts(seq), vec![lost; 5]);
    assert_eq!(world.failed_as(seq).class, FailureClass::AgentLost);
}

// I-25
#[test]
fn a_letter_is_dead_after_five_lost_leases_too() {
    let mut world = World::empty(policy()).with_agent("scribe", 100);
    let letter = world.letter("scribe");
    world.send(letter).unwrap();

    world.advance(LEASE * 5);

    assert_eq!(world.end(Seq(1)), Some(MessageState::Dead));
    assert_eq!(world.deliveries.len(), 5);
}

// I-25
#[test]
fn deliveries_ended_by_a_stop_of_the_broker_do_not_count() {
    let mut world = World::new();
    let seq = world.ask("opus");
    for start in 0..7 {
        world.restart(secs(1));
        // Its agent was stopped with it.
        world.greet("opus", &format!("start {start}"), 10);
        world.run(crate::core::Command::AskerBack { seq });
    }

    assert_eq!(world.end(seq), None);
    world.done(seq);
}

// I-25
#[test]
fn leases_lost_on_both_sides_of_a_restart_count_together() {
    let mut world = World::with(|p| p.routing.max_attempts = 100);
    let seq = world.ask("opus");
    world.advance(LEASE * 3);
    world.restart(secs(1));
    world.run(crate::core::Command::AskerBack { seq });
    world.greet_as(link("opus", "first", 10), vec![world.token(seq)]);

    world.advance(LEASE * 2);

    assert_eq!(world.end(seq), Some(MessageState::Dead));
    assert_eq!(world.attempts(seq).len(), 5);
}

// I-25
#[test]
fn a_rejected_message_is_dead_with_the_reason() {
    let mut world = World::new();
    let seq = world.ask("opus");

    world.settle(seq, Outcome::Reject { reason: "poison".into() }).unwrap();

    assert_eq!(world.end(seq), Some(MessageState::Dead));
    assert_eq!(world.failed_as(seq).detail, "poison");
    assert_eq!(world.attempts(seq), [("opus".into(), Some(FailureClass::InvalidRequest))]);
    assert!(world.cancelled_at(seq).is_empty(), "its agent knows");
}

// I-25
#[test]
fn a_stop_between_the_loss_and_the_close_of_a_stream_loses_no_attempt() {
    let mut world = World::new();
    world.seals_wait = true;
    let seq = world.ask("opus");
    world.advance(LEASE);
    world.seals_wait = false;
    world.restart(secs(1));
    world.run(crate::core::Command::AskerBack { seq });

    world.greet("opus", "first", 10);
    world.done(seq);

    let lost = Some(FailureClass::AgentLost);
    assert_eq!(world.attempts(seq), [("opus".into(), lost), ("opus".into(), None)]);
}
