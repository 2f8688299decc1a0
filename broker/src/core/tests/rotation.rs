//! Rings: one owner at every moment, and a full turn back to the first.

use std::time::Duration;

use broker_proto::{
    AcceptHandoff, AgentName, ContentHash, FailureClass, ForceRotation, HandoffKept, MessageState,
    PackageId, Pick, Recipient, RoleName, Rotation, RotationState, SessionId, SessionOwner,
    SetRotation, UsageRecord,
};
use proptest::prelude::*;

use super::world::*;
use crate::core::{
    Command, Effect, Event, NewMessage, Policy, Refusal, Reply,
    agent::Link,
    handoff,
    queue::Seq,
    ring::{self, Refusal as Refused, Reply as RingReply, What},
    session, usage,
};

const MEMBERS: [&str; 3] = ["pc1", "pc2", "pc3"];
const PAUSE: Duration = Duration::from_secs(300);

fn role() -> RoleName {
    RoleName::parse("builder").unwrap()
}

fn member(name: &str, messages: u32) -> Link {
    Link { roles: vec![role()], models: vec![model("opus")], ..link(name, "first", messages) }
}

fn wanted(members: &[&str]) -> SetRotation {
    let members = members.iter().map(|name| agent(name)).collect();
    SetRotation { role: role(), members, pick: None, pause: None, is_on: true }
}

fn command(world: &mut World, command: ring::Command) -> Result<Rotation, Refusal> {
    match world.decide(Command::Ring(Box::new(command)))? {
        Reply::Ring(RingReply::Rings(mut rings)) => Ok(rings.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn set(world: &mut World, set: SetRotation) -> Result<Rotation, Refusal> {
    command(world, ring::Command::Set(set))
}

fn force(world: &mut World, to: Option<&str>) -> Result<Rotation, Refusal> {
    let to = to.map(agent);
    command(world, ring::Command::Force(ForceRotation { role: role(), to, reason: String::new() }))
}

fn shown(world: &mut World) -> Rotation {
    match world.run(Command::Query(crate::core::Query::Ring(ring::Query::Get(Some(role()))))) {
        Reply::Ring(RingReply::Rings(mut rings)) => rings.remove(0),
        other => panic!("{other:?}"),
    }
}

fn owner(world: &World) -> Option<String> {
    world.state.ring.get(&role())?.owner.as_ref().map(ToString::to_string)
}

/// Three members that are there, the first of them the owner.
fn ring_of(change: impl FnOnce(&mut Policy)) -> World {
    let mut policy = policy();
    change(&mut policy);
    let mut world = World::empty(policy);
    for name in MEMBERS {
        world.greet_as(member(name, 20), vec![]);
    }
    let rotation = set(&mut world, wanted(&MEMBERS)).unwrap();
    assert_eq!((rotation.state, rotation.epoch), (RotationState::Running, 1));
    world
}

fn ring() -> World {
    ring_of(|_| {})
}

fn task(world: &mut World, to: Recipient) -> Seq {
    let id = world.new_id();
    let seq = world.state.queue.next_seq();
    world.send(NewMessage { ..letter(id, to) }).unwrap();
    seq
}

fn for_role(world: &mut World) -> Seq {
    task(world, Recipient::Role(role()))
}

/// Who was given a message last.
fn taker(world: &World, seq: Seq) -> Option<String> {
    let leased = |event: &Event| match event {
        Event::Leased { subject, agent, .. } if subject.seq == seq => Some(agent.to_string()),
        _ => None,
    };
    world.journal.iter().rev().find_map(leased)
}

fn told(world: &World) -> Vec<What> {
    let what = |event: &Event| match event {
        Event::Ring(event) => Some(event.what.clone()),
        _ => None,
    };
    world.journal.iter().filter_map(what).collect()
}

fn limited(world: &mut World, seq: Seq) {
    world.fail_until(seq, FailureClass::RateLimited, secs(1));
}

fn record(world: &mut World, what: UsageRecord) {
    let record = usage::Record { model: Some(model("opus")), session: None, what };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}

#[test]
fn only_the_owner_takes_from_the_roles_queue_until_the_ring_is_off() {
    let mut world = ring();
    let tasks: Vec<Seq> = (0..3).map(|_| for_role(&mut world)).collect();
    let takers: Vec<_> = tasks.iter().filter_map(|seq| taker(&world, *seq)).collect();
    assert_eq!(takers, ["pc1", "pc1", "pc1"]);

    set(&mut world, SetRotation { members: vec![], is_on: false, ..wanted(&[]) }).unwrap();
    let tasks: Vec<Seq> = (0..3).map(|_| for_role(&mut world)).collect();
    let takers: Vec<_> = tasks.iter().filter_map(|seq| taker(&world, *seq)).collect();
    assert_eq!(takers, ["pc2", "pc3", "pc1"]);
    assert_eq!(shown(&mut world).state, RotationState::Off);
}

#[test]
fn a_forced_handover_takes_what_is_leased_and_addressed_and_has_six_phases() {
    let mut world = World::empty(policy());
    for (name, credit) in [("pc1", 1), ("pc2", 20), ("pc3", 20)] {
        world.greet_as(member(name, credit), vec![]);
    }
    set(&mut world, wanted(&MEMBERS)).unwrap();
    let before = told(&world).len();
    let leased = for_role(&mut world);
    let waits = for_role(&mut world);
    let addressed = task(&mut world, Recipient::Agent(agent("pc1")));
    assert_eq!(taker(&world, waits), None);

    let rotation = force(&mut world, None).unwrap();

    assert_eq!((rotation.owner, rotation.epoch), (Some(agent("pc2")), 2));
    for seq in [leased, waits, addressed] {
        assert_eq!(taker(&world, seq).as_deref(), Some("pc2"), "{seq:?}");
    }
    let phases = [What::Detected, What::Saved, What::Woken, What::Seen, What::Accepted];
    assert_eq!(told(&world)[before..], phases);
    let handover = rotation.handover.unwrap();
    assert_eq!((handover.tasks, handover.from), (3, Some(agent("pc1"))));
    let seen = shown(&mut world).members.remove(0);
    assert!(seen.reason.starts_with("pauses"), "{seen:?}");

    world.done(waits);
    assert!(matches!(told(&world).last(), Some(What::Resumed { .. })), "{:?}", told(&world));
    for seq in [leased, addressed] {
        world.done(seq);
        assert_eq!(world.end(seq), Some(MessageState::Done));
    }
}

#[test]
fn the_third_rate_limit_hands_on_and_the_second_does_not() {
    let mut world = ring();
    let work = for_role(&mut world);
    for limit in 1..=3 {
        assert_eq!(owner(&world).as_deref(), Some("pc1"), "{limit}");
        assert_eq!(shown(&mut world).members[0].rate_limit_count, limit - 1);
        limited(&mut world, work);
        world.advance(secs(2));
    }
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    assert_eq!(taker(&world, work).as_deref(), Some("pc2"));
    // It begins afresh.
    assert_eq!(shown(&mut world).members[1].rate_limit_count, 0);
}

#[test]
fn what_somebody_records_of_a_model_counts_for_the_owner() {
    let mut world = ring();
    record(&mut world, UsageRecord::RateLimit);
    record(&mut world, UsageRecord::RateLimit);
    world.advance(secs(61));
    record(&mut world, UsageRecord::RateLimit);
    assert_eq!(owner(&world).as_deref(), Some("pc1"), "they are not within the window");
    record(&mut world, UsageRecord::RateLimit);
    record(&mut world, UsageRecord::RateLimit);
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
}

#[test]
fn slow_replies_hand_on_and_running_work_ends_where_it_is() {
    let mut world = ring();
    let runs = for_role(&mut world);
    for _ in 0..5 {
        record(&mut world, UsageRecord::Slow(secs(11)));
    }
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    assert_eq!(taker(&world, runs).as_deref(), Some("pc1"));
    world.done(runs);
    assert_eq!(world.end(runs), Some(MessageState::Done));
}

#[test]
fn errors_among_the_last_calls_hand_on() {
    let mut world = ring();
    for _ in 0..7 {
        record(&mut world, UsageRecord::Success);
    }
    for _ in 0..2 {
        record(&mut world, UsageRecord::Error);
    }
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    record(&mut world, UsageRecord::Error);
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
}

#[test]
fn forced_on_and_on_it_comes_back_to_the_first() {
    let mut world = ring();
    let mut owners = Vec::new();
    for _ in 0..3 {
        world.advance(secs(60));
        for name in MEMBERS {
            world.run(Command::Renew { agent: agent(name), leases: vec![] });
        }
        owners.extend(force(&mut world, None).unwrap().owner);
    }
    assert_eq!(owners, [agent("pc2"), agent("pc3"), agent("pc1")]);
    assert_eq!(shown(&mut world).epoch, 4);
}

#[test]
fn a_full_turn_without_a_healthy_member_stops_and_goes_on_by_itself() {
    let mut world = ring();
    let work = for_role(&mut world);
    for _ in 0..3 {
        for _ in 0..3 {
            limited(&mut world, work);
            world.advance(secs(2));
        }
    }
    let stopped = shown(&mut world);
    assert_eq!((stopped.state, stopped.owner), (RotationState::Stopped, None));
    for name in MEMBERS {
        assert!(stopped.stopped.contains(name), "{}", stopped.stopped);
    }
    let back_at = stopped.back_at.unwrap();
    assert!(back_at.since(world.wall()) < PAUSE);
    assert_eq!(world.state.queue.load(&Recipient::Role(role())).1, 0, "nobody works on it");

    let waits = back_at.since(world.wall());
    world.advance(waits - secs(1));
    assert_eq!(owner(&world), None);
    world.advance(secs(1));
    assert_eq!(owner(&world).as_deref(), Some("pc1"), "the first that paused is the first back");
    assert_eq!(taker(&world, work).as_deref(), Some("pc1"));
}

#[test]
fn a_silent_owner_is_passed_over_and_one_that_comes_back_in_time_is_not() {
    let mut world = ring();
    world.hang_up("pc1");
    world.advance(secs(59));
    world.greet_as(member("pc1", 20), vec![]);
    world.advance(secs(10));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    world.hang_up("pc1");
    world.advance(secs(60));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    // It has nothing to recover from.
    world.greet_as(member("pc1", 20), vec![]);
    world.hang_up("pc3");
    world.hang_up("pc2");
    world.advance(secs(60));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
}

#[test]
fn a_drained_owner_hands_on() {
    let mut world = ring();
    world.run(Command::Drain { agent: Some(agent("pc1")), is_over: false });
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
}

#[test]
fn a_member_that_takes_nothing_is_passed_over_after_the_deadline() {
    let mut world = World::empty(policy());
    for (name, credit) in [("pc1", 20), ("pc2", 0), ("pc3", 20)] {
        world.greet_as(member(name, credit), vec![]);
    }
    set(&mut world, wanted(&MEMBERS)).unwrap();
    let rotation = force(&mut world, None).unwrap();
    assert_eq!((rotation.state, rotation.owner), (RotationState::HandingOver, Some(agent("pc1"))));
    assert!(matches!(force(&mut world, None), Err(Refusal::Ring(Refused::UnderWay { .. }))));
    // Who was only asked to hand on works meanwhile.
    let work = for_role(&mut world);
    assert_eq!(taker(&world, work).as_deref(), Some("pc1"));

    world.advance(secs(60));
    assert_eq!(owner(&world).as_deref(), Some("pc3"));
    let passed = told(&world).into_iter().find_map(|what| match what {
        What::PassedOver { member, reason } => Some((member, reason)),
        _ => None,
    });
    let (who, reason) = passed.unwrap();
    assert_eq!((who, reason.as_str()), (agent("pc2"), "is there, but takes nothing within 60 s"));
}

#[test]
fn a_member_is_woken_and_one_whose_hook_fails_or_hangs_is_passed_over() {
    let woken = |policy: &mut Policy| {
        policy.rotation.woken = ["pc2", "pc3"].map(agent).into();
    };
    let mut policy = policy();
    woken(&mut policy);
    let mut world = World::empty(policy);
    world.greet_as(member("pc1", 20), vec![]);
    set(&mut world, wanted(&MEMBERS)).unwrap();
    let calls = |world: &World| -> Vec<AgentName> {
        let call = |effect: &Effect| match effect {
            Effect::Wake(call) => Some(call.to.clone()),
            _ => None,
        };
        world.effects.iter().filter_map(call).collect()
    };
    for _ in 0..3 {
        record(&mut world, UsageRecord::RateLimit);
    }
    assert_eq!(calls(&world), [agent("pc2")]);
    let work = for_role(&mut world);
    assert_eq!(taker(&world, work), None, "who cannot go on is given nothing");

    let failed =
        ring::Command::NotWoken { role: role(), to: agent("pc2"), reason: "exit code 3".into() };
    command(&mut world, failed.clone()).unwrap();
    assert_eq!(calls(&world), [agent("pc2"), agent("pc3")]);
    // Said again, of one that is not waited for any more.
    command(&mut world, failed).unwrap();
    world.advance(secs(30));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    world.greet_as(member("pc3", 20), vec![]);
    assert_eq!(owner(&world).as_deref(), Some("pc3"));
    assert_eq!(taker(&world, work).as_deref(), Some("pc3"));

    // Nobody comes at all: it hangs for longer than the deadline.
    world.hang_up("pc3");
    world.hang_up("pc1");
    world.advance(secs(400));
    assert_eq!(shown(&mut world).state, RotationState::Stopped);
}

#[test]
fn a_ring_of_one_stops_and_is_its_own_next() {
    let mut world = World::empty(policy());
    world.greet_as(member("pc1", 20), vec![]);
    set(&mut world, wanted(&["pc1"])).unwrap();
    let alone = force(&mut world, None).unwrap_err();
    assert!(matches!(alone, Refusal::Ring(Refused::Alone(_))), "{alone}");
    for _ in 0..3 {
        record(&mut world, UsageRecord::RateLimit);
    }
    assert_eq!(shown(&mut world).state, RotationState::Stopped);
    world.advance(PAUSE);
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    assert_eq!(shown(&mut world).members[0].next, agent("pc1"));
}

#[test]
fn what_a_ring_cannot_be_is_refused_and_changes_nothing() {
    let mut world = ring();
    let before = format!("{:?}", world.state);
    let refused = |world: &mut World, wanted: SetRotation| match set(world, wanted) {
        Err(Refusal::Ring(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let twice = refused(&mut world, wanted(&["pc1", "pc2", "pc1"]));
    assert_eq!(twice, Refused::Twice(agent("pc1")));
    let unknown = refused(&mut world, wanted(&["pc1", "pc9"]));
    assert_eq!(unknown, Refused::UnknownAgent(agent("pc9")));
    let short = SetRotation { pause: Some(secs(59)), ..wanted(&MEMBERS) };
    assert!(matches!(refused(&mut world, short), Refused::ShortPause { .. }));
    let long = SetRotation { pause: Some(secs(86_401)), ..wanted(&MEMBERS) };
    assert_eq!(refused(&mut world, long), Refused::LongPause);
    let other = RoleName::parse("other").unwrap();
    let empty = SetRotation { role: other.clone(), ..wanted(&[]) };
    assert_eq!(refused(&mut world, empty), Refused::NoMembers);
    let off = SetRotation { role: other.clone(), is_on: false, ..wanted(&[]) };
    assert_eq!(refused(&mut world, off), Refused::Unknown(other));
    let forced = |world: &mut World, to| force(world, Some(to)).unwrap_err();
    assert_eq!(forced(&mut world, "pc1"), Refused::Owner(agent("pc1")).into());
    let stranger = Refused::NoMember { role: role(), agent: agent("sonnet") };
    assert_eq!(forced(&mut world, "sonnet"), stranger.into());
    assert_eq!(before, format!("{:?}", world.state));
    world.hang_up("pc3");
    assert!(matches!(forced(&mut world, "pc3"), Refusal::Ring(Refused::Unfit { .. })));
}

#[test]
fn the_least_used_is_picked_where_that_is_wanted() {
    let mut world = ring();
    let least = SetRotation { pick: Some(Pick::LeastUsed), ..wanted(&MEMBERS) };
    set(&mut world, least).unwrap();
    world.advance(secs(1_000));
    force(&mut world, Some("pc2")).unwrap();
    world.advance(secs(2_000));
    force(&mut world, Some("pc1")).unwrap();
    world.advance(secs(500));
    // pc2 worked 2,000 s, pc3 never.
    assert_eq!(force(&mut world, None).unwrap().owner, Some(agent("pc3")));
    world.advance(secs(4_000));
    assert_eq!(force(&mut world, None).unwrap().owner, Some(agent("pc1")));
}

const MANIFEST: [u8; 32] = [7; 32];

fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

/// A session of opus that `pc1` took over.
fn session_of_first(world: &mut World) {
    let entry =
        session::NewEntry { hash: ContentHash([1; 32]), length: 4, tokens: 30, size_bytes: 4 };
    let start = session::Start {
        id: id(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: session::Point::default(),
        entries: session::NewEntries { entries: vec![entry], ..Default::default() },
        change: session::Change::Imported,
    };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(start)))));
    let ask = broker_proto::AskHandoff {
        session: id(),
        to: Some(model("opus")),
        agent: Some(agent("pc1")),
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    };
    world.run(Command::Handoff(Box::new(handoff::Command::Begin(Box::new(ask)))));
    take(world, "pc1");
}

fn built(world: &mut World) {
    let open = world.state.handoff.open(&id()).unwrap().id;
    let kept = HandoffKept { entries: 1, tokens_before: 30, tokens: 9, ..HandoffKept::default() };
    let package = PackageId::from_u128(5);
    let built = handoff::Built { id: open, package, manifest: MANIFEST, kept };
    world.run(Command::Handoff(Box::new(handoff::Command::Built(Box::new(built)))));
}

fn take(world: &mut World, name: &str) {
    built(world);
    let open = world.state.handoff.open(&id()).unwrap().id;
    let accept = AcceptHandoff { id: open, manifest: MANIFEST, confirmed: vec![] };
    let by = handoff::By::Agent(agent(name));
    world.run(Command::Handoff(Box::new(handoff::Command::Accept { accept, by })));
}

fn session_owner(world: &World) -> SessionOwner {
    world.state.session.get(&id()).unwrap().info.owner.clone()
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
    assert!(
        !told(&world)
            .iter()
            .any(|what| matches!(what, What::Resumed { packages } if !packages.is_empty()))
    );
    let work = for_role(&mut world);
    world.done(work);
    let resumed = What::Resumed { packages: vec![PackageId::from_u128(5)] };
    assert_eq!(told(&world).last(), Some(&resumed));
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

#[test]
fn a_ring_survives_a_restart_in_every_phase() {
    let mut world = ring();
    world.restart(secs(1));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    world.greet_as(member("pc1", 20), vec![]);
    world.greet_as(member("pc2", 0), vec![]);
    force(&mut world, None).unwrap();
    world.restart(secs(1));
    assert!(shown(&mut world).handover.is_some());
    world.greet_as(member("pc1", 20), vec![]);
    world.greet_as(member("pc2", 20), vec![]);
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    world.restart(secs(1));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    // Nobody comes back.
    world.advance(secs(60));
    assert_eq!(shown(&mut world).state, RotationState::Stopped);
    world.restart(secs(1));
    world.greet_as(member("pc3", 20), vec![]);
    assert_eq!(owner(&world).as_deref(), Some("pc3"));
}

#[derive(Debug, Clone, Copy)]
enum Happens {
    Task,
    Settle { of: usize, how: u8 },
    Record { how: u8 },
    Force { to: Option<usize> },
    Greet { who: usize, credit: u32 },
    HangUp { who: usize },
    Drain { who: usize, is_over: bool },
    Credit { who: usize },
    NotWoken { who: usize },
    Pass { secs: u64 },
    Restart,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => Just(Happens::Task),
        6 => (0..6usize, 0..5u8).prop_map(|(of, how)| Happens::Settle { of, how }),
        3 => (0..4u8).prop_map(|how| Happens::Record { how }),
        2 => prop::option::of(0..3usize).prop_map(|to| Happens::Force { to }),
        4 => (0..3usize, 0..8u32).prop_map(|(who, credit)| Happens::Greet { who, credit }),
        2 => (0..3usize).prop_map(|who| Happens::HangUp { who }),
        1 => (0..3usize, any::<bool>()).prop_map(|(who, is_over)| Happens::Drain { who, is_over }),
        3 => (0..3usize).prop_map(|who| Happens::Credit { who }),
        1 => (0..3usize).prop_map(|who| Happens::NotWoken { who }),
        5 => (0..400u64).prop_map(|secs| Happens::Pass { secs }),
        1 => Just(Happens::Restart),
    ]
}

fn happen(world: &mut World, it: Happens) {
    match it {
        Happens::Task => _ = for_role(world),
        Happens::Settle { of, how } => {
            let all = &world.deliveries;
            let Some(last) = all.len().checked_sub(1 + of) else { return };
            let seq = all[last].seq;
            let mut failed = failure(FailureClass::RateLimited);
            failed.retry_at = Some(world.wall().after(secs(1)));
            let outcome = match how {
                0..=2 => {
                    crate::core::Outcome::Failed { failure: failed, partial: None, shown: false }
                }
                3 => crate::core::Outcome::Release { shown: false },
                _ => done(),
            };
            // It may be another's by now.
            let _ = world.settle(seq, outcome);
        }
        Happens::Record { how } => record(
            world,
            match how {
                0 | 1 => UsageRecord::RateLimit,
                2 => UsageRecord::Slow(secs(12)),
                _ => UsageRecord::Error,
            },
        ),
        Happens::Force { to } => _ = force(world, to.map(|to| MEMBERS[to])),
        Happens::Greet { who, credit } => _ = world.greet_as(member(MEMBERS[who], credit), vec![]),
        Happens::HangUp { who } => world.hang_up(MEMBERS[who]),
        Happens::Drain { who, is_over } => {
            let agent = Some(agent(MEMBERS[who]));
            let _ = world.decide(Command::Drain { agent, is_over });
        }
        Happens::Credit { who } => {
            let link = world.link(MEMBERS[who]);
            let _ = world.decide(Command::Credit { link, messages: 4, size_bytes: MIB });
        }
        Happens::NotWoken { who } => {
            let (to, reason) = (agent(MEMBERS[who]), "it hangs".to_owned());
            let _ = command(world, ring::Command::NotWoken { role: role(), to, reason });
        }
        Happens::Pass { secs } => world.advance(Duration::from_secs(secs)),
        Happens::Restart => world.restart(Duration::from_secs(1)),
    }
}

/// At every event of the history: one owner, or stopped; and nothing of the role's went to anybody else.
fn check(world: &World) {
    let mut now: Option<ring::Ring> = None;
    for event in &world.journal {
        match event {
            Event::Ring(event) => {
                let ring = &event.ring;
                assert_eq!(ring.owner.is_some(), ring.stopped.is_none(), "{event:?}");
                if let Some(owner) = &ring.owner {
                    assert!(ring.member(owner).is_some());
                }
                let before = now.as_ref().map_or((0, None), |it| (it.epoch, it.owner.clone()));
                let is_new = ring.owner.is_some() && ring.owner != before.1;
                assert_eq!(ring.epoch, before.0 + u64::from(is_new), "{event:?}");
                now = Some(ring.clone());
            }
            Event::Leased { agent, .. } => {
                let owner = now.as_ref().and_then(|ring| ring.owner.as_ref());
                assert_eq!(Some(agent), owner, "somebody else was given the role's work");
            }
            _ => {}
        }
    }
}

/// A day of a ring: the same again until it is over.
fn day(world: &mut World, steps: &[Happens]) -> u64 {
    let begun = world.wall();
    for step in steps.iter().cycle() {
        if world.wall().since(begun) >= Duration::from_secs(24 * 3600) {
            break;
        }
        happen(world, *step);
        happen(world, Happens::Pass { secs: 60 });
        check_now(world);
    }
    world.state.ring.get(&role()).unwrap().epoch
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_a_ring_has_one_owner_or_is_stopped(
        steps in prop::collection::vec(happens(), 1..80),
        has_hooks in any::<bool>(),
    ) {
        let mut world = ring_of(|policy| {
            if has_hooks {
                policy.rotation.woken = ["pc2", "pc3"].map(agent).into();
            }
        });
        for step in steps {
            happen(&mut world, step);
            check_now(&world);
        }
        check(&world);
        // Once everybody is there and nothing fails, it goes round again.
        for name in MEMBERS {
            let agent = Some(agent(name));
            // Nobody knows one that has not come back since a restart.
            let _ = world.decide(Command::Drain { agent, is_over: true });
            world.greet_as(member(name, 1_000), vec![]);
        }
        world.advance(PAUSE + secs(1));
        prop_assert!(owner(&world).is_some(), "{:?}", shown(&mut world));
        check(&world);
    }
}

fn check_now(world: &World) {
    let ring = world.state.ring.get(&role()).unwrap();
    assert_eq!(ring.owner.is_some(), ring.stopped.is_none(), "{ring:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..cases() })]

    #[test]
    fn a_day_of_exhaustions_and_recoveries_goes_round(
        steps in prop::collection::vec(happens(), 60..160),
    ) {
        let mut world = ring();
        let steps: Vec<Happens> = steps
            .into_iter()
            .filter(|step| !matches!(step, Happens::Restart | Happens::Drain { is_over: false, .. }))
            .collect();
        let epochs = day(&mut world, &steps);
        check(&world);
        for name in MEMBERS {
            world.greet_as(member(name, 1_000), vec![]);
        }
        world.advance(PAUSE + secs(1));
        prop_assert!(owner(&world).is_some() && epochs >= 1);
    }
}

/// A scripted day: each owner is used up after some time of work, and pauses.
#[test]
fn for_a_day_each_owner_is_followed_by_the_next() {
    let mut world = ring();
    let mut owners = Vec::new();
    for hour in 0..24 * 4 {
        let now = owner(&world);
        assert!(now.is_some(), "nobody at quarter {hour}");
        for name in MEMBERS {
            world.credit(name, 20);
        }
        owners.extend(now);
        world.advance(secs(14 * 60));
        let work = for_role(&mut world);
        for _ in 0..3 {
            limited(&mut world, work);
            world.advance(secs(2));
        }
        world.done(work);
        world.advance(secs(54));
    }
    let expected: Vec<&str> = MEMBERS.iter().copied().cycle().take(24 * 4).collect();
    assert_eq!(owners, expected);
    check(&world);
}
