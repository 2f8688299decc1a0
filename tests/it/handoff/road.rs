//! The road of a real conversation, with real processes and providers that answer on loopback: from opus over its limit to
//! sonnet, from there to the local model, and home again.

use std::{fs, path::PathBuf};

use broker_proto::{HandoffFilter, SessionId};
use broker_tests::{TestHouse, eventually, repository};
use serde_json::{Value, json};

const CONSTRAINT: &str = "Public names stay as they are.";
const SETTINGS: &str = r#"
[routing]
probe_after = "200ms"

[handoff]
auto_switch = true

[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
context_window = 200_000
fallback = ["sonnet", "local"]

[[models]]
name = "sonnet"
provider = "anthropic"
id = "claude-sonnet-5-5"
context_window = 200_000
fallback = ["local"]

[[models]]
name = "local"
provider = "ollama"
id = "llama3.2"
context_window = 16_384
"#;

/// A coding agent at work on a real issue, where that data is; else the demo's own conversation.
fn transcript() -> PathBuf {
    let real = repository().join("../shared/data/transcripts/marshmallow-1867-long.jsonl");
    if real.exists() {
        return real;
    }
    repository().join("client/src/bin/brokerctl/demo/ferrybook.jsonl")
}

/// The last words of a turn, of those that are long enough to be told apart.
fn last_said(file: &PathBuf, role: &str) -> String {
    let text = fs::read_to_string(file).unwrap();
    let turns = text.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said = turns.filter(|turn| turn["role"] == role).find_map(|turn| {
        let line = turn["content"].as_str()?.lines().map(str::trim).find(|line| line.len() > 30);
        Some(line?.to_owned())
    });
    said.unwrap()
}

async fn shown(house: &TestHouse, session: &str) -> Value {
    house.run(&["session", "show", session, "--output", "json"]).await.exits(0).json()
}

async fn owned_by(house: &TestHouse, session: &str, model: &str) -> Value {
    eventually(&format!("session {session} at {model}"), async || {
        Some(shown(house, session).await).filter(|it| it["owner"]["model"] == model)
    })
    .await
}

/// Asks the session's owner; gives who answered, and what its provider was sent.
async fn ask(house: &TestHouse, session: &str, text: &str) -> (String, String) {
    let ask = ["consult", "--session", session, "--question", text, "--output", "json"];
    let answer = house.run(&ask).await.exits(0).json();
    let calls = house.sim.calls().await;
    let last = calls.iter().rev().find(|call| call["status"] == 200).unwrap();
    (answer["model"].as_str().unwrap().to_owned(), last["body"].to_string())
}

#[tokio::test]
async fn a_conversation_over_its_limit_goes_to_sonnet_then_to_the_local_model_and_home_again() {
    let house = TestHouse::with(SETTINGS).await;
    let file = transcript();
    let path = file.display().to_string();
    let import = ["session", "import", "--file", &path, "--model", "opus"];
    let s = house.run(&import).await.exits(0).stdout.trim().to_owned();
    let constraint = ["session", "task", "add", "constraints", CONSTRAINT, "--session", &s];
    house.run(&constraint).await.exits(0);
    let before = shown(&house, &s).await["entry_count"].as_u64().unwrap();
    let newest = last_said(&file, "assistant");
    let newest = newest.replace('"', "\\\"");

    let (who, _) = ask(&house, &s, "What is done so far?").await;
    assert_eq!(who, "opus");

    // 180,000 of its 200,000 tokens.
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", &s];
    house.run(&[&record[..], &["--input", "180000", "--output", "0"]].concat()).await.exits(0);
    let moved = owned_by(&house, &s, "sonnet").await;
    assert_eq!(moved["owner"]["epoch"], 2, "{moved}");
    let (who, sent) = ask(&house, &s, "What is the next step?").await;
    assert_eq!(who, "sonnet");
    for needed in [CONSTRAINT, &newest, "What is done so far?", "What is the next step?"] {
        assert!(sent.contains(needed), "sonnet was not told: {needed}\n{sent}");
    }

    // Neither of the two has any quota left, for longer than anybody waits.
    for model in ["claude-opus-*", "claude-sonnet-*"] {
        house.sim.refuse("anthropic.spend_429", model, json!("forever")).await;
    }
    let asked = ["consult", "--model", "opus", "--no-fallback", "--question", "hi"];
    house.run(&asked).await.exits(5);
    let (who, _) = ask(&house, &s, "And after that?").await;
    assert_eq!(who, "local", "this turn went on down the chain");
    let (who, sent) = ask(&house, &s, "Are you sure?").await;
    assert_eq!(who, "local");
    for needed in [CONSTRAINT, "And after that?", "Are you sure?"] {
        assert!(sent.contains(needed), "the local model was not told: {needed}\n{sent}");
    }
    let moved = owned_by(&house, &s, "local").await;
    assert_eq!(moved["owner"]["epoch"], 3, "{moved}");

    // Its quota is back, which the next call of opus finds out.
    house.sim.heal().await;
    let client = house.client();
    let filter = HandoffFilter { session: SessionId::parse(&s).ok(), ..HandoffFilter::default() };
    let newest_handoff = client.list_handoffs(filter, 1, None).await.unwrap().items.remove(0);
    eventually("a call of opus that is let through", async || {
        let probe = ["consult", "--model", "opus", "--no-fallback", "--question", "hi"];
        (house.run(&probe).await.code == 0).then_some(())
    })
    .await;
    // By hand, unless the broker was faster.
    let _ = client.give_back_handoff(newest_handoff.id, "opus was reset".into()).await;
    owned_by(&house, &s, "opus").await;
    let (who, sent) = ask(&house, &s, "Where are we?").await;
    assert_eq!(who, "opus");
    for needed in [CONSTRAINT, "And after that?", "Where are we?"] {
        assert!(sent.contains(needed), "opus was not told: {needed}\n{sent}");
    }

    let home = shown(&house, &s).await;
    assert_eq!((&home["owner"]["model"], &home["owner"]["epoch"]), (&json!("opus"), &json!(4)));
    assert_eq!(home["entry_count"], before + 10, "every turn, once");
}
