use std::time::Duration;

use broker_proto::{Failure, FailureClass, FailureScope, MessageState, WallTime};

use super::world::*;
use crate::core::{Command, queue::Seq};

fn until(world: &World, name: &str) -> Option<WallTime> {
    world.state.route.shut(&model(name)).and_then(|shut| shut.until)
}

#[test]
fn a_short_rate_limit_goes_to_a_healthy_idle_candidate_at_once() {
    let mut world = World::new();
    let seq = world.ask("opus");

    world.fail_until(seq, FailureClass::RateLimited, secs(4));

    assert_eq!(world.called(seq), "sonnet");
    assert_eq!(until(&world, "opus"), Some(world.wall().after(secs(4))));
}

#[test]
fn a_short_rate_limit_skips_a_candidate_that_is_busy() {
    let mut world = World::new();
    let busy = link("sonnet", "busy", 0);
    world.greet_as(busy, vec![]);
    let seq = world.ask("opus");

    world.fail_until(seq, FailureClass::RateLimited, secs(4));

    assert_eq!(world.called(seq), "gpt-4o");
}

#[test]
fn a_short_rate_limit_is_waited_for_where_nobody_is_idle_and_not_longer() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");
    world.fail_until(seq, FailureClass::RateLimited, secs(4));
    assert_eq!(world.state.queue.get(seq).unwrap().state(), MessageState::Waiting);

    world.advance(secs(4) - Duration::from_millis(1));
    assert_eq!(world.deliveries.len(), 1);
    world.advance(Duration::from_millis(1));

    assert_eq!(world.called(seq), "opus");
    world.done(seq);
    assert!(world.is_open("opus"));
    let limited = Some(FailureClass::RateLimited);
    assert_eq!(world.attempts(seq), [("opus".into(), limited), ("opus".into(), None)]);
    assert_eq!(world.summary(seq).attempts[1].wait, secs(4), "the wait for the limit is told");
}

#[test]
fn a_long_limit_moves_the_message_on_at_once_and_shuts_the_model_until_it_resets() {
    for (class, after) in [
        (FailureClass::RateLimited, secs(6)),
        (FailureClass::QuotaExhausted, secs(2)),
        (FailureClass::QuotaExhausted, secs(3600)),
    ] {
        let mut world = World::new();
        let seq = world.ask("opus");
        world.fail_until(seq, class, after);

        assert_eq!(world.called(seq), "sonnet", "{class:?}");
        assert_eq!(until(&world, "opus"), Some(world.wall().after(after)));
        world.advance(after - Duration::from_millis(1));
        let before = world.ask("opus");
        assert_eq!(world.called(before), "sonnet", "not before it resets");
        world.advance(Duration::from_millis(1));
        let probe = world.ask("opus");
        assert_eq!(world.called(probe), "opus", "but then");
    }
}

#[test]
fn a_limit_of_unknown_length_is_probed_after_a_while_and_no_time_is_told() {
    let mut world = World::empty(policy()).with_agent("opus", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");

    world.fail(seq, FailureClass::RateLimited);

    assert_eq!(until(&world, "opus"), Some(world.wall().after(secs(60))));
    assert_eq!(
        world.failed_as(seq).retry_at,
        None,
        "the broker's guess is not the provider's word"
    );
}

#[test]
fn a_family_shares_its_rate_limit() {
    let mut world = World::with(|policy| {
        let opus = model("opus");
        policy.models.get_mut(&model("sonnet")).unwrap().family = "opus".into();
        policy.models.get_mut(&opus).unwrap().family = "opus".into();
    });
    let seq = world.ask("opus");

    world.fail_until(seq, FailureClass::RateLimited, secs(60));

    assert_eq!(until(&world, "sonnet"), until(&world, "opus"));
    assert_eq!(world.called(seq), "gpt-4o");
    world.done(seq);
    assert_eq!(world.summary(seq).passed_over[0].model, model("sonnet"));
}

#[test]
fn the_scope_says_how_far_a_limit_reaches() {
    for (scope, shut) in [
        (FailureScope::Model, [true, false, false]),
        (FailureScope::Key, [true, true, false]),
        (FailureScope::Account, [true, true, false]),
        (FailureScope::Provider, [true, true, false]),
    ] {
        let mut world = World::new();
        let seq = world.ask("opus");
        world.fail_with(seq, Failure { scope, ..failure(FailureClass::QuotaExhausted) });

        let is_shut = ["opus", "sonnet", "gpt-4o"].map(|name| !world.is_open(name));
        assert_eq!(is_shut, shut, "{scope:?}");
    }
}

#[test]
fn used_up_credit_shuts_every_model_of_the_account_and_tells_no_time() {
    let mut world = World::empty(policy()).with_agent("opus", 10).with_agent("sonnet", 10);
    world.advance(GRACE);
    let seq = world.ask("opus");

    world.fail(seq, FailureClass::CreditExhausted);

    assert!(!world.is_open("opus") && !world.is_open("sonnet") && world.is_open("gpt-4o"));
    assert_eq!(until(&world, "sonnet"), Some(world.wall().after(secs(300))));
    let failed = world.failed_as(seq);
    assert_eq!((failed.class, failed.retry_at), (FailureClass::CreditExhausted, None));
}

#[test]
fn what_only_a_person_can_mend_is_shut_without_a_time_and_the_chain_goes_on() {
    for class in [FailureClass::CredentialsRejected, FailureClass::ModelNotFound] {
        let mut world = World::new();
        let seq = world.ask("gpt-4o");
        world.fail(seq, class);

        assert_eq!((world.is_open("gpt-4o"), until(&world, "gpt-4o")), (false, None));
        assert_eq!(world.called(seq), "local");
        world.advance(secs(24 * 3600));
        let later = world.ask("gpt-4o");
        assert_eq!(world.called(later), "local", "{class:?}: a day later too");
    }
}

#[test]
fn a_rejected_key_shuts_all_models_of_its_account_and_an_unknown_model_only_itself() {
    for (class, sonnet) in
        [(FailureClass::CredentialsRejected, false), (FailureClass::ModelNotFound, true)]
    {
        let mut world = World::new();
        let seq = world.ask("opus");
        world.fail(seq, class);
        assert_eq!(world.is_open("sonnet"), sonnet, "{class:?}");
    }
}

// Under load, many calls are out when the limit comes.
#[test]
fn an_answer_that_began_before_the_limit_does_not_open_the_model() {
    let mut world = World::new();
    let early = world.ask("opus");
    let limited = world.ask("opus");
    world.fail_until(limited, FailureClass::RateLimited, secs(60));

    world.done(early);

    assert!(!world.is_open("opus"));
    let next = world.ask("opus");
    assert_eq!(world.called(next), "sonnet");
}

#[test]
fn a_shorter_word_from_a_call_that_was_out_does_not_shorten_a_limit() {
    let mut world = World::new();
    let [a, b, c] = [0; 3].map(|_| world.ask("opus"));
    world.fail_until(a, FailureClass::QuotaExhausted, secs(3600));
    let told = until(&world, "opus");

    world.fail_until(b, FailureClass::RateLimited, secs(1));
    assert_eq!(until(&world, "opus"), told);
    world.fail_until(c, FailureClass::QuotaExhausted, secs(7200));
    assert_eq!(until(&world, "opus"), Some(world.wall().after(secs(7200))), "a longer one does");
}

#[test]
fn the_providers_time_replaces_the_brokers_guess() {
    let mut world = World::new();
    let [a, b] = [0; 2].map(|_| world.ask("opus"));
    world.fail(a, FailureClass::QuotaExhausted);

    world.fail_until(b, FailureClass::QuotaExhausted, secs(20));

    assert_eq!(until(&world, "opus"), Some(world.wall().after(secs(20))));
}

#[test]
fn all_that_is_queued_moves_when_its_model_shuts() {
    let mut world = World::empty(policy()).with_agent("opus", 1).with_agent("gpt-4o", 1_000);
    world.advance(GRACE);
    let first = world.ask("opus");
    let queued: Vec<Seq> = (0..500).map(|_| world.ask("opus")).collect();

    let settle = crate::core::Outcome::Failed {
        failure: Failure {
            retry_at: Some(world.wall().after(secs(60))),
            ..failure(FailureClass::QuotaExhausted)
        },
        partial: None,
        shown: false,
    };
    let before = world.journal.len();
    world.step(Command::Settle(Box::new(world.settlement(first, settle)))).unwrap();
    assert!(world.journal.len() - before < 80, "one batch stays small");
    world.run(Command::Tick);

    assert!(queued.iter().all(|seq| world.called(*seq) == "gpt-4o"));
}

#[test]
fn a_person_who_insists_calls_a_model_that_is_shut_and_opens_it() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.fail_until(seq, FailureClass::QuotaExhausted, secs(3600));

    let insisting = world.insist("opus");

    assert_eq!(world.called(insisting), "opus");
    world.done(insisting);
    assert!(world.is_open("opus"));
}

#[test]
fn who_insists_fails_instead_of_moving_on() {
    for class in [
        FailureClass::QuotaExhausted,
        FailureClass::CreditExhausted,
        FailureClass::CredentialsRejected,
        FailureClass::ContextTooLong,
    ] {
        let mut world = World::new();
        let seq = world.insist("opus");
        world.fail(seq, class);
        assert_eq!(world.failed_as(seq).class, class);
        assert_eq!(world.deliveries.len(), 1);
    }
}

#[test]
fn who_insists_is_served_behind_a_shut_gate_that_others_wait_at() {
    let mut world = World::empty(policy()).with_agent("opus", 1);
    world.advance(GRACE);
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::RateLimited, secs(4));
    let waiting = world.ask("opus");

    let insisting = world.insist("opus");
    world.credit("opus", 1);

    assert_eq!(world.called(insisting), "opus");
    assert_eq!(world.called(waiting), "");
}

#[test]
fn a_report_of_a_call_made_elsewhere_shuts_a_model_too() {
    let mut world = World::new();
    let retry_at = Some(world.wall().after(secs(60)));
    let failure = Failure { retry_at, ..failure(FailureClass::QuotaExhausted) };
    world.run(Command::Report {
        model: model("opus"),
        usage: tokens(10, 1),
        limits: vec![window("5h", 100)],
        failure: Some(failure),
    });

    assert_eq!(until(&world, "opus"), retry_at);
    assert_eq!(world.state.usage.get(&model("opus")).calls, 1);
}
