use broker_proto::{Failure, FailureClass, MessageState, PassedOver, RateLimit};

use super::world::*;
use crate::core::{Command, Effect, queue::Seq};

fn passed_over(world: &World, seq: Seq) -> Vec<(String, String)> {
    let brief = |p: PassedOver| (p.model.to_string(), p.reason);
    world.summary(seq).passed_over.into_iter().map(brief).collect()
}

#[test]
fn a_window_is_checked_before_its_model_is_chosen() {
    let mut world = World::new();
    let seq = world.ask_with("gpt-4o", |c| c.prompt_bytes = 4 * 128_000);

    assert_eq!(world.deliveries.len(), 0);
    assert_eq!(world.failed_as(seq).class, FailureClass::ContextTooLong);

    let fits = world.ask_with("gpt-4o", |c| c.prompt_bytes = 4 * 127_984);
    assert_eq!(world.called(fits), "gpt-4o");
    let no_room = world.ask_with("gpt-4o", |c| {
        c.prompt_bytes = 4 * 127_984;
        c.max_output_tokens = Some(17);
    });
    assert_eq!(world.failed_as(no_room).class, FailureClass::ContextTooLong);
}

#[test]
fn a_prompt_that_proved_too_long_goes_only_to_larger_windows() {
    let mut world = World::with(|policy| {
        policy.models.get_mut(&model("gpt-4o")).unwrap().context_window = 400_000;
    });
    let seq = world.ask("opus");

    world.fail(seq, FailureClass::ContextTooLong);

    assert_eq!(world.called(seq), "gpt-4o", "sonnet's window is the same, local's smaller");
    assert!(world.is_open("opus"));
    world.fail(seq, FailureClass::ContextTooLong);
    assert_eq!(world.failed_as(seq).class, FailureClass::ContextTooLong);
    let passed: Vec<String> =
        passed_over(&world, seq).into_iter().map(|(model, _)| model).collect();
    assert_eq!(passed, ["sonnet", "local"]);
}

#[test]
fn a_model_without_vision_is_passed_over_with_that_reason() {
    let mut world = World::new();
    let seq = world.ask_with("gpt-4o", |c| c.needs_vision = true);
    world.fail(seq, FailureClass::QuotaExhausted);

    assert_eq!(passed_over(&world, seq), [("local".into(), "cannot see images".into())]);
    assert_eq!(world.failed_as(seq).class, FailureClass::QuotaExhausted, "its last attempt's");
}

#[test]
fn what_is_about_the_request_fails_now_with_its_reason() {
    for class in [
        FailureClass::InvalidRequest,
        FailureClass::ContentRefused,
        FailureClass::Budget,
        FailureClass::Cancelled,
    ] {
        let mut world = World::new();
        let seq = world.ask("opus");
        world.fail_with(seq, Failure { detail: "why".into(), ..failure(class) });

        assert_eq!(world.deliveries.len(), 1);
        let failed = world.failed_as(seq);
        assert_eq!((failed.class, failed.detail.as_str()), (class, "why"));
        assert!(world.is_open("opus"));
    }
}

#[test]
fn a_request_too_large_moves_on_only_where_that_may_help() {
    for (another_model_may_help, calls) in [(true, 2), (false, 1)] {
        let mut world = World::new();
        let seq = world.ask("opus");
        let failure = Failure { another_model_may_help, ..failure(FailureClass::RequestTooLarge) };
        world.fail_with(seq, failure);
        assert_eq!(world.deliveries.len(), calls);
    }
}

// I-35
#[test]
fn after_text_was_shown_a_failure_ends_it_unless_a_restart_is_allowed() {
    for allow_restart in [false, true] {
        let mut world = World::new();
        let seq = world.ask_with("opus", |c| c.options.allow_restart = allow_restart);
        world.show(seq);
        world.fail(seq, FailureClass::QuotaExhausted);

        if allow_restart {
            assert_eq!(world.called(seq), "sonnet");
        } else {
            assert_eq!(world.failed_as(seq).class, FailureClass::QuotaExhausted);
        }
    }
}

#[test]
fn attempts_are_capped_over_the_whole_chain() {
    let mut world = World::with(|policy| policy.routing.max_attempts = 3);
    let seq = world.ask("opus");
    for _ in 0..3 {
        world.fail(seq, FailureClass::Overloaded);
        world.advance(secs(1));
    }

    assert_eq!(world.failed_as(seq).class, FailureClass::Overloaded);
    assert_eq!(world.deliveries.len(), 3);
}

#[test]
fn time_is_capped_over_the_whole_chain() {
    for (max_total, calls) in [(secs(20), 1), (secs(21), 2)] {
        let mut world = World::with(|policy| policy.routing.max_total = max_total);
        let seq = world.ask("opus");
        world.advance(secs(10));
        world.run(Command::Renew { agent: agent("opus"), leases: vec![world.token(seq)] });
        world.advance(secs(10));
        world.fail(seq, FailureClass::QuotaExhausted);
        assert_eq!(world.deliveries.len(), calls);
    }
}

#[test]
fn an_exhausted_chain_fails_as_its_last_attempt_with_the_earliest_return() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.fail_until(seq, FailureClass::QuotaExhausted, secs(3_600));
    world.fail_until(seq, FailureClass::RateLimited, secs(90));
    world.fail(seq, FailureClass::CreditExhausted);
    world.fail(seq, FailureClass::ModelNotFound);

    let failed = world.failed_as(seq);
    assert_eq!(failed.class, FailureClass::ModelNotFound);
    assert_eq!(failed.retry_at, Some(world.wall().after(secs(90))));
    assert_eq!(world.attempts(seq).len(), 4);
}

#[test]
fn a_chain_of_which_none_was_called_fails_as_the_asked_model() {
    let mut world = World::new();
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(3_600));
    world.fail_until(first, FailureClass::RateLimited, secs(90));
    world.fail(first, FailureClass::CreditExhausted);
    world.fail(first, FailureClass::ModelNotFound);

    let seq = world.ask("opus");

    let failed = world.failed_as(seq);
    assert_eq!(failed.class, FailureClass::QuotaExhausted);
    assert_eq!(failed.retry_at, Some(world.wall().after(secs(90))));
    assert_eq!(world.attempts(seq), []);
    assert_eq!(passed_over(&world, seq).len(), 4, "each with its reason");
}

// What moved on without being called fails as the model it was asked of, not as where it waited last.
#[test]
fn a_queued_message_for_which_nobody_is_left_fails_as_the_asked_model() {
    let mut world = World::empty(policy()).with_agent("opus", 1).with_agent("sonnet", 1);
    world.advance(GRACE);
    let busy = world.ask("sonnet");
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(3_600));
    let queued = world.ask("opus");
    assert_eq!(world.called(queued), "");

    world.fail_until(busy, FailureClass::RateLimited, secs(90));

    let failed = world.failed_as(queued);
    assert_eq!(failed.class, FailureClass::QuotaExhausted);
    assert_eq!(failed.retry_at, Some(world.wall().after(secs(90))));
}

#[test]
fn a_queued_message_returns_to_the_asked_model_if_that_came_back_first() {
    let mut world = World::empty(policy()).with_agent("opus", 9).with_agent("sonnet", 1);
    world.advance(GRACE);
    let busy = world.ask("sonnet");
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(10));
    let queued = world.ask("opus");
    world.advance(secs(10));

    world.fail_until(busy, FailureClass::RateLimited, secs(90));

    assert_eq!(world.called(queued), "opus");
    world.done(queued);
    let passed: Vec<String> =
        passed_over(&world, queued).into_iter().map(|(model, _)| model).collect();
    assert_eq!(passed, Vec::<String>::new(), "a model that was called was not passed over");
}

#[test]
fn a_return_that_is_over_is_not_told() {
    let mut world = World::empty(policy()).with_agent("opus", 9);
    world.advance(GRACE);
    let [waits, other] = [0; 2].map(|_| world.ask("opus"));
    world.fail_until(waits, FailureClass::RateLimited, secs(4));
    world.fail_until(other, FailureClass::QuotaExhausted, secs(60));

    world.advance(secs(4));

    let failed = world.failed_as(waits);
    assert_eq!(failed.retry_at, Some(world.wall().after(secs(56))));
}

#[test]
fn the_local_model_answers_degraded_and_a_simulated_one_says_so() {
    let mut world = World::with(|policy| {
        policy.models.get_mut(&model("opus")).unwrap().is_simulated = true;
    });
    let simulated = world.ask("opus");
    world.done(simulated);
    let degraded = world.ask("gpt-4o");
    world.fail(degraded, FailureClass::QuotaExhausted);
    world.done(degraded);

    let flags = |world: &World, seq| {
        let summary = world.summary(seq);
        (summary.model.unwrap().to_string(), summary.is_degraded, summary.is_simulated)
    };
    assert_eq!(flags(&world, simulated), ("opus".into(), false, true));
    assert_eq!(flags(&world, degraded), ("local".into(), true, false));
}

#[test]
fn usage_and_cost_are_those_of_all_attempts_together() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.fail(seq, FailureClass::QuotaExhausted);
    let mut settle = world.settlement(seq, done());
    settle.usage = tokens(1_000_000, 100_000);
    settle.limits = vec![RateLimit { ..window("5h", 90) }];
    world.settle_with(settle).unwrap();

    let summary = world.summary(seq);
    assert_eq!(summary.usage.input_tokens, Some(1_000_000));
    assert_eq!(summary.cost_usd, Some(4.0 + 2.0), "a refused call costs nothing");
    let opus = world.state.usage.get(&model("opus"));
    assert_eq!((opus.calls, opus.failures, opus.known_cost()), (1, 1, Some(0.0)));
    let sonnet = world.state.usage.get(&model("sonnet"));
    assert_eq!((sonnet.calls, sonnet.failures, sonnet.known_cost()), (1, 0, Some(6.0)));
    assert_eq!(sonnet.limits.len(), 1);
}

#[test]
fn what_a_lost_call_cost_is_not_known() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.advance(LEASE);
    let mut settle = world.settlement(seq, done());
    settle.usage = tokens(1_000_000, 100_000);
    world.settle_with(settle).unwrap();

    assert_eq!(world.summary(seq).cost_usd, None);
}

#[test]
fn waits_and_latencies_are_told_of_each_attempt() {
    let mut world = World::empty(policy());
    let seq = world.ask("opus");
    world.advance(secs(2));
    world.greet("opus", "first", 10);
    world.advance(secs(3));
    world.done(seq);

    let attempt = &world.summary(seq).attempts[0];
    assert_eq!((attempt.wait, attempt.latency), (secs(2), secs(3)));
    assert_eq!(attempt.agent, Some(agent("opus")));
}

/// `local` has the smallest window of the chain.
#[test]
fn a_smaller_window_down_the_chain_gets_a_smaller_history() {
    let mut world = World::new();
    let window = world.state.policy.models[&model("local")].context_window;
    let bytes = world.state.policy.models[&model("local")].bytes_per_token;
    let prompt_bytes = (window as f64 * bytes) as u64 * 2;
    let ask = |world: &mut World, history_bytes| {
        world.ask_with("opus", |c| {
            (c.prompt_bytes, c.history_bytes) = (prompt_bytes, history_bytes);
            c.max_output_tokens = Some(100);
        })
    };
    let until_local = |world: &mut World, seq: Seq| {
        for _ in 0..3 {
            if world.called(seq) == "local" || world.end(seq).is_some() {
                return;
            }
            world.fail(seq, FailureClass::QuotaExhausted);
        }
    };
    let fixed = ask(&mut world, 0);
    until_local(&mut world, fixed);
    assert_eq!(world.end(fixed), Some(MessageState::Failed), "nothing of it can be left out");

    let mut world = World::new();
    let seq = ask(&mut world, prompt_bytes - 400);
    until_local(&mut world, seq);

    assert_eq!(world.called(seq), "local");
    let rooms: Vec<Option<u64>> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Deliver(delivered) => Some(delivered.history_room),
            _ => None,
        })
        .collect();
    let (last, before) = rooms.split_last().unwrap();
    assert!(
        last.is_some_and(|room| room < window) && before.iter().all(Option::is_none),
        "{rooms:?}"
    );
    // Whoever delivered it says what was left out; else it is said that something was.
    world.done(seq);
    let said = world.summary(seq).shortened.unwrap();
    assert!(said.starts_with("local was sent what fits "), "{said}");
}
