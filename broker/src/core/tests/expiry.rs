use std::time::Duration;

use broker_proto::{FailureClass, MessageState, Terminal};

use super::world::*;
use crate::core::{Command, NewMessage, Refusal, queue::Seq};

const MS: Duration = Duration::from_millis(1);

// I-22
#[test]
fn the_deadline_is_the_earliest_of_what_was_said_and_what_is_allowed() {
    let week = secs(7 * 24 * 3600);
    for (expires, span, want) in [
        (None, None, secs(600)),
        (Some(secs(30)), Some(secs(60)), secs(30)),
        (Some(secs(60)), Some(secs(30)), secs(30)),
        (Some(FOR_EVER), Some(FOR_EVER), week),
        (Some(Duration::MAX), Some(Duration::MAX), week),
    ] {
        let mut world = World::new();
        let mut new = world.message("opus");
        new.expires_at = expires.map(|after| world.wall().after(after));
        new.consultation.as_mut().unwrap().options.deadline = span;

        let receipt = world.send(new).unwrap();

        assert_eq!(receipt.deadline, world.wall().after(want), "{expires:?} {span:?}");
    }
    let mut world = World::empty(policy());
    let letter = world.letter("scribe");
    assert_eq!(world.send(letter).unwrap().deadline, world.wall().after(week));
}

// I-22, I-2
#[test]
fn what_is_over_before_it_arrives_is_refused() {
    let mut world = World::new();
    let now = world.wall();
    let late = NewMessage { expires_at: Some(now), ..world.message("opus") };
    let mut none = world.message("opus");
    none.consultation.as_mut().unwrap().options.deadline = Some(Duration::ZERO);

    assert_eq!(world.send(late), Err(Refusal::AlreadyExpired));
    assert_eq!(world.send(none), Err(Refusal::AlreadyExpired));
}

// I-22, I-24
#[test]
fn what_nobody_took_expires_at_its_deadline() {
    let mut world = World::empty(policy());
    let seq = world.insist("opus");

    world.advance(secs(600) - MS);
    assert_eq!(world.end(seq), None);
    world.advance(MS);

    assert_eq!(world.end(seq), Some(MessageState::Expired));
    assert!(matches!(world.terminals(seq).as_slice(), [Terminal::Expired(_)]));
}

// I-22
#[test]
fn nothing_is_delivered_at_its_deadline_even_before_the_tick() {
    let mut world = World::empty(policy());
    let seq = world.insist("opus");
    world.oversleep(secs(600));

    world.greet("opus", "first", 10);

    assert_eq!(world.delivered(), []);
    assert_eq!(world.end(seq), Some(MessageState::Expired));
}

// I-22, I-37
#[test]
fn work_under_way_is_cancelled_at_the_deadline_and_named_in_the_summary() {
    let mut world = World::new();
    let seq = world.ask_with("opus", |c| c.options.deadline = Some(secs(10)));

    world.advance(secs(10));

    assert_eq!(world.cancelled_at(seq), ["opus"]);
    assert_eq!(world.attempts(seq), [("opus".into(), Some(FailureClass::Timeout))]);
    assert_eq!(world.summary(seq).attempts[0].latency, secs(10));
}

// I-23
#[test]
fn a_step_back_of_the_wall_clock_revives_nothing() {
    let mut world = World::new();
    let seq = world.ask_with("opus", |c| c.options.deadline = Some(secs(10)));
    world.advance(secs(10));
    let journal = world.journal.len();

    world.run(Command::AskerBack { seq });
    world.run(Command::Tick);

    assert_eq!(world.journal.len(), journal);
}

// I-22
#[test]
fn a_wait_that_would_outlast_the_deadline_is_not_begun() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask_with("opus", |c| c.options.deadline = Some(secs(3)));

    world.fail_until(seq, FailureClass::RateLimited, secs(4));

    assert_eq!(world.failed_as(seq).class, FailureClass::RateLimited);
    assert_eq!(world.failed_as(seq).retry_at, Some(world.wall().after(secs(4))));
}

#[test]
fn a_hundred_expire_in_bounded_steps() {
    let mut world = World::empty(policy());
    let all: Vec<Seq> = (0..100).map(|_| world.insist("opus")).collect();
    world.oversleep(secs(600));

    let before = world.journal.len();
    world.step(Command::Tick).unwrap();
    assert!(world.journal.len() - before <= 64, "one batch stays small");
    world.run(Command::Tick);

    assert!(all.iter().all(|seq| world.end(*seq) == Some(MessageState::Expired)));
}
