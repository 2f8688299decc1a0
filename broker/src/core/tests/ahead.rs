//! What is made before somebody asks: packages for whoever is likely to go on.

use broker_proto::{
    AskHandoff, ContentHash, Handoff, HandoffKept, HandoffState, PackageId, Preservation,
    SessionId, UsageRecord,
};

use super::world::*;
use crate::core::{
    Command, Effect, Event, Query, Reply,
    handoff::{Command as HandoffCommand, Reply as HandoffReply},
    package::{self, MadeOf, Owed, sample::info},
    queue::{Body, BodyKey},
    session::{self, Change, Expected, NewEntries, NewEntry, Point, Start, Write},
    usage,
};

pub(super) fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

fn entries(numbers: &[u8]) -> NewEntries {
    let entry =
        |n: &u8| NewEntry { hash: ContentHash([*n; 32]), length: 4, tokens: 30, size_bytes: 4 };
    NewEntries { entries: numbers.iter().map(entry).collect(), ..NewEntries::default() }
}

/// A session of opus with two turns.
pub(super) fn start(world: &mut World) {
    let start = Start {
        id: id(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: Point::default(),
        entries: entries(&[1, 2]),
        change: Change::Imported,
    };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(start)))));
}

/// One more turn.
pub(super) fn say(world: &mut World, number: u8) {
    let write = Write {
        id: id(),
        expected: Expected::default(),
        at: None,
        entries: entries(&[number]),
        task: None,
        shared: None,
        answer_of: None,
        change: Change::Appended,
    };
    world.run(Command::Session(Box::new(session::Command::Write(Box::new(write)))));
}

/// The session's own window is used up to here.
fn used(world: &mut World, tokens: u64) {
    let record = usage::Record {
        model: Some(model("opus")),
        session: Some("s".into()),
        what: UsageRecord::Tokens(super::given::tokens(tokens, 0)),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}

/// The broker has made a package of the session as it is now.
pub(super) fn made(world: &mut World, number: u64, to: &str, kept: HandoffKept) -> PackageId {
    let version = world.state.session.get(&id()).unwrap().info.version;
    let mut info = info(2 * number + 1);
    (info.header.session, info.header.recipient) = (Some(id()), Some(model(to)));
    info.header.level = Preservation::Complete;
    info.header.expires_at = world.now().wall.after(secs(3_600));
    let package = info.header.id;
    let body = Body { keys: BodyKey([number as u8; 40]).into(), size_bytes: 9 };
    let of = Some(Box::new(MadeOf { version, kept, is_ahead: true }));
    let save = package::Command::Save { info: Box::new(info), body, of };
    world.run(Command::Package(save));
    package
}

fn kept() -> HandoffKept {
    HandoffKept { entries: 2, tokens_before: 60, tokens: 20, ..HandoffKept::default() }
}

/// For whom packages were asked since the last look.
fn asked(world: &mut World) -> usize {
    let effects = std::mem::take(&mut world.effects);
    effects.iter().filter(|effect| matches!(effect, Effect::Prepare(_))).count()
}

fn owed(world: &mut World) -> Vec<Owed> {
    match world.run(Command::Query(Query::Package(package::Query::Owed(vec![id()])))) {
        Reply::Package(package::Reply::Owed(owed)) => owed,
        other => panic!("{other:?}"),
    }
}

fn begin(world: &mut World) -> Handoff {
    let ask = AskHandoff {
        session: id(),
        to: Some(model("sonnet")),
        agent: None,
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    };
    let begin = HandoffCommand::Begin(Box::new(ask));
    match world.run(Command::Handoff(Box::new(begin))) {
        Reply::Handoff(HandoffReply::Handoff(handoff)) => *handoff,
        other => panic!("{other:?}"),
    }
}

fn world() -> World {
    let mut world = World::new();
    start(&mut world);
    world
}

fn builds(world: &World) -> usize {
    world.effects.iter().filter(|effect| matches!(effect, Effect::Build(_))).count()
}

#[test]
fn from_the_warning_on_every_turn_asks_for_a_package_and_before_none_does() {
    let mut world = world();
    say(&mut world, 3);
    assert_eq!((asked(&mut world), owed(&mut world)), (0, vec![]));
    used(&mut world, 150_100);
    asked(&mut world);

    say(&mut world, 4);

    assert_eq!(asked(&mut world), 1);
    let now = owed(&mut world);
    assert_eq!(now[0].to, Some(model("sonnet")));
    assert!(now[0].reason.starts_with("usage_limit: "), "{now:?}");
    made(&mut world, 1, "sonnet", kept());
    assert_eq!(owed(&mut world), []);
    say(&mut world, 5);
    assert_eq!((asked(&mut world), owed(&mut world).len()), (1, 1));
}

#[test]
fn a_limit_that_is_forecast_soon_is_near() {
    let mut world = world();
    // Of 180,000 tokens 147,000 within half an hour: below the warning level, and not for long.
    for minute in 0..60 {
        used(&mut world, if minute < 30 { 1 } else { 4_900 });
        world.advance(secs(60));
    }
    let level = world.state.usage.level(&usage::Subject::Session("s".into())).level;
    assert_eq!(level, usage::Level::Healthy, "{level:?}");
    asked(&mut world);

    say(&mut world, 3);

    let owed = owed(&mut world);
    assert!(owed[0].reason.contains("is reached soon"), "{owed:?}");
    assert_eq!(asked(&mut world), 1);
}

#[test]
fn with_a_package_of_its_present_version_a_handoff_is_offered_in_the_commit_that_begins_it() {
    let mut world = world();
    let package = made(&mut world, 1, "sonnet", kept());
    world.effects.clear();

    let handoff = begin(&mut world);

    assert_eq!((handoff.state, handoff.package), (HandoffState::Offered, Some(package)));
    assert_eq!((handoff.kept.tokens, builds(&world)), (20, 0));
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Offer { .. })));
}

#[test]
fn an_older_package_or_one_that_lacks_what_must_be_kept_is_not_offered() {
    let missing = HandoffKept { must_keep_missing: vec!["goal".into()], ..kept() };
    for lacks in [false, true] {
        let mut world = world();
        made(&mut world, 1, "sonnet", if lacks { missing.clone() } else { kept() });
        if !lacks {
            say(&mut world, 3);
        }
        world.effects.clear();
        assert_eq!(begin(&mut world).state, HandoffState::Building);
        assert_eq!(builds(&world), 1);
    }
}

#[test]
fn the_next_package_replaces_the_last_one_unless_a_handoff_goes_on_with_it() {
    let mut world = world();
    let first = made(&mut world, 1, "sonnet", kept());
    let others = made(&mut world, 2, "gpt-4o", kept());
    let gone = |world: &World, id| {
        world.journal.iter().any(|event| match event {
            Event::Package(event) => {
                matches!(event.as_ref(), package::Event::Deleted { id: gone, .. } if *gone == id)
            }
            _ => false,
        })
    };
    say(&mut world, 3);
    let second = made(&mut world, 3, "sonnet", kept());
    assert!(gone(&world, first) && !gone(&world, others));

    assert_eq!(begin(&mut world).package, Some(second));
    world.restart(secs(1));
    say(&mut world, 4);
    made(&mut world, 4, "sonnet", kept());
    assert!(!gone(&world, second), "its handoff is under way");
}
