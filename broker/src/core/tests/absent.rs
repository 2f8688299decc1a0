use std::time::Duration;

use broker_proto::FailureClass;

use super::world::*;
use crate::core::queue::Seq;

#[test]
fn an_agent_that_left_is_waited_for_and_then_the_chain_goes_on() {
    let mut world = World::new();
    world.hang_up("opus");
    world.advance(secs(1));
    let seq = world.ask("opus");
    assert_eq!(world.called(seq), "");

    world.advance(GRACE - secs(1) - Duration::from_millis(1));
    assert_eq!(world.called(seq), "");
    world.advance(Duration::from_millis(1));

    assert_eq!(world.called(seq), "sonnet");
    world.done(seq);
    assert_eq!(world.summary(seq).passed_over[0].reason, "no agent serves it");
    let later = world.ask("opus");
    assert_eq!(world.called(later), "sonnet", "nobody waits for it any more");
}

#[test]
fn an_agent_that_is_back_within_the_grace_finds_its_queue() {
    let mut world = World::new();
    world.hang_up("opus");
    let seq = world.ask("opus");
    world.advance(secs(4));

    world.greet("opus", "first", 10);

    assert_eq!(world.called(seq), "opus");
}

#[test]
fn a_broker_that_just_started_waits_for_its_agents() {
    let mut world = World::empty(policy()).with_agent("local", 10);
    let seq = world.ask("opus");

    world.advance(GRACE - Duration::from_millis(1));
    assert_eq!(world.called(seq), "");
    world.advance(Duration::from_millis(1));

    assert_eq!(world.called(seq), "local");
}

#[test]
fn where_nobody_serves_any_model_the_message_waits_for_the_one_it_asked() {
    let mut world = World::empty(policy());
    world.advance(GRACE * 2);
    let seq = world.ask("opus");
    world.advance(secs(100));
    assert_eq!(world.end(seq), None);

    world.greet("opus", "first", 10);

    assert_eq!(world.called(seq), "opus");
}

#[test]
fn what_waits_for_absent_models_goes_to_whichever_agent_comes() {
    let mut world = World::empty(policy());
    world.advance(GRACE * 2);
    let all: Vec<Seq> = (0..100).map(|_| world.ask("opus")).collect();

    world.greet("gpt-4o", "first", 1_000);

    assert!(all.iter().all(|seq| world.called(*seq) == "gpt-4o"));
}

#[test]
fn absent_models_are_not_waited_for_while_a_limit_speaks_for_all_others() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");

    world.fail_until(seq, FailureClass::QuotaExhausted, secs(60));

    let failed = world.failed_as(seq);
    assert_eq!(failed.class, FailureClass::QuotaExhausted);
    assert_eq!(failed.retry_at, Some(world.wall().after(secs(60))));
}

#[test]
fn who_was_refused_by_a_provider_does_not_wait_for_agents_that_are_absent() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");

    world.fail(seq, FailureClass::Unreachable);
    world.advance(secs(1));
    world.fail(seq, FailureClass::Unreachable);

    assert_eq!(world.failed_as(seq).class, FailureClass::Unreachable);
}

#[test]
fn an_absent_agent_keeps_its_letters() {
    let mut world = World::empty(policy());
    let letter = world.letter("scribe");
    world.send(letter).unwrap();
    world.advance(secs(3_600));

    world.greet("scribe", "first", 1);

    assert_eq!(world.delivered(), [(Seq(1), "-".into(), 1)]);
}
