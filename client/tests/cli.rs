//! The real `brokerctl`, where it needs no broker: exit codes, refusals, and what is said on which stream.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn brokerctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_brokerctl"));
    command.args(args).stdin(Stdio::null()).env_remove("BROKER_ENDPOINT");
    command
}

fn run(args: &[&str]) -> Output {
    brokerctl(args).output().unwrap()
}

fn run_with_stdin(args: &[&str], stdin: &[u8]) -> Output {
    let mut command = brokerctl(args);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A refusal may come before everything was read.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, want: &str) {
    let stderr = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.contains(want), "{stderr}");
    assert!(output.stdout.is_empty(), "{:?}", output.stdout);
}

#[test]
fn without_a_broker_one_line_says_how_to_start_it() {
    for command in ["models", "agents", "ping", "consult -m opus -q hi", "usage status"] {
        let folder = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}/none.sock", folder.path().display());
        let mut args: Vec<&str> = command.split(' ').collect();
        args.extend(["--endpoint", &socket]);

        let output = run(&args);

        refused(&output, 4, "brokerctl up");
        assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    }
}

#[test]
fn the_endpoint_comes_from_the_environment_too() {
    let output =
        brokerctl(&["models"]).env("BROKER_ENDPOINT", "unix:/nowhere/b.sock").output().unwrap();
    refused(&output, 4, "unix:/nowhere/b.sock");

    let output = brokerctl(&["models"]).env("BROKER_ENDPOINT", "http://x").output().unwrap();
    refused(&output, 2, "unix:PATH");
}

#[test]
fn a_failed_consultation_is_one_json_object_all_the_same() {
    let output = run(&[
        "consult",
        "-m",
        "opus",
        "-q",
        "hi",
        "--output",
        "json",
        "--endpoint",
        "unix:/nowhere/b.sock",
    ]);

    assert_eq!(output.status.code(), Some(4));
    let json = json(&output);
    assert_eq!(json["error"]["class"], "BROKER_UNREACHABLE");
    assert_eq!(json["error"]["retry_at"], serde_json::Value::Null);
    assert_eq!(json["attempts"], serde_json::json!([]));
    assert_eq!(json["asked"], "opus");
}

#[test]
fn wrong_usage_is_two() {
    for args in [
        &["consult", "--modell", "opus"][..],
        &["consult", "-m", "opus"],
        &["nonsense"],
        &["poll", "not-an-id"],
        &["models", "--output", "yaml"],
        &["models", "--endpoint", "tcp:1"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn bad_questions_are_refused_before_the_broker_is_asked() {
    let ask = ["consult", "-m", "opus", "-", "--endpoint", "unix:/nowhere/b.sock"];
    refused(&run_with_stdin(&ask, b""), 2, "the question is empty");
    refused(&run_with_stdin(&ask, b"\xff\xfe\x00"), 2, "stdin is binary");
    refused(&run_with_stdin(&ask, b"a\0b"), 2, "stdin is binary");
    let long = vec![b'a'; (32 << 20) + 1];
    refused(&run_with_stdin(&ask, &long), 2, "over the limit of 32 MiB");
    refused(&run(&["consult", "-m", "opus", "-q", " "]), 2, "the question is empty");
}

#[test]
fn bad_files_are_refused_by_name_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("c.jsonl"), "{\"role\":\"user\",\"content\":\"x\"}\n{\"role\":3}\n")
        .unwrap();
    std::fs::write(path("p.png"), "<svg/>").unwrap();
    let ask =
        |flag: &str, file: &str| run(&["consult", "-m", "opus", "-q", "hi", flag, &path(file)]);

    refused(&ask("--context", "c.jsonl"), 2, "c.jsonl:2: `role` must be a string");
    refused(&ask("--image", "p.png"), 2, "PNG, JPEG, GIF and WebP");
    refused(&ask("--system", "missing"), 3, "missing");
}

#[test]
fn a_wrong_setting_is_refused_with_file_line_key_and_the_nearest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "[broker]\nshutdown_grase = \"1s\"\n").unwrap();
    let file = file.display().to_string();
    let data = folder.path().join("data").display().to_string();

    let output = run(&["up", "--simulated", "--config", &file, "--data-dir", &data]);

    refused(&output, 2, "my.toml:2:1: unknown key `shutdown_grase`");
    assert!(stderr(&output).contains("did you mean `shutdown_grace`?"), "{}", stderr(&output));
    assert!(
        !std::path::Path::new(&data).exists(),
        "nothing was made before the configuration was right"
    );
    let missing = run(&["up", "--config", "/nowhere.toml", "--data-dir", &data]);
    refused(&missing, 2, "`/nowhere.toml`");
}

#[test]
fn a_wrong_variable_is_refused_by_its_name() {
    let output = brokerctl(&["models"]).env("BROKER_ROUTING_PATINCE", "3s").output().unwrap();
    refused(&output, 2, "BROKER_ROUTING_PATIENCE");
}

#[test]
fn each_shell_has_its_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success(), "{shell}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("consult"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = brokerctl(&["completions", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn help_shows_an_example() {
    for command in ["up", "demo", "consult", "submit", "poll", "attach", "explain", "doctor"] {
        let output = run(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(String::from_utf8(output.stdout).unwrap().contains("Examples:"), "{command}");
    }
}
