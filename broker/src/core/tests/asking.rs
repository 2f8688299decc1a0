use std::time::Duration;

use broker_proto::{FailureClass, MessageState};

use super::world::*;
use crate::core::{Command, Refusal, Reply, queue::Seq};

// I-37
#[test]
fn an_asker_who_left_and_does_not_come_back_ends_the_work() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.run(Command::AskerLeft { seq });
    beat(&mut world, seq, RETURN - secs(1));
    assert_eq!(world.end(seq), None);

    beat(&mut world, seq, secs(1));

    assert_eq!(world.end(seq), Some(MessageState::Cancelled));
    assert_eq!(world.cancelled_at(seq), ["opus"]);
}

/// Lets time pass while the agent of a message is alive.
fn beat(world: &mut World, seq: Seq, time: Duration) {
    for _ in 0..time.as_secs() {
        let held = world.token(seq);
        world.run(Command::Renew { agent: agent("opus"), leases: vec![held] });
        world.advance(secs(1));
    }
}

// I-37
#[test]
fn an_asker_who_comes_back_misses_nothing() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.run(Command::AskerLeft { seq });
    beat(&mut world, seq, RETURN - secs(1));
    world.run(Command::AskerBack { seq });

    beat(&mut world, seq, RETURN * 2);

    assert_eq!(world.end(seq), None);
}

// I-37
#[test]
fn the_asker_says_how_long_the_work_goes_on_without_it() {
    for (window, keep, after, want) in [
        (Some(Duration::ZERO), false, Duration::ZERO, true),
        (Some(secs(60)), false, secs(59), false),
        (Some(secs(60)), false, secs(60), true),
        (None, true, secs(500), false),
        (Some(Duration::ZERO), true, secs(500), false),
    ] {
        let mut world = World::new();
        let seq = world.ask_with("opus", |c| {
            c.options.return_window = window;
            c.options.keep = keep;
        });
        world.run(Command::AskerLeft { seq });
        beat(&mut world, seq, after);

        let is_over = world.end(seq) == Some(MessageState::Cancelled);
        assert_eq!(is_over, want, "{window:?}, keep {keep}, after {after:?}");
    }
}

// I-37
#[test]
fn work_that_nobody_ever_listened_to_ends_after_the_usual_window() {
    let mut world = World::new();
    let new = world.message("opus");
    world.send(new).unwrap();

    world.advance(RETURN);

    assert_eq!(world.end(Seq(1)), Some(MessageState::Cancelled));
}

// I-37
#[test]
fn a_restart_leaves_the_asker_the_time_it_was_promised() {
    let mut world = World::empty(policy());
    let long = world.ask_with("opus", |c| c.options.return_window = Some(secs(300)));
    let usual = world.ask("opus");
    let none = world.ask_with("opus", |c| c.options.return_window = Some(Duration::ZERO));
    world.restart(secs(1));

    world.advance(RETURN - secs(1));
    assert!([long, usual, none].iter().all(|seq| world.end(*seq).is_none()));
    world.advance(secs(1));
    assert_eq!(world.end(usual), Some(MessageState::Cancelled));
    assert_eq!(world.end(none), Some(MessageState::Cancelled));
    world.advance(secs(269));
    assert_eq!(world.end(long), None);
    world.advance(secs(1));
    assert_eq!(world.end(long), Some(MessageState::Cancelled));
}

// I-37, I-6
#[test]
fn a_cancelled_message_ends_at_once_and_its_call_with_it() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.advance(secs(2));
    let id = world.given_id(seq);
    let cancel = cancel(id);

    assert_eq!(world.run(cancel.clone()), Reply::State(MessageState::Cancelled));

    assert_eq!(world.cancelled_at(seq), ["opus"]);
    assert_eq!(world.attempts(seq), [("opus".into(), Some(FailureClass::Cancelled))]);
    assert_eq!(world.terminals(seq).len(), 1);
    assert_eq!(world.decide(cancel), Err(Refusal::UnknownMessage(id)));
}
