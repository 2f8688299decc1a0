//! What is kept of a limit, so that no last turn is cut, and no session leaves earlier than it must.

use broker_proto::{TriggerKind, UsageRecord};

use super::{
    handoff::{begin, id, owner},
    world::*,
};
use crate::core::{
    Command, NewMessage, Policy, SettleCommand,
    queue::Seq,
    usage::{self, Level, Subject},
};

/// Bytes per token, as the models of these tests have it.
const BYTES: u64 = 4;

/// A session on opus, with a window of 200,000 tokens of which `held` are taken.
fn world(held: u64) -> World {
    let wide = |policy: &mut Policy| {
        for model in policy.models.values_mut() {
            model.context_window = 200_000;
        }
    };
    let mut world = World::with(wide);
    begin(&mut world);
    if held > 0 {
        let record = usage::Record {
            model: Some(model("opus")),
            session: Some("s".into()),
            what: UsageRecord::Tokens(tokens(held, 0)),
        };
        world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    }
    world
}

/// A turn of `own` tokens behind a history of `history` tokens.
fn turn(world: &mut World, history: u64, own: u64) -> Seq {
    let mut new = NewMessage { session: Some("s".into()), ..world.message("opus") };
    let consultation = new.consultation.as_mut().unwrap();
    consultation.prompt_bytes = (history + own) * BYTES;
    consultation.history_bytes = history * BYTES;
    world.ask_this(new)
}

/// Why the session is moved, if it is.
fn moved(world: &World) -> Option<String> {
    let handoff = world.state.handoff.last(&id())?;
    assert_eq!(handoff.trigger.kind, TriggerKind::UsageLimit);
    Some(handoff.trigger.reasoning.clone())
}

/// A turn that its model answers, whose provider says so much of its five hours is used then.
fn answered(world: &mut World, used: u64) {
    let seq = turn(world, 1_000, 100);
    assert_eq!(world.called(seq), "opus");
    let settle = world.settlement(seq, done());
    let limits = vec![window("5h", used)];
    world.settle_with(SettleCommand { limits, usage: tokens(10, 10), ..settle }).unwrap();
    world.advance(secs(300));
}

#[test]
fn a_session_stays_until_its_switch_threshold_however_long_its_history_is() {
    let mut world = world(175_000);
    let subject = Subject::Session("s".into());
    assert_eq!(world.state.usage.level(&subject).level, Level::Critical);

    let asked = turn(&mut world, 175_000, 1_000);

    assert_eq!(moved(&world), None);
    assert_eq!((world.called(asked), owner(&world).epoch), ("opus".into(), 1));
}

#[test]
fn a_turn_that_its_window_has_no_room_for_moves_its_session_before() {
    let mut world = world(175_000);
    turn(&mut world, 175_000, 22_000);
    let why = moved(&world).unwrap();
    // Its own tokens, and an answer of the usual length.
    assert!(why.ends_with("the next turn takes about 26096"), "{why}");
}

#[test]
fn a_sessions_window_is_its_owners_whoever_answered_last() {
    let mut world = World::with(|policy| {
        policy.models.get_mut(&model("opus")).unwrap().context_window = 200_000;
        policy.models.get_mut(&model("sonnet")).unwrap().context_window = 10_000;
        policy.handoff.auto_switch = true;
    });
    begin(&mut world);
    let record = usage::Record {
        model: Some(model("sonnet")),
        session: Some("s".into()),
        what: UsageRecord::Tokens(tokens(20_000, 0)),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    let subject = Subject::Session("s".into());
    assert_eq!(world.state.usage.level(&subject).level, Level::Healthy);
    assert_eq!(moved(&world), None);
}

#[test]
fn a_window_of_a_provider_keeps_room_for_a_turn_as_turns_have_been() {
    let mut world = world(0);
    for used in [40, 63, 86] {
        answered(&mut world, used);
    }
    turn(&mut world, 1_000, 100);
    let why = moved(&world).unwrap();
    assert!(why.ends_with("the next turn takes about 23"), "{why}");
}

#[test]
fn a_window_of_a_provider_with_room_for_more_turns_moves_nothing() {
    let mut world = world(0);
    for used in [82, 84, 86] {
        answered(&mut world, used);
    }
    let asked = turn(&mut world, 1_000, 100);
    assert_eq!((moved(&world), world.called(asked)), (None, "opus".into()));
}
