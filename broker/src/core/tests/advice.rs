//! When sessions move: the policy as it is set at run time, the check, and what is recommended.

use broker_proto::{
    Advice, FailureClass, HandoffCheck, HandoffPolicyChange, HandoffState, HandoffStatus,
    TriggerKind, UsageRecord, UsageSetting,
};

use super::{
    handoff::{accept, ask_turn, begin, built, id, last, owner, world},
    world::*,
};
use crate::core::{
    Command, Effect, Event, Query, Refusal, Reply,
    handoff::{
        Command as HandoffCommand, Event as HandoffEvent, Query as HandoffQuery,
        Refusal as Refused, Reply as HandoffReply, policy::Invalid,
    },
    usage,
};

pub(super) fn set(
    world: &mut World,
    pairs: &[(&str, &str)],
    unset: &[&str],
) -> Result<Vec<UsageSetting>, Refusal> {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    change(
        world,
        HandoffPolicyChange {
            set: pairs.iter().map(pair).collect(),
            unset: unset.iter().map(|key| (*key).to_owned()).collect(),
            ..HandoffPolicyChange::default()
        },
    )
}

fn change(world: &mut World, change: HandoffPolicyChange) -> Result<Vec<UsageSetting>, Refusal> {
    let command = HandoffCommand::SetPolicy(Box::new(change));
    match world.decide(Command::Handoff(Box::new(command)))? {
        Reply::Handoff(HandoffReply::Policy(settings)) => Ok(settings),
        other => panic!("{other:?}"),
    }
}

fn ask(world: &mut World, query: HandoffQuery) -> HandoffReply {
    match world.run(Command::Query(Query::Handoff(query))) {
        Reply::Handoff(reply) => reply,
        other => panic!("{other:?}"),
    }
}

pub(super) fn check(world: &mut World, session: &str, warning_only: bool) -> Option<HandoffCheck> {
    let session = session.to_owned();
    match ask(world, HandoffQuery::Check { session, warning_only }) {
        HandoffReply::Check(check) => check.map(|check| *check),
        other => panic!("{other:?}"),
    }
}

pub(super) fn status(world: &mut World) -> HandoffStatus {
    match ask(world, HandoffQuery::Status { session: None }) {
        HandoffReply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

pub(super) fn record(world: &mut World, session: &str, input: u64) {
    let record = usage::Record {
        model: Some(model("opus")),
        session: Some(session.to_owned()),
        what: UsageRecord::Tokens(tokens(input, 0)),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}

fn policies(world: &World) -> usize {
    let is_policy = |event: &&Event| match event {
        Event::Handoff(event) => matches!(event.as_ref(), HandoffEvent::PolicySet { .. }),
        _ => false,
    };
    world.journal.iter().filter(is_policy).count()
}

#[test]
fn a_limit_of_one_model_moves_its_sessions_at_that_share_and_outlives_a_restart() {
    let mut world = world();
    record(&mut world, "s", 160_000 - 60);
    assert!(last_of(&world).is_none());

    set(&mut world, &[("limit.opus", "80%"), ("auto_switch", "true")], &[]).unwrap();

    assert_eq!(last(&world).state, HandoffState::Building);
    world.restart(secs(1));
    assert_eq!(world.state.policy.handoff.limits.get(&model("opus")), Some(&80));
    assert!(world.state.policy.handoff.auto_switch);
    let settings = set(&mut world, &[], &["limit.opus", "auto_switch"]).unwrap();
    assert!(settings.iter().all(|setting| !setting.is_overridden), "{settings:?}");
    assert!(!world.state.policy.handoff.auto_switch);
    let check = check(&mut world, "s", false).unwrap();
    assert_eq!((check.reason.as_str(), check.switch_threshold), ("approaching_limit", 180_000));
}

fn last_of(world: &World) -> Option<&broker_proto::Handoff> {
    world.state.handoff.last(&id())
}

#[test]
fn a_policy_that_contradicts_itself_changes_nothing() {
    let mut world = world();
    let refused = set(&mut world, &[("auto", "false"), ("limit.opus", "60")], &[]).unwrap_err();
    assert!(
        matches!(refused, Refusal::Handoff(Refused::Policy(Invalid::BelowWarning { .. }))),
        "{refused}"
    );
    let all = ["opus", "sonnet", "gpt-4o", "local"].map(model);
    let nobody = HandoffPolicyChange { remove_receivers: all.into(), ..Default::default() };
    let refused = change(&mut world, nobody).unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::Policy(Invalid::NoReceiver))), "{refused}");
    let refused = set(&mut world, &[], &["auto"]).unwrap_err();
    assert!(refused.to_string().contains("nothing to unset"), "{refused}");
    assert_eq!((policies(&world), world.state.policy.handoff.auto), (0, true));
    // The same again is no event.
    set(&mut world, &[("limit.opus", "80")], &[]).unwrap();
    set(&mut world, &[("limit.opus", "80")], &[]).unwrap();
    assert_eq!(policies(&world), 1);
    // Nor may a warning be raised over a limit.
    let warning = usage::Command::SetPolicy {
        set: [("warning".to_owned(), "82".to_owned())].into(),
        unset: Vec::new(),
    };
    let refused = world.decide(Command::Usage(Box::new(warning))).unwrap_err();
    assert!(refused.to_string().contains("limit of each model"), "{refused}");
}

#[test]
fn who_was_taken_from_the_receivers_is_not_asked() {
    let mut world = world();
    let without = HandoffPolicyChange {
        remove_receivers: vec![model("sonnet")],
        ..HandoffPolicyChange::default()
    };
    let settings = change(&mut world, without).unwrap();
    let receivers = settings.iter().find(|setting| setting.key == "receivers").unwrap();
    assert_eq!(
        (receivers.value.as_str(), receivers.file.as_deref(), receivers.is_overridden),
        ("gpt-4o,local,opus", Some("all"), true)
    );
    set(&mut world, &[("auto_switch", "true")], &[]).unwrap();
    record(&mut world, "s", 180_000);
    assert_eq!(last(&world).to, model("gpt-4o"));
}

#[test]
fn a_check_names_the_window_and_a_session_nobody_heard_of_is_unknown() {
    let mut world = World::new();
    assert_eq!(check(&mut world, "s", false), None);
    begin(&mut world);
    let fresh = check(&mut world, "s", false).unwrap();
    assert_eq!((fresh.tokens, fresh.context_window, fresh.should_handoff), (60, 200_000, false));
    // Counted only: a session of somebody else's.
    record(&mut world, "theirs", 150_000);
    let near = check(&mut world, "theirs", true).unwrap();
    assert_eq!((near.should_handoff, near.reason.as_str()), (false, "warning_threshold_reached"));
    assert_eq!((near.model.as_str(), near.percentage()), ("opus", 75.0));
    let near = check(&mut world, "theirs", false).unwrap();
    assert_eq!((near.should_handoff, near.reason.as_str()), (true, "approaching_limit"));
}

#[test]
fn a_status_recommends_by_level_and_names_who_would_take_it() {
    let mut world = World::with(|policy| {
        let key = usage::BudgetKey {
            kind: usage::ScopeKind::Model,
            name: "opus".into(),
            span: usage::Span::Day,
            unit: usage::Unit::Tokens,
        };
        policy.budgets.insert(key, 1_000);
    });
    begin(&mut world);
    let opus = |world: &mut World| {
        let models = status(world).models;
        models.into_iter().find(|it| it.name == "opus").unwrap()
    };
    assert_eq!((opus(&mut world).advice, opus(&mut world).percentage), (Advice::None, Some(0.0)));
    record(&mut world, "other", 850);
    let near = opus(&mut world);
    assert_eq!((near.name.as_str(), near.percentage), ("opus", Some(85.0)));
    assert_eq!((near.advice, near.to), (Advice::Recommended, Some(model("sonnet"))));
    record(&mut world, "other", 150);
    assert_eq!(opus(&mut world).advice, Advice::Needed);
    // Its owner cannot go on, and neither can they.
    let sessions = status(&mut world).sessions;
    assert!(
        sessions.iter().any(|it| it.name == "s" && it.advice == Advice::Needed),
        "{sessions:?}"
    );
}

fn returns(world: &World) -> Option<broker_proto::Handoff> {
    last_of(world).filter(|handoff| handoff.returns.is_some()).cloned()
}

fn probes(world: &World) -> usize {
    world.effects.iter().filter(|effect| matches!(effect, Effect::Probe(_))).count()
}

/// Its model is used up for an hour, and the session moves to sonnet with its next turn.
fn lent() -> World {
    let mut world = world();
    let first = ask_turn(&mut world, "opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(3600));
    world.done(first);
    let turn = ask_turn(&mut world, "opus");
    let begun = last(&world);
    assert_eq!((begun.to.as_str(), begun.is_lent), ("sonnet", true));
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "sonnet").unwrap();
    world.done(turn);
    assert_eq!(owner(&world).model, model("sonnet"));
    world
}

#[test]
fn what_a_models_limit_moved_comes_back_after_a_clean_probe_and_not_before() {
    let mut world = lent();
    world.advance(secs(3500));
    assert_eq!((probes(&world), returns(&world)), (0, None));
    world.advance(secs(200));
    assert!(probes(&world) > 0);
    assert_eq!(returns(&world), None);

    let probe = world.insist("opus");
    world.done(probe);
    world.advance(secs(1));

    let back = returns(&world).unwrap();
    assert_eq!((back.to.as_str(), back.trigger.kind), ("opus", TriggerKind::UsageLimit));
    built(&mut world, back.id).unwrap();
    accept(&mut world, back.id, "opus").unwrap();
    assert_eq!(owner(&world).model, model("opus"));
    // It is home: nothing brings it back again.
    world.advance(secs(3600));
    assert_eq!(returns(&world).map(|it| it.id), Some(back.id));
}

#[test]
fn a_probe_that_fails_brings_nothing_back() {
    let mut world = lent();
    world.advance(secs(3700));
    let probe = world.insist("opus");
    world.fail_until(probe, FailureClass::QuotaExhausted, secs(3600));
    world.advance(secs(600));
    assert_eq!(returns(&world), None);
    assert_eq!(owner(&world).model, model("sonnet"));
}

#[test]
fn after_a_probe_that_failed_the_next_follows_when_its_refusal_says() {
    let mut world = lent();
    world.advance(secs(3601));
    let before = probes(&world);
    assert!(before > 0);
    let probe = world.insist("opus");
    world.fail_until(probe, FailureClass::QuotaExhausted, secs(10));
    assert_eq!(probes(&world), before);
    world.advance(secs(11));
    assert_eq!(probes(&world), before + 1, "not a minute later");
}

#[test]
fn a_turn_that_runs_ends_before_its_session_comes_back() {
    let mut world = lent();
    world.advance(secs(3700));
    let runs = ask_turn(&mut world, "sonnet");
    let probe = world.insist("opus");
    world.done(probe);
    world.advance(secs(2));
    assert_eq!(returns(&world), None);
    world.done(runs);
    world.advance(secs(5));
    assert!(returns(&world).is_some());
}

#[test]
fn a_give_back_waits_for_the_cool_down_and_survives_a_restart() {
    let mut world = world();
    let first = ask_turn(&mut world, "opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(120));
    world.done(first);
    let turn = ask_turn(&mut world, "opus");
    let begun = last(&world);
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "sonnet").unwrap();
    world.done(turn);
    world.advance(secs(130));
    let probe = world.insist("opus");
    world.done(probe);
    world.advance(secs(60));
    assert_eq!(returns(&world), None);

    world.restart(secs(1));
    for name in ["opus", "sonnet", "gpt-4o", "local"] {
        world.greet(name, "second", 10);
    }
    world.advance(secs(30));
    assert_eq!(returns(&world), None);
    world.advance(secs(200));
    assert!(returns(&world).is_some());
}

#[test]
fn what_somebody_moved_or_its_own_window_moved_stays_where_it_is() {
    let mut world = world();
    let id = super::handoff::offered(&mut world, "sonnet");
    accept(&mut world, id, "sonnet").unwrap();
    world.advance(secs(3600));
    assert_eq!(last(&world).returns, None);

    let mut world = super::handoff::world();
    set(&mut world, &[("auto_switch", "true")], &[]).unwrap();
    record(&mut world, "s", 180_000);
    let begun = last(&world);
    assert!(!begun.is_lent);
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "sonnet").unwrap();
    world.advance(secs(3600));
    assert_eq!(owner(&world).model, model("sonnet"));
}

fn opinion(world: &mut World, complexity: f64) {
    let what = UsageRecord::Session { complexity: Some(complexity), rating: None };
    let record = usage::Record { model: None, session: Some("s".into()), what };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}

fn advised(world: &World) -> Option<(String, TriggerKind)> {
    let advised = world.state.handoff.advised(&id())?;
    Some((advised.to.to_string(), advised.trigger.kind))
}

/// A session of sonnet, to which somebody gave it.
fn of_sonnet() -> World {
    let mut world = world();
    let id = super::handoff::offered(&mut world, "sonnet");
    accept(&mut world, id, "sonnet").unwrap();
    world
}

#[test]
fn a_step_too_complex_for_its_model_is_told_and_moves_nothing() {
    let mut world = of_sonnet();
    opinion(&mut world, 0.5);
    assert_eq!(advised(&world), None);
    opinion(&mut world, 0.9);
    assert_eq!(advised(&world), Some(("opus".into(), TriggerKind::ComplexityMismatch)));
    let shown = status(&mut world).sessions;
    assert!(
        shown.iter().any(|it| it.advice == Advice::Recommended && it.to == Some(model("opus"))),
        "{shown:?}"
    );
    // Said again it is no news, and what no longer holds is taken back.
    let events = world.journal.len();
    opinion(&mut world, 0.9);
    assert_eq!(world.journal.len(), events + 1);
    opinion(&mut world, 0.4);
    assert_eq!((advised(&world), owner(&world).model), (None, model("sonnet")));
}

#[test]
fn with_auto_switch_a_recommendation_is_carried_out() {
    let mut world = of_sonnet();
    set(&mut world, &[("auto_switch", "true")], &[]).unwrap();
    opinion(&mut world, 0.9);
    let begun = last(&world);
    assert_eq!(
        (begun.to.as_str(), begun.trigger.kind, begun.state),
        ("opus", TriggerKind::ComplexityMismatch, HandoffState::Building)
    );
}

#[test]
fn a_cheaper_model_that_does_as_well_is_told() {
    let mut world = World::with(|policy| {
        let prices = policy.models.get_mut(&model("sonnet")).and_then(|it| it.prices.as_mut());
        let prices = prices.unwrap();
        (prices.input, prices.output) = (1.0, 5.0);
    });
    begin(&mut world);
    opinion(&mut world, 0.9);
    assert_eq!(advised(&world), None);
    opinion(&mut world, 0.5);
    assert_eq!(advised(&world), Some(("sonnet".into(), TriggerKind::Optimisation)));
}

#[test]
fn a_turn_that_would_reach_a_critical_limit_moves_before_it() {
    let budget = |limit| {
        move |policy: &mut crate::core::Policy| {
            let key = usage::BudgetKey {
                kind: usage::ScopeKind::Model,
                name: "opus".into(),
                span: usage::Span::Day,
                unit: usage::Unit::Tokens,
            };
            policy.budgets.insert(key, limit);
        }
    };
    let moved_at = |used| {
        let mut world = World::with(budget(100_000));
        begin(&mut world);
        record(&mut world, "other", used);
        ask_turn(&mut world, "opus");
        last_of(&world).map(|it| (it.is_lent, it.trigger.kind))
    };
    // Its prompt has 100 tokens and its answer may have 4,096.
    assert_eq!(moved_at(90_000), None);
    assert_eq!(moved_at(96_000), Some((true, TriggerKind::UsageLimit)));
}

#[test]
fn slow_replies_move_what_waits_and_leave_what_runs() {
    let mut world = World::empty(policy());
    begin(&mut world);
    world.greet("opus", "first", 1);
    world.greet("sonnet", "first", 4);
    let runs = ask_turn(&mut world, "opus");
    let waits = ask_turn(&mut world, "opus");
    for _ in 0..5 {
        let record = usage::Record {
            model: Some(model("opus")),
            session: None,
            what: UsageRecord::Slow(secs(11)),
        };
        world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    }
    let begun = last(&world);
    assert_eq!(begun.pace, broker_proto::Pace::Gradually);
    built(&mut world, begun.id).unwrap();
    assert_eq!(accept(&mut world, begun.id, "sonnet").unwrap().state, HandoffState::Accepted);
    world.done(runs);
    assert_eq!(last(&world).state, HandoffState::Active);
    assert_eq!((world.called(runs), world.called(waits)), ("opus".into(), "sonnet".into()));
}

#[test]
fn a_session_with_new_turns_is_owed_a_package_at_each_interval() {
    let mut world = World::new();
    set(&mut world, &[("checkpoint_every", "30m")], &[]).unwrap();
    begin(&mut world);
    let owed = |world: &World| {
        let is_owed = |effect: &&Effect| matches!(effect, Effect::Prepare(_));
        world.effects.iter().filter(is_owed).count()
    };
    world.advance(secs(1_790));
    assert_eq!(owed(&world), 0);
    world.advance(secs(20));
    assert_eq!(owed(&world), 1);
    // Nobody asks a second time for the same turns by the clock.
    world.advance(secs(7_200));
    assert_eq!(owed(&world), 1);
}

#[test]
fn sessions_that_were_there_before_the_interval_get_their_packages_too() {
    let owed = |world: &World| {
        let is_owed = |effect: &&Effect| matches!(effect, Effect::Prepare(_));
        world.effects.iter().filter(is_owed).count()
    };
    let mut world = World::new();
    begin(&mut world);
    set(&mut world, &[("checkpoint_every", "30m")], &[]).unwrap();
    world.restart(secs(1_000));
    assert_eq!(owed(&world), 0);
    world.advance(secs(2_000));
    assert_eq!(owed(&world), 1, "a restart forgets no checkpoint");

    let mut world = World::new();
    begin(&mut world);
    world.advance(secs(7_200));
    set(&mut world, &[("checkpoint_every", "30m")], &[]).unwrap();
    world.advance(secs(1));
    assert_eq!(owed(&world), 1, "one that is overdue is made at once");
    set(&mut world, &[("checkpoint_every", "off")], &[]).unwrap();
    world.advance(secs(7_200));
    assert_eq!(owed(&world), 1);
}

#[test]
fn without_an_interval_no_package_is_owed_by_the_clock() {
    let mut world = world();
    world.advance(secs(86_400));
    assert!(world.effects.iter().all(|effect| !matches!(effect, Effect::Prepare(_))));
}

#[test]
fn a_session_that_reached_its_limit_before_moves_once_it_may() {
    let at_its_limit = || {
        let mut world = world();
        record(&mut world, "s", 180_000);
        assert!(last_of(&world).is_none(), "it moves with its next turn");
        world
    };
    let mut world = at_its_limit();
    set(&mut world, &[("auto_switch", "true")], &[]).unwrap();
    assert_eq!(last(&world).state, HandoffState::Building);

    // Nobody could take it then; now somebody can.
    let mut world = at_its_limit();
    set(&mut world, &[("auto_switch", "true"), ("receivers", "opus")], &[]).unwrap();
    assert!(last_of(&world).is_none());
    set(&mut world, &[], &["receivers"]).unwrap();
    assert_eq!(last(&world).state, HandoffState::Building);

    let mut world = at_its_limit();
    world.state.policy.handoff.auto_switch = true;
    record(&mut world, "s", 1);
    let begun = last(&world);
    record(&mut world, "s", 1);
    assert_eq!((begun.state, last(&world).id), (HandoffState::Building, begun.id), "one at once");
}
