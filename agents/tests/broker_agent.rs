//! `broker-agent` as its callers see it: what it prints, and how it exits.

#![expect(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    thread,
};

use serde_json::Value;
use tempfile::TempDir;

const CANARY: &str = "sk-canary-0123456789";

/// The program with nothing of this process's environment.
fn agent(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_broker-agent"));
    command.env_clear().env("HOME", dir).current_dir(dir);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A provider that refuses every key, as OpenAI does: quoting it.
fn refusing_provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).unwrap();
            let body = format!(
                r#"{{"error":{{"message":"Incorrect API key provided: {CANARY}","type":"invalid_request_error","code":"invalid_api_key"}}}}"#
            );
            let length = body.len();
            let head = format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    address
}

fn config(dir: &TempDir, base_url: &str) -> std::path::PathBuf {
    let path = dir.path().join("config.toml");
    let model = |name: &str, provider: &str| {
        format!(
            "[[models]]\nname = \"{name}\"\nprovider = \"{provider}\"\nid = \"x\"\nbase_url = \"{base_url}\"\n"
        )
    };
    let text = model("gpt", "openai") + &model("claude", "anthropic") + &model("llama", "ollama");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_check_names_status_and_remedy_of_every_model_and_no_key() {
    let dir = TempDir::new().unwrap();
    let config = config(&dir, &refusing_provider());

    let output = agent(dir.path())
        .args(["--check", "--output", "json", "--config"])
        .arg(config)
        .env("OPENAI_API_KEY", CANARY)
        .env("BROKER_LOG", "trace")
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |at: usize, name: &str| found["models"][at][name].as_str().unwrap().to_owned();
    assert_eq!((of(0, "key"), of(0, "status")), ("present".into(), "key_rejected".into()));
    assert_eq!((of(1, "key"), of(1, "status")), ("missing".into(), "key_missing".into()));
    assert_eq!(
        (of(2, "key"), found["models"][2]["reachable"].clone()),
        ("not needed".into(), true.into())
    );
    assert!(of(1, "remedy").contains("ANTHROPIC_API_KEY"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, CANARY).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let check = |arguments: &[&str], code: i32, want: &str| {
        let output = agent(dir.path()).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(want), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("canary"));
    };
    check(&[], 2, "--model");
    check(&["--model", "opsu"], 1, "opus");
    check(&["--model", "opus"], 1, "ANTHROPIC_API_KEY is not set");
    check(&["--model", "local"], 1, "brokerctl token create");
    check(&["--model", "local", "--token-file", "token"], 1, "chmod 600");
    check(&["--model", "local", "--config", "absent.toml"], 1, "absent.toml");
}

#[test]
fn a_signal_drains_and_exits_zero_even_without_a_broker() {
    let dir = TempDir::new().unwrap();
    let mut child = agent(dir.path())
        .args(["--model", "local", "--endpoint", "unix:absent.sock"])
        .env("BROKER_AGENT_TOKEN", CANARY)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // It logs once its signals are its own.
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();

    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();

    assert!(killed.success());
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{line}{rest}");
    assert!(!format!("{line}{rest}").contains("canary"));
}

#[test]
fn the_end_of_stdin_drains_when_asked_to() {
    let dir = TempDir::new().unwrap();
    let output = agent(dir.path())
        .args(["--model", "local", "--endpoint", "unix:absent.sock", "--exit-with-parent"])
        .env("BROKER_AGENT_TOKEN", CANARY)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}
