//! The conditions of a question: cost, deadline, no fallback, pictures; and that `explain` tells the truth.

use std::fs;

use broker_tests::TestHouse;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Slow enough to be watched.
const SLOW: &str = "[simulator]\ntokens_per_second = 60\n";

/// A picture of one pixel.
const PIXEL: &[u8] = &[
    0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', 0, 0, 0, 13, b'I', b'H', b'D', b'R', 0, 0,
    0, 1, 0, 0, 0, 1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 13, b'I', b'D', b'A', b'T',
    0x78, 0x9c, 0x63, 0, 1, 0, 0, 5, 0, 1, 0x0d, 0x0a, 0x2d, 0xb4, 0, 0, 0, 0, b'I', b'E', b'N',
    b'D', 0xae, 0x42, 0x60, 0x82,
];

#[tokio::test]
async fn a_model_without_vision_is_passed_over_for_a_picture() {
    let models = r#"
[[models]]
name = "blind"
provider = "anthropic"
id = "claude-opus-5-5"
vision = false
fallback = ["gpt-4o"]
[[models]]
name = "gpt-4o"
provider = "openai"
id = "gpt-4o"
"#;
    let house = TestHouse::with(models).await;
    let picture = house.folder().join("pixel.png");
    fs::write(&picture, PIXEL).unwrap();
    let picture = picture.display().to_string();

    let reply = house.ask("blind", &["--image", &picture]).await.exits(0).json();

    assert_eq!(reply["model"], "gpt-4o");
    let want = json!([{"model": "blind", "reason": "cannot see images"}]);
    assert_eq!(reply["passed_over"], want);
    let calls = house.sim.calls().await;
    assert_eq!((calls.len(), &calls[0]["images"]), (1, &json!(1)));
    let alone = house.ask("blind", &["--image", &picture, "--no-fallback"]).await.exits(1).json();
    assert_eq!(alone["error"]["class"], "INVALID_REQUEST");
}

#[tokio::test]
async fn a_cost_cap_is_a_cap_on_output_tokens() {
    let house = TestHouse::start().await;

    let capped = house.ask("opus", &["--max-cost", "0.0006"]).await.exits(0).json();
    let calls = house.sim.calls().await;
    let cap = calls[0]["body"]["max_tokens"].as_u64().unwrap();
    assert!((16..=30).contains(&cap), "{cap}");
    assert!(capped["cost_usd"].as_f64().unwrap() <= 0.0006, "{capped}");

    let alone = house.ask("opus", &["--max-cost", "0.00001", "--no-fallback"]).await.exits(1);
    assert_eq!(alone.json()["error"]["class"], "BUDGET");
    let cheaper = house.ask("opus", &["--max-cost", "0.00001"]).await.exits(0).json();
    assert_eq!(cheaper["model"], "local", "what costs nothing still answers");
    assert_eq!(cheaper["passed_over"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_explain_shows_is_what_then_happens() {
    let house = TestHouse::start().await;
    let limit = json!({
        "model": "claude-opus-*", "times": "forever", "retry_after": "10m",
        "do": {"preset": "anthropic.family_429"},
    });
    house.sim.fault(limit).await;
    let explain = ["explain", "--model", "opus", "--question", "hi", "--output", "json"];
    let chosen = |json: &Value| -> Vec<Value> {
        let candidates = json["candidates"].as_array().unwrap().clone();
        candidates.into_iter().filter(|c| c["chosen"] == json!(true)).collect()
    };

    let before = house.run(&explain).await.exits(0).json();
    assert_eq!(chosen(&before)[0]["model"], "opus");
    assert_eq!(house.sim.calls().await.len(), 0, "nothing was sent");
    let listed = house.run(&["message", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(listed["messages"], json!([]), "nothing was stored");

    house.ask("opus", &[]).await.exits(0);
    let after = house.run(&explain).await.exits(0).json();
    let choice = chosen(&after);
    assert_eq!((choice.len(), &choice[0]["model"]), (1, &json!("sonnet")));
    let reply = house.ask("opus", &[]).await.exits(0).json();
    assert_eq!(reply["model"], "sonnet");
    assert_eq!(reply["passed_over"][0]["reason"], after["candidates"][0]["reason"]);
    let alone = [&explain[..], &["--no-fallback"]].concat();
    let alone = house.run(&alone).await.exits(0).json();
    assert_eq!(chosen(&alone)[0]["model"], "opus");
}

#[tokio::test]
async fn no_fallback_calls_the_named_model_even_when_it_is_unavailable() {
    let house = TestHouse::start().await;
    house.sim.refuse("anthropic.family_429", "claude-opus-*", json!(2)).await;

    for _ in 0..2 {
        let failed = house.ask("opus", &["--no-fallback"]).await.exits(5).json();
        assert_eq!(failed["attempts"].as_array().unwrap().len(), 1);
    }
    let back = house.ask("opus", &["--no-fallback"]).await.exits(0).json();

    assert_eq!(back["model"], "opus");
    assert_eq!(house.sim.calls().await.len(), 3);
    let models = house.run(&["models", "--output", "json"]).await.exits(0).json();
    let opus = models["models"].as_array().unwrap().iter().find(|m| m["name"] == "opus").unwrap();
    // The person's probe brought it back; what was refused before is still a signal.
    let said = (&opus["level"], &opus["reason"]);
    assert_eq!(said, (&json!("WARNING"), &json!("2 of 3 rate limits within 60 s")));
}

#[tokio::test]
async fn a_deadline_that_passes_is_seven_and_ends_the_call() {
    let house = TestHouse::start().await;
    house.sim.fault(json!({"times": "forever", "do": {"stall_first": {}}})).await;

    let late = house.ask("opus", &["--deadline", "1s"]).await.exits(7).json();

    assert_eq!(late["error"]["class"], "TIMEOUT");
    assert_eq!(house.sim.calls_once_left(1).await.len(), 1);
    let text = house.run(&["consult", "-m", "opus", "-q", "hi", "--deadline", "500ms"]).await;
    assert!(text.exits(7).stderr.contains("deadline"));
}

/// I-37
#[tokio::test]
async fn ctrl_c_cancels_the_work_down_to_the_providers_call() {
    let house = TestHouse::with(SLOW).await;
    let mut asking = house.start_command(&["consult", "-m", "opus", "-q", "hi"]).await;
    asking.first_bytes().await;

    asking.signal(Signal::INT);

    let left = asking.finish().await.exits(130);
    assert!(left.stderr.contains("cancelled"), "{left:?}");
    let calls = house.sim.calls_once_left(1).await;
    assert_eq!((calls.len(), &calls[0]["client_gone"]), (1, &json!(true)));
    let listed = house.run(&["message", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(listed["messages"][0]["state"], "cancelled");
}

#[tokio::test]
async fn a_reader_that_has_read_enough_is_success() {
    let house = TestHouse::with(SLOW).await;
    let mut asking = house.start_command(&["consult", "-m", "opus", "-q", "hi"]).await;
    asking.first_bytes().await;

    let output = asking.without_reader().await.exits(0);

    assert!(!output.stderr.contains("error"), "{output:?}");
}
