use std::time::Duration;

use super::world::*;
use crate::core::{Command, Draining, Effect, Query, Refusal, Reply, agent::Link, agent::LinkId};

const LENGTH: Duration = Duration::from_secs(120);

/// One call takes what there is of `opus`, up to `messages`, and goes.
fn pull(world: &mut World, name: &str, messages: u32) {
    let up = Link {
        agent: agent(name),
        instance: "pull".into(),
        pull: Some(LENGTH),
        is_exclusive: false,
        ..link("opus", "pull", messages)
    };
    let link = LinkId(900);
    world.run(Command::LinkUp { link, up: Box::new(up), resume: vec![] });
    world.run(Command::LinkDown { link });
}

// I-15
#[test]
fn a_pull_takes_its_credit_and_its_leases_outlive_the_call() {
    let mut world = World::empty(policy());
    let (first, second) = (world.ask("opus"), world.ask("opus"));

    pull(&mut world, "script", 1);

    assert_eq!(world.delivered(), [(first, "opus".into(), 1)]);
    world.advance(LENGTH - Duration::from_millis(1));
    world.done(first);
    pull(&mut world, "script", 5);
    assert_eq!(world.delivered(), [(second, "opus".into(), 1)]);
}

// I-13, I-14, I-16
#[test]
fn a_pulled_lease_ends_at_its_length_and_its_token_is_fenced() {
    let mut world = World::empty(policy());
    let seq = world.ask("opus");
    pull(&mut world, "script", 1);
    let late = world.settlement(seq, done());

    world.advance(LENGTH);
    pull(&mut world, "script", 1);

    assert_eq!(world.token(seq), (seq, 2));
    assert_eq!(world.settle_with(late.clone()), Err(Refusal::LeaseLost(late.id)));
    world.done(seq);
}

// I-16
#[test]
fn a_restart_lets_a_pulled_lease_run_again_at_its_own_length() {
    let mut world = World::empty(policy());
    let seq = world.ask_with("opus", |c| c.options.keep = true);
    pull(&mut world, "script", 1);
    world.advance(secs(100));
    world.restart(secs(1));

    world.advance(LENGTH - Duration::from_millis(1));

    assert_eq!(world.token(seq), (seq, 1));
    world.done(seq);
}

// I-15, I-16
#[test]
fn an_extension_runs_from_now_and_never_cuts_a_lease_short() {
    let mut world = World::empty(policy());
    let seq = world.ask("opus");
    pull(&mut world, "script", 1);
    let extend = |by, world: &mut World| {
        let (seq, epoch) = world.token(seq);
        world.decide(Command::Extend { agent: agent("script"), seq, epoch, by })
    };

    assert_eq!(extend(secs(5), &mut world), Ok(Reply::Extended(LENGTH)));
    assert_eq!(extend(secs(600), &mut world), Ok(Reply::Extended(secs(600))));
    world.advance(secs(599));
    world.done(seq);
}

// I-14, I-15
#[test]
fn only_its_holder_extends_a_lease_and_only_the_newest() {
    let mut world = World::empty(policy());
    let seq = world.ask("opus");
    pull(&mut world, "script", 1);
    for (name, epoch) in [("thief", 1), ("script", 2), ("script", 0)] {
        let by = secs(60);
        let refused = world.decide(Command::Extend { agent: agent(name), seq, epoch, by });
        assert!(matches!(refused, Err(Refusal::LeaseLost(_))), "{name} {epoch}");
    }
}

// I-17
#[test]
fn a_pull_takes_over_nothing_and_nothing_takes_it_over() {
    let mut world = World::new();
    let linked = world.ask("opus");
    let at_the_link = world.link("opus");
    pull(&mut world, "opus", 1);
    world.hang_up("opus");
    let pulled = world.ask("opus");
    pull(&mut world, "opus", 1);

    world.greet_as(link("opus", "first", 10), vec![world.token(linked)]);

    assert!(!world.effects.contains(&Effect::Supersede { link: at_the_link }));
    assert_eq!((world.token(linked), world.token(pulled)), ((linked, 1), (pulled, 1)));
}

fn drain(world: &mut World, name: Option<&str>, is_over: bool) -> Draining {
    match world.run(Command::Drain { agent: name.map(agent), is_over }) {
        Reply::Drain(draining) => draining,
        other => panic!("{other:?}"),
    }
}

// I-16
#[test]
fn a_drain_gives_out_nothing_new_and_lets_what_runs_settle() {
    let mut world = World::new();
    let running = world.ask("opus");
    world.delivered();

    assert_eq!(drain(&mut world, None, false), Draining { is_draining: true, running: 1 });
    let waiting = world.ask("opus");
    world.credit("opus", 10);
    world.done(running);

    assert_eq!(world.delivered(), []);
    let state = world.run(Command::Query(Query::Drain(None)));
    assert_eq!(state, Reply::Drain(Draining { is_draining: true, running: 0 }));
    drain(&mut world, None, true);
    assert_eq!(world.delivered(), [(waiting, "opus".into(), 1)]);
}

#[test]
fn a_restart_ends_a_drain() {
    let mut world = World::new();
    drain(&mut world, None, false);
    let seq = world.ask("opus");
    world.restart(secs(1));

    world.greet("opus", "first", 10);

    assert_eq!(world.delivered(), [(seq, "opus".into(), 1)]);
}

#[test]
fn a_drained_agent_gets_nothing_until_it_is_undone_or_its_next_process_greets() {
    for is_undone in [true, false] {
        let mut world = World::new();
        assert_eq!(drain(&mut world, Some("opus"), false).running, 0);
        let seq = world.ask("opus");
        let other = world.ask("sonnet");
        world.greet("opus", "first", 10);
        assert_eq!(world.delivered(), [(other, "sonnet".into(), 1)]);

        if is_undone {
            drain(&mut world, Some("opus"), true);
        } else {
            world.greet("opus", "second", 10);
        }

        assert_eq!(world.delivered(), [(seq, "opus".into(), 1)], "undone: {is_undone}");
    }
}

#[test]
fn what_waits_for_a_drained_agent_goes_elsewhere_after_the_grace() {
    let mut world = World::new();
    drain(&mut world, Some("opus"), false);
    let seq = world.ask("opus");

    world.advance(world.state.policy.routing.agent_grace);

    assert_eq!(world.called(seq), "sonnet");
}
