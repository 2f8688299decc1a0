//! When sessions move: the policy as it is set at run time, the check, and what is recommended.

use broker_proto::{
    Advice, HandoffCheck, HandoffPolicyChange, HandoffState, HandoffStatus, UsageRecord,
    UsageSetting,
};

use super::{
    handoff::{begin, id, last, world},
    world::*,
};
use crate::core::{
    Command, Event, Query, Refusal, Reply,
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

fn check(world: &mut World, session: &str, warning_only: bool) -> Option<HandoffCheck> {
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
