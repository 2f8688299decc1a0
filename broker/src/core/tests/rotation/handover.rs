//! When a ring is handed on, to whom, and when it is not.

use broker_proto::{
    AgentName, MessageState, Pick, Recipient, RoleName, RotationState, SetRotation, UsageRecord,
};

use super::*;
use crate::core::{
    Command, Effect, Refusal,
    ring::{self, Refusal as Refused, What},
};

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
