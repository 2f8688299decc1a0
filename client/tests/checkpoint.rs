//! `brokerctl handoff generate` and `validate` as a script uses them: files, streams and exit codes, without a broker.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../docs/schema/examples/orchestrator-state.json");

/// A folder with a fresh state where the command looks for it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_state(folder.path(), &fresh());
    folder
}

/// The example as if an orchestrator had just written it.
fn fresh() -> Value {
    let mut state: Value = serde_json::from_str(EXAMPLE).unwrap();
    let now = time::OffsetDateTime::now_utc();
    state["updated_at"] =
        json!(now.format(&time::format_description::well_known::Rfc3339).unwrap());
    state
}

fn write_state(folder: &Path, state: &Value) {
    fs::write(folder.join(".orchestrator_state.json"), state.to_string()).unwrap();
}

fn handoff(folder: &Path, args: &[&str]) -> Output {
    handoff_with_stdin(folder, args, b"")
}

fn handoff_with_stdin(folder: &Path, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_brokerctl"))
        .arg("handoff")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A refusal may come before everything was read.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[track_caller]
fn ends(output: &Output, code: i32) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8(both).unwrap();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn a_checkpoint_is_made_where_the_seed_puts_it() {
    let folder = folder();

    let said = ends(&handoff(folder.path(), &["generate"]), 0);

    let payload = json_of(&fs::read(folder.path().join("context_payload.json")).unwrap());
    let report = fs::read_to_string(folder.path().join("handoff_report.md")).unwrap();
    assert_eq!(payload["summary"]["level"], "standard");
    assert!(report.starts_with("# Handoff of harbour-timetable"), "{report}");
    assert!(report.contains(payload["handoff_id"].as_str().unwrap()));
    assert!(said.contains("context_payload.json") && said.contains("estimated"), "{said}");
    for file in ["context_payload.json", "handoff_report.md", ".orchestrator_state.json"] {
        ends(&handoff(folder.path(), &["validate", file]), 0);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else is left behind");
}

#[test]
fn output_is_a_file_or_a_format() {
    let folder = folder();
    let dir = folder.path();

    ends(&handoff(dir, &["generate", "--level", "minimal", "--output", "out.json"]), 0);
    assert!(dir.join("out.json").exists() && !dir.join("context_payload.json").exists());

    let output = handoff(dir, &["generate", "--payload", "p.json", "--output", "json"]);
    ends(&output, 0);
    let told = json_of(&output.stdout);
    let payload = json_of(&fs::read(dir.join("p.json")).unwrap());
    assert_eq!(told["handoff_id"], payload["handoff_id"]);
    assert_eq!(told["tokens"], payload["summary"]["tokens"]);
    assert_eq!(told["left_out"], payload["summary"]["left_out"]);
    assert!(!dir.join("json").exists());

    ends(&handoff(dir, &["generate", "--output", "./json"]), 0);
    assert!(dir.join("json").exists());

    let said = ends(&handoff(dir, &["validate", "p.json", "--output", "yaml"]), 2);
    assert!(said.contains("'yaml'") && said.contains("--output"), "{said}");
}

#[test]
fn the_state_may_come_from_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let state = fresh().to_string();
    let args = ["generate", "--state", "-", "--output", "-", "--report", "r.md"];

    let output = handoff_with_stdin(folder.path(), &args, state.as_bytes());

    ends(&output, 0);
    assert_eq!(json_of(&output.stdout)["summary"]["level"], "standard");
    ends(&handoff_with_stdin(folder.path(), &["validate", "-"], state.as_bytes()), 0);
}

#[test]
fn a_template_is_filled_in_and_one_that_cannot_be_read_is_done_without() {
    let folder = folder();
    let dir = folder.path();
    fs::write(dir.join("t.md"), "{project_name}: {tasks_complete}/{tasks_total} {typo}").unwrap();
    let report = || fs::read_to_string(dir.join("handoff_report.md")).unwrap();

    let said = ends(&handoff(dir, &["generate", "--template", "t.md"]), 0);
    assert_eq!(report(), "harbour-timetable: 3/12 {typo}");
    assert!(said.contains("nothing fills in {typo}"), "{said}");
    let said = ends(&handoff(dir, &["validate", "t.md"]), 1);
    assert!(said.contains("template: unknown_placeholder: line 1"), "{said}");

    let said = ends(&handoff(dir, &["generate", "--template", "gone.md"]), 0);
    assert!(report().starts_with("# Handoff report\n"));
    assert!(said.contains("there is no file gone.md; the report is a plain one"), "{said}");
    fs::write(dir.join("binary.md"), [0xff, 0]).unwrap();
    let said = ends(&handoff(dir, &["generate", "--template", "binary.md"]), 0);
    assert!(said.contains("plain one"), "{said}");
}

#[test]
fn a_bad_state_leaves_what_was_there() {
    let folder = folder();
    let dir = folder.path();
    ends(&handoff(dir, &["generate"]), 0);
    let before = fs::read(dir.join("context_payload.json")).unwrap();
    let mut state = fresh();
    state["tasks"][3].as_object_mut().unwrap().remove("status");
    state.as_object_mut().unwrap().remove("current_phase");
    write_state(dir, &state);

    let output = handoff(dir, &["generate", "--output", "json"]);

    ends(&output, 1);
    let told = json_of(&output.stdout);
    let places: Vec<&Value> =
        told["findings"].as_array().unwrap().iter().map(|finding| &finding["path"]).collect();
    assert_eq!(places, ["$.current_phase", "$.tasks[3].status"]);
    assert_eq!(fs::read(dir.join("context_payload.json")).unwrap(), before);
}

#[test]
fn each_refusal_has_its_exit_code() {
    let folder = folder();
    let dir = folder.path();
    ends(&handoff(dir, &["validate", "gone.json"]), 3);
    ends(&handoff(dir, &["generate", "--state", "gone.json"]), 3);
    ends(&handoff(dir, &["validate"]), 2);
    ends(&handoff(dir, &["validate", "x", "--max-age", "soon"]), 2);
    ends(&handoff(dir, &["generate", "--level", "complete"]), 2);
    ends(&handoff(dir, &["validate", "."]), 1);
    fs::write(dir.join("deep.json"), "{\"a\":".repeat(100_000)).unwrap();
    fs::write(dir.join("huge.json"), vec![b' '; (8 << 20) + 1]).unwrap();
    fs::write(dir.join("cut.json"), &EXAMPLE[..900]).unwrap();
    fs::write(dir.join("list.json"), "[1]").unwrap();
    for (file, why) in [
        ("deep.json", "deeper"),
        ("huge.json", "8192 KiB"),
        ("cut.json", "line "),
        ("list.json", "no JSON object"),
    ] {
        for args in [
            ["validate", file, "--max-age", "1h"],
            ["generate", "--state", file, "--allow-missing"],
        ] {
            let said = ends(&handoff(dir, &args), 6);
            assert!(said.contains(why), "{said}");
        }
    }
    let output = handoff(dir, &["validate", "deep.json", "--output", "json"]);
    assert_eq!(json_of(&output.stdout)["error"]["reason"], "FILE_REFUSED");
    assert!(!dir.join("context_payload.json").exists());
}

#[test]
fn no_file_is_written_over_another() {
    let folder = folder();
    let dir = folder.path();
    for args in [
        &["generate", "--output", ".orchestrator_state.json"][..],
        &["generate", "--report", "./.orchestrator_state.json"],
        &["generate", "--report", "context_payload.json"],
        &["generate", "--output=-", "--report=-"],
    ] {
        let said = ends(&handoff(dir, args), 2);
        assert!(said.contains("would be overwritten"), "{said}");
    }
    ends(&handoff(dir, &["validate", ".orchestrator_state.json"]), 0);
}

#[test]
fn an_old_state_is_a_finding_for_one_and_a_note_for_the_other() {
    let folder = folder();
    let dir = folder.path();
    let mut state = fresh();
    state["updated_at"] = json!("2026-01-01T00:00:00Z");
    write_state(dir, &state);

    let said = ends(&handoff(dir, &["validate", ".orchestrator_state.json"]), 1);
    assert!(said.contains("stale: $.updated_at"), "{said}");
    ends(&handoff(dir, &["validate", ".orchestrator_state.json", "--max-age", "100y"]), 0);
    let output = handoff(dir, &["generate", "--output", "json"]);
    ends(&output, 0);
    assert_eq!(json_of(&output.stdout)["findings"][0]["fault"], "stale");
    let said = ends(&handoff(dir, &["validate", "context_payload.json"]), 1);
    assert!(said.contains("stale: $.summary.state_updated_at"), "{said}");
}

#[test]
fn a_level_that_cannot_hold_what_must_be_kept_says_which_can() {
    let folder = folder();
    let dir = folder.path();
    let mut state = fresh();
    state["next_steps"] = json!(["Walk every berth and write down its depth. ".repeat(50)]);
    write_state(dir, &state);

    let said = ends(&handoff(dir, &["generate", "--level", "minimal"]), 1);
    assert!(said.contains("the level minimal holds 500; --level standard holds it"), "{said}");
    assert!(!dir.join("context_payload.json").exists());

    ends(&handoff(dir, &["generate", "--level", "minimal", "--allow-missing"]), 0);
    ends(&handoff(dir, &["validate", "context_payload.json"]), 0);
}

#[test]
fn help_names_every_placeholder() {
    let folder = tempfile::tempdir().unwrap();
    let said = ends(&handoff(folder.path(), &["generate", "--help"]), 0);
    for (name, _) in broker_client::orchestrator::PLACEHOLDERS {
        assert!(said.contains(&format!("{{{name}}}")), "{name}");
    }
}

#[test]
fn the_lines_of_the_howto_work_as_they_stand() {
    let howto = include_str!("../../docs/howto.md");
    let folder = folder();
    let mut ran = 0;
    for line in howto.lines() {
        let Some((_, line)) = line.split_once("brokerctl handoff ") else { continue };
        // Prose names the command too, and its other verbs need a broker.
        let is_file = line.starts_with("generate") || line.starts_with("validate");
        if line.contains('`') || !is_file {
            continue;
        }
        let line = line.replace("\"$LEVEL\"", "full");
        ends(&handoff(folder.path(), &line.split_whitespace().collect::<Vec<_>>()), 0);
        ran += 1;
    }
    assert_eq!(ran, 9, "three by hand, three for each CI");
}
