//! Sessions that go along with a ring.

use broker_proto::{
    AcceptHandoff, ContentHash, HandoffId, HandoffKept, HandoffState, ModelName, PackageId,
    SessionId, SessionOwner, TriggerKind,
};

use super::{super::handoff::ask_turn, *};
use crate::core::{
    handoff,
    package::{self, sample},
    queue::Body,
    session,
};

const MANIFEST: [u8; 32] = [7; 32];

fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

/// A session of opus that `pc1` took over.
fn session_of_first(world: &mut World) {
    begun(world, id());
    take(world, "pc1");
}

/// A session of opus that is offered to `pc1`.
fn begun(world: &mut World, id: SessionId) {
    let entry =
        session::NewEntry { hash: ContentHash([1; 32]), length: 4, tokens: 30, size_bytes: 4 };
    let start = session::Start {
        id: id.clone(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: session::Point::default(),
        entries: session::NewEntries { entries: vec![entry], ..Default::default() },
        change: session::Change::Imported,
    };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(start)))));
    let ask = broker_proto::AskHandoff {
        session: id,
        to: Some(model("opus")),
        agent: Some(agent("pc1")),
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    };
    world.run(Command::Handoff(Box::new(handoff::Command::Begin(Box::new(ask)))));
}

fn built(world: &mut World) {
    built_of(world, &id());
}

fn built_of(world: &mut World, session: &SessionId) {
    let open = world.state.handoff.open(session).unwrap();
    let (id, to) = (open.id, open.to.clone());
    let kept = HandoffKept { entries: 1, tokens_before: 30, tokens: 9, ..HandoffKept::default() };
    let package = package_of(id);
    keep(world, session, package, &to);
    let built = handoff::Built { id, to, package, manifest: MANIFEST, kept };
    world.run(Command::Handoff(Box::new(handoff::Command::Built(Box::new(built)))));
}

fn package_of(handoff: HandoffId) -> PackageId {
    PackageId::from_u128(handoff.number())
}

/// A package of a session for a receiver, in the store.
fn keep(world: &mut World, session: &SessionId, id: PackageId, to: &ModelName) {
    let mut info = sample::info(1);
    let header = &mut info.header;
    (header.id, header.session, header.recipient) = (id, Some(session.clone()), Some(to.clone()));
    header.nonce = *id.to_string().as_bytes().last_chunk().unwrap();
    let save = package::Command::Save { info: Box::new(info), body: Body::default(), of: None };
    world.run(Command::Package(save));
}

fn take(world: &mut World, name: &str) {
    built(world);
    accept(world, &id(), name);
}

fn accept(world: &mut World, session: &SessionId, name: &str) {
    let open = world.state.handoff.open(session).unwrap().id;
    let accept = AcceptHandoff { id: open, manifest: MANIFEST, confirmed: vec![] };
    let by = handoff::By::Agent(agent(name));
    world.run(Command::Handoff(Box::new(handoff::Command::Accept { accept, by })));
}

fn session_owner(world: &World) -> SessionOwner {
    world.state.session.get(&id()).unwrap().info.owner.clone()
}

fn last(world: &World) -> broker_proto::Handoff {
    world.state.handoff.last(&id()).unwrap().clone()
}

/// The packages whose work goes on, in the order in which that was said.
fn archived(world: &World) -> Vec<PackageId> {
    let archived = |event: &Event| match event {
        Event::Package(event) => match **event {
            package::Event::Archived { id, .. } => Some(id),
            _ => None,
        },
        _ => None,
    };
    world.journal.iter().filter_map(archived).collect()
}

#[test]
fn the_sessions_of_the_outgoing_one_go_along_and_the_ring_waits_for_them() {
    let mut world = ring();
    session_of_first(&mut world);
    assert_eq!(session_owner(&world).agent, Some(agent("pc1")));

    let rotation = force(&mut world, None).unwrap();
    assert_eq!((rotation.state, rotation.owner), (RotationState::HandingOver, Some(agent("pc1"))));
    take(&mut world, "pc2");

    assert_eq!(session_owner(&world).agent, Some(agent("pc2")));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    // Nothing is archived before work goes on.
    assert_eq!(archived(&world), []);
    let work = for_role(&mut world);
    assert_eq!(archived(&world), []);
    world.done(work);
    let package = package_of(last(&world).id);
    assert_eq!(told(&world).last(), Some(&What::Resumed { packages: vec![package] }));
    assert_eq!(archived(&world), [package]);
    assert!(!world.state.package.may_archive(package));
    world.restart(secs(1));
    assert!(!world.state.package.may_archive(package), "a restart forgets it");
}

#[test]
fn a_package_is_archived_when_its_sessions_new_owner_says_that_it_has_taken_it_up() {
    let mut world = ring();
    session_of_first(&mut world);
    let handoff = last(&world);
    assert_eq!((handoff.state, archived(&world)), (HandoffState::Active, vec![]));
    let by = handoff::By::Agent(agent("pc1"));
    let complete = handoff::Command::Complete { id: handoff.id, by, outcome: String::new() };
    for _ in 0..2 {
        world.run(Command::Handoff(Box::new(complete.clone())));
        assert_eq!(archived(&world), [package_of(handoff.id)]);
    }
}

#[test]
fn sessions_move_for_the_reason_that_their_ring_does() {
    let mut world = ring();
    session_of_first(&mut world);
    force(&mut world, None).unwrap();
    take(&mut world, "pc2");
    let trigger = last(&world).trigger;
    assert_eq!(trigger.kind, TriggerKind::UserRequest);
    assert_eq!(trigger.reasoning, "rotation of builder: somebody asked for it");

    for _ in 0..3 {
        record(&mut world, UsageRecord::RateLimit);
    }
    take(&mut world, "pc3");
    let moved = last(&world);
    assert_eq!((moved.trigger.kind, moved.hops), (TriggerKind::UsageLimit, 0));
    assert!(moved.trigger.reasoning.contains("3 of 3 rate limits"), "{:?}", moved.trigger);

    // Somebody drains it.
    world.advance(PAUSE);
    world.run(Command::Drain { agent: Some(agent("pc3")), is_over: false });
    assert_eq!(last(&world).trigger.kind, TriggerKind::UserRequest);
}

/// However often the ring goes round, nothing is kept of it but the last.
#[test]
fn a_sessions_moves_with_its_ring_count_no_hops_and_lead_back_nowhere() {
    let mut world = World::empty(policy());
    let serving = [("pc1", "opus"), ("pc2", "sonnet")];
    for (name, serves) in serving {
        world.greet_as(Link { models: vec![model(serves)], ..member(name, 20) }, vec![]);
    }
    set(&mut world, wanted(&["pc1", "pc2"])).unwrap();
    session_of_first(&mut world);
    for round in 0..31 {
        let ((_, serves), (next, _)) = (serving[round % 2], serving[(round + 1) % 2]);
        for _ in 0..3 {
            let what = UsageRecord::RateLimit;
            let record = usage::Record { model: Some(model(serves)), session: None, what };
            world.run(Command::Usage(Box::new(usage::Command::Record(record))));
        }
        take(&mut world, next);
        assert_eq!(session_owner(&world).agent, Some(agent(next)), "round {round}");
        world.advance(PAUSE);
    }
    let track = world.state.handoff.track(&id()).unwrap();
    assert_eq!((track.hops, track.origin.as_ref(), track.away.len()), (0, None, 1));
}

#[test]
fn a_ring_moves_two_hundred_sessions_in_batches_and_has_its_new_owner_when_all_are_there() {
    let mut world = ring();
    let ids: Vec<SessionId> =
        (0..200).map(|at| SessionId::parse(&format!("s-{at:03}")).unwrap()).collect();
    for session in &ids {
        begun(&mut world, session.clone());
        built_of(&mut world, session);
        accept(&mut world, session, "pc1");
    }
    assert_eq!(force(&mut world, None).unwrap().handover.unwrap().sessions, 200);
    let (mut batches, mut moved) = (0, 0);
    loop {
        let open: Vec<SessionId> = world
            .state
            .handoff
            .all_open()
            .filter(|it| it.state.is_pending())
            .map(|it| it.session.clone())
            .collect();
        if open.is_empty() {
            break;
        }
        assert!(open.len() <= 64, "{}", open.len());
        assert_eq!(owner(&world).as_deref(), Some("pc1"), "batch {batches}");
        // Each batch has as long as the first: four of them last longer than the deadline of one.
        world.advance(secs(25));
        for session in &open {
            built_of(&mut world, session);
            accept(&mut world, session, "pc2");
        }
        (batches, moved) = (batches + 1, moved + open.len());
    }
    assert_eq!((batches, moved), (4, 200));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    let of =
        |session: &SessionId| world.state.session.get(session).unwrap().info.owner.agent.clone();
    assert!(ids.iter().all(|session| of(session) == Some(agent("pc2"))));
    let work = for_role(&mut world);
    world.done(work);
    assert_eq!(archived(&world).len(), 200);
}

/// One batch that is declined does not undo what was taken before it.
#[test]
fn a_member_that_took_most_of_the_sessions_is_not_passed_over_for_the_last() {
    let mut world = ring();
    for at in 0..65 {
        let session = SessionId::parse(&format!("s-{at:03}")).unwrap();
        begun(&mut world, session.clone());
        built_of(&mut world, &session);
        accept(&mut world, &session, "pc1");
    }
    force(&mut world, None).unwrap();
    for at in 0..64 {
        let session = SessionId::parse(&format!("s-{at:03}")).unwrap();
        built_of(&mut world, &session);
        accept(&mut world, &session, "pc2");
    }
    let rest = SessionId::parse("s-064").unwrap();
    built_of(&mut world, &rest);
    let open = world.state.handoff.open(&rest).unwrap().id;
    let by = handoff::By::Agent(agent("pc2"));
    let decline =
        handoff::Command::Decline { id: open, by, reason: "too large".into(), for_model: false };
    world.run(Command::Handoff(Box::new(decline)));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    assert_eq!(world.state.session.get(&rest).unwrap().info.owner.agent, Some(agent("pc1")));
}

#[test]
fn one_that_does_not_take_the_sessions_is_passed_over_and_the_next_gets_them() {
    let mut world = ring_of(|policy| policy.handoff.offer_deadline = secs(3_600));
    session_of_first(&mut world);
    force(&mut world, None).unwrap();
    built(&mut world);
    world.advance(secs(60));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    let handover = shown(&mut world).handover.unwrap();
    assert_eq!(handover.to, Some(agent("pc3")));
    take(&mut world, "pc3");
    assert_eq!(owner(&world).as_deref(), Some("pc3"));
    assert_eq!(session_owner(&world).agent, Some(agent("pc3")));
}

/// A ring with a member that serves sonnet too, and an agent of sonnet beside it; opus may use 100,000 tokens a day.
fn limited_ring() -> World {
    let mut policy = policy();
    policy.handoff.auto_switch = true;
    let key = usage::BudgetKey {
        kind: usage::ScopeKind::Model,
        name: "opus".into(),
        span: usage::Span::Day,
        unit: usage::Unit::Tokens,
    };
    policy.budgets.insert(key, 100_000);
    let mut world = World::empty(policy).with_agent("sonnet", 20);
    world.greet_as(member("pc1", 20), vec![]);
    let both = vec![model("opus"), model("sonnet")];
    world.greet_as(Link { models: both, ..member("pc2", 20) }, vec![]);
    set(&mut world, wanted(&["pc1", "pc2"])).unwrap();
    session_of_first(&mut world);
    world
}

fn tokens_of(world: &mut World, session: Option<&str>, input: u64) {
    let what = UsageRecord::Tokens(tokens(input, 0));
    let session = session.map(str::to_owned);
    let record = usage::Record { model: Some(model("opus")), session, what };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}

#[test]
fn a_models_limit_moves_the_sessions_of_a_ring_within_the_ring() {
    let mut world = limited_ring();
    let turn = ask_turn(&mut world, "opus");
    tokens_of(&mut world, None, 100_000);

    let moving = last(&world);
    assert_eq!((moving.to, moving.agent), (model("sonnet"), Some(agent("pc2"))));
    assert!(moving.trigger.reasoning.starts_with("rotation of builder: "), "{:?}", moving.trigger);
    assert_eq!((moving.trigger.kind, moving.is_lent), (TriggerKind::UsageLimit, false));
    take(&mut world, "pc2");
    // Its old owner ends what it works on.
    world.done(turn);
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
}

#[test]
fn what_a_turn_or_an_advice_asks_for_leaves_a_rings_session_where_its_ring_is() {
    let mut world = limited_ring();
    let before = last(&world).id;
    // It would be better off with an abler or a cheaper model, and its next turn would reach the limit.
    tokens_of(&mut world, None, 96_000);
    ask_turn(&mut world, "opus");
    assert_eq!(last(&world).id, before);
    assert_eq!(world.state.handoff.advised(&id()), None);

    // Without the ring it moves.
    set(&mut world, SetRotation { members: vec![], is_on: false, ..wanted(&[]) }).unwrap();
    ask_turn(&mut world, "opus");
    assert_ne!(last(&world).id, before);
}

#[test]
fn what_outgrows_its_window_leaves_its_ring() {
    let mut world = limited_ring();
    let before = last(&world).id;
    tokens_of(&mut world, Some("s"), 99_000);
    assert_eq!(last(&world).id, before);
    let mut policy = world.state.policy.clone();
    policy.budgets.clear();
    world.state.policy = policy;
    tokens_of(&mut world, Some("s"), 90_000);
    let moving = last(&world);
    assert_eq!((moving.to, moving.trigger.kind), (model("sonnet"), TriggerKind::UsageLimit));
    assert!(!moving.trigger.reasoning.contains("rotation"), "{:?}", moving.trigger);
}

#[test]
fn a_ring_without_a_healthy_member_lets_its_sessions_go() {
    let mut world = limited_ring();
    world.hang_up("pc2");
    tokens_of(&mut world, None, 100_000);
    assert_eq!(shown(&mut world).state, RotationState::Stopped);
    let before = last(&world).id;
    ask_turn(&mut world, "opus");
    let moving = last(&world);
    assert_ne!(moving.id, before);
    assert_eq!((moving.to, moving.agent), (model("sonnet"), None));
}
