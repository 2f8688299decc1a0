use std::time::Duration;

use broker_proto::{FailureClass, MessageState};

use super::world::*;
use crate::core::{Command, Effect, Outcome, Refusal, Reply, queue::Seq};

fn outcomes() -> [Outcome; 4] {
    [
        done(),
        Outcome::Failed { failure: failure(FailureClass::Overloaded), partial: None, shown: false },
        Outcome::Retry { after: secs(1), shown: false },
        Outcome::Reject { reason: "no".into() },
    ]
}

// I-19
#[test]
fn settling_is_idempotent_for_its_token() {
    for outcome in outcomes() {
        let mut world = World::new();
        let seq = world.ask("opus");
        let settle = world.settlement(seq, outcome);
        world.settle_with(settle.clone()).unwrap();
        let before = world.journal.len();

        assert_eq!(world.settle_with(settle), Ok(Reply::SettledBefore));
        assert_eq!(world.journal.len(), before);
    }
}

// I-19
#[test]
fn settling_a_mailbox_delivery_is_idempotent_too() {
    for outcome in outcomes() {
        let mut world = World::empty(policy()).with_agent("scribe", 10);
        let letter = world.letter("scribe");
        world.send(letter).unwrap();
        let settle = world.settlement(Seq(1), outcome);
        world.settle_with(settle.clone()).unwrap();
        let before = world.journal.len();

        assert_eq!(world.settle_with(settle), Ok(Reply::SettledBefore));
        assert_eq!(world.journal.len(), before);
    }
}

// I-18, I-19
#[test]
fn a_settlement_that_only_the_projection_remembers_is_answered_as_before() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.done(seq);
    world.run(Command::Projected { finish_no: world.state.queue.finish_no() });
    assert_eq!(world.state.queue.ended_by(seq), None, "it is not in memory any more");

    let mut again = world.settlement(seq, done());
    assert_eq!(again.earlier, Some(1));
    assert_eq!(world.settle_with(again.clone()), Ok(Reply::SettledBefore));
    again.epoch = 2;
    assert_eq!(world.settle_with(again.clone()), Err(Refusal::LeaseLost(again.id)));
    again.epoch = 1;
    again.earlier = None;
    assert_eq!(world.settle_with(again.clone()), Err(Refusal::LeaseLost(again.id)));
}

// I-18
#[test]
fn what_was_settled_is_not_delivered_again_through_a_crash() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.done(seq);

    world.restart(secs(1));
    world.greet("opus", "second", 10);
    world.advance(FOR_EVER);

    assert_eq!(world.deliveries.len(), 1);
}

// I-21
#[test]
fn provider_failures_do_not_wear_a_message_out() {
    let mut world = World::with(|p| p.routing.max_attempts = 100);
    let seq = world.ask("opus");
    for _ in 0..20 {
        world.fail_until(seq, FailureClass::Internal, Duration::ZERO);
        if world.end(seq).is_some() {
            break;
        }
    }

    assert_eq!(world.end(seq), Some(MessageState::Failed), "not dead");
    assert_eq!(world.attempts(seq).len(), 8, "twice at each of four");
}

// I-21
#[test]
fn a_mailbox_delivery_that_failed_comes_again_when_it_may() {
    let mut world = World::empty(policy()).with_agent("scribe", 100);
    let letter = world.letter("scribe");
    world.send(letter).unwrap();
    for epoch in 1..10 {
        assert_eq!(world.token(Seq(1)), (Seq(1), epoch));
        world.settle(Seq(1), Outcome::Retry { after: secs(60), shown: false }).unwrap();
        world.advance(secs(59));
        assert_eq!(world.token(Seq(1)), (Seq(1), epoch));
        world.advance(secs(1));
    }
}

#[test]
fn an_agents_retry_is_one_more_try_here_after_the_wait_it_asked_for() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.settle(seq, Outcome::Retry { after: secs(2), shown: false }).unwrap();
    world.advance(secs(1));
    assert_eq!(world.deliveries.len(), 1);

    world.advance(secs(1));

    assert_eq!(world.called(seq), "opus");
    assert_eq!(world.token(seq).1, 2);
}

// I-14, I-19
#[test]
fn an_older_settled_token_is_stale_once_a_newer_one_is_out() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let first = world.settlement(seq, outcomes()[1].clone());
    world.settle_with(first.clone()).unwrap();
    world.advance(secs(1));
    world.fail(seq, FailureClass::Overloaded);

    assert!(matches!(world.settle_with(first), Err(Refusal::LeaseLost(_))));
}

// I-35
#[test]
fn nothing_follows_the_last_frame_of_an_answer() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.seals_wait = true;
    world.advance(LEASE);
    let id = world.given_id(seq);
    world.run(cancel(id));
    world.seals_wait = false;
    world.run(Command::Tick);
    world.advance(FOR_EVER);

    let is_about = |effect: &&Effect| match effect {
        Effect::Closed { seq: of, .. } | Effect::AttemptBegins { seq: of, .. } => *of == seq,
        _ => false,
    };
    let frames: Vec<_> = world.effects.iter().filter(is_about).collect();
    assert_eq!(frames.len(), 2, "{frames:?}");
    assert!(matches!(frames[1], Effect::Closed { .. }));
}

// I-35
#[test]
fn a_lost_attempt_is_closed_before_the_next_begins() {
    let mut world = World::new();
    world.seals_wait = true;
    let seq = world.ask("opus");

    world.advance(LEASE);
    assert_eq!((world.seals.clone(), world.deliveries.len()), (vec![(seq, 1)], 1));
    world.seals_wait = false;
    world.run(Command::Tick);

    assert_eq!(world.deliveries.len(), 2);
}

// I-35
#[test]
fn an_attempt_lost_after_text_was_shown_fails_unless_a_restart_is_allowed() {
    for allow_restart in [false, true] {
        let mut world = World::new();
        let seq = world.ask_with("opus", |c| c.options.allow_restart = allow_restart);
        world.show(seq);
        world.advance(LEASE);

        if allow_restart {
            assert_eq!(world.token(seq), (seq, 2));
        } else {
            assert_eq!(world.failed_as(seq).class, FailureClass::AgentLost);
        }
    }
}
