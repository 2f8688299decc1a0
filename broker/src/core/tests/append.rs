//! An answer and what its session goes on with are one commit.

use broker_proto::{ContentHash, EntryHash, MessageState, ModelName, SessionHead, SessionId};

use super::world::*;
use crate::core::{
    Append, Command, Refusal, Reply, SettleCommand,
    queue::{Body, BodyKey, Seq},
    session::{self, Change, Expected, NewEntries, NewEntry, Point, Start, Write},
};

fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

fn entry(text: &str) -> NewEntry {
    let hash = ContentHash::of(text.as_bytes());
    NewEntry { hash, length: 4, tokens: 3, size_bytes: 4 }
}

fn session(world: &mut World, command: session::Command) {
    world.decide(Command::Session(Box::new(command))).unwrap();
}

fn begin(world: &mut World) {
    let start = Start {
        id: id(),
        title: String::new(),
        owner: ModelName::parse("opus").unwrap(),
        from: None,
        at: Point::default(),
        entries: NewEntries::default(),
        change: Change::Started,
    };
    session(world, session::Command::Start(Box::new(start)));
}

/// A settlement of `seq` with a question and an answer for the session.
fn answered(world: &World, seq: Seq, expected: Option<EntryHash>) -> SettleCommand {
    let write = Write {
        id: id(),
        expected: Expected { head: expected, version: None },
        at: None,
        entries: NewEntries {
            body: Body { keys: BodyKey([1; 40]).into(), size_bytes: 8 },
            entries: vec![entry("question"), entry("answer")],
            ..NewEntries::default()
        },
        task: None,
        shared: None,
        answer_of: Some(world.given_id(seq)),
        change: Change::Appended,
    };
    SettleCommand { append: Some(Append::Write(Box::new(write))), ..world.settlement(seq, done()) }
}

fn head(world: &World) -> SessionHead {
    world.state.session.get(&id()).unwrap().info.head
}

#[test]
fn what_is_done_is_appended_once_over_a_restart_too() {
    let mut world = World::new().with_agent("opus", 4);
    begin(&mut world);
    let seq = world.ask("opus");
    let settle = answered(&world, seq, None);

    assert_eq!(world.settle_with(settle.clone()).unwrap(), Reply::None);

    assert_eq!((world.end(seq), head(&world).entries), (Some(MessageState::Done), 2));
    assert_eq!(world.settle_with(settle.clone()).unwrap(), Reply::SettledBefore);
    world.restart(std::time::Duration::ZERO);
    let settle = SettleCommand { earlier: world.finished(seq).map(|it| it.epoch), ..settle };
    assert_eq!(world.settle_with(settle).unwrap(), Reply::SettledBefore);
    assert_eq!(head(&world).entries, 2);
}

#[test]
fn an_answer_that_was_read_with_another_head_changes_nothing() {
    let mut world = World::new().with_agent("opus", 4);
    begin(&mut world);
    let seq = world.ask("opus");
    let settle = answered(&world, seq, Some(EntryHash([9; 32])));

    let refused = world.settle_with(settle);

    assert!(matches!(refused, Err(Refusal::Session(session::Refusal::Moved(_)))), "{refused:?}");
    assert_eq!((world.end(seq), head(&world).entries), (None, 0));
    world.settle_with(answered(&world, seq, Some(EntryHash::NONE))).unwrap();
    assert_eq!((world.end(seq), head(&world).entries), (Some(MessageState::Done), 2));
}

#[test]
fn an_answer_stands_whose_session_is_gone() {
    let mut world = World::new().with_agent("opus", 4);
    begin(&mut world);
    let seq = world.ask("opus");
    session(&mut world, session::Command::Delete { id: id() });

    assert_eq!(world.settle_with(answered(&world, seq, None)).unwrap(), Reply::NotAppended);

    assert_eq!(world.end(seq), Some(MessageState::Done));
    assert_eq!(world.summary(seq).not_appended.as_deref(), Some("session s is gone"));
}

#[test]
fn an_answer_that_can_never_be_appended_stands_and_says_why() {
    let mut world = World::new().with_agent("opus", 4);
    begin(&mut world);
    let seq = world.ask("opus");
    let append = Some(Append::Cannot("its question cannot be read".into()));
    let settle = SettleCommand { append, ..world.settlement(seq, done()) };

    assert_eq!(world.settle_with(settle).unwrap(), Reply::NotAppended);

    assert_eq!((world.end(seq), head(&world).entries), (Some(MessageState::Done), 0));
    let summary = world.summary(seq);
    assert_eq!(summary.not_appended.as_deref(), Some("its question cannot be read"));
    // Of one that is appended there is nothing to say.
    let other = world.ask("opus");
    world.settle_with(answered(&world, other, None)).unwrap();
    assert_eq!(world.summary(other).not_appended, None);
}

#[test]
fn a_lost_lease_appends_nothing() {
    let mut world = World::new().with_agent("opus", 4);
    begin(&mut world);
    let seq = world.ask("opus");
    let stale = SettleCommand { epoch: 7, ..answered(&world, seq, None) };
    assert!(matches!(world.settle_with(stale), Err(Refusal::LeaseLost(_))));
    assert_eq!(head(&world).entries, 0);
}
