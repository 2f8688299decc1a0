//! What providers do to a house, and what its people get to see.

use std::time::{Duration, Instant};

use broker_tests::{TestHouse, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Two models of different providers, and as little waiting as a test can do with.
const TWO: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
fallback = ["gpt-4o"]
first_byte_timeout = "2s"
between_bytes_timeout = "2s"

[[models]]
name = "gpt-4o"
provider = "openai"
id = "gpt-4o"
first_byte_timeout = "2s"
between_bytes_timeout = "2s"
"#;

/// The attempts of a reply as (model, class).
fn attempts(reply: &Value) -> Vec<(&str, &str)> {
    let attempts = reply["attempts"].as_array().unwrap();
    attempts
        .iter()
        .map(|a| (a["model"].as_str().unwrap(), a["class"].as_str().unwrap_or("answered")))
        .collect()
}

async fn reason(house: &TestHouse, model: &str) -> String {
    let models = house.run(&["models", "--output", "json"]).await.exits(0).json();
    let models = models["models"].as_array().unwrap();
    let found = models.iter().find(|row| row["name"] == json!(model)).unwrap();
    found["reason"].as_str().unwrap().to_owned()
}

/// A refusal that waiting does not mend: told on `models`, passed over from then on, tried with a new process.
async fn waits_for_configuration(preset: &str, class: &str, words: &str) {
    let house = TestHouse::with(TWO).await;
    house.sim.refuse(preset, "claude-*", json!(1)).await;

    let first = house.ask("opus", &[]).await.exits(0).json();
    assert_eq!(attempts(&first), [("opus", class), ("gpt-4o", "answered")]);
    assert_eq!(first["model"], "gpt-4o");
    let told = reason(&house, "opus").await;
    assert!(told.contains(words), "{told}");
    let second = house.ask("opus", &[]).await.exits(0);
    assert_eq!(attempts(&second.json()), [("gpt-4o", "answered")]);
    let passed = &second.json()["passed_over"][0];
    assert_eq!(passed["model"], "opus");
    assert!(passed["reason"].as_str().unwrap().contains(words), "{passed}");
    let text = house.run(&["consult", "-m", "opus", "-q", "hi"]).await.exits(0);
    assert!(text.stderr.contains("opus") && text.stderr.contains(words), "{}", text.stderr);
    let refused = house.sim.calls().await;
    let refused = refused.iter().filter(|call| call["model"] == "claude-opus-5-5");
    assert_eq!(refused.count(), 1, "it is not called again");

    signal(house.agent_process("opus"), Signal::KILL);
    eventually("opus, with a new process", async || {
        reason(&house, "opus").await.is_empty().then_some(())
    })
    .await;
    let third = house.ask("opus", &[]).await.exits(0).json();
    assert_eq!(attempts(&third), [("opus", "answered")]);
}

#[tokio::test]
async fn a_rejected_key_makes_its_model_unavailable_until_the_configuration_changes() {
    let class = "CREDENTIALS_REJECTED";
    waits_for_configuration("anthropic.invalid_key_401", class, "its key was rejected").await;
}

#[tokio::test]
async fn a_model_that_is_gone_is_unavailable_until_the_configuration_changes() {
    let words = "the provider does not know it";
    waits_for_configuration("anthropic.not_found_404", "MODEL_NOT_FOUND", words).await;
}

#[tokio::test]
async fn garbage_and_silence_before_the_first_token_are_followed_by_another_attempt() {
    for (effect, class) in [
        (json!({"garbage": {"after": 0}}), "MALFORMED_REPLY"),
        (json!({"html": 502}), "OVERLOADED"),
        (json!({"stall_first": {}}), "TIMEOUT"),
        (json!({"cut": {"after": 0}}), "UNREACHABLE"),
        (json!({"end": {"after": 3}}), "TRUNCATED"),
    ] {
        let house = TestHouse::with(TWO).await;
        house.sim.fault(json!({"model": "claude-*", "do": effect})).await;

        let reply = house.run(&["consult", "-m", "opus", "-q", "hi"]).await.exits(0);

        assert!(reply.stdout.contains("hi"), "{effect}: {reply:?}");
        let listed = house.run(&["message", "list", "--output", "json"]).await.json();
        let summary = &listed["messages"][0]["summary"];
        let got = attempts(summary);
        assert_eq!(got, [("opus", class), ("opus", "answered")], "{effect}");
    }
}

/// Slow enough that the first words are read long before the fault.
fn after_text(effect: &Value) -> Value {
    json!({"model": "claude-*", "do": [effect, {"pace": 20}]})
}

#[tokio::test]
async fn a_break_after_the_first_token_is_failed_with_what_arrived() {
    for (effect, class) in [
        (json!({"cut": {"after": 8}}), "TRUNCATED"),
        (json!({"garbage": {"after": 8}}), "MALFORMED_REPLY"),
        (json!({"stall_between": {"after": 8}}), "TIMEOUT"),
        (json!({"end": {"after": 8}}), "TRUNCATED"),
    ] {
        let house = TestHouse::with(TWO).await;
        house.sim.fault(after_text(&effect)).await;

        let reply = house.run(&["consult", "-m", "opus", "-q", "hi"]).await;

        assert!([1, 7].contains(&reply.code), "{effect}: {reply:?}");
        assert!(reply.stdout.starts_with("You asked"), "what arrived is shown: {reply:?}");
        assert!(reply.stderr.contains(class), "{effect}: {reply:?}");
        assert_eq!(house.sim.calls().await.len(), 1, "{effect}");
    }
}

#[tokio::test]
async fn a_break_after_the_first_token_begins_anew_where_the_asker_allowed_it() {
    let house = TestHouse::with(TWO).await;
    house.sim.fault(after_text(&json!({"cut": {"after": 8}}))).await;
    house.sim.fault(after_text(&json!({"cut": {"after": 8}}))).await;

    let reply = house.run(&["consult", "-m", "opus", "-q", "hi", "--restart"]).await.exits(0);

    assert!(reply.stderr.contains("answered by gpt-4o"), "{reply:?}");
    let listed = house.run(&["message", "list", "--output", "json"]).await.json();
    let want = [("opus", "TRUNCATED"), ("opus", "TRUNCATED"), ("gpt-4o", "answered")];
    assert_eq!(attempts(&listed["messages"][0]["summary"]), want);
}

#[tokio::test]
async fn with_all_models_exhausted_the_earliest_time_is_told() {
    let house = TestHouse::with(TWO).await;
    let for_ever = |model: &str, preset: &str, wait: &str| json!({"model": model, "times": "forever", "retry_after": wait, "do": {"preset": preset}});
    house.sim.fault(for_ever("claude-*", "anthropic.family_429", "10m")).await;
    house.sim.fault(for_ever("gpt-4o", "openai.rate_limit_rpm", "5m")).await;

    let reply = house.ask("opus", &[]).await.exits(5);
    let json = reply.json();
    assert_eq!(attempts(&json), [("opus", "RATE_LIMITED"), ("gpt-4o", "RATE_LIMITED")]);
    assert_eq!(json["error"]["class"], "RATE_LIMITED");
    let told = json["error"]["retry_at"].as_str().unwrap().to_owned();

    // Nobody is called any more, and the time is that of the one that comes back first.
    let text = house.run(&["consult", "-m", "opus", "-q", "hi"]).await.exits(5);
    assert!(text.stderr.contains("the earliest time to try again is"), "{text:?}");
    assert_eq!(text.stdout, "");
    let again = house.ask("opus", &[]).await.exits(5).json();
    assert_eq!(again["error"]["retry_at"], told);
    assert_eq!(again["passed_over"].as_array().unwrap().len(), 2);
    assert_eq!(house.sim.calls().await.len(), 2);
}

#[tokio::test]
async fn where_no_time_is_known_is_said_what_a_person_must_do() {
    let house = TestHouse::with(TWO).await;
    house.sim.refuse("openai.insufficient_quota", "gpt-4o", json!("forever")).await;

    let reply = house.ask("gpt-4o", &[]).await.exits(5).json();
    assert_eq!(reply["error"]["class"], "CREDIT_EXHAUSTED");
    assert_eq!(reply["error"]["retry_at"], Value::Null);
    let text = house.run(&["consult", "-m", "gpt-4o", "-q", "hi"]).await.exits(5);
    assert!(text.stderr.contains("add credit"), "{text:?}");
    assert!(text.stdout.is_empty());
}

#[tokio::test]
async fn the_same_id_twice_is_one_answer_and_one_call() {
    let house = TestHouse::start().await;
    let id = broker_tests::new_id().to_string();

    let first = house.ask("opus", &["--id", &id]).await.exits(0).json();
    let second = house.ask("opus", &["--id", &id]).await.exits(0).json();

    assert_eq!(first, second);
    assert_eq!(first["message_id"], id.as_str());
    assert_eq!(house.sim.calls().await.len(), 1);
}

#[tokio::test]
async fn an_agent_killed_in_the_middle_is_followed_at_once_by_its_new_instance() {
    let house = TestHouse::with("[simulator]\ntokens_per_second = 60\n").await;
    let began = Instant::now();
    let ask = ["consult", "-m", "opus", "-q", "hi", "--restart"];
    let mut asking = house.start_command(&ask).await;
    asking.first_bytes().await;

    signal(house.agent_process("opus"), Signal::KILL);

    let reply = asking.finish().await.exits(0);
    assert!(reply.stderr.contains("answered by opus"), "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
    let listed = house.run(&["message", "list", "--output", "json"]).await.json();
    assert_eq!(listed["messages"].as_array().unwrap().len(), 1);
    let want = [("opus", "AGENT_LOST"), ("opus", "answered")];
    assert_eq!(attempts(&listed["messages"][0]["summary"]), want);
    assert_eq!(house.sim.calls().await.len(), 2);
}

#[tokio::test]
async fn an_agent_killed_after_text_was_shown_is_failed_with_it() {
    let house = TestHouse::with("[simulator]\ntokens_per_second = 60\n").await;
    let mut asking = house.start_command(&["consult", "-m", "opus", "-q", "hi"]).await;
    let first = asking.first_bytes().await;

    signal(house.agent_process("opus"), Signal::KILL);

    let reply = asking.finish().await.exits(1);
    assert!(reply.stdout.as_bytes().starts_with(&first), "{reply:?}");
    assert!(reply.stderr.contains("AGENT_LOST"), "{reply:?}");
    assert_eq!(house.sim.calls().await.len(), 1);
}

#[tokio::test]
async fn a_short_rate_limit_is_waited_for_where_nobody_else_can_answer() {
    let house = TestHouse::with(TWO).await;
    let limit =
        json!({"model": "gpt-4o", "retry_after": "1s", "do": {"preset": "openai.rate_limit_rpm"}});
    house.sim.fault(limit).await;

    let reply = house.ask("gpt-4o", &[]).await.exits(0).json();

    assert_eq!(attempts(&reply), [("gpt-4o", "RATE_LIMITED"), ("gpt-4o", "answered")]);
    let calls = house.sim.calls().await;
    let at = |call: &Value| call["at_ms"].as_u64().unwrap();
    assert!(at(&calls[1]) - at(&calls[0]) >= 900, "{calls:?}");
}

#[tokio::test]
async fn a_context_too_long_for_one_window_goes_to_a_larger_one() {
    let models = r#"
[[models]]
name = "small"
provider = "openai"
id = "gpt-4o"
fallback = ["smaller", "large"]
[[models]]
name = "smaller"
provider = "ollama"
id = "llama3.2"
context_window = 4096
[[models]]
name = "large"
provider = "anthropic"
id = "claude-opus-5-5"
context_window = 1_000_000
"#;
    let house = TestHouse::with(models).await;
    house.sim.refuse("openai.context_length_exceeded", "gpt-4o", json!(1)).await;

    let reply = house.ask("small", &[]).await.exits(0).json();

    assert_eq!(attempts(&reply), [("small", "CONTEXT_TOO_LONG"), ("large", "answered")]);
    assert_eq!(reply["passed_over"][0]["model"], "smaller");
}
