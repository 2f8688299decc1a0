use std::time::Duration;

use super::*;
use crate::core::usage::Level;

fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

fn candidate(name: &str) -> Candidate {
    Candidate {
        model: model(name),
        window: 200_000,
        level: Level::Healthy,
        back_at: None,
        shut: None,
        is_absent: false,
        is_deaf: false,
        is_degraded: name == "local",
    }
}

fn hop(from: &str, to: &str, at: u64) -> Hop {
    let id = HandoffId::from_parts(WallTime(at), 1);
    Hop { id, from: model(from), to: model(to), at: WallTime(at) }
}

const NOW: WallTime = WallTime(1_000_000);

fn judged(
    kind: TriggerKind,
    candidates: &[Candidate],
    recent: &[Hop],
    settings: &Settings,
) -> Verdict {
    judged_after(0, kind, candidates, recent, settings)
}

/// After so many moves that nobody asked for.
fn judged_after(
    hops: u32,
    kind: TriggerKind,
    candidates: &[Candidate],
    recent: &[Hop],
    settings: &Settings,
) -> Verdict {
    arbiter::judge(&Case {
        settings,
        kind,
        owner: &model("opus"),
        owner_back_at: Some(WallTime(9_000_000)),
        candidates,
        needs: 2_000,
        recent,
        hops,
        is_forced: false,
        now: NOW,
    })
}

fn offered(verdict: Verdict) -> (String, Vec<String>) {
    match verdict {
        Verdict::Offer { to, then } => {
            (to.to_string(), then.iter().map(ToString::to_string).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_that_is_healthy_is_asked_and_the_local_model_last() {
    let near = Candidate { level: Level::Critical, ..candidate("sonnet") };
    let all = [candidate("local"), near, candidate("gpt-4o")];
    let verdict = judged(TriggerKind::UsageLimit, &all, &[], &Settings::default());
    assert_eq!(offered(verdict), ("gpt-4o".into(), vec!["sonnet".into(), "local".into()]));
}

#[test]
fn advice_is_followed_only_where_that_is_switched_on() {
    let all = [candidate("sonnet")];
    let settings = Settings::default();
    for kind in [TriggerKind::ComplexityMismatch, TriggerKind::Optimisation] {
        let verdict = judged(kind, &all, &[], &settings);
        assert_eq!(verdict, Verdict::Recommend { to: model("sonnet"), then: vec![] });
        let on = Settings { auto_switch: true, ..settings.clone() };
        assert_eq!(offered(judged(kind, &all, &[], &on)).0, "sonnet");
    }
}

#[test]
fn nobody_better_waits_for_the_first_that_comes_back() {
    let shut = Candidate {
        shut: Some(("quota".into(), Some(WallTime(2_000_000)))),
        ..candidate("sonnet")
    };
    let small = Candidate { window: 3_000, ..candidate("local") };
    let verdict = judged(TriggerKind::UsageLimit, &[shut, small], &[], &Settings::default());
    let Verdict::Stay { why, until } = verdict else { panic!("{verdict:?}") };
    assert_eq!(until, Some(WallTime(2_000_000)));
    assert_eq!(why.len(), 2);
    assert!(why[1].reason.contains("2000 tokens"), "{why:?}");
}

#[test]
fn the_same_move_waits_for_its_cooldown_and_the_way_back_does_not() {
    let settings = Settings { cooldown: Duration::from_secs(60), ..Settings::default() };
    let all = [candidate("sonnet"), candidate("gpt-4o")];
    let recent = [hop("opus", "sonnet", 970_000), hop("sonnet", "opus", 980_000)];
    let verdict = judged(TriggerKind::UsageLimit, &all, &recent, &settings);
    assert_eq!(offered(verdict), ("gpt-4o".into(), vec![]));
    // A person may.
    let verdict = judged(TriggerKind::UserRequest, &all, &recent, &settings);
    assert_eq!(offered(verdict).0, "sonnet");
    // After it, it may again.
    let long_ago = [hop("opus", "sonnet", 900_000)];
    let verdict = judged(TriggerKind::UsageLimit, &all, &long_ago, &settings);
    assert_eq!(offered(verdict).0, "sonnet");
}

#[test]
fn a_session_that_moved_too_often_by_itself_is_moved_by_people_only() {
    let settings = Settings { max_hops: 3, ..Settings::default() };
    let all = [candidate("sonnet")];
    let after = |hops, kind| judged_after(hops, kind, &all, &[], &settings);
    assert_eq!(offered(after(2, TriggerKind::UsageLimit)).0, "sonnet");
    let Verdict::Stay { why, .. } = after(3, TriggerKind::UsageLimit) else { panic!("it moves") };
    assert!(why[0].reason.contains("moved 3 times by itself"), "{why:?}");
    assert_eq!(offered(after(3, TriggerKind::UserRequest)).0, "sonnet");
}

#[test]
fn who_may_not_receive_is_not_asked() {
    let receivers = Some([model("gpt-4o")].into());
    let settings = Settings { receivers, ..Settings::default() };
    let all = [candidate("sonnet"), candidate("gpt-4o")];
    let verdict = judged(TriggerKind::UsageLimit, &all, &[], &settings);
    assert_eq!(offered(verdict), ("gpt-4o".into(), vec![]));
}
