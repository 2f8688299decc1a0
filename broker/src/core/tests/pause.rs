//! A session that is paused: nothing of it is worked on, nothing is lost, nothing new begins.

use broker_proto::{
    AcceptHandoff, AskHandoff, FailureClass, MessageState, PackageId, Recipient, RoleName,
    SessionPause, TaskState, UsageRecord,
};

use super::{
    ahead::{id, say, start},
    world::*,
};
use crate::core::{
    Command, Effect, Event, Letters, NewMessage, Outcome, Refusal, Reply, TaskStep, Which,
    agent::Link,
    handoff::{Built, By, Command as HandoffCommand, Refusal as Unmoved, Reply as HandoffReply},
    queue::{Body, Digest, Hold, Place, Seq},
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
        by: "app".into(),
        handoff: None,
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
    let built = Built {
        id: handoff.id,
        to: handoff.to.clone(),
        package,
        manifest: [7; 32],
        kept: Default::default(),
    };
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
    let built = Built {
        id: begun.id,
        to: begun.to.clone(),
        package,
        manifest: [7; 32],
        kept: Default::default(),
    };
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

fn worker(world: &World, seq: Seq) -> Option<String> {
    let lease = world.state.queue.get(seq).unwrap().lease();
    lease.map(|lease| lease.agent.to_string())
}

fn why(world: &World, seq: Seq) -> String {
    world.state.queue.get(seq).unwrap().consultation.as_ref().unwrap().why.clone()
}

#[test]
fn a_turn_goes_to_the_agent_that_has_its_session_and_waits_for_it_a_while() {
    let mut world = world();
    taken_over(&mut world);
    let (first, next) = (ask(&mut world, "opus"), ask(&mut world, "opus"));
    let other = world.ask("opus");
    // The other process has plenty of credit, and works on what is not the session's.
    assert_eq!(worker(&world, first).as_deref(), Some("opus-2"));
    assert_eq!((worker(&world, next), worker(&world, other).as_deref()), (None, Some("opus")));

    world.hang_up("opus-2");
    world.run(Command::Tick);
    let later = ask(&mut world, "opus");
    assert_eq!(worker(&world, later), None, "a process that starts again finds its turns");
    assert!(
        why(&world, later).contains("waits up to 5 s for agent opus-2"),
        "{}",
        why(&world, later)
    );
    world.advance(GRACE);
    assert_eq!(worker(&world, later).as_deref(), Some("opus"), "nobody waits for ever");
    assert!(why(&world, later).contains("agent opus-2, which has its session, is away"));
    let last = ask(&mut world, "opus");
    assert_eq!(worker(&world, last).as_deref(), Some("opus"));
    assert_eq!(why(&world, last), "asked; agent opus-2, which has its session, is away");
    let second = Link { models: vec![model("opus")], ..link("opus-2", "again", 8) };
    world.greet_as(second, vec![]);
    let back = ask(&mut world, "opus");
    assert_eq!(worker(&world, back).as_deref(), Some("opus-2"), "the session is still its own");
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

/// Tasks of the session in an agent's mailbox and at a role, and one of nobody's session.
fn given_out(world: &mut World) -> [Seq; 3] {
    let builder = RoleName::parse("builder").unwrap();
    let up = Link { roles: vec![builder.clone()], ..link("worker", "first", 8) };
    world.greet_as(up, vec![]);
    let mut give = |to: Recipient, session: Option<&str>| {
        let id = world.new_id();
        let new = NewMessage { session: session.map(Into::into), ..letter(id, to) };
        let seq = world.state.queue.next_seq();
        world.run(Command::Send(Box::new(new)));
        seq
    };
    let mailbox = Recipient::Agent(agent("worker"));
    [
        give(mailbox.clone(), Some("s")),
        give(Recipient::Role(builder), Some("s")),
        give(mailbox, None),
    ]
}

#[test]
fn tasks_that_agents_and_roles_do_for_it_are_suspended_and_done_once() {
    let mut world = world();
    let [own, roles, other] = given_out(&mut world);
    let late = world.settlement(own, done());
    let given = world.deliveries.len();
    world.effects.clear();

    pause(&mut world).unwrap();

    assert!(is_held(&world, own) && is_held(&world, roles));
    assert!(world.state.queue.get(other).unwrap().lease().is_some(), "it is of no session");
    let stops = |effect: &Effect| match effect {
        Effect::Stop { seq, .. } => Some(*seq),
        _ => None,
    };
    let stopped: Vec<Seq> = world.effects.iter().filter_map(stops).collect();
    assert_eq!(stopped, [own, roles], "what they said so far is asked for");
    assert!(matches!(world.settle_with(late), Err(Refusal::LeaseLost(_))));
    let new = NewMessage {
        session: Some("s".into()),
        ..letter(world.new_id(), Recipient::Agent(agent("worker")))
    };
    let refused = world.step(Command::Send(Box::new(new)));
    assert_eq!(refused.unwrap_err(), Refusal::Session(Refused::Paused(id())));
    world.restart(secs(1));
    let up = Link { roles: vec![RoleName::parse("builder").unwrap()], ..link("worker", "2nd", 8) };
    world.greet_as(up, vec![]);
    let beside = world.deliveries.iter().skip(given).any(|it| it.seq == own || it.seq == roles);
    assert!(!beside, "nothing is given out while it is paused");

    resume(&mut world).unwrap();

    for seq in [own, roles] {
        world.done(seq);
        assert_eq!(world.end(seq), Some(MessageState::Done));
        let times = world.deliveries.iter().filter(|it| it.seq == seq).count();
        assert_eq!(times, 2, "once before the pause, once after it");
    }
}

#[test]
fn what_a_mailbox_had_said_is_kept_with_the_pause() {
    let mut world = world();
    let [own, ..] = given_out(&mut world);
    world.seals_wait = true;
    pause(&mut world).unwrap();
    let (_, epoch) = *world.seals.iter().find(|(seq, _)| *seq == own).unwrap();
    let partial = Some(Body { size_bytes: 9, ..Body::default() });
    world.run(Command::Sealed { seq: own, epoch, shown: false, partial: partial.clone() });
    let kept = world.journal.iter().rev().find_map(|event| match event {
        Event::TaskStopped { subject, partial, .. } if subject.seq == own => Some(partial.clone()),
        _ => None,
    });
    assert_eq!(kept, Some(partial));
}

#[test]
fn a_task_that_a_person_suspended_or_that_asked_back_waits_for_its_session() {
    let mut world = world();
    let [own, roles, _] = given_out(&mut world);
    world.run(Command::Task { seq: own, step: TaskStep::Suspend });
    let question = Body { size_bytes: 9, ..Body::default() };
    let asks = world.settlement(roles, Outcome::Ask { question, shown: false });
    world.settle_with(asks).unwrap();
    pause(&mut world).unwrap();

    let resumed = world.run(Command::Task { seq: own, step: TaskStep::Resume });
    let answer = TaskStep::Provide {
        id: world.new_id(),
        digest: Digest([2; 32]),
        question: 1,
        answer: Body::default(),
        has_images: false,
    };
    world.run(Command::Task { seq: roles, step: answer });

    assert_eq!(resumed, Reply::Task(TaskState::Suspended));
    assert!(is_held(&world, own) && is_held(&world, roles));
    resume(&mut world).unwrap();
    world.done(own);
    world.done(roles);
    assert_eq!(world.end(roles), Some(MessageState::Done));
}

#[test]
fn a_deleted_session_leaves_its_tasks_to_go_on() {
    let mut world = world();
    let [own, ..] = given_out(&mut world);
    pause(&mut world).unwrap();
    world.run(Command::Session(Box::new(session::Command::Delete { id: id() })));
    world.done(own);
    assert_eq!(world.end(own), Some(MessageState::Done));
}

#[test]
fn a_session_that_only_agents_work_for_waits_for_no_model() {
    let mut world = world();
    given_out(&mut world);
    let limit = FailureClass::QuotaExhausted;
    let other = world.ask("opus");
    world.fail_until(other, limit, secs(3600));
    assert!(world.state.handoff.open(&id()).is_none(), "nothing of it is asked of a model");
}

#[test]
fn an_agent_that_comes_back_in_time_finds_the_turns_of_its_session() {
    let mut world = world();
    taken_over(&mut world);
    world.hang_up("opus-2");
    let waits = ask(&mut world, "opus");
    world.advance(GRACE - secs(1));
    let second = Link { models: vec![model("opus")], ..link("opus-2", "again", 1) };
    world.greet_as(second, vec![]);
    assert_eq!(worker(&world, waits).as_deref(), Some("opus-2"));
}

#[test]
fn after_a_start_a_turn_waits_for_the_agent_that_has_its_session() {
    let mut world = world();
    taken_over(&mut world);
    world.hang_up("opus-2");
    let waits = ask(&mut world, "opus");
    world.restart(secs(1));
    world.greet("opus", "first", 8);
    assert_eq!(worker(&world, waits), None);
    world.advance(GRACE);
    assert_eq!(worker(&world, waits).as_deref(), Some("opus"));
}

#[test]
fn an_agent_that_is_drained_is_not_waited_for() {
    let mut world = world();
    taken_over(&mut world);
    world.run(Command::Drain { agent: Some(agent("opus-2")), is_over: false });
    let turn = ask(&mut world, "opus");
    assert_eq!(worker(&world, turn).as_deref(), Some("opus"));
}

#[test]
fn a_dead_letter_of_a_paused_session_lives_again_when_that_goes_on() {
    let mut world = world();
    let [own, ..] = given_out(&mut world);
    let reject = world.settlement(own, Outcome::Reject { reason: "not mine".into() });
    world.settle_with(reject).unwrap();
    pause(&mut world).unwrap();
    let which = Which::To(Recipient::Agent(agent("worker")));
    world.run(Command::Redrive(Letters { which, after: Seq(0), is_dry_run: false }));
    assert!(is_held(&world, own));
    resume(&mut world).unwrap();
    world.done(own);
    assert_eq!(world.end(own), Some(MessageState::Done));
}

#[test]
fn one_that_leaves_once_it_is_drained_is_not_waited_for_either() {
    let mut world = world();
    taken_over(&mut world);
    world.run(Command::Drain { agent: Some(agent("opus-2")), is_over: false });
    world.hang_up("opus-2");
    let turn = ask(&mut world, "opus");
    assert_eq!(worker(&world, turn).as_deref(), Some("opus"));
}

#[test]
fn an_agent_that_is_back_is_not_said_to_be_away() {
    let mut world = world();
    taken_over(&mut world);
    world.hang_up("opus-2");
    let second = Link { models: vec![model("opus")], ..link("opus-2", "again", 0) };
    world.greet_as(second, vec![]);
    let waits = ask(&mut world, "opus");
    world.advance(GRACE + secs(1));
    assert_eq!((worker(&world, waits), why(&world, waits)), (None, "asked".to_owned()));
}
