use broker_proto::FailureClass;

use super::world::*;
use crate::core::{Command, Effect, Outcome, Refusal, Reply, Resumed, agent::Link};

// I-17
#[test]
fn losing_the_link_does_not_end_a_lease() {
    let mut world = World::new();
    let seq = world.ask("opus");

    world.hang_up("opus");
    world.advance(secs(4));

    world.done(seq);
    assert_eq!(world.deliveries.len(), 1);
}

// I-17
#[test]
fn a_process_that_comes_back_goes_on_with_what_it_resumes() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.hang_up("opus");
    world.advance(secs(10));

    let held = world.token(seq);
    let reply = world.greet_as(link("opus", "first", 10), vec![held]);

    let id = world.given_id(seq);
    assert_eq!(reply, Reply::Resumed(vec![Resumed { seq, epoch: held.1, id }]));
    world.advance(secs(14));
    assert_eq!(world.deliveries.len(), 1, "the greeting renewed its lease");
    world.done(seq);
}

// I-17, I-25
#[test]
fn a_delivery_that_was_lost_with_the_link_comes_back_at_once_and_does_not_count() {
    let mut world = World::new();
    let seq = world.ask("opus");
    for _ in 0..9 {
        let reply = world.greet_as(link("opus", "first", 10), vec![]);
        assert_eq!(reply, Reply::Resumed(vec![]));
    }

    assert_eq!(world.token(seq), (seq, 10));
    world.done(seq);
    assert_eq!(world.attempts(seq), [("opus".into(), None)]);
}

// I-17
#[test]
fn a_new_process_of_an_exclusive_agent_ends_what_the_old_one_held() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let old = world.link("opus");

    world.greet("opus", "second", 10);

    assert!(world.effects.contains(&Effect::Supersede { link: old }));
    assert_eq!(world.token(seq), (seq, 2));
    world.done(seq);
    let lost = Some(FailureClass::AgentLost);
    assert_eq!(world.attempts(seq), [("opus".into(), lost), ("opus".into(), None)]);
}

#[test]
fn a_process_beside_another_of_a_shared_name_ends_nothing() {
    let mut world = World::empty(policy());
    let shared = |instance| Link { is_exclusive: false, ..link("opus", instance, 10) };
    world.greet_as(shared("a"), vec![]);
    let seq = world.ask("opus");

    world.greet_as(shared("b"), vec![]);

    assert_eq!(world.token(seq), (seq, 1));
    assert_eq!(world.state.agent.links_of(&agent("opus")).count(), 2);
}

// I-17, I-19
#[test]
fn a_released_delivery_is_given_out_again_at_once_and_does_not_count() {
    let mut world = World::new();
    let seq = world.ask("opus");
    for epoch in 1..20 {
        assert_eq!(world.token(seq), (seq, epoch));
        world.settle(seq, Outcome::Release { shown: false }).unwrap();
    }

    world.done(seq);
    assert_eq!(world.attempts(seq), [("opus".into(), None)]);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Revoke { .. })));
}

// I-19
#[test]
fn a_release_is_settled_once_however_often_it_is_said() {
    let mut world = World::empty(policy()).with_agent("opus", 1);
    let seq = world.ask("opus");
    let release = world.settlement(seq, Outcome::Release { shown: false });
    world.settle_with(release.clone()).unwrap();

    assert_eq!(world.settle_with(release), Ok(Reply::SettledBefore));
}

// I-35
#[test]
fn a_delivery_given_back_after_text_was_shown_fails_unless_a_restart_is_allowed() {
    for (allow_restart, calls) in [(false, 1), (true, 2)] {
        let mut world = World::new();
        let seq = world.ask_with("opus", |c| c.options.allow_restart = allow_restart);
        world.settle(seq, Outcome::Release { shown: true }).unwrap();

        assert_eq!(world.deliveries.len(), calls);
        assert_eq!(world.end(seq).is_some(), !allow_restart);
    }
}

#[test]
fn a_model_its_key_shut_out_is_tried_again_when_a_new_process_greets() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.fail(seq, FailureClass::CredentialsRejected);
    assert!(!world.is_open("opus"));

    world.greet("opus", "first", 10);
    assert!(!world.is_open("opus"), "the same process has the same key");
    world.hang_up("opus");
    world.greet("opus", "first", 10);
    assert!(!world.is_open("opus"), "also when it was away");
    world.greet("opus", "second", 10);

    assert!(world.is_open("opus"));
}

#[test]
fn a_settlement_over_a_new_link_is_as_good() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let held = world.token(seq);
    world.greet_as(link("opus", "first", 10), vec![held]);

    assert_eq!(world.settle(seq, done()), Ok(Reply::None));
}

#[test]
fn a_token_is_revoked_once() {
    let mut world = World::empty(policy());
    let token = |hash| Command::SetToken { agent: agent("scribe"), hash };
    world.run(token(Some([1; 32])));
    world.run(token(None));

    assert_eq!(world.decide(token(None)), Err(Refusal::UnknownToken("scribe".into())));
}

#[test]
fn the_brokers_own_names_are_no_agents() {
    let mut world = World::empty(policy());
    let token = |name: &str| Command::SetToken { agent: agent(name), hash: Some([1; 32]) };
    let refused = Err(Refusal::ReservedName("broker.summary".into()));
    assert_eq!(world.decide(token("broker.summary")), refused);
    world.run(token("broker-1"));
}
