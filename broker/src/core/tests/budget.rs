use broker_proto::FailureClass;

use super::world::*;
use crate::core::Outcome;

#[test]
fn a_cost_cap_becomes_a_cap_on_output_tokens() {
    let mut world = World::new();
    // 1,000 tokens of prompt at the dearest input price, $5 a million, leave $0.995 at $20 a million.
    let seq = world.ask_with("opus", |c| {
        c.prompt_bytes = 4_000;
        c.options.max_cost_usd = Some(1.0);
    });

    assert_eq!(world.deliveries[0].max_output_tokens, Some(49_750));
    let smaller = world.ask_with("opus", |c| {
        c.options.max_cost_usd = Some(1.0);
        c.max_output_tokens = Some(100);
    });
    assert_eq!(world.deliveries[1].max_output_tokens, Some(100), "what was asked for, if less");
    world.done(seq);
    world.done(smaller);
}

#[test]
fn no_model_is_asked_for_more_output_than_it_has() {
    let mut world = World::new();
    world.ask_with("gpt-4o", |c| c.options.max_cost_usd = Some(100.0));
    world.ask_with("gpt-4o", |c| c.max_output_tokens = Some(100_000));

    let caps: Vec<_> = world.deliveries.iter().map(|d| d.max_output_tokens).collect();
    assert_eq!(caps, [Some(32_000), Some(32_000)]);
}

#[test]
fn one_budget_holds_over_the_whole_chain() {
    let mut world = World::new();
    let seq = world.ask_with("opus", |c| {
        c.prompt_bytes = 0;
        c.options.max_cost_usd = Some(1.0);
    });
    let failure = failure(FailureClass::QuotaExhausted);
    let outcome = Outcome::Failed { failure, partial: None, shown: false };
    let mut settle = world.settlement(seq, outcome);
    settle.usage = tokens(125_000, 0);
    world.settle_with(settle).unwrap();

    let caps: Vec<_> = world.deliveries.iter().map(|d| d.max_output_tokens).collect();
    assert_eq!(caps, [Some(50_000), Some(25_000)], "half of it is spent");
}

#[test]
fn a_budget_too_small_for_a_model_passes_it_over() {
    let mut world = World::new();
    let seq = world.ask_with("gpt-4o", |c| c.options.max_cost_usd = Some(0.000_01));

    assert_eq!(world.called(seq), "local", "it costs nothing");
    world.done(seq);
    assert_eq!(world.summary(seq).passed_over[0].model, model("gpt-4o"));
    let alone = world.ask_with("gpt-4o", |c| {
        c.options.max_cost_usd = Some(0.000_01);
        c.options.no_fallback = true;
    });
    assert_eq!(world.failed_as(alone).class, FailureClass::Budget);
}

#[test]
fn a_cost_cap_passes_over_a_model_without_a_price() {
    let mut world = World::with(|policy| {
        policy.models.get_mut(&model("opus")).unwrap().prices = None;
    });
    let seq = world.ask_with("opus", |c| c.options.max_cost_usd = Some(1.0));
    let free = world.ask("opus");

    assert_eq!((world.called(seq), world.called(free)), ("sonnet".into(), "opus".into()));
    world.done(free);
    assert_eq!(world.summary(free).cost_usd, None, "unpriced is not free");
}
