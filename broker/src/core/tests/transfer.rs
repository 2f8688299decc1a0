//! A session that is transferred: paused, offered to one process, resumed there, or with its owner as before.

use broker_proto::{
    AcceptHandoff, AskHandoff, Handoff, HandoffId, HandoffState, MessageState, PackageId,
    SessionPause,
};

use super::{
    ahead::{id, say, start},
    world::*,
};
use crate::core::{
    Command, Effect, NewMessage, Refusal, Reply,
    agent::Link,
    handoff::{
        Built, By, Command as HandoffCommand, Refusal as Unmoved, Reply as HandoffReply, Transfer,
    },
    queue::Seq,
    session::{self, Refusal as Refused},
};

const MANIFEST: [u8; 32] = [7; 32];

fn package() -> PackageId {
    PackageId::from_u128(5)
}

/// A session of opus whose first process works on a turn, with another turn behind it, and a second process.
fn world() -> (World, Seq, Seq) {
    let mut world = World::empty(policy());
    start(&mut world);
    world.greet("opus", "first", 1);
    let (runs, waits) = (ask(&mut world), ask(&mut world));
    greet_second(&mut world);
    (world, runs, waits)
}

fn greet_second(world: &mut World) {
    world.greet_as(Link { models: vec![model("opus")], ..link("opus-2", "first", 8) }, vec![]);
    // What waits beside the session's turns is not the point here.
    world.effects.clear();
}

fn ask(world: &mut World) -> Seq {
    let new = NewMessage { session: Some("s".into()), ..world.message("opus") };
    world.ask_this(new)
}

fn info(world: &World) -> &broker_proto::SessionInfo {
    &world.state.session.get(&id()).unwrap().info
}

fn worker(world: &World, seq: Seq) -> Option<String> {
    let lease = world.state.queue.get(seq)?.lease()?;
    Some(lease.agent.to_string())
}

fn asking(to: &str, package: Option<PackageId>) -> AskHandoff {
    AskHandoff {
        session: id(),
        to: Some(model(to)),
        agent: Some(agent("opus-2")),
        reason: "a faster machine".into(),
        level: None,
        package,
        is_forced: true,
        at_once: true,
    }
}

fn order(world: &mut World, command: HandoffCommand) -> Result<Handoff, Refusal> {
    match world.decide(Command::Handoff(Box::new(command)))? {
        Reply::Handoff(HandoffReply::Handoff(handoff)) => Ok(*handoff),
        other => panic!("{other:?}"),
    }
}

fn transfer_to(world: &mut World, to: &str, version: u64) -> Result<Handoff, Refusal> {
    let (at, reason, by) = (world.wall(), "a faster machine".to_owned(), "app".to_owned());
    let pause = SessionPause { at, reason, package: package(), by, handoff: None };
    let transfer = Transfer { ask: asking(to, Some(package())), version, pause };
    order(world, HandoffCommand::Transfer(Box::new(transfer)))
}

fn transfer(world: &mut World) -> Handoff {
    let version = info(world).version;
    transfer_to(world, "opus", version).unwrap()
}

fn built(world: &mut World, id: HandoffId) {
    let to = world.state.handoff.get(id).unwrap().to.clone();
    let built = Built { id, to, package: package(), manifest: MANIFEST, kept: Default::default() };
    order(world, HandoffCommand::Built(Box::new(built))).unwrap();
}

fn accepted(world: &mut World, id: HandoffId) {
    let accept = AcceptHandoff { id, manifest: MANIFEST, confirmed: vec![] };
    let by = By::Agent(agent("opus-2"));
    order(world, HandoffCommand::Accept { accept, by }).unwrap();
}

fn resume(world: &mut World) -> Result<Reply, Refusal> {
    world.decide(Command::Session(Box::new(session::Command::Resume { id: id() })))
}

/// Both turns are answered, once each, and by this agent.
#[track_caller]
fn done_by(world: &mut World, seqs: [Seq; 2], agent: &str) {
    for seq in seqs {
        assert_eq!(worker(world, seq).as_deref(), Some(agent), "{seq:?}");
        world.done(seq);
        assert_eq!(world.end(seq), Some(MessageState::Done));
    }
}

#[test]
fn it_is_paused_and_offered_in_one_commit_and_goes_on_where_it_is_taken() {
    let (mut world, runs, waits) = world();
    assert_eq!(worker(&world, runs).as_deref(), Some("opus"));
    let late = world.settlement(runs, done());

    let begun = transfer(&mut world);

    let pause = info(&world).pause.clone().unwrap();
    assert_eq!((pause.package, pause.handoff, &*pause.by), (package(), Some(begun.id), "app"));
    assert_eq!((begun.state, begun.package), (HandoffState::Building, Some(package())));
    let stopped = |effect: &Effect| matches!(effect, Effect::Stop { seq, .. } if *seq == runs);
    assert!(world.effects.iter().any(stopped), "what runs is stopped, and what it said kept");
    assert!(matches!(world.settle_with(late), Err(Refusal::LeaseLost(_))));
    assert_eq!((worker(&world, runs), worker(&world, waits)), (None, None));

    built(&mut world, begun.id);
    accepted(&mut world, begun.id);

    let info = info(&world);
    assert_eq!((info.owner.agent.clone(), info.owner.epoch), (Some(agent("opus-2")), 2));
    assert_eq!(info.pause, None);
    done_by(&mut world, [runs, waits], "opus-2");
}

/// What comes to nothing leaves one owner, the one from before, and a session that runs.
#[track_caller]
fn comes_to_nothing(end: impl FnOnce(&mut World, HandoffId)) {
    let (mut world, runs, waits) = world();
    let begun = transfer(&mut world);
    end(&mut world, begun.id);
    let info = info(&world);
    assert_eq!((info.owner.agent.clone(), info.owner.epoch, &info.pause), (None, 1, &None));
    assert!(world.state.handoff.open(&id()).is_none());
    world.credit("opus", 8);
    for seq in [runs, waits] {
        assert!(worker(&world, seq).is_some(), "{seq:?}");
        world.done(seq);
        assert_eq!(world.end(seq), Some(MessageState::Done));
    }
}

#[test]
fn one_that_nobody_takes_leaves_the_session_running_with_its_owner() {
    comes_to_nothing(|world, id| {
        let to = model("opus");
        let reason = "no room".to_owned();
        order(world, HandoffCommand::NotBuilt { id, to, reason }).unwrap();
    });
    comes_to_nothing(|world, _| world.advance(secs(31)));
    comes_to_nothing(|world, id| {
        built(world, id);
        let by = By::Agent(agent("opus-2"));
        order(world, HandoffCommand::Decline { id, by, reason: "busy".into(), for_model: false })
            .unwrap();
    });
    comes_to_nothing(|world, id| {
        built(world, id);
        world.advance(secs(11));
    });
    comes_to_nothing(|world, id| {
        built(world, id);
        order(
            world,
            HandoffCommand::Decline { id, by: By::Person, reason: String::new(), for_model: false },
        )
        .unwrap();
    });
}

#[test]
fn a_broker_that_stops_in_between_goes_on_with_it() {
    let (mut world, runs, waits) = world();
    let begun = transfer(&mut world);
    world.effects.clear();
    world.restart(secs(1));
    let builds = |effect: &Effect| matches!(effect, Effect::Build(it) if it.id == begun.id);
    assert!(world.effects.iter().any(builds), "its package is read again");
    assert_eq!(info(&world).pause.as_ref().and_then(|pause| pause.handoff), Some(begun.id));
    built(&mut world, begun.id);
    world.restart(secs(1));
    world.greet("opus", "second", 8);
    greet_second(&mut world);
    assert_eq!((worker(&world, runs), worker(&world, waits)), (None, None));
    accepted(&mut world, begun.id);
    done_by(&mut world, [runs, waits], "opus-2");
}

#[test]
fn what_cannot_move_is_not_paused_either() {
    let (mut world, runs, _) = world();
    let version = info(&world).version;
    let before = world.journal.len();
    let stale = transfer_to(&mut world, "opus", version - 1);
    assert!(matches!(stale, Err(Refusal::Session(Refused::Moved(_)))), "{stale:?}");
    let unknown = transfer_to(&mut world, "nothing", version);
    assert!(matches!(unknown, Err(Refusal::UnknownModel { .. })), "{unknown:?}");
    assert_eq!((world.journal.len(), &info(&world).pause), (before, &None));
    assert_eq!(worker(&world, runs).as_deref(), Some("opus"), "it works on");

    let begun = transfer(&mut world);
    let version = info(&world).version;
    let again = transfer_to(&mut world, "opus", version);
    assert_eq!(again, Err(Refusal::Session(Refused::Paused(id()))));
    built(&mut world, begun.id);
    let resumed = resume(&mut world);
    assert!(matches!(resumed, Err(Refusal::Handoff(Unmoved::UnderWay { .. }))), "{resumed:?}");
}

#[test]
fn a_session_that_somebody_paused_stays_so_when_nobody_takes_it() {
    let (mut world, runs, waits) = world();
    let (at, version) = (world.wall(), info(&world).version);
    let pause = SessionPause {
        at,
        reason: "lunch".into(),
        package: package(),
        by: "app".into(),
        handoff: None,
    };
    let pausing = session::Command::Pause { id: id(), version, pause: pause.clone() };
    world.run(Command::Session(Box::new(pausing)));
    let begun = order(&mut world, HandoffCommand::Begin(Box::new(asking("opus", None)))).unwrap();
    built(&mut world, begun.id);
    let by = By::Agent(agent("opus-2"));
    let decline =
        HandoffCommand::Decline { id: begun.id, by, reason: "busy".into(), for_model: false };
    order(&mut world, decline).unwrap();
    assert_eq!(info(&world).pause, Some(pause));
    assert_eq!((worker(&world, runs), worker(&world, waits)), (None, None));
    resume(&mut world).unwrap();
    say(&mut world, 1);
}

#[test]
fn a_session_that_is_deleted_on_its_way_leaves_nothing_held() {
    let (mut world, runs, waits) = world();
    transfer(&mut world);
    world.run(Command::Session(Box::new(session::Command::Delete { id: id() })));
    world.credit("opus", 8);
    for seq in [runs, waits] {
        world.done(seq);
        assert_eq!(world.end(seq), Some(MessageState::Done));
    }
}
