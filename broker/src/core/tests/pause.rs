//! A session that is paused: nothing of it is worked on, nothing is lost, nothing new begins.

use broker_proto::{
    AcceptHandoff, AskHandoff, MessageState, PackageId, SessionPause, TaskState, UsageRecord,
};

use super::{
    ahead::{id, say, start},
    world::*,
};
use crate::core::{
    Command, Effect, NewMessage, Refusal, Reply, TaskStep,
    agent::Link,
    handoff::{Built, By, Command as HandoffCommand, Refusal as Unmoved, Reply as HandoffReply},
    queue::{Hold, Place, Seq},
    session::{self, Refusal as Refused},
    usage,
};

fn world() -> World {
    let mut world = World::new();
    start(&mut world);
    world
}

fn turn(world: &mut World, asked: &str) -> NewMessage {
    NewMessage { session: Some("s".into()), ..world.message(asked) }
}

fn ask(world: &mut World, asked: &str) -> Seq {
    let new = turn(world, asked);
    world.ask_this(new)
}

fn version(world: &World) -> u64 {
    world.state.session.get(&id()).unwrap().info.version
}

fn pause_at(world: &mut World, version: u64) -> Result<Reply, Refusal> {
    let pause = SessionPause {
        at: world.now().wall,
        reason: "lunch".into(),
        package: PackageId::from_u128(5),
    };
    let pause = session::Command::Pause { id: id(), version, pause };
    world.decide(Command::Session(Box::new(pause)))
}

fn pause(world: &mut World) -> Result<Reply, Refusal> {
    let now = version(world);
    pause_at(world, now)
}

fn resume(world: &mut World) -> Result<Reply, Refusal> {
    world.decide(Command::Session(Box::new(session::Command::Resume { id: id() })))
}

fn is_held(world: &World, seq: Seq) -> bool {
    matches!(world.state.queue.get(seq).unwrap().place, Place::Held(Hold::Paused))
}

#[test]
fn what_runs_is_suspended_and_what_waits_is_kept_until_it_is_resumed() {
    let mut world = World::empty(policy());
    start(&mut world);
    world.greet("opus", "first", 1);
    let (runs, waits) = (ask(&mut world, "opus"), ask(&mut world, "opus"));
    let late = world.settlement(runs, done());
    world.effects.clear();

    pause(&mut world).unwrap();

    assert!(is_held(&world, runs) && is_held(&world, waits));
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Revoke { .. })));
    assert!(matches!(world.settle_with(late), Err(Refusal::LeaseLost(_))));
    world.credit("opus", 4);
    let before = world.deliveries.len();
    world.restart(secs(1));
    world.greet("opus", "first", 4);
    assert_eq!(world.deliveries.len(), before);

    resume(&mut world).unwrap();

    world.done(runs);
    world.done(waits);
    assert_eq!(world.end(runs), Some(MessageState::Done));
    assert_eq!(world.end(waits), Some(MessageState::Done));
}

#[test]
fn a_paused_session_takes_no_turn_and_no_entry_and_others_run_on() {
    let mut world = world();
    pause(&mut world).unwrap();
    let new = turn(&mut world, "opus");
    let refused = world.step(Command::Send(Box::new(new))).unwrap_err();
    assert_eq!(refused, Refusal::Session(Refused::Paused(id())));
    let other = world.ask("opus");
    world.done(other);
    assert_eq!(world.end(other), Some(MessageState::Done));

    resume(&mut world).unwrap();
    say(&mut world, 3);
    let turn = ask(&mut world, "opus");
    world.done(turn);
    assert_eq!(world.end(turn), Some(MessageState::Done));
}

#[test]
fn only_what_runs_is_paused_and_only_what_is_paused_is_resumed() {
    let mut world = world();
    assert_eq!(resume(&mut world), Err(Refusal::Session(Refused::Running(id()))));
    let old = version(&world);
    say(&mut world, 3);
    // Its package is not of this moment.
    let refused = pause_at(&mut world, old);
    assert!(matches!(refused, Err(Refusal::Session(Refused::Moved(_)))), "{refused:?}");
    pause(&mut world).unwrap();
    assert_eq!(pause(&mut world), Err(Refusal::Session(Refused::Paused(id()))));
    resume(&mut world).unwrap();
    assert_eq!(resume(&mut world), Err(Refusal::Session(Refused::Running(id()))));
}

fn ask_handoff(to: &str) -> AskHandoff {
    AskHandoff {
        session: id(),
        to: Some(model(to)),
        agent: None,
        reason: String::new(),
        level: None,
        package: None,
        is_forced: true,
        at_once: true,
    }
}

fn begin(world: &mut World) -> Result<broker_proto::Handoff, Refusal> {
    let ask = ask_handoff("sonnet");
    match world.decide(Command::Handoff(Box::new(HandoffCommand::Begin(Box::new(ask)))))? {
        Reply::Handoff(HandoffReply::Handoff(handoff)) => Ok(*handoff),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_paused_session_goes_where_somebody_sends_it_and_goes_on_there() {
    let mut world = world();
    let waits = ask(&mut world, "opus");
    let advice = ask(&mut world, "gpt-4o");
    pause(&mut world).unwrap();
    // A limit moves no paused session.
    let record = usage::Record {
        model: Some(model("opus")),
        session: Some("s".into()),
        what: UsageRecord::Tokens(tokens(190_000, 0)),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    assert!(world.state.handoff.open(&id()).is_none());

    let handoff = begin(&mut world).unwrap();
    let package = PackageId::from_u128(6);
    let built = Built { id: handoff.id, package, manifest: [7; 32], kept: Default::default() };
    world.run(Command::Handoff(Box::new(HandoffCommand::Built(Box::new(built)))));
    let accept = AcceptHandoff { id: handoff.id, manifest: [7; 32], confirmed: vec![] };
    let by = By::Agent(agent("sonnet"));
    world.run(Command::Handoff(Box::new(HandoffCommand::Accept { accept, by })));

    let info = &world.state.session.get(&id()).unwrap().info;
    assert_eq!((info.owner.model.as_str(), &info.pause), ("sonnet", &None));
    assert_eq!((world.called(waits), world.called(advice)), ("sonnet".into(), "gpt-4o".into()));
}

/// A second process serves the model of the first, and takes the session over.
fn taken_over(world: &mut World) {
    let second = Link { models: vec![model("opus")], ..link("opus-2", "first", 1) };
    world.greet_as(second, vec![]);
    let ask = AskHandoff { agent: Some(agent("opus-2")), ..ask_handoff("opus") };
    let begun = match world.run(Command::Handoff(Box::new(HandoffCommand::Begin(Box::new(ask))))) {
        Reply::Handoff(HandoffReply::Handoff(handoff)) => *handoff,
        other => panic!("{other:?}"),
    };
    let package = PackageId::from_u128(6);
    let built = Built { id: begun.id, package, manifest: [7; 32], kept: Default::default() };
    world.run(Command::Handoff(Box::new(HandoffCommand::Built(Box::new(built)))));
    let accept = AcceptHandoff { id: begun.id, manifest: [7; 32], confirmed: vec![] };
    let refused = world.decide(Command::Handoff(Box::new(HandoffCommand::Accept {
        accept: accept.clone(),
        by: By::Agent(agent("opus")),
    })));
    assert!(matches!(refused, Err(Refusal::Handoff(Unmoved::NotYours { .. }))), "{refused:?}");
    let by = By::Agent(agent("opus-2"));
    world.run(Command::Handoff(Box::new(HandoffCommand::Accept { accept, by })));
}

#[test]
fn a_turn_goes_to_the_agent_that_has_its_session_while_it_is_there() {
    let mut world = world();
    taken_over(&mut world);
    let worker = |world: &World, seq: Seq| {
        let lease = world.state.queue.get(seq).unwrap().lease();
        lease.map(|lease| lease.agent.to_string())
    };
    let (first, next) = (ask(&mut world, "opus"), ask(&mut world, "opus"));
    let other = world.ask("opus");
    // The other process has plenty of credit, and works on what is not the session's.
    assert_eq!(worker(&world, first).as_deref(), Some("opus-2"));
    assert_eq!((worker(&world, next), worker(&world, other).as_deref()), (None, Some("opus")));

    world.hang_up("opus-2");
    world.run(Command::Tick);
    let later = ask(&mut world, "opus");
    assert_eq!(worker(&world, later).as_deref(), Some("opus"), "it is not there any more");
}

#[test]
fn a_session_on_its_way_is_not_paused() {
    let mut world = world();
    begin(&mut world).unwrap();
    let refused = pause(&mut world);
    assert!(matches!(refused, Err(Refusal::Handoff(Unmoved::UnderWay { .. }))), "{refused:?}");
}

#[test]
fn what_a_person_suspended_stays_so_when_the_session_goes_on() {
    let mut world = world();
    let mut new = turn(&mut world, "opus");
    new.kind = broker_proto::MessageType::Delegation;
    let task = world.ask_this(new);
    world.run(Command::Task { seq: task, step: TaskStep::Suspend });
    pause(&mut world).unwrap();
    // Resumed meanwhile, it waits for its session.
    let resumed = world.run(Command::Task { seq: task, step: TaskStep::Resume });
    assert_eq!(resumed, Reply::Task(TaskState::Suspended));
    assert!(is_held(&world, task));
    resume(&mut world).unwrap();
    world.done(task);
    assert_eq!(world.end(task), Some(MessageState::Done));
}
