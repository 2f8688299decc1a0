use broker_proto::{Failure, FailureClass, Recipient};
use proptest::prelude::*;

use super::world::*;
use crate::core::{Command, NewConsultation, Query, Refusal, Reply};

fn shut(world: &mut World, name: &str, class: FailureClass, after: Option<u64>) {
    let retry_at = after.map(|after| world.wall().after(secs(after)));
    world.run(Command::Report {
        model: model(name),
        usage: tokens(0, 0),
        limits: vec![],
        failure: Some(Failure { retry_at, ..failure(class) }),
    });
}

#[test]
fn an_explanation_names_every_candidate_and_sends_nothing() {
    let mut world = World::new();
    shut(&mut world, "opus", FailureClass::QuotaExhausted, Some(60));
    let before = format!("{:?}", world.state);

    let explained = world.explain(consultation("opus"));

    let brief: Vec<_> = explained
        .candidates
        .iter()
        .map(|c| (c.model.to_string(), c.is_chosen, c.reason.as_str()))
        .collect();
    assert_eq!(brief[0], ("opus".into(), false, "quota used up"));
    assert_eq!(brief[1], ("sonnet".into(), true, ""));
    assert_eq!(brief.len(), 4);
    assert_eq!(explained.decision, "sonnet is called");
    assert_eq!(before, format!("{:?}", world.state));
}

#[test]
fn an_explanation_tells_why_nothing_is_given_out() {
    let mut world = World::new();
    world.run(Command::Drain { agent: None, is_over: false });
    let drained = "it waits in opus's queue: the broker is being drained";
    assert_eq!(world.explain(consultation("opus")).decision, drained);
    assert_eq!(told_of(&mut world, "opus"), ("the broker is being drained".into(), true));

    world.run(Command::Drain { agent: None, is_over: true });
    let queue = Recipient::Model(model("opus"));
    world.run(Command::Pause { queue, is_paused: true });
    let paused = "it waits in opus's queue: its queue is paused";
    assert_eq!(world.explain(consultation("opus")).decision, paused);
    assert_eq!(told_of(&mut world, "opus"), ("its queue is paused".into(), false));

    world.run(Command::Drain { agent: Some(agent("sonnet")), is_over: false });
    let decision = world.explain(consultation("sonnet")).decision;
    assert!(decision.starts_with("it waits in sonnet's queue for an agent, at most"), "{decision}");
    assert_eq!(told_of(&mut world, "sonnet"), ("no agent serves it".into(), true));
}

/// Why a model is not called now, and whether its agent is being drained.
fn told_of(world: &mut World, name: &str) -> (String, bool) {
    let Reply::Models(models) = world.run(Command::Query(Query::Models)) else { panic!() };
    let Reply::Agents(agents) = world.run(Command::Query(Query::Agents)) else { panic!() };
    let reason = models.into_iter().find(|it| it.name == model(name)).unwrap().reason;
    (reason, agents.iter().find(|it| it.name == agent(name)).unwrap().is_draining)
}

#[test]
fn nobody_unknown_is_drained() {
    let mut world = World::new();
    let refused =
        world.decide(Command::Drain { agent: Some(agent("nope")), is_over: false }).unwrap_err();
    assert_eq!(refused, Refusal::UnknownAgent("nope".into()));
}

#[test]
fn who_insists_is_told_what_will_happen_to_it() {
    let mut world = World::new();
    shut(&mut world, "opus", FailureClass::QuotaExhausted, Some(60));
    let mut new = consultation("opus");
    new.options.no_fallback = true;
    assert_eq!(world.explain(new.clone()).decision, "opus is called, and no other");

    new.prompt_bytes = 10_000_000;

    assert!(world.explain(new).decision.starts_with("it fails with CONTEXT_TOO_LONG"));
}

#[test]
fn nobody_is_told_to_wait_past_its_deadline() {
    let mut world = World::new();
    for name in ["opus", "sonnet", "gpt-4o", "local"] {
        shut(&mut world, name, FailureClass::RateLimited, Some(4));
    }
    let mut new = consultation("opus");
    assert_eq!(world.explain(new.clone()).decision, "it waits 4.0 s, then opus is called");

    new.options.deadline = Some(secs(3));

    assert!(world.explain(new.clone()).decision.starts_with("it fails with RATE_LIMITED"));
    let seq = world.ask_with("opus", |c| *c = new);
    assert_eq!(world.failed_as(seq).class, FailureClass::RateLimited);
}

#[test]
fn a_limit_shows_as_the_level_of_its_model() {
    let mut world = World::new();
    shut(&mut world, "opus", FailureClass::QuotaExhausted, Some(60));

    let Reply::Models(models) = world.run(Command::Query(Query::Models)) else { panic!() };

    let opus = models.iter().find(|m| m.name == model("opus")).unwrap();
    assert_eq!((opus.level.as_str(), opus.reason.as_str()), ("EXHAUSTED", "quota used up"));
    assert_eq!(opus.unavailable_until, Some(world.wall().after(secs(60))));
}

fn limits() -> impl Strategy<Value = Vec<(usize, FailureClass, Option<u64>)>> {
    let classes = prop::sample::select(vec![
        FailureClass::RateLimited,
        FailureClass::QuotaExhausted,
        FailureClass::CreditExhausted,
        FailureClass::ModelNotFound,
        FailureClass::CredentialsRejected,
    ]);
    prop::collection::vec((0..4_usize, classes, prop::option::of(1..20_u64)), 0..5)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn asking_does_what_the_explanation_said(
        limits in limits(),
        absent in prop::collection::vec(any::<bool>(), 4),
        pause in 0..12_u64,
        asked in 0..4_usize,
        prompt_bytes in prop::sample::select(vec![400_u64, 40_000, 600_000, 900_000]),
        (needs_vision, no_fallback) in (any::<bool>(), any::<bool>()),
        deadline in prop::option::of(1..9_u64),
        max_cost_usd in prop::option::of(prop::sample::select(vec![0.000_1, 0.5, 2.0])),
    ) {
        let names = ["opus", "sonnet", "gpt-4o", "local"];
        let mut world = World::empty(policy());
        for (name, is_absent) in names.iter().zip(&absent) {
            if !is_absent {
                world.greet(name, "first", 10);
            }
        }
        world.advance(GRACE);
        for (place, class, after) in limits {
            shut(&mut world, names[place], class, after);
        }
        world.advance(secs(pause));
        let mut new = NewConsultation { prompt_bytes, needs_vision, ..consultation(names[asked]) };
        new.options.no_fallback = no_fallback;
        new.options.deadline = deadline.map(secs);
        new.options.max_cost_usd = max_cost_usd;

        let explained = world.explain(new.clone());
        let seq = world.ask_with(names[asked], |c| *c = new);

        let chosen = explained.candidates.iter().find(|c| c.is_chosen).map(|c| &c.model);
        let queue = world.state.queue.get(seq).and_then(|message| message.model());
        prop_assert_eq!(chosen, queue, "{}", explained.decision);
        let will_fail = explained.decision.starts_with("it fails");
        prop_assert_eq!(will_fail, world.end(seq).is_some(), "{}", explained.decision);
        let will_call = explained.decision.contains("is called") && !explained.decision.contains("then");
        let calls = !world.called(seq).is_empty();
        prop_assert!(calls <= will_call, "{}", explained.decision);
    }
}
