use std::{collections::BTreeMap, time::Duration};

use broker_proto::{
    AskOptions, FailureClass, MessageState, Provenance, Usage, UsageRecord, WallTime,
};

use super::world::*;
use crate::core::{
    BootTime, BrokerClock, Command, Event, NewConsultation, Outcome, Query, Refusal, Reply,
    queue::{Body, Seq},
    usage::{self, Action, Amount, BudgetKey, Level, Nanos, Scope, ScopeKind, Span, Subject, Unit},
};

const DAY: Duration = Duration::from_secs(86_400);

fn key(kind: ScopeKind, unit: Unit) -> BudgetKey {
    BudgetKey { kind, name: "*".into(), span: Span::Day, unit }
}

/// Everything as shipped, and one budget for a day.
fn under(kind: ScopeKind, unit: Unit, limit: u64) -> World {
    World::with(|policy| {
        policy.budgets.insert(key(kind, unit), limit);
    })
}

/// A prompt of 100 tokens and an answer of 100.
fn ask(world: &mut World, name: &str) -> Seq {
    world.ask_with(name, |c| c.max_output_tokens = Some(100))
}

fn insist(world: &mut World, name: &str) -> Seq {
    world.ask_with(name, |c| {
        c.max_output_tokens = Some(100);
        c.options.no_fallback = true;
    })
}

fn settle(world: &mut World, seq: Seq, used: Usage) {
    let mut settlement = world.settlement(seq, done());
    settlement.usage = used;
    world.settle_with(settlement).unwrap();
}

fn record(world: &mut World, name: Option<&str>, session: Option<&str>, what: UsageRecord) {
    let command = usage::Command::Record(usage::Record {
        model: name.map(model),
        session: session.map(str::to_owned),
        what,
    });
    world.run(Command::Usage(Box::new(command)));
}

/// As after an append: the session holds so many tokens more.
fn grow(world: &mut World, session: &str, name: &str, more: u64) {
    let scope = usage::Scope::Session(session.to_owned());
    let held = world.state.usage.meter(&scope).map_or(0, |meter| meter.session.held);
    let tokens = held + more;
    let (session, model) = (session.to_owned(), model(name));
    world.run(Command::Usage(Box::new(usage::Command::Holds { session, model, tokens })));
}

fn set(world: &mut World, key: &str, value: &str) -> Result<Reply, Refusal> {
    let set = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    world.decide(Command::Usage(Box::new(usage::Command::SetPolicy { set, unset: vec![] })))
}

/// Every change of a level, as it was journalled.
fn changes(world: &World) -> Vec<(Subject, Level, Action)> {
    let change = |event: &Event| match event {
        Event::Usage(usage::Event::LevelChanged(change)) => {
            Some((change.subject.clone(), change.to, change.action))
        }
        _ => None,
    };
    world.journal.iter().filter_map(change).collect()
}

fn levels(world: &World) -> Vec<(Level, Action)> {
    changes(world).into_iter().map(|(_, level, action)| (level, action)).collect()
}

fn reserved(world: &World) -> u64 {
    world.state.usage.reservations.of(&Scope::Namespace).tokens
}

fn used(world: &World, scope: &Scope) -> Amount {
    let meter = world.state.usage.meter(scope);
    meter.map(|meter| meter.windows.at(Span::Day, world.wall()).used).unwrap_or_default()
}

#[test]
fn of_two_that_want_the_last_tokens_one_is_refused_with_the_reason() {
    let mut world = under(ScopeKind::Namespace, Unit::Tokens, 300);
    let first = ask(&mut world, "opus");
    let second = ask(&mut world, "opus");

    assert_eq!(world.called(first), "opus");
    let failure = world.failed_as(second);
    assert_eq!(failure.class, FailureClass::Budget);
    let words = "the budget namespace day tokens has 100 left of 300";
    assert!(failure.detail.contains(words), "{}", failure.detail);
    assert_eq!(reserved(&world), 200);
}

#[test]
fn a_models_budget_sends_the_next_question_along_its_chain() {
    let mut world = under(ScopeKind::Model, Unit::Requests, 1);
    let first = ask(&mut world, "opus");
    let second = ask(&mut world, "opus");
    let alone = insist(&mut world, "opus");

    assert_eq!((world.called(first), world.called(second)), ("opus".into(), "sonnet".into()));
    let day = 86_400_000;
    let tomorrow = WallTime((world.wall().0 / day + 1) * day);
    let failure = world.failed_as(alone);
    assert_eq!((failure.class, failure.retry_at), (FailureClass::Budget, Some(tomorrow)));
}

#[test]
fn a_chain_without_a_budget_fails_with_the_time_when_one_begins_anew() {
    let mut world = World::with(|policy| {
        policy.budgets.insert(key(ScopeKind::Namespace, Unit::Requests), 1);
    });
    ask(&mut world, "opus");
    let second = ask(&mut world, "opus");

    let failure = world.failed_as(second);
    assert_eq!(failure.class, FailureClass::Budget);
    let back = failure.retry_at.expect("tomorrow");
    assert!(back > world.wall() && back <= world.wall().after(DAY), "{back:?}");
}

#[test]
fn an_explanation_counts_the_budgets() {
    let mut world = under(ScopeKind::Model, Unit::Requests, 1);
    ask(&mut world, "opus");
    let new = consultation("opus");

    let explained = world.explain(new.clone());

    let first = &explained.candidates[0];
    assert!(!first.is_chosen && first.reason.contains("has 0 left of 1"), "{first:?}");
    assert_eq!(explained.decision, "sonnet is called");
    let alone = NewConsultation {
        options: AskOptions { no_fallback: true, ..AskOptions::default() },
        ..new
    };
    let explained = world.explain(alone);
    assert!(explained.decision.starts_with("it fails with BUDGET"), "{}", explained.decision);

    let mut minute = in_a_minute(Unit::Requests, 1);
    ask(&mut minute, "opus");
    assert_eq!(
        minute.explain(consultation("opus")).decision,
        "it waits 60.0 s, then opus is called"
    );
}

/// One budget of each model for a minute, which has just begun.
fn in_a_minute(unit: Unit, limit: u64) -> World {
    let mut world = World::with(|policy| {
        let key = BudgetKey { span: Span::Minute, ..key(ScopeKind::Model, unit) };
        policy.budgets.insert(key, limit);
    });
    let minute = 60_000;
    world.advance(Duration::from_millis(minute - world.wall().0 % minute));
    world
}

#[test]
fn a_minutes_budget_delays_and_moves_nothing() {
    let mut world = in_a_minute(Unit::Requests, 1);
    let first = ask(&mut world, "opus");
    let second = ask(&mut world, "opus");
    let third = insist(&mut world, "opus");
    settle(&mut world, first, tokens(100, 20));
    world.advance(secs(59));
    assert_eq!((world.called(first), world.deliveries.len()), ("opus".into(), 1));
    assert_eq!((world.end(second), world.end(third)), (None, None));
    assert_eq!(levels(&world), []);

    world.advance(secs(1));
    assert_eq!((world.called(second), world.deliveries.len()), ("opus".into(), 2));
    settle(&mut world, second, tokens(100, 20));
    world.restart(secs(1));
    world.run(Command::AskerBack { seq: third });
    world.greet("opus", "again", 10);
    world.advance(secs(60));
    assert_eq!(world.called(third), "opus");
}

/// What was free when it was routed is reserved when it is leased: that delays too.
#[test]
fn two_that_were_routed_before_an_agent_came_take_a_minutes_budget_one_after_the_other() {
    let mut policy = policy();
    let key = BudgetKey { span: Span::Minute, ..key(ScopeKind::Namespace, Unit::Tokens) };
    policy.budgets.insert(key, 300);
    let mut world = World::empty(policy);
    let first = insist(&mut world, "opus");
    let second = insist(&mut world, "opus");

    world.greet("opus", "first", 10);
    settle(&mut world, first, tokens(100, 100));

    assert_eq!((world.end(second), world.deliveries.len()), (None, 1));
    world.advance(secs(60));
    assert_eq!(world.called(second), "opus");
}

#[test]
fn what_a_minutes_budget_never_has_room_for_goes_on_along_its_chain_or_is_refused() {
    let mut world = World::with(|policy| {
        let key = BudgetKey {
            name: "opus".into(),
            span: Span::Minute,
            ..key(ScopeKind::Model, Unit::Tokens)
        };
        policy.budgets.insert(key, 110);
    });
    let chained = ask(&mut world, "opus");
    let alone = insist(&mut world, "opus");
    assert_eq!(world.called(chained), "sonnet");
    let failure = world.failed_as(alone);
    assert_eq!((failure.class, failure.retry_at), (FailureClass::Budget, None), "no wait helps");
}

/// Who insists on a model passes its shut gate, and has to have a budget all the same.
#[test]
fn a_budget_is_held_against_who_insists_on_a_model_that_refuses() {
    for (span, is_refused) in [(Span::Day, true), (Span::Minute, false)] {
        let mut world = World::with(|policy| {
            let key = BudgetKey { span, ..key(ScopeKind::Namespace, Unit::Requests) };
            policy.budgets.insert(key, 2);
        });
        let refused = insist(&mut world, "opus");
        world.fail_until(refused, FailureClass::RateLimited, secs(300));
        ask(&mut world, "gpt-4o");
        let alone = insist(&mut world, "opus");
        assert_eq!(world.end(alone).is_some(), is_refused, "{span:?}");
        if is_refused {
            assert_eq!(world.failed_as(alone).class, FailureClass::Budget);
        } else {
            world.advance(secs(60));
            assert_eq!(world.called(alone), "opus");
        }
    }
}

/// It waits for credit as the one that is to try the model, while another takes the last of the budget.
#[test]
fn who_is_to_try_a_model_has_no_other_budget() {
    let mut policy = policy();
    policy.budgets.insert(key(ScopeKind::Namespace, Unit::Requests), 2);
    let mut world = World::empty(policy).with_agent("opus", 1).with_agent("gpt-4o", 10);
    let refused = insist(&mut world, "opus");
    world.fail_until(refused, FailureClass::RateLimited, secs(300));
    world.advance(secs(300));
    let trying = ask(&mut world, "opus");
    let last = ask(&mut world, "gpt-4o");
    assert_eq!((world.called(last), world.deliveries.len()), ("gpt-4o".into(), 2));

    world.credit("opus", 1);

    assert_eq!(world.failed_as(trying).class, FailureClass::Budget);
}

#[test]
fn who_has_no_time_for_a_minutes_budget_is_told_so() {
    let mut world = in_a_minute(Unit::Requests, 1);
    ask(&mut world, "opus");
    let hurried = world.ask_with("opus", |c| {
        c.options.no_fallback = true;
        c.options.deadline = Some(secs(30));
    });
    let failure = world.failed_as(hurried);
    let anew = Some(world.wall().after(secs(60)));
    assert_eq!((failure.class, failure.retry_at), (FailureClass::Budget, anew));
    assert!(failure.detail.contains("minute requests of opus has 0 left of 1"), "{failure:?}");
    let moves = world.ask_with("opus", |c| c.options.deadline = Some(secs(30)));
    assert_eq!(world.called(moves), "sonnet");
}

/// Both were routed while there was room; the second is leased when there is none any more.
#[test]
fn what_was_free_when_it_was_routed_may_be_reserved_when_it_is_leased() {
    let mut policy = policy();
    policy.budgets.insert(key(ScopeKind::Namespace, Unit::Tokens), 300);
    let mut world = World::empty(policy);
    let first = ask(&mut world, "opus");
    let second = ask(&mut world, "opus");
    assert_eq!(reserved(&world), 0);

    world.greet("opus", "first", 10);

    assert_eq!(world.called(first), "opus");
    assert_eq!(world.failed_as(second).class, FailureClass::Budget);
}

#[test]
fn what_a_call_used_is_counted_in_place_of_what_it_reserved() {
    let mut world = under(ScopeKind::Namespace, Unit::Tokens, 300);
    let first = ask(&mut world, "opus");
    settle(&mut world, first, tokens(100, 20));

    assert_eq!((reserved(&world), used(&world, &Scope::Namespace).tokens), (0, 120));
    let second = ask(&mut world, "opus");
    assert_eq!(world.called(second), "opus");
    // 180 tokens are left: the answer is cut to what they pay for.
    assert_eq!(world.deliveries[1].max_output_tokens, Some(80));
}

/// A script that settles by hand says nothing of tokens; its call is no gift to a budget for that.
#[test]
fn what_an_agent_does_not_say_it_used_counts_as_estimated() {
    let mut world = under(ScopeKind::Namespace, Unit::Tokens, 300);
    let answered = ask(&mut world, "opus");
    let reply = Body { size_bytes: 40, ..Body::default() };
    world.settle(answered, Outcome::Done { reply, stop_reason: None }).unwrap();

    assert_eq!((reserved(&world), used(&world, &Scope::Namespace).tokens), (0, 110));
    // 100 tokens at 4 $ and 10 at 20 $ for a million.
    assert_eq!(used(&world, &Scope::Namespace).cost, Nanos(600_000));
    let usage = world.state.usage.get(&model("opus")).usage;
    assert_eq!(usage.provenance, Provenance::Estimated);
    assert_eq!(world.summary(answered).usage.output_tokens, Some(10));
}

#[test]
fn what_an_agent_does_say_is_left_as_it_is() {
    let mut world = World::new();
    let half = ask(&mut world, "opus");
    let partial = Usage { output_tokens: Some(7), ..Usage::default() };
    settle(&mut world, half, Usage { cache_read_tokens: Some(3), ..partial });
    assert_eq!(used(&world, &Scope::Namespace).tokens, 10);
    // Nothing of an answer came, so nobody knows what was billed.
    let failed = insist(&mut world, "opus");
    world.fail(failed, FailureClass::MalformedReply);
    assert_eq!(used(&world, &Scope::Namespace).tokens, 10);
}

#[test]
fn a_restart_neither_forgets_nor_doubles_a_reservation() {
    let mut world = under(ScopeKind::Namespace, Unit::Tokens, 300);
    let first = ask(&mut world, "opus");
    world.restart(secs(1));
    world.run(Command::AskerBack { seq: first });
    world.greet_as(link("opus", "first", 10), vec![world.token(first)]);
    assert_eq!(reserved(&world), 200);

    let second = insist(&mut world, "opus");
    assert_eq!(world.failed_as(second).class, FailureClass::Budget);
    settle(&mut world, first, tokens(100, 20));
    world.restart(secs(1));

    assert_eq!((reserved(&world), used(&world, &Scope::Namespace).tokens), (0, 120));
}

#[test]
fn however_a_lease_ends_its_reservation_ends_with_it() {
    let mut world = under(ScopeKind::Namespace, Unit::Tokens, 100_000);
    let cancelled = ask(&mut world, "opus");
    let failed = ask(&mut world, "opus");
    let lost = ask(&mut world, "sonnet");
    assert_eq!(reserved(&world), 600);

    world.run(cancel(world.given_id(cancelled)));
    assert_eq!(reserved(&world), 400);
    world.fail(failed, FailureClass::InvalidRequest);
    assert_eq!(reserved(&world), 200);
    world.hang_up("sonnet");
    world.advance(LEASE);
    world.run(cancel(world.given_id(lost)));

    assert_eq!((reserved(&world), world.end(lost)), (0, Some(MessageState::Cancelled)));
}

/// Nobody else will tell what its provider has read.
#[test]
fn a_lost_agents_prompt_counts_as_estimated() {
    let mut world = World::new();
    let seq = ask(&mut world, "opus");
    world.hang_up("opus");
    world.advance(LEASE);

    assert!(world.journal.iter().any(|event| matches!(event, Event::LeaseLost { .. })));
    let totals = world.state.usage.get(&model("opus"));
    assert_eq!((used(&world, &Scope::Namespace).tokens, totals.calls), (100, 0));
    assert_eq!(world.end(seq), None);
}

#[test]
fn each_level_of_a_budget_is_told_once_with_what_is_to_be_done() {
    let mut world = under(ScopeKind::Model, Unit::Tokens, 1_000);
    for _ in 0..21 {
        record(&mut world, Some("opus"), None, UsageRecord::Tokens(tokens(40, 10)));
    }
    assert_eq!(
        levels(&world),
        [
            (Level::Warning, Action::Log),
            (Level::Critical, Action::Prepare),
            (Level::Exhausted, Action::Move)
        ]
    );
    // The day is over; nobody asked anything meanwhile.
    world.advance(DAY);
    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
    assert_eq!(levels(&world).len(), 4);
}

#[test]
fn rate_limits_are_forgotten_by_time_alone() {
    let mut world = World::new();
    for _ in 0..3 {
        record(&mut world, Some("opus"), None, UsageRecord::RateLimit);
    }
    world.advance(secs(60));
    let want = [
        (Level::Warning, Action::Log),
        (Level::Exhausted, Action::Move),
        (Level::Healthy, Action::None),
    ];
    assert_eq!(levels(&world), want);
}

#[test]
fn levels_are_those_of_before_after_a_restart_and_fall_when_their_time_comes() {
    let mut world = World::new();
    for _ in 0..3 {
        record(&mut world, Some("opus"), None, UsageRecord::RateLimit);
    }
    world.restart(secs(30));
    assert_eq!(world.state.usage.level(&Subject::Model(model("opus"))).level, Level::Exhausted);
    assert_eq!(levels(&world).len(), 2, "nothing is told again");

    world.advance(secs(30));
    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
}

#[test]
fn an_error_rate_that_moves_lists_its_calls() {
    let mut world = World::new();
    let asked: Vec<Seq> = (0..3).map(|_| insist(&mut world, "opus")).collect();
    let ids: Vec<String> = asked.iter().map(|seq| world.given_id(*seq).to_string()).collect();
    for seq in asked {
        world.fail(seq, FailureClass::MalformedReply);
    }
    for _ in 0..7 {
        record(&mut world, Some("opus"), None, UsageRecord::Success);
    }
    let diagnosis = world.journal.iter().find_map(|event| match event {
        Event::Usage(usage::Event::LevelChanged(change)) => Some(change.diagnosis.clone()),
        _ => None,
    });
    let diagnosis = diagnosis.unwrap();
    assert_eq!(diagnosis.len(), 3);
    for id in ids {
        assert!(diagnosis.iter().any(|line| line.starts_with(&id)), "{diagnosis:?}");
    }
}

#[test]
fn a_session_moves_at_its_share_of_its_own_models_window() {
    let mut world = World::new();
    grow(&mut world, "big", "opus", 149_999);
    assert_eq!(levels(&world), []);
    grow(&mut world, "big", "opus", 1);
    grow(&mut world, "big", "opus", 30_000);
    assert_eq!(levels(&world), [(Level::Warning, Action::Log), (Level::Exhausted, Action::Move)]);

    grow(&mut world, "small", "gpt-4o", 115_199);
    grow(&mut world, "small", "gpt-4o", 1);
    let small = Subject::Session("small".into());
    let of_small = changes(&world).into_iter().filter(|(subject, ..)| *subject == small);
    let of_small: Vec<Level> = of_small.map(|(_, level, _)| level).collect();
    assert_eq!(of_small, [Level::Critical, Level::Exhausted]);
}

/// A session that went to a model with a larger window is measured by that one.
#[test]
fn a_session_that_is_restored_to_an_earlier_point_holds_less() {
    let mut world = World::new();
    let holds = |world: &mut World, tokens| {
        let (session, model) = ("s".to_owned(), model("gpt-4o"));
        world.run(Command::Usage(Box::new(usage::Command::Holds { session, model, tokens })));
    };
    holds(&mut world, 120_000);
    record(&mut world, Some("gpt-4o"), Some("s"), UsageRecord::Tokens(tokens(500, 500)));
    holds(&mut world, 40_000);
    let meter = world.state.usage.meter(&usage::Scope::Session("s".into())).unwrap();
    // What was recorded of calls elsewhere stays.
    assert_eq!(meter.session.tokens(), 41_000);
    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
}

#[test]
fn a_move_to_a_larger_window_makes_a_session_healthy() {
    let mut world = World::new();
    grow(&mut world, "s", "gpt-4o", 120_000);
    grow(&mut world, "s", "opus", 0);
    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
}

#[test]
fn tokens_recorded_of_a_session_count_towards_its_window_and_its_model() {
    let mut world = World::new();
    let opus = Some("opus");
    record(&mut world, opus, Some("s"), UsageRecord::Tokens(tokens(150_000, 0)));
    record(&mut world, None, Some("s"), UsageRecord::Tokens(tokens(20_000, 10_000)));

    let session = Subject::Session("s".into());
    assert_eq!(world.state.usage.level(&session).level, Level::Exhausted);
    assert_eq!(world.state.usage.get(&model("opus")).calls, 2);
    let meter = world.state.usage.meter(&session.scope()).unwrap();
    assert_eq!((meter.session.tokens(), meter.totals.calls), (180_000, 2));
}

#[test]
fn what_is_recorded_of_no_model_is_the_first_ones() {
    let mut world = World::with(|policy| {
        for (name, model) in &mut policy.models {
            model.place = usize::from(name.as_str() != "opus");
        }
    });
    record(&mut world, None, None, UsageRecord::Tokens(tokens(1, 1)));
    assert_eq!(world.state.usage.get(&model("opus")).calls, 1);
}

#[test]
fn a_session_keeps_what_is_said_of_it() {
    let mut world = World::new();
    let said = UsageRecord::Session { complexity: Some(0.7), rating: None };
    record(&mut world, Some("opus"), Some("s"), said);
    let said = UsageRecord::Session { complexity: None, rating: Some(4) };
    record(&mut world, Some("opus"), Some("s"), said);
    let figures = &world.state.usage.meter(&Scope::Session("s".into())).unwrap().session;
    assert_eq!((figures.complexity, figures.rating), (Some(0.7), Some(4)));
}

#[test]
fn a_session_lasts_from_its_first_call_to_its_last() {
    let mut world = World::new();
    for wait in [0, 30, 12] {
        world.advance(secs(wait));
        record(&mut world, Some("opus"), Some("s"), UsageRecord::Tokens(tokens(1, 1)));
    }
    record(&mut world, Some("opus"), Some("other"), UsageRecord::Tokens(tokens(1, 1)));
    world.restart(secs(100));
    let lasted = |session: &str| {
        let scope = Scope::Session(session.to_owned());
        world.state.usage.meter(&scope).unwrap().session.duration()
    };
    assert_eq!((lasted("s"), lasted("other")), (secs(42), secs(0)));
}

#[test]
fn a_policy_set_at_run_time_counts_at_once_and_after_a_restart() {
    let mut world = under(ScopeKind::Model, Unit::Tokens, 1_000);
    record(&mut world, Some("opus"), None, UsageRecord::Tokens(tokens(600, 0)));
    assert_eq!(levels(&world), []);
    set(&mut world, "warning", "60").unwrap();
    assert_eq!(levels(&world), [(Level::Warning, Action::Log)]);

    world.restart(secs(1));

    assert_eq!(world.state.usage.rules().thresholds.warning, 60);
    let command = usage::Command::SetPolicy { set: BTreeMap::new(), unset: vec!["warning".into()] };
    world.run(Command::Usage(Box::new(command)));
    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
}

#[test]
fn a_policy_that_contradicts_itself_changes_nothing() {
    let mut world = World::new();
    let before = format!("{:?}", world.state);
    let refused = set(&mut world, "warning", "90").unwrap_err();
    assert_eq!(refused.to_string(), "`warning` must be below `critical`");
    let unset = usage::Command::SetPolicy { set: BTreeMap::new(), unset: vec!["warning".into()] };
    assert!(world.decide(Command::Usage(Box::new(unset))).is_err());
    assert_eq!(format!("{:?}", world.state), before);
}

#[test]
fn a_reset_begins_anew_and_says_so() {
    let mut world = under(ScopeKind::Model, Unit::Tokens, 100);
    record(&mut world, Some("opus"), Some("s"), UsageRecord::Tokens(tokens(100, 0)));
    let reset = |scope| Command::Usage(Box::new(usage::Command::Reset(scope)));
    world.run(reset(Scope::Model(model("opus"))));

    assert_eq!(levels(&world).last(), Some(&(Level::Healthy, Action::None)));
    assert_eq!(used(&world, &Scope::Model(model("opus"))), Amount::default());
    assert_eq!(used(&world, &Scope::Namespace).tokens, 100);
    world.run(reset(Scope::Session("s".into())));
    let again = world.decide(reset(Scope::Session("s".into())));
    assert_eq!(again, Err(Refusal::UncountedSession("s".into())));
}

#[test]
fn money_is_counted_where_a_price_is_known() {
    let mut world = World::new();
    let seq = world.ask("opus");
    settle(&mut world, seq, tokens(1_000_000, 100_000));
    // 4 $ and 20 $ for a million.
    let key = Scope::Key("ANTHROPIC".into());
    assert_eq!(used(&world, &key).cost, Nanos(6_000_000_000));
}

/// Broker time does not follow a clock that jumped, so no window ends and no level falls by it.
#[test]
fn a_clock_that_is_a_day_ahead_ends_no_window() {
    let mut clock = BrokerClock::default();
    let boot = |seconds| BootTime(Duration::from_secs(seconds));
    let noon = WallTime(1_795_176_000_000);
    let mut state = crate::core::State::new(policy());
    let mut decide = |now| {
        let what = UsageRecord::Tokens(tokens(10, 0));
        let record = usage::Record { model: Some(model("opus")), session: None, what };
        let command = Command::Usage(Box::new(usage::Command::Record(record)));
        crate::core::decide(&mut state, command, now).unwrap();
        let meter = state.usage.meter(&Scope::Namespace).unwrap();
        meter.windows.at(Span::Day, now.wall).used.tokens
    };
    assert_eq!(decide(clock.read(noon, boot(0))), 10);
    assert_eq!(decide(clock.read(noon.after(DAY), boot(1))), 20);
    assert_eq!(decide(clock.read(noon.after(secs(2)), boot(2))), 30);
}

/// Whatever is asked or told of usage, nobody is called for it.
#[test]
fn monitoring_calls_no_provider() {
    let mut world = under(ScopeKind::Model, Unit::Tokens, 100);
    for _ in 0..50 {
        record(&mut world, Some("opus"), Some("s"), UsageRecord::Tokens(tokens(10, 10)));
        record(&mut world, Some("opus"), None, UsageRecord::RateLimit);
        record(&mut world, Some("opus"), None, UsageRecord::Error);
        for query in
            [usage::Query::Status { session: None }, usage::Query::Forecast, usage::Query::Policy]
        {
            world.run(Command::Query(Query::OfUsage(query)));
        }
        world.advance(secs(600));
    }
    assert!(!levels(&world).is_empty());
    assert_eq!((world.deliveries.len(), world.effects.len()), (0, 0));
}

/// A status says how things are, not how they were when the level changed.
#[test]
fn a_reason_is_as_new_as_the_figures_beside_it() {
    let mut world = under(ScopeKind::Key, Unit::Tokens, 1_000);
    for _ in 0..2 {
        record(&mut world, Some("opus"), None, UsageRecord::Tokens(tokens(710, 0)));
    }
    record(&mut world, Some("opus"), None, UsageRecord::Tokens(tokens(80, 0)));
    let query = Query::OfUsage(usage::Query::Status { session: None });
    let Reply::OfUsage(usage::Reply::Status(status)) = world.run(Command::Query(query)) else {
        panic!("a status")
    };
    let opus = status.models.iter().find(|it| it.model == model("opus")).unwrap();
    assert_eq!(opus.level.reason, "1500 of 1000 key day tokens");
    let window = &opus.windows[0];
    assert_eq!((window.name.as_str(), window.used), ("key day tokens", Some(1_500)));
}

/// A level takes no model out of use: what `models` says of the one is not what it says of the other.
#[test]
fn a_model_that_is_warned_of_is_available_and_one_that_is_refused_is_not() {
    let mut world = World::new();
    let opus = |world: &mut World| {
        let Reply::Models(models) = world.run(Command::Query(Query::Models)) else {
            panic!("the models")
        };
        let opus = models.into_iter().find(|it| it.name == model("opus")).unwrap();
        (opus.level, opus.is_available, opus.reason)
    };
    let said = |level: &str, is_available, reason: &str| {
        (level.to_owned(), is_available, reason.to_owned())
    };
    assert_eq!(opus(&mut world), said("HEALTHY", true, ""));
    for _ in 0..2 {
        record(&mut world, Some("opus"), None, UsageRecord::RateLimit);
    }
    let limits = "2 of 3 rate limits within 60 s";
    assert_eq!(opus(&mut world), said("WARNING", true, limits));
    world.hang_up("opus");
    assert_eq!(opus(&mut world), said("WARNING", false, "no agent serves it"));
}

/// Each scope has a window of each span, in each unit: one call fits, the next one comes when the window ends.
#[test]
fn each_scope_has_a_budget_of_each_unit_in_each_window() {
    let month = 31 * 86_400;
    let spans = [(Span::FiveHours, 5 * 3_600), (Span::Day, 86_400), (Span::Week, 7 * 86_400)];
    for (span, length) in spans.into_iter().chain([(Span::Month, month)]) {
        for kind in ScopeKind::ALL {
            // A call takes 100 tokens and at most 100 more: 0.0005 $ and 0.002 $.
            for (unit, limit) in [(Unit::Requests, 1), (Unit::Tokens, 200), (Unit::Usd, 2_500_000)]
            {
                let mut world = World::with(|policy| {
                    policy.budgets.insert(BudgetKey { span, ..key(kind, unit) }, limit);
                });
                let ask = |world: &mut World| {
                    let mut new = world.message("opus");
                    new.session = Some("s".into());
                    let consultation = new.consultation.as_mut().unwrap();
                    consultation.max_output_tokens = Some(100);
                    consultation.options.no_fallback = true;
                    world.ask_this(new)
                };
                let which = format!("{kind:?} {span:?} {unit:?}");
                let first = ask(&mut world);
                assert_eq!(world.deliveries.len(), 1, "{which}");
                settle(&mut world, first, tokens(100, 100));
                let second = ask(&mut world);
                assert_eq!(world.failed_as(second).class, FailureClass::Budget, "{which}");
                world.advance(secs(length));
                ask(&mut world);
                assert_eq!(world.deliveries.len(), 2, "{which}");
            }
        }
    }
}
