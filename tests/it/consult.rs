//! The main job as a person does it: `brokerctl consult`, through the house, on the providers' wires.

use std::fs;

use broker_proto::{AskOptions, Part, StopReason, Terminal, Tool};
use broker_tests::{Reader, TestHouse, signal};
use bytes::Bytes;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Slow enough to be watched.
const SLOW: &str = "[simulator]\ntokens_per_second = 60\n";

/// Every key of the one JSON object, and what it holds.
#[track_caller]
fn assert_shape(reply: &Value) {
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().cloned().collect()
    };
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    let mut want = vec![
        "answer",
        "asked",
        "attempts",
        "cost_usd",
        "degraded",
        "message_id",
        "model",
        "passed_over",
        "simulated",
        "usage",
    ];
    if reply.get("error").is_some() {
        want.push("error");
    }
    want.sort_unstable();
    assert_eq!(sorted(keys(reply)), want, "{reply}");
    let is_text_or_null = |value: &Value| value.is_string() || value.is_null();
    assert!(is_text_or_null(&reply["answer"]) && is_text_or_null(&reply["model"]), "{reply}");
    assert!(reply["asked"].is_string() && is_text_or_null(&reply["message_id"]), "{reply}");
    assert!(reply["degraded"].is_boolean() && reply["simulated"].is_boolean(), "{reply}");
    assert!(reply["cost_usd"].is_number() || reply["cost_usd"].is_null(), "{reply}");
    for attempt in reply["attempts"].as_array().unwrap() {
        assert_eq!(sorted(keys(attempt)), ["class", "latency_ms", "model", "wait_ms"]);
        assert!(attempt["model"].is_string() && is_text_or_null(&attempt["class"]), "{reply}");
        assert!(attempt["latency_ms"].is_u64() && attempt["wait_ms"].is_u64(), "{reply}");
    }
    for passed in reply["passed_over"].as_array().unwrap() {
        assert_eq!(sorted(keys(passed)), ["model", "reason"]);
        assert!(passed["model"].is_string() && passed["reason"].is_string(), "{reply}");
    }
    let counts = [
        "cache_read_tokens",
        "cache_write_tokens",
        "input_tokens",
        "output_tokens",
        "reasoning_tokens",
    ];
    assert_eq!(sorted(keys(&reply["usage"])), counts);
    assert!(counts.iter().all(|key| reply["usage"][key].is_u64() || reply["usage"][key].is_null()));
    if let Some(error) = reply.get("error") {
        assert_eq!(sorted(keys(error)), ["class", "message", "retry_at"]);
        assert!(error["class"].is_string() && error["message"].is_string(), "{reply}");
        assert!(is_text_or_null(&error["retry_at"]), "{reply}");
    }
}

#[tokio::test]
async fn an_answer_streams_to_stdout_and_the_story_to_stderr() {
    let house = TestHouse::with(SLOW).await;
    let ask = ["consult", "--model", "opus", "--question", "why is the sky blue?"];
    let mut asking = house.start_command(&ask).await;

    let first = asking.first_bytes().await;
    let so_far = house.sim.calls().await;
    assert_eq!(so_far[0]["done"], json!(false), "the provider is still speaking");
    let reply = asking.finish().await.exits(0);

    assert!(first.len() < reply.stdout.len() / 2, "{} of {}", first.len(), reply.stdout.len());
    assert!(reply.stdout.starts_with("You asked about \"why is the sky blue\""), "{reply:?}");
    assert!(reply.stdout.ends_with('\n'));
    assert!(reply.stderr.contains("answered by opus [simulated]"), "{reply:?}");
    assert!(!reply.stdout.contains("answered by"), "{reply:?}");
}

#[tokio::test]
async fn a_reply_is_one_json_object_of_one_shape_whatever_becomes_of_it() {
    let house = TestHouse::start().await;

    let plain = house.ask("opus", &[]).await.exits(0).json();
    assert_shape(&plain);
    assert_eq!((&plain["asked"], &plain["model"]), (&json!("opus"), &json!("opus")));
    assert_eq!((&plain["degraded"], &plain["simulated"]), (&json!(false), &json!(true)));
    assert_eq!(plain["attempts"][0]["class"], Value::Null);
    assert_eq!(plain.get("error"), None);

    for (preset, model) in
        [("anthropic.family_429", "claude-*"), ("openai.insufficient_quota", "gpt-4o")]
    {
        house.sim.refuse(preset, model, json!("forever")).await;
    }
    let fallback = house.ask("opus", &[]).await.exits(0).json();
    assert_shape(&fallback);
    assert_eq!((&fallback["asked"], &fallback["model"]), (&json!("opus"), &json!("local")));
    assert_eq!(fallback["degraded"], json!(true));
    let classes: Vec<_> =
        fallback["attempts"].as_array().unwrap().iter().map(|a| a["class"].as_str()).collect();
    let limited = Some("RATE_LIMITED");
    assert_eq!(classes, [limited, limited, Some("CREDIT_EXHAUSTED"), None]);
    assert_eq!(fallback["attempts"][3]["model"], "local");

    let failure = house.ask("sonnet", &["--no-fallback"]).await.exits(5).json();
    assert_shape(&failure);
    assert_eq!(failure["error"]["class"], "RATE_LIMITED");
    assert_eq!((&failure["model"], &failure["answer"]), (&Value::Null, &Value::Null));
    assert_shape(&house.ask("opsu", &[]).await.exits(3).json());
}

#[tokio::test]
async fn usage_and_cost_are_what_the_provider_counted() {
    let house = TestHouse::start().await;
    let context = house.folder().join("long.jsonl");
    let long = "a sentence that is said again and again. ".repeat(200);
    let turns = [("user", long.as_str()), ("assistant", "noted")];
    let lines = turns.map(|(role, content)| json!({"role": role, "content": content}).to_string());
    fs::write(&context, lines.join("\n")).unwrap();
    let context = context.display().to_string();

    for model in ["opus", "opus", "gpt-4o", "gpt-4o", "local"] {
        let reply = house.ask(model, &["--context", &context]).await.exits(0).json();
        let calls = house.sim.calls().await;
        let counted = &calls.last().unwrap()["tokens"];
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let usage = &reply["usage"];
        let read = count(&usage["cache_read_tokens"]);
        assert_eq!(read, count(&counted["cache_read"]), "{model}");
        let apart = read + count(&usage["cache_write_tokens"]);
        assert_eq!(count(&usage["input_tokens"]), count(&counted["prompt"]) - apart, "{model}");
        assert_eq!(usage["output_tokens"], counted["output"], "{model}");
        if model == "local" {
            assert_eq!(reply["cost_usd"], json!(0.0));
        }
    }
    let again = house.ask("opus", &["--context", &context]).await.exits(0).json();
    let count = |key: &str| again["usage"][key].as_f64().unwrap();
    assert!(
        count("cache_read_tokens") > 1_000.0,
        "the second time is read from the cache: {again}"
    );
    let cost = count("input_tokens") * 4.0
        + count("output_tokens") * 20.0
        + count("cache_read_tokens") * 0.2
        + count("cache_write_tokens") * 5.0;
    let told = again["cost_usd"].as_f64().unwrap();
    assert!((told - cost / 1e6).abs() < 1e-9, "{told} for {again}");
}

#[tokio::test]
async fn a_system_prompt_and_the_history_reach_the_provider() {
    let house = TestHouse::start().await;
    let file = |name: &str, text: &str| {
        let path = house.folder().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let system = file("system.md", "You answer in rhymes.");
    let context = file(
        "context.jsonl",
        "{\"role\":\"user\",\"content\":\"first\"}\n{\"role\":\"assistant\",\"content\":\"second\"}\n",
    );

    for (model, first) in [("opus", "first"), ("gpt-4o", "You answer"), ("local", "You answer")] {
        house.ask(model, &["--system", &system, "--context", &context]).await.exits(0);
        let calls = house.sim.calls().await;
        let body = &calls.last().unwrap()["body"];
        let text = body.to_string();
        let places = ["You answer in rhymes.", "first", "second", "hi"]
            .map(|said| text.find(said).unwrap_or_else(|| panic!("{said} in {text}")));
        let messages = body["messages"].to_string();
        assert!(messages.contains(first), "{model}: {messages}");
        assert!(places.iter().skip(1).is_sorted(), "{model}: {places:?}");
    }
}

#[tokio::test]
async fn the_usual_spellings_count() {
    let house = TestHouse::start().await;
    for written in ["gpt4o", "GPT-4o", "gpt_4o"] {
        let reply = house.ask(written, &[]).await.exits(0).json();
        assert_eq!(reply["model"], "gpt-4o", "{written}");
    }
}

#[tokio::test]
async fn consult_comes_back_to_its_answer_when_the_broker_is_killed() {
    let house = TestHouse::with(SLOW).await;
    let ask = ["consult", "-m", "opus", "-q", "why is the sky blue?"];
    let mut asking = house.start_command(&ask).await;
    asking.first_bytes().await;

    signal(house.broker_process(), Signal::KILL);

    let reply = asking.finish().await.exits(0);
    assert!(reply.stderr.contains("the broker is back"), "{reply:?}");
    assert_eq!(house.sim.calls().await.len(), 1, "the agent kept its lease");
    let listed = house.run(&["message", "list", "--output", "json"]).await.exits(0).json();
    let id = listed["messages"][0]["message_id"].as_str().unwrap();
    let stored = house.run(&["poll", id]).await.exits(0);
    assert_eq!(reply.stdout, stored.stdout, "not a word is missing or said twice");
}

#[tokio::test]
async fn a_question_from_stdin_is_answered() {
    let house = TestHouse::start().await;
    let ask = house.command(&["consult", "-m", "local", "-"]).stdin("what is on stdin?\n");
    let reply = ask.output().await.exits(0);
    assert!(reply.stdout.contains("what is on stdin"), "{reply:?}");
    assert!(reply.stderr.contains("[simulated]"), "{reply:?}");
}

#[tokio::test]
async fn an_answer_that_is_shown_at_the_end_is_whole() {
    let house = TestHouse::start().await;
    let id = broker_tests::new_id().to_string();
    let ask = ["consult", "-m", "opus", "-q", "hi", "--id", &id];
    let streamed = house.run(&ask).await.exits(0);
    let shown = house.run(&[&ask[..], &["--no-stream"]].concat()).await;
    assert_eq!(shown.exits(0).stdout, streamed.stdout);
}

#[tokio::test]
async fn tools_pass_to_every_provider_and_its_calls_come_back() {
    let house = TestHouse::start().await;
    for model in ["opus", "gpt-4o", "local"] {
        let mut asked = broker_tests::question(model, "please use the tool");
        let schema = br#"{"type":"object","properties":{"pattern":{"type":"string"}}}"#;
        asked.payload.generation.tools = vec![Tool {
            name: "grep".into(),
            description: "finds lines".into(),
            input_schema: Bytes::from_static(schema),
        }];

        let reader = Reader::ask(&house.client(), asked, AskOptions::default()).await;
        let answer = reader.whole().await;

        let Terminal::Done(summary) = &answer.terminal else { panic!("{answer:?}") };
        assert_eq!(summary.stop_reason, Some(StopReason::ToolCall), "{model}");
        let is_call = |part: &Part| matches!(part, Part::ToolCall { name, .. } if name == "grep");
        assert!(answer.parts.iter().any(is_call), "{model}: {answer:?}");
    }
}

#[tokio::test]
async fn an_answer_larger_than_a_frame_is_whole_however_it_is_read() {
    let house = TestHouse::start().await;
    let long = json!({"answer": {"tokens": 40_000}});
    house.sim.fault(json!({"model": "claude-*", "do": long})).await;
    let id = broker_tests::new_id().to_string();
    let most = ["--id", &id, "--max-output-tokens", "50000"];
    let ask = [&["consult", "-m", "opus", "-q", "hi"], &most[..]].concat();

    let streamed = house.run(&ask).await.exits(0).stdout;
    assert!(streamed.len() > 100_000, "{} bytes", streamed.len());

    let again = house.run(&ask).await.exits(0).stdout;
    assert!(again == streamed, "{} of {} bytes", again.len(), streamed.len());
    let json = house.ask("opus", &most).await.exits(0).json();
    assert!(json["answer"].as_str() == Some(streamed.trim_end_matches('\n')));
    for command in ["attach", "poll"] {
        let read = house.run(&[command, &id]).await.exits(0).stdout;
        assert!(read == streamed, "{command}: {} of {} bytes", read.len(), streamed.len());
    }
    assert_eq!(house.sim.calls().await.len(), 1);
}
