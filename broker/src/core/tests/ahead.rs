//! What is made before somebody asks: packages for whoever is likely to go on.

use broker_proto::{
    AcceptHandoff, AskHandoff, BridgeHealth, BridgeStatus, ContentHash, Handoff, HandoffKept,
    HandoffState, PackageId, Preservation, SessionId, UsageRecord,
};

use super::world::*;
use crate::core::{
    Command, Effect, Event, Query, Refusal, Reply, State,
    handoff::{By, Command as HandoffCommand, Reply as HandoffReply, bridge},
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

fn bridge(world: &mut World, command: bridge::Command) -> Result<Vec<BridgeStatus>, Refusal> {
    match world.decide(Command::Bridge(Box::new(command)))? {
        Reply::Bridges(bridges) => Ok(bridges),
        other => panic!("{other:?}"),
    }
}

fn open(world: &mut World, from: &str, to: &str) -> Result<Vec<BridgeStatus>, Refusal> {
    let (session, from, to) = (id(), model(from), model(to));
    bridge(world, bridge::Command::Open { session, from, to })
}

fn status(world: &World) -> Vec<BridgeStatus> {
    let mut state = State::new(world.state.policy.clone());
    world.journal.iter().for_each(|event| crate::core::apply(&mut state, event));
    let query = bridge::Query { session: Some(id()) };
    let told = crate::core::decide(&mut state, Command::Query(Query::Bridges(query)), world.now());
    match told.unwrap().reply {
        Reply::Bridges(bridges) => bridges,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_open_bridge_is_kept_current_turn_by_turn_and_says_how_far_behind_it_is() {
    let mut world = world();
    asked(&mut world);
    let opened = open(&mut world, "opus", "local").unwrap();
    assert_eq!((opened[0].lag_turns, opened[0].synced), (2, None));
    assert_eq!(asked(&mut world), 1);
    let package = made(&mut world, 1, "local", kept());
    assert_eq!(owed(&mut world), []);

    say(&mut world, 3);

    assert_eq!((asked(&mut world), owed(&mut world)[0].to.clone()), (1, Some(model("local"))));
    // Agents are not in the journal: nobody serves it there.
    let behind = &status(&world)[0];
    assert_eq!((behind.lag_turns, behind.lag_tokens), (1, 30));
    assert_eq!(behind.synced.map(|synced| synced.0), Some(package));
    let session = Some(id());
    let list = Command::Query(Query::Bridges(bridge::Query { session }));
    let health = |world: &mut World, list: &Command| match world.run(list.clone()) {
        Reply::Bridges(bridges) => (bridges[0].health, bridges[0].problem.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(health(&mut world, &list).0, BridgeHealth::Stale);
    let failed =
        bridge::Command::NotSynced { session: id(), to: model("local"), problem: "no room".into() };
    bridge(&mut world, failed).unwrap();
    assert_eq!(health(&mut world, &list), (BridgeHealth::Broken, "no room".into()));
    let all = HandoffKept { entries: 3, tokens_before: 90, ..kept() };
    made(&mut world, 2, "local", all);
    assert_eq!(health(&mut world, &list), (BridgeHealth::Healthy, String::new()));
    let again = open(&mut world, "opus", "local").unwrap_err();
    assert!(matches!(again, Refusal::Bridge(bridge::Refusal::Open { .. })), "{again}");
}

#[test]
fn a_bridge_leads_from_the_owner_and_is_closed_when_the_session_moves_or_goes() {
    let mut world = world();
    let refused = open(&mut world, "sonnet", "local").unwrap_err();
    assert!(matches!(refused, Refusal::Bridge(bridge::Refusal::NotOwner { .. })), "{refused}");
    assert!(open(&mut world, "opus", "opus").is_err());
    assert!(open(&mut world, "opus", "nobody").is_err());
    let close = bridge::Command::Close { session: id(), to: None };
    let refused = bridge(&mut world, close.clone()).unwrap_err();
    assert!(matches!(refused, Refusal::Bridge(bridge::Refusal::Unknown { .. })), "{refused}");

    open(&mut world, "opus", "local").unwrap();
    assert_eq!(bridge(&mut world, close).unwrap().len(), 1);
    assert_eq!(status(&world), []);

    open(&mut world, "opus", "local").unwrap();
    made(&mut world, 1, "sonnet", kept());
    let handoff = begin(&mut world);
    let manifest = handoff.manifest.unwrap();
    let accept = AcceptHandoff { id: handoff.id, manifest, confirmed: vec![] };
    let by = By::Agent(agent("sonnet"));
    world.run(Command::Handoff(Box::new(HandoffCommand::Accept { accept, by })));
    assert_eq!(world.state.session.get(&id()).unwrap().info.owner.model, model("sonnet"));
    assert_eq!(status(&world), []);

    open(&mut world, "sonnet", "local").unwrap();
    world.run(Command::Session(Box::new(session::Command::Delete { id: id() })));
    assert_eq!(status(&world), []);
}

#[test]
fn a_receiver_whose_window_cannot_hold_what_must_be_kept_gets_no_bridge() {
    let small = |policy: &mut crate::core::Policy| {
        let local = policy.models.get_mut(&model("local")).unwrap();
        local.context_window = 900;
    };
    let mut world = World::with(small);
    start(&mut world);
    let refused = open(&mut world, "opus", "local").unwrap_err();
    assert!(refused.to_string().contains("do not fit"), "{refused}");
    assert_eq!(status(&world), []);
}

#[test]
fn a_bridge_whose_receiver_is_gone_is_broken_and_says_why() {
    let mut world = world();
    open(&mut world, "opus", "local").unwrap();
    made(&mut world, 1, "local", kept());
    world.hang_up("local");
    world.advance(GRACE);
    let session = Some(id());
    let said = world.run(Command::Query(Query::Bridges(bridge::Query { session })));
    let Reply::Bridges(bridges) = said else { panic!("{said:?}") };
    assert_eq!(bridges[0].health, BridgeHealth::Broken);
    assert!(bridges[0].problem.contains("local"), "{}", bridges[0].problem);
}

#[test]
fn a_local_model_is_loaded_when_its_package_is_there_and_not_with_every_turn() {
    let mut world = world();
    let warmed = |world: &mut World| {
        let effects = std::mem::take(&mut world.effects);
        let warm = effects.into_iter().filter_map(|effect| match effect {
            Effect::Warm { model, tokens, links } => Some((model, tokens, links.len())),
            _ => None,
        });
        warm.collect::<Vec<_>>()
    };
    made(&mut world, 1, "sonnet", kept());
    assert_eq!(warmed(&mut world), [], "its provider loads nothing");
    made(&mut world, 2, "local", kept());
    assert_eq!(warmed(&mut world), [(model("local"), 20, 1)]);

    say(&mut world, 3);
    made(&mut world, 3, "local", HandoffKept { tokens: 30, ..kept() });
    assert_eq!(warmed(&mut world), [], "it is loaded, with a window that holds it");
    made(&mut world, 4, "local", HandoffKept { tokens: 9_000, ..kept() });
    assert_eq!(warmed(&mut world).len(), 1, "that needs another window");
    world.advance(secs(240));
    made(&mut world, 5, "local", HandoffKept { tokens: 9_000, ..kept() });
    assert_eq!(warmed(&mut world).len(), 1, "it may have been unloaded");
}
