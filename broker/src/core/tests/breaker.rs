use std::time::Duration;

use broker_proto::{FailureClass, MessageState, Priority};

use super::world::*;
use crate::core::{Effect, NewMessage, Outcome, queue::Seq};

/// A namespace whose opus has just failed three times in a row.
fn opened() -> World {
    let mut world = World::new();
    fail_insisting(&mut world, 3);
    assert!(!world.is_open("opus"));
    world
}

/// Each failure is one try of one message that asks for opus only.
fn fail_insisting(world: &mut World, times: u32) {
    for _ in 0..times {
        let seq = world.insist("opus");
        world.fail(seq, FailureClass::Unreachable);
        let id = world.given_id(seq);
        world.run(cancel(id));
    }
}

#[test]
fn failures_that_may_pass_are_tried_once_more_here_and_then_at_the_next() {
    for class in [
        FailureClass::Overloaded,
        FailureClass::Timeout,
        FailureClass::Unreachable,
        FailureClass::Truncated,
        FailureClass::MalformedReply,
    ] {
        let mut world = World::new();
        let seq = world.ask("opus");
        world.fail(seq, class);
        world.advance(secs(1));
        assert_eq!((world.called(seq), world.deliveries.len()), ("opus".into(), 2), "{class:?}");

        world.fail(seq, class);
        assert_eq!((world.called(seq), world.deliveries.len()), ("sonnet".into(), 3));

        world.done(seq);
        let failed = ("opus".to_owned(), Some(class));
        assert_eq!(world.attempts(seq), [failed.clone(), failed, ("sonnet".into(), None)]);
    }
}

#[test]
fn a_breaker_opens_at_its_third_failure_in_a_row() {
    let mut world = World::new();
    fail_insisting(&mut world, 2);
    assert!(world.is_open("opus"));
    let success = world.ask("opus");
    world.done(success);
    fail_insisting(&mut world, 2);
    assert!(world.is_open("opus"), "a success between starts the count anew");

    fail_insisting(&mut world, 1);

    assert!(!world.is_open("opus"));
    let next = world.ask("opus");
    assert_eq!(world.called(next), "sonnet");
}

#[test]
fn an_open_breaker_lets_one_probe_through_and_others_pass_over_meanwhile() {
    let mut world = opened();
    world.advance(secs(10));

    let probe = world.ask("opus");
    let other = world.ask("opus");

    assert_eq!((world.called(probe), world.called(other)), ("opus".into(), "sonnet".into()));
    world.done(other);
    assert_eq!(world.summary(other).passed_over[0].reason, "another message is trying it");
    world.done(probe);
    assert!(world.is_open("opus"));
    let next = world.ask("opus");
    assert_eq!(world.called(next), "opus");
}

#[test]
fn a_breaker_stays_open_twice_as_long_after_each_failed_probe_up_to_its_longest() {
    let mut world = opened();
    for wait in [10, 20, 40, 80, 160, 300, 300] {
        world.advance(secs(wait) - Duration::from_millis(1));
        let early = world.ask("opus");
        assert_eq!(world.called(early), "sonnet", "within {wait} s");
        world.done(early);
        world.advance(Duration::from_millis(1));

        let probe = world.ask("opus");
        assert_eq!(world.called(probe), "opus", "after {wait} s");
        world.fail(probe, FailureClass::Unreachable);
        assert!(!world.is_open("opus"));
        world.advance(Duration::from_millis(250));
        world.done(probe);
        world.boot_back(Duration::from_millis(250));
    }
}

#[test]
fn calls_that_were_out_when_a_breaker_opened_do_not_lengthen_it() {
    let mut world = World::new();
    let out: Vec<Seq> = (0..10).map(|_| world.ask("opus")).collect();
    for seq in &out {
        world.fail(*seq, FailureClass::Timeout);
    }

    let until = world.state.route.shut(&model("opus")).unwrap().until;
    assert_eq!(until, Some(world.wall().after(secs(10))));
}

#[test]
fn a_successful_probe_releases_the_queue() {
    let mut world = World::empty(policy()).with_agent("opus", 100);
    world.advance(GRACE);
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::RateLimited, secs(4));
    let waiting: Vec<Seq> = (0..5).map(|_| world.ask("opus")).collect();
    world.advance(secs(4));
    world.delivered();
    assert_eq!(world.deliveries.len(), 2, "one tries it");

    world.done(first);

    assert!(waiting.iter().all(|seq| world.called(*seq) == "opus"));
}

#[test]
fn a_probe_that_is_given_back_or_lost_is_followed_by_another() {
    let outcomes: [fn(&mut World, Seq); 3] = [
        |world, probe| {
            world.settle(probe, Outcome::Release { shown: false }).unwrap();
        },
        |world, _| world.advance(LEASE),
        |world, probe| world.fail(probe, FailureClass::ContentRefused),
    ];
    for end in outcomes {
        let mut world = opened();
        world.advance(secs(10));
        let probe = world.ask("opus");
        assert_eq!(world.called(probe), "opus");
        end(&mut world, probe);
        if world.end(probe).is_none() {
            assert_eq!(world.called(probe), "opus");
            world.done(probe);
        }
        let next = world.ask("opus");
        assert_eq!(world.called(next), "opus");
    }
}

#[test]
fn a_probe_whose_message_is_cancelled_makes_room_for_the_next() {
    let mut world = opened();
    world.advance(secs(10));
    let probe = world.ask("opus");
    let id = world.given_id(probe);

    world.run(cancel(id));

    let next = world.ask("opus");
    assert_eq!(world.called(next), "opus");
    assert_eq!(world.end(probe), Some(MessageState::Cancelled));
}

#[test]
fn a_probe_is_delivered_however_many_wait_before_it() {
    let mut world = World::empty(policy()).with_agent("opus", 1);
    world.advance(GRACE);
    let probe = world.ask("opus");
    world.fail_until(probe, FailureClass::RateLimited, secs(4));
    world.advance(secs(4));
    for _ in 0..100 {
        let new = world.message("opus");
        world.ask_this(NewMessage { priority: Priority::Urgent, ..new });
    }
    assert_eq!(world.deliveries.len(), 1, "its agent has no credit");

    world.credit("opus", 1);

    assert_eq!(world.token(probe), (probe, 2));
}

#[test]
fn changes_of_a_model_are_told_once() {
    let mut world = opened();
    world.advance(secs(10));
    let probe = world.ask("opus");
    world.done(probe);

    let told: Vec<bool> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::ModelChanged { is_available, .. } => Some(*is_available),
            _ => None,
        })
        .collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn a_slow_agent_that_rejoins_finds_the_breaker_as_it_was() {
    let mut world = opened();
    world.restart(secs(1));
    world.greet("opus", "second", 10);
    world.greet("sonnet", "second", 10);

    let seq = world.ask("opus");
    assert_eq!(world.called(seq), "sonnet");
}
