//! Restarts, random lives and whole days of a ring.

use broker_proto::FailureClass;
use proptest::prelude::*;

use super::*;

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

#[test]
fn a_restart_forgets_neither_what_was_heard_nor_who_pauses_nor_why_it_stopped() {
    let mut world = ring();
    world.advance(secs(90));
    record(&mut world, UsageRecord::Success);
    record(&mut world, UsageRecord::RateLimit);
    record(&mut world, UsageRecord::RateLimit);
    let said = What::Heard {
        reason: "2 of 3 rate limits, 0 of 5 slow replies, 0 errors of 1 calls".into(),
    };
    assert_eq!(told(&world).last(), Some(&said));
    world.restart(secs(1));
    for name in MEMBERS {
        world.greet_as(member(name, 20), vec![]);
    }
    assert_eq!(shown(&mut world).members[0].rate_limit_count, 2);
    record(&mut world, UsageRecord::RateLimit);
    assert_eq!(owner(&world).as_deref(), Some("pc2"), "the third");

    let of_first = |world: &mut World| {
        let first = shown(world).members.remove(0);
        (first.reason, first.until, first.turns, first.owned)
    };
    let before = of_first(&mut world);
    assert!(before.1.is_some(), "{before:?}");
    world.restart(secs(1));
    assert_eq!(of_first(&mut world), before);
    // The new one begins afresh, also when it starts again.
    assert_eq!(shown(&mut world).members[1].rate_limit_count, 0);

    for name in MEMBERS {
        world.greet_as(member(name, 20), vec![]);
    }
    for _ in 0..6 {
        record(&mut world, UsageRecord::RateLimit);
    }
    let stopped = shown(&mut world);
    assert_eq!(stopped.state, RotationState::Stopped);
    world.restart(secs(1));
    let after = shown(&mut world);
    assert_eq!((after.state, after.back_at), (RotationState::Stopped, stopped.back_at));
    assert_eq!(after.stopped, stopped.stopped);
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
