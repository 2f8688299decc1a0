//! The three levels over the shipped state and over one that no level holds; and what must never get lost.

use std::fmt::Write as _;

use broker_proto::types::WallTime;
use serde_json::{Value, json};

use super::{
    DEFAULT_TEMPLATE, Fault, Kind, Level, MustKeep, PLACEHOLDERS, Payload, Rules, State, TooSmall,
    build, check, plain, render,
};

const EXAMPLE: &str = include_str!("../../../docs/schema/examples/orchestrator-state.json");
const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// Two hours after the example's state was written.
fn now() -> WallTime {
    super::state::time_of("2026-11-20T19:42:10Z").unwrap()
}

fn rules() -> Rules {
    Rules { now: now(), max_age: DAY, level: None }
}

fn state(text: &str) -> State {
    State::parse(text.as_bytes()).unwrap().0.unwrap()
}

/// Ten thousand tasks with long texts in scripts that cost most, a thousand files, and dependencies all over.
fn hostile() -> String {
    let statuses = ["active", "failed", "pending", "blocked", "completed"];
    let id = |number: usize| format!("task-{number:05}-{}", "x".repeat(number % 97));
    let task = |number: usize| {
        let long = if number.is_multiple_of(500) { 100 } else { 1 };
        json!({
            "id": id(number),
            "title": "漢字と🦀 ".repeat(number % 7 * long),
            "status": statuses[number % 5],
            "error": "\u{1b}[31m{handoff_id} </script> \"quoted\" \\ \n".repeat(number % 3 * long),
            "depends_on": (0..number.min(3 * long)).map(id).collect::<Vec<_>>(),
            "attempts": u64::MAX,
        })
    };
    json!({
        "version": "1.0", "project": "p".repeat(5_000), "current_phase": "漢".repeat(5_000),
        "updated_at": "2026-11-20T17:42:10Z",
        "goal": "Move it all", "next_steps": ["begin with the first"],
        "preferences": (0..500).map(|n| format!("preference {n} 🦀🦀🦀")).collect::<Vec<_>>(),
        "tasks": (0..10_000).map(task).collect::<Vec<_>>(),
        "files": (0..1_000).map(|n| format!("src/{n}/{}", "deep/".repeat(60))).collect::<Vec<_>>(),
        "environment": (0..300).map(|n| (format!("name{n}"), json!("v".repeat(n)))).collect::<serde_json::Map<_, _>>(),
    })
    .to_string()
}

fn payload(text: &str, level: Level) -> Payload {
    build(&state(text), level, MustKeep::All, "01JD3Q8ZK5T0V9Y2X4W6R8P1NB", now()).unwrap()
}

fn parsed(payload: &Payload) -> Value {
    serde_json::from_str(payload.text()).unwrap()
}

/// Both states at `level`: the keys are there, and the tokens are within `most` by every count there is here.
#[track_caller]
fn check_level(level: Level, keys: &[&str], most: u64) {
    for text in [EXAMPLE, &hostile()] {
        let payload = payload(text, level);
        let value = parsed(&payload);
        for key in keys {
            assert!(value.get(key).is_some(), "{key} is missing");
        }
        assert!(payload.tokens() <= most, "{} tokens", payload.tokens());
        assert_eq!(value["summary"]["tokens"]["estimate"], payload.tokens());
        let indented = serde_json::to_string_pretty(&value).unwrap();
        assert!(indented.chars().count() as u64 / 4 <= most);
        let checked = check(payload.text().as_bytes(), &rules()).unwrap();
        assert_eq!((checked.kind, checked.findings), (Kind::Payload, vec![]));
    }
}

#[test]
fn test_minimal_context() {
    check_level(Level::Minimal, &["handoff_id", "summary", "active", "failed", "next"], 500);
}

#[test]
fn test_standard_context() {
    let keys = ["version", "execution_state", "critical_context", "dag_snapshot"];
    check_level(Level::Standard, &[&MINIMAL[..], &keys].concat(), 1_200);
}

#[test]
fn test_full_context() {
    let keys = [
        "version",
        "execution_state",
        "critical_context",
        "dag_snapshot",
        "file_state",
        "environment",
    ];
    check_level(Level::Full, &[&MINIMAL[..], &keys].concat(), 2_000);
}

const MINIMAL: [&str; 5] = ["handoff_id", "summary", "active", "failed", "next"];

#[test]
fn every_unfinished_task_is_named_or_counted() {
    for text in [EXAMPLE, &hostile()] {
        let state = state(text);
        let unfinished = state.tasks.iter().filter(|task| {
            !matches!(task.status, super::TaskStatus::Completed | super::TaskStatus::Skipped)
        });
        let unfinished = unfinished.count();
        for level in Level::ALL {
            let value = parsed(&payload(text, level));
            let steps = state.next_steps.len();
            let of = |list: &Value| list.as_array().map_or(0, Vec::len);
            let named = of(&value["active"]) + of(&value["failed"]) + of(&value["next"]) - steps
                + of(&value["dag_snapshot"]["waiting"]);
            let left_out = |what: &str| value["summary"]["left_out"][what].as_u64().unwrap_or(0);
            let counted: u64 = ["active", "failed", "next", "waiting"].map(left_out).iter().sum();
            assert_eq!(named as u64 + counted, unfinished as u64, "{level:?}");
        }
    }
}

#[test]
fn the_small_level_names_something_of_each_kind() {
    let value = parsed(&payload(EXAMPLE, Level::Minimal));
    for key in ["active", "failed", "next"] {
        assert!(!value[key].as_array().unwrap().is_empty(), "{key} is empty");
    }
}

#[test]
fn what_must_be_kept_is_kept_whole_or_the_level_is_refused() {
    let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
    let constraint = "Never ".to_owned() + &"write to the old table ".repeat(150);
    value["constraints"] = json!([constraint]);
    let state = state(&value.to_string());
    let built = |level| build(&state, level, MustKeep::All, "id", now());

    let refused = built(Level::Standard).unwrap_err();
    let TooSmall { level, needed, fitting } = refused;
    assert_eq!((level, fitting), (Level::Standard, Some(Level::Full)));
    assert!(needed > 1_200, "{needed}");
    let full = parsed(&built(Level::Full).unwrap());
    assert_eq!(full["critical_context"]["constraints"], json!([constraint]));
    assert_eq!(parsed(&built(Level::Minimal).unwrap())["summary"]["left_out"]["constraints"], 1);

    let short = build(&state, Level::Standard, MustKeep::WhatFits, "id", now()).unwrap();
    assert!(short.shortened() > 0 && short.tokens() <= 1_200);
    assert_eq!(check(short.text().as_bytes(), &rules()).unwrap().findings, []);
}

#[test]
fn nothing_fits_when_no_level_does() {
    let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
    value["goal"] = json!("long ".repeat(10_000));
    let state = state(&value.to_string());
    for level in Level::ALL {
        let refused = build(&state, level, MustKeep::All, "id", now()).unwrap_err();
        assert_eq!(refused.fitting, None);
        let short = build(&state, level, MustKeep::WhatFits, "id", now()).unwrap();
        assert!(short.tokens() <= level.budget());
    }
}

#[test]
fn no_secret_of_the_environment_goes_along() {
    let full = payload(EXAMPLE, Level::Full);
    assert!(!full.text().contains("never in a payload"));
    assert_eq!(parsed(&full)["environment"]["staging_password"], "[redacted]");
}

#[test]
fn the_same_state_gives_the_same_bytes() {
    let again = payload(EXAMPLE, Level::Full);
    assert_eq!(payload(EXAMPLE, Level::Full).text(), again.text());
}

#[test]
fn the_seven_placeholders_are_filled_in() {
    let template = "{handoff_id}|{timestamp}|{project_name}|{current_phase}|{overall_progress}|{tasks_complete}|{tasks_total}";
    let report = render(&payload(EXAMPLE, Level::Minimal), template);
    let want =
        "01JD3Q8ZK5T0V9Y2X4W6R8P1NB|2026-11-20T19:42:10Z|harbour-timetable|synthesis|27%|3|12";
    assert_eq!((report.text.as_str(), report.unknown.len()), (want, 0));
}

#[test]
fn every_placeholder_is_filled_in_at_every_level() {
    let mut template = String::new();
    for (name, _) in PLACEHOLDERS {
        writeln!(template, "{name}: {{{name}}}").unwrap();
    }
    for level in Level::ALL {
        let report = render(&payload(EXAMPLE, level), &template);
        assert_eq!(report.unknown, Vec::<String>::new());
        for (name, _) in PLACEHOLDERS {
            assert!(!report.text.contains(&format!("{name}: {{")) || name == "payload_json");
        }
    }
}

#[test]
fn what_a_value_holds_is_never_filled_in_or_left_as_a_placeholder() {
    let payload = payload(&hostile(), Level::Full);
    let report = render(&payload, DEFAULT_TEMPLATE);
    assert_eq!(report.unknown, Vec::<String>::new());
    assert!(report.text.contains("\\{handoff_id}"), "{}", report.text);
    assert!(!report.text.contains('\u{1b}') && !report.text.contains("</script>"));
    let checked = check(report.text.as_bytes(), &rules()).unwrap();
    assert_eq!((checked.kind, checked.findings), (Kind::Report, vec![]));
}

#[test]
fn an_unknown_placeholder_stays_and_is_named() {
    let report = render(&payload(EXAMPLE, Level::Minimal), "{goal} {gaol} `{code}` {gaol}");
    assert!(report.text.ends_with("{gaol} `{code}` {gaol}"));
    assert_eq!(report.unknown, ["gaol"]);
    let checked = check(b"# {project_name}\n{gaol}\n", &rules()).unwrap();
    assert_eq!(checked.kind, Kind::Template);
    let [finding] = &checked.findings[..] else { panic!("{:?}", checked.findings) };
    assert_eq!((finding.fault, finding.place.as_str()), (Fault::UnknownPlaceholder, "line 2"));
}

#[test]
fn a_plain_report_holds_the_whole_payload() {
    let payload = payload(EXAMPLE, Level::Full);
    let report = plain(&payload);
    assert!(report.starts_with("# Handoff report") && report.contains(payload.text()));
    assert_eq!(check(report.as_bytes(), &rules()).unwrap().kind, Kind::Report);
}

/// The faults that a change to the example brings, with their places.
fn faults(change: impl FnOnce(&mut Value)) -> Vec<(Fault, String)> {
    let mut value: Value = serde_json::from_str(EXAMPLE).unwrap();
    change(&mut value);
    let findings = check(value.to_string().as_bytes(), &rules()).unwrap().findings;
    findings.into_iter().map(|finding| (finding.fault, finding.place)).collect()
}

fn at(fault: Fault, place: &str) -> Vec<(Fault, String)> {
    vec![(fault, place.to_owned())]
}

#[test]
fn each_mistake_of_a_state_is_named_by_its_place() {
    let set = |path: &'static str, new: Value| {
        move |state: &mut Value| *state.pointer_mut(path).unwrap() = new
    };
    use Fault as F;
    assert_eq!(faults(|_| ()), []);
    for key in ["version", "project", "updated_at", "current_phase", "tasks"] {
        let removed = faults(|state| drop(state.as_object_mut().unwrap().remove(key)));
        assert_eq!(removed, at(F::Missing, &format!("$.{key}")));
        assert_eq!(faults(|state| state[key] = json!(7))[0].0, F::Wrong, "{key}");
    }
    let wrong = |path, new: Value, place| assert_eq!(faults(set(path, new)), at(F::Wrong, place));
    assert_eq!(faults(set("/project/name", json!(" "))), at(F::Missing, "$.project.name"));
    assert_eq!(
        faults(set("/tasks/3/id", json!(null))),
        at(F::Missing, "$.tasks[3].id")[..]
            .to_vec()
            .into_iter()
            .chain(at(F::UnknownDependency, "$.tasks[7].depends_on[0]"))
            .collect::<Vec<_>>()
    );
    wrong("/version", json!("2.0"), "$.version");
    wrong("/updated_at", json!("2026-11-20T17:42:10"), "$.updated_at");
    wrong("/tasks/3/status", json!("half"), "$.tasks[3].status");
    wrong("/tasks/3/progress", json!(50), "$.tasks[3].progress");
    wrong("/tasks/3/assignee", json!({}), "$.tasks[3].assignee");
    wrong("/tasks/5/attempts", json!(-1), "$.tasks[5].attempts");
    wrong("/execution_state/step", json!(2.5), "$.execution_state.step");
    wrong("/next_steps/1", json!(1), "$.next_steps[1]");
    wrong("/files/0", json!(1), "$.files[0]");
    wrong("/environment", json!([]), "$.environment");
    assert_eq!(faults(set("/tasks/0/id", json!("sms"))).first().unwrap().0, F::Duplicate);
    assert_eq!(
        faults(set("/tasks/7/depends_on/0", json!("no"))),
        at(F::UnknownDependency, "$.tasks[7].depends_on[0]")
    );
    assert_eq!(faults(set("/tasks/7/depends_on/0", json!("drop-csv"))), at(F::Cycle, "$.tasks"));
    assert_eq!(
        faults(set("/updated_at", json!("2026-11-19T19:42:09Z"))),
        at(F::Stale, "$.updated_at")
    );
    assert_eq!(
        faults(set("/updated_at", json!("2026-11-21T19:42:10Z"))),
        at(F::Future, "$.updated_at")
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let (state, findings) = State::parse(br#"{"tasks": [{}, 3]}"#).unwrap();
    assert!(state.is_none());
    let places: Vec<&str> = findings.iter().map(|finding| finding.place.as_str()).collect();
    let want = [
        "$.version",
        "$.project",
        "$.current_phase",
        "$.updated_at",
        "$.tasks[0].id",
        "$.tasks[0].status",
        "$.tasks[1]",
    ];
    assert_eq!(places, want);
}

#[test]
fn a_file_that_is_wrong_everywhere_is_bounded() {
    let text = format!("{{\"tasks\": [{}3]}}", "3,".repeat(90_000));
    assert_eq!(State::parse(text.as_bytes()).unwrap().1.len(), 1_000);
    let text = format!("{{\"tasks\": [{}3]}}", "3,".repeat(100_000));
    let findings = State::parse(text.as_bytes()).unwrap().1;
    assert!(findings.iter().any(|finding| finding.problem.contains("100,000")));
}

/// The faults that a change to a payload brings.
fn payload_faults(level: Level, change: impl FnOnce(&mut Value)) -> Vec<(Fault, String)> {
    let mut value = parsed(&payload(EXAMPLE, level));
    change(&mut value);
    let findings = check(value.to_string().as_bytes(), &rules()).unwrap().findings;
    findings.into_iter().map(|finding| (finding.fault, finding.place)).collect()
}

#[test]
fn each_missing_key_of_a_payload_is_found_at_its_level() {
    for level in Level::ALL {
        let keys: Vec<String> =
            parsed(&payload(EXAMPLE, level)).as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let found =
                payload_faults(level, |value| drop(value.as_object_mut().unwrap().remove(&key)));
            assert_eq!(found, at(Fault::Missing, &format!("$.{key}")), "{level:?}");
        }
    }
    for key in ["project", "generated_at", "tasks_total"] {
        let found = payload_faults(Level::Minimal, |value| {
            value["summary"].as_object_mut().unwrap().remove(key);
        });
        assert_eq!(found, at(Fault::Missing, &format!("$.summary.{key}")));
    }
}

#[test]
fn a_payload_over_its_level_or_too_old_is_found() {
    let found =
        payload_faults(Level::Standard, |value| value["summary"]["level"] = json!("minimal"));
    assert_eq!(found, at(Fault::OverBudget, "$"));
    let found = payload_faults(Level::Minimal, |value| {
        value["summary"]["state_updated_at"] = json!("2026-11-01T00:00:00Z");
    });
    assert_eq!(found, at(Fault::Stale, "$.summary.state_updated_at"));
    let standard = payload(EXAMPLE, Level::Standard);
    let rules = Rules { level: Some(Level::Minimal), ..rules() };
    let findings = check(standard.text().as_bytes(), &rules).unwrap().findings;
    assert_eq!(findings[0].fault, Fault::OverBudget);
}

#[test]
fn a_text_of_placeholders_alone_is_looked_through_once() {
    let checked = check("`{a}".repeat(2 << 20).as_bytes(), &rules()).unwrap();
    assert_eq!((checked.kind, checked.findings.len()), (Kind::Report, 1_000));
    let text = format!(
        "{{\"tasks\": [{{\"id\": \"a\", \"depends_on\": [{}\"x\"]}}]}}",
        "\"x\",".repeat(1 << 20)
    );
    assert_eq!(State::parse(text.as_bytes()).unwrap().1.len(), 1_000);
    assert!(super::template(&[b'x'; (64 << 10) + 1]).is_err());
}
