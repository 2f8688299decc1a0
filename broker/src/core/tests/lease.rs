use std::time::Duration;

use broker_proto::{MessageState, Recipient};

use super::world::*;
use crate::core::{
    Command, Effect, NewMessage, Refusal, Reply,
    queue::{Body, Seq},
};

// I-13
#[test]
fn a_message_is_leased_to_one_and_each_delivery_raises_its_epoch() {
    let mut world = World::new();
    world.greet_as(
        crate::core::agent::Link { models: vec![model("opus")], ..link("second", "x", 100) },
        vec![],
    );
    let seq = world.ask("opus");
    assert_eq!(world.delivered(), [(seq, "opus".into(), 1)]);

    world.advance(LEASE);

    assert_eq!(world.delivered(), [(seq, "opus".into(), 2)]);
}

// I-14
#[test]
fn a_stale_token_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let stale = world.settlement(seq, done());
    world.advance(LEASE);
    let before = format!("{:?}", world.state);

    let refusal = world.settle_with(stale.clone()).unwrap_err();

    assert_eq!(refusal, Refusal::LeaseLost(stale.id));
    assert_eq!(before, format!("{:?}", world.state));
    world.done(seq);
}

// I-14
#[test]
fn a_lost_lease_settles_nothing_while_its_stream_is_closed() {
    let mut world = World::new();
    world.seals_wait = true;
    let seq = world.ask("opus");
    world.advance(LEASE);

    let refusal = world.settle(seq, done()).unwrap_err();

    assert!(matches!(refusal, Refusal::LeaseLost(_)));
}

// I-14
#[test]
fn another_agents_token_is_refused() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let mut foreign = world.settlement(seq, done());
    foreign.agent = agent("sonnet");

    assert!(matches!(world.settle_with(foreign), Err(Refusal::LeaseLost(_))));
    assert_eq!(world.end(seq), None);
}

// I-14
#[test]
fn a_late_answer_to_what_was_cancelled_or_expired_is_refused() {
    let mut world = World::new();
    let cancelled = world.ask("opus");
    let id = world.given_id(cancelled);
    world.run(cancel(id));
    let expired = world.ask("opus");
    for _ in 0..60 {
        world.advance(secs(10));
        world.run(Command::Renew { agent: agent("opus"), leases: vec![world.token(expired)] });
    }

    for (seq, end) in [(cancelled, MessageState::Cancelled), (expired, MessageState::Expired)] {
        assert_eq!(world.end(seq), Some(end));
        assert!(matches!(world.settle(seq, done()), Err(Refusal::LeaseLost(_))), "{end:?}");
    }
}

// I-15
#[test]
fn a_renewed_lease_runs_on_to_its_cap_and_not_beyond() {
    let mut world = World::with(|policy| policy.routing.max_total = FOR_EVER);
    let seq = world.ask_with("opus", |c| c.options.deadline = Some(FOR_EVER));
    let heartbeat = secs(5);
    let beats = world.state.policy.lease_cap.as_secs() / heartbeat.as_secs();
    for _ in 1..beats {
        world.advance(heartbeat);
        let leases = vec![world.token(seq)];
        world.run(Command::Renew { agent: agent("opus"), leases });
    }
    assert_eq!(world.deliveries.len(), 1);

    world.advance(heartbeat);

    assert_eq!(world.deliveries.len(), 2, "6 h are over");
}

// I-15
#[test]
fn only_its_own_agent_renews_a_lease() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.advance(secs(14));
    let (seq, epoch) = world.token(seq);
    world.run(Command::Renew { agent: agent("sonnet"), leases: vec![(seq, epoch)] });
    world.run(Command::Renew { agent: agent("opus"), leases: vec![(seq, epoch + 1)] });

    world.advance(secs(1));

    assert_eq!(world.deliveries.len(), 2);
}

// I-16
#[test]
fn a_restart_lets_a_lease_run_again_at_full_length() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.advance(secs(14));
    world.restart(secs(1));
    world.greet_as(link("opus", "first", 10), vec![world.token(seq)]);

    world.advance(LEASE - Duration::from_millis(1));
    assert_eq!(world.deliveries.len(), 1);
    world.done(seq);
}

// I-16
#[test]
fn redelivery_follows_the_end_of_a_lease() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.delivered();

    world.advance(LEASE - Duration::from_millis(1));
    assert_eq!(world.delivered(), []);
    world.advance(Duration::from_millis(1));

    assert_eq!(world.delivered(), [(seq, "opus".into(), 2)]);
    let lost = world.effects.iter().any(|e| matches!(e, Effect::Revoke { epoch: 1, .. }));
    assert!(lost, "its agent is told");
}

// I-29
#[test]
fn nothing_is_leased_without_credit_for_a_message() {
    let mut world = World::empty(policy()).with_agent("opus", 1);
    let first = world.ask("opus");
    let second = world.ask("opus");
    assert_eq!(world.delivered(), [(first, "opus".into(), 1)]);
    world.done(first);
    assert_eq!(world.delivered(), [], "an answer gives no credit");

    world.credit("opus", 1);

    assert_eq!(world.delivered(), [(second, "opus".into(), 1)]);
}

// I-29
#[test]
fn nothing_is_leased_without_credit_for_its_bytes() {
    let mut world = World::empty(policy());
    let few = crate::core::agent::Link { credit_bytes: 100, ..link("opus", "first", 10) };
    world.greet_as(few, vec![]);
    let new = world.message("opus");
    let body = Body { size_bytes: 101, ..Body::default() };
    world.ask_this(NewMessage { body, ..new });
    assert_eq!(world.delivered(), []);

    let opus = world.link("opus");
    world.run(Command::Credit { link: opus, messages: 0, size_bytes: 1 });

    assert_eq!(world.delivered(), [(Seq(1), "opus".into(), 1)]);
}

#[test]
fn credit_on_a_closed_link_is_refused() {
    let mut world = World::new();
    let opus = world.link("opus");
    world.hang_up("opus");

    let late = Command::Credit { link: opus, messages: 1, size_bytes: 1 };

    assert_eq!(world.decide(late), Err(Refusal::LinkClosed(opus.0)));
}

// I-5
#[test]
fn a_corrupt_message_is_dead_and_costs_its_agent_no_credit() {
    let mut world = World::empty(policy()).with_agent("opus", 1);
    let corrupt = world.ask("opus");
    let next = world.ask("opus");

    let (seq, epoch) = world.token(corrupt);
    world.run(Command::Corrupt { seq, epoch });

    assert_eq!(world.end(corrupt), Some(MessageState::Dead));
    assert!(world.failed_as(corrupt).detail.starts_with("CORRUPT"));
    assert_eq!(world.called(next), "opus");
}

#[test]
fn free_credit_decides_which_of_several_agents_is_next() {
    let mut world = World::empty(policy());
    for (name, credit) in [("big", 3), ("small", 1)] {
        let link = link(name, name, credit);
        world.greet_as(crate::core::agent::Link { models: vec![model("opus")], ..link }, vec![]);
    }
    for _ in 0..4 {
        world.ask("opus");
    }

    let big = world.link("big");
    let to_big = world.deliveries.iter().filter(|d| d.link == big).count();
    assert_eq!((world.deliveries.len(), to_big), (4, 3));
    assert_eq!(world.state.queue.load(&Recipient::Model(model("opus"))).1, 4);
    assert_eq!(world.run(Command::Tick), Reply::None);
}
