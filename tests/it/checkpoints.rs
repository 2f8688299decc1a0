//! `docs/schema/` says what the files of a checkpoint look like: its examples, its schemas and what is made agree.

use std::{fs, path::PathBuf};

use broker_client::orchestrator::{self, Level, METHOD, MustKeep, Payload, Rules, State};
use broker_proto::WallTime;
use broker_tests::repository;
use serde_json::Value;

/// When the shipped payloads were made, two hours after their state: 2026-11-20T19:42:10Z.
const NOW: WallTime = WallTime(1_795_203_730_000);
const ID: &str = "01KAH3Q8ZK5T0V9Y2X4W6R8P1N";

fn path(name: &str) -> PathBuf {
    repository().join("docs/schema").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn example(level: Level) -> Payload {
    payload(&read("examples/orchestrator-state.json"), level)
}

fn payload(state: &str, level: Level) -> Payload {
    let state = State::parse(state.as_bytes()).unwrap().0.unwrap();
    orchestrator::build(&state, level, MustKeep::All, ID, NOW).unwrap()
}

#[track_caller]
fn check_schema(schema: &str, text: &str) {
    let schema: Value = serde_json::from_str(&read(schema)).unwrap();
    let value: Value = serde_json::from_str(text).unwrap();
    let validator =
        jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    let problems: Vec<String> = validator
        .iter_errors(&value)
        .map(|problem| format!("{}: {problem}", problem.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn the_example_state_is_one_by_its_schema_and_by_the_check() {
    let text = read("examples/orchestrator-state.json");
    check_schema("orchestrator-state.schema.json", &text);
    let rules = Rules { now: NOW, max_age: std::time::Duration::from_secs(86_400), level: None };
    assert_eq!(orchestrator::check(text.as_bytes(), &rules).unwrap().findings, []);
}

#[test]
fn the_example_payloads_and_report_are_what_is_made_of_the_example_state() {
    for level in Level::ALL {
        let shipped = read(&format!("examples/context-payload.{}.json", level.as_str()));
        assert_eq!(shipped, example(level).text(), "{}", level.as_str());
    }
    let made = orchestrator::render(&example(Level::Standard), orchestrator::DEFAULT_TEMPLATE);
    assert_eq!(read("examples/handoff_report.md"), made.text);
}

#[test]
fn payloads_follow_their_schema() {
    for level in Level::ALL {
        check_schema("context-payload.schema.json", example(level).text());
        check_schema("context-payload.schema.json", payload(&crowded(), level).text());
    }
}

#[test]
#[should_panic(expected = "is a required property")]
fn the_schema_knows_what_a_level_needs() {
    let mut value: Value = serde_json::from_str(example(Level::Full).text()).unwrap();
    value.as_object_mut().unwrap().remove("environment");
    check_schema("context-payload.schema.json", &value.to_string());
}

#[test]
fn the_example_template_has_only_known_placeholders() {
    let report = orchestrator::render(&example(Level::Full), &read("examples/short-report.md"));
    assert_eq!(report.unknown, Vec::<String>::new());
    assert!(report.text.contains("# harbour-timetable: handoff"), "{}", report.text);
}

/// 10,000 tasks and every list longer than any level holds.
fn crowded() -> String {
    let mut state: Value = serde_json::from_str(&read("examples/orchestrator-state.json")).unwrap();
    let statuses = ["active", "failed", "pending", "blocked", "completed", "skipped"];
    let tasks = (0..10_000_usize).map(|number| {
        serde_json::json!({
            "id": format!("t{number}"), "title": format!("Berth {number}: depth, light and cable"),
            "status": statuses[number % 6], "depends_on": [format!("t{}", number / 2)],
            "error": "no answer within 30 s", "priority": "high",
        })
    });
    // The first would wait for itself.
    state["tasks"] = tasks.skip(1).collect();
    state["tasks"][0]["depends_on"] = serde_json::json!([]);
    state["files"] =
        (0..500).map(|number| Value::from(format!("src/berths/{number}.py"))).collect();
    state.to_string()
}

#[test]
fn the_estimate_is_not_below_what_a_tokenizer_counts() {
    let tokenizer = tiktoken_rs::o200k_base_singleton();
    for state in [read("examples/orchestrator-state.json"), crowded()] {
        for level in Level::ALL {
            let payload = payload(&state, level);
            let counted = tokenizer.encode_ordinary(payload.text()).len() as u64;
            let estimate = payload.tokens();
            assert!(counted <= estimate, "{counted} of {estimate} by `{METHOD}`");
            // One that is far too high would waste the level.
            assert!(counted * 4 >= estimate * 3, "{counted} of {estimate} by `{METHOD}`");
        }
    }
}
