use broker_proto::{FailureClass, MessageState};

use super::world::*;
use crate::core::Command;

#[test]
fn a_queued_question_is_answered_once_after_a_restart() {
    let mut world = World::empty(policy());
    let seq = world.ask("opus");
    world.restart(secs(5));
    world.run(Command::AskerBack { seq });

    world.greet("opus", "second", 10);
    world.done(seq);

    assert_eq!(world.deliveries.len(), 1);
    assert_eq!(world.end(seq), Some(MessageState::Done));
}

#[test]
fn a_wait_runs_on_as_far_as_it_had_still_to_go() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");
    world.fail_until(seq, FailureClass::RateLimited, secs(4));
    world.restart(secs(1));
    world.run(Command::AskerBack { seq });
    world.greet("opus", "first", 10);

    world.advance(secs(2));
    assert_eq!(world.deliveries.len(), 1);
    world.advance(secs(1));

    assert_eq!(world.deliveries.len(), 2);
}

#[test]
fn what_is_shut_stays_shut() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.fail_until(seq, FailureClass::QuotaExhausted, secs(60));
    world.restart(secs(1));
    world.run(Command::AskerBack { seq });
    for name in ["opus", "sonnet"] {
        world.greet(name, "second", 10);
    }

    let next = world.ask("opus");

    assert_eq!(world.called(next), "sonnet");
}

#[test]
fn a_prompt_that_proved_too_long_is_still_kept_from_smaller_windows() {
    let mut world = World::with(|policy| {
        policy.models.get_mut(&model("sonnet")).unwrap().context_window = 400_000;
    });
    let seq = world.ask("opus");
    world.fail(seq, FailureClass::ContextTooLong);
    assert_eq!(world.called(seq), "sonnet");
    let held = world.token(seq);
    world.restart(secs(1));
    world.run(Command::AskerBack { seq });
    world.greet("gpt-4o", "first", 10);
    world.greet_as(link("sonnet", "first", 10), vec![held]);

    world.fail(seq, FailureClass::QuotaExhausted);

    assert_eq!(world.failed_as(seq).class, FailureClass::QuotaExhausted);
    assert_eq!(world.deliveries.len(), 2);
}

#[test]
fn a_probe_under_way_is_still_the_only_one() {
    let mut world = World::new();
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(10));
    world.advance(secs(10));
    let probe = world.ask("opus");
    let held = world.token(probe);
    world.restart(secs(1));
    world.run(Command::AskerBack { seq: probe });
    world.greet("sonnet", "second", 10);
    world.greet_as(link("opus", "first", 10), vec![held]);

    let other = world.ask("opus");

    assert_eq!(world.called(other), "sonnet");
    world.done(probe);
    assert!(world.is_open("opus"));
}

#[test]
fn a_message_whose_model_is_no_longer_configured_moves_on() {
    let mut world = World::empty(policy());
    world.advance(GRACE);
    let seq = world.ask("gpt-4o");
    world.state.policy.models.remove(&model("gpt-4o"));

    world.restart(secs(1));

    assert_eq!(world.failed_as(seq).class, FailureClass::ModelNotFound);
}
