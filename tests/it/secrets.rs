//! Keys never appear in any output, log, error, stored byte or process argument.

use std::{
    fs,
    path::{Path, PathBuf},
};

use broker_tests::{Output, TestHouse};
use serde_json::json;

const ANTHROPIC: &str = "sk-ant-api03-CANARYa1b2c3d4e5f6";

const OPENAI: &str = "sk-proj-CANARYg7h8i9j0k1l2m3n4";

const THIRD: &str = "third-CANARYo5p6q7r8s9t0u1v2";

const AGENT: &str = "agent-CANARYw3x4y5z6a7b8c9d0";

/// What every key above holds, and nothing else in the house does.
const CANARY: &[u8] = b"CANARY";

const MODELS: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
fallback = ["gpt-4o", "third", "local"]
[[models]]
name = "gpt-4o"
provider = "openai"
id = "gpt-4o"
[[models]]
name = "third"
provider = "openai"
id = "gpt-5"
api_key_env = "THIRD_KEY"
[[models]]
name = "local"
provider = "ollama"
id = "llama3.2"
"#;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// The files of the house that hold `wanted`: stores, write-ahead logs, settings, logs.
fn written_in(house: &TestHouse, wanted: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&house.folder(), &mut found);
    // A socket has no bytes.
    let holds_it = |path: &PathBuf| fs::read(path).is_ok_and(|bytes| holds(&bytes, wanted));
    found.into_iter().filter(holds_it).collect()
}

#[track_caller]
fn assert_nowhere_written(house: &TestHouse, wanted: &[u8]) {
    // The search finds what is there: each answer is in a store.
    let stores = written_in(house, b"You asked about");
    assert!(stores.iter().any(|path| path.display().to_string().contains("journal.db")));
    assert_eq!(written_in(house, wanted), [] as [PathBuf; 0]);
}

#[track_caller]
fn assert_not_said(output: &Output, wanted: &str) {
    assert!(!output.stdout.contains(wanted) && !output.stderr.contains(wanted), "{output:?}");
}

#[tokio::test]
async fn keys_are_nowhere_but_in_the_environment_of_their_own_agent() {
    let env = [
        ("ANTHROPIC_API_KEY", ANTHROPIC),
        ("OPENAI_API_KEY", OPENAI),
        ("THIRD_KEY", THIRD),
        ("BROKER_AGENT_TOKEN", AGENT),
        ("BROKER_LOG", "trace"),
    ];
    let mut house = TestHouse::with_env(MODELS, &env).await;
    // Vendors quote the rejected key, whole or in part; what comes back must go no further.
    for (model, key) in [("claude-*", ANTHROPIC), ("gpt-4o", OPENAI), ("gpt-5", THIRD)] {
        let says = format!("Incorrect API key provided: {key} ({}...).", &key[..14]);
        let body = json!({"type": "error", "error": {
            "type": "authentication_error", "code": "invalid_api_key", "message": says,
        }});
        let status = json!({"status": {"status": 401, "body": body}});
        house.sim.fault(json!({"model": model, "skip": 1, "do": status})).await;
    }

    let mut said = Vec::new();
    for model in ["opus", "gpt-4o", "third", "opus", "third", "gpt-4o", "opus"] {
        said.push(house.ask(model, &["--verbose"]).await);
    }
    assert!(said[3].stdout.contains("CREDENTIALS_REJECTED"), "{:?}", said[3]);
    let config = house.data_dir().join("effective.toml").display().to_string();
    let mut doctor = house.command(&["doctor", "--config", &config, "--verbose"]);
    for (name, value) in env {
        doctor = doctor.env(name, value);
    }
    said.push(doctor.output().await);
    let id = said[0].json()["message_id"].as_str().unwrap().to_owned();
    for args in [
        &["models"][..],
        &["models", "--output", "json"],
        &["agents", "--output", "json"],
        &["message", "list", "--output", "json"],
        &["message", "get", &id, "--payload"],
        &["message", "watch", &id],
        &["usage", "status"],
        &["token", "list"],
    ] {
        said.push(house.run(args).await.exits(0));
    }
    for output in &said {
        assert_not_said(output, "CANARY");
    }
    for (pid, arguments) in house.processes() {
        assert!(!arguments.concat().contains("CANARY"), "{arguments:?}");
        let seen = fs::read(format!("/proc/{pid}/environ")).unwrap();
        let keys = [ANTHROPIC, OPENAI, THIRD, AGENT];
        let seen: Vec<&str> = keys.into_iter().filter(|key| holds(&seen, key.as_bytes())).collect();
        let serves = |name: &str| arguments.windows(2).any(|two| two == ["--model", name]);
        let own = match () {
            () if serves("opus") => vec![ANTHROPIC],
            () if serves("gpt-4o") => vec![OPENAI],
            () if serves("third") => vec![THIRD],
            () => vec![],
        };
        assert_eq!(seen, own, "{arguments:?}");
    }
    assert_nowhere_written(&house, CANARY);
    assert_eq!(house.stop(), Some(0));
    assert!(house.log().len() > 10_000, "the log was at trace");
    assert_nowhere_written(&house, CANARY);
}

#[tokio::test]
async fn an_agents_token_is_stored_as_a_hash_only() {
    let mut house = TestHouse::with_env(MODELS, &[("BROKER_LOG", "trace")]).await;
    house.ask("opus", &[]).await.exits(0);
    let made = house.run(&["token", "create", "parrot"]).await.exits(0);
    let token = made.stdout.trim();
    let endpoint = house.endpoint().to_string();
    let agent = broker_tests::Program::new("broker-agent")
        .args(&["--model", "local", "--name", "parrot", "--endpoint", &endpoint])
        .env("BROKER_AGENT_TOKEN", token)
        .env("BROKER_LOG", "trace")
        .start()
        .await;
    broker_tests::eventually("the parrot", async || {
        let agents = house.run(&["agents"]).await;
        agents.stdout.contains("parrot").then_some(())
    })
    .await;

    agent.signal(rustix::process::Signal::TERM);
    let output = agent.finish().await.exits(0);

    assert_not_said(&output, token);
    assert_nowhere_written(&house, token.as_bytes());
    house.stop();
    assert_nowhere_written(&house, token.as_bytes());
}

#[tokio::test]
async fn what_is_asked_and_answered_is_in_no_log() {
    let house = TestHouse::with_env("", &[("BROKER_LOG", "trace")]).await;
    let ask = ["consult", "-m", "opus", "-q", "the word is FERNWEHKANARIE", "--verbose"];
    let reply = house.run(&ask).await.exits(0);
    assert!(reply.stdout.contains("FERNWEHKANARIE"));
    assert!(!house.log().contains("FERNWEHKANARIE"));
    let answered = reply.stdout.split(". ").nth(1).unwrap();
    assert!(!house.log().contains(answered), "{answered}");
}
