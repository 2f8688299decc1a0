//! What is ready before a session moves: bridges from the street, and a local model that is loaded beforehand.

use broker_tests::{TestHouse, eventually};
use serde_json::{Value, json};

/// A house with a session of opus that has two turns.
async fn house() -> TestHouse {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    for (role, text) in [("user", "We port the parser."), ("assistant", "Lists come first.")] {
        house.run(&["session", "append", "s", "--role", role, text]).await.exits(0);
    }
    house
}

async fn bridges(house: &TestHouse, verb: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["handoff", "bridge", verb, "--output", "json"], more].concat();
    let mut told = house.run(&args).await.exits(0).json();
    told["bridges"].take().as_array().unwrap().clone()
}

/// The calls that load a model and ask it nothing.
async fn loads(house: &TestHouse) -> Vec<Value> {
    let calls = house.sim.calls().await.into_iter();
    calls.filter(|call| call["body"]["messages"] == json!([])).collect()
}

#[tokio::test]
async fn a_bridge_is_kept_current_turn_by_turn_and_its_local_receiver_is_loaded() {
    let house = house().await;
    let ends = ["--session", "s", "--from", "opus", "--to", "local"];

    bridges(&house, "open", &ends).await;

    let current = async |entries: &str| {
        eventually(entries, async || {
            let status = bridges(&house, "status", &["--session", "s"]).await;
            let it = status.into_iter().next()?;
            (it["health"] == "current" && it["lag_turns"] == 0).then_some(it)
        })
        .await
    };
    let first = current("the bridge is current").await;
    assert_eq!((&first["from"], &first["to"]), (&json!("opus"), &json!("local")));
    assert!(first["last_sync"].is_string() && first["lag_tokens"] == 0, "{first}");
    let loaded = eventually("the local model is loaded", async || loads(&house).await.pop()).await;
    assert_eq!(loaded["path"], "/api/chat");
    assert!(loaded["body"]["options"]["num_ctx"].as_u64().unwrap() >= 4_096, "{loaded}");

    house.run(&["session", "append", "s", "--role", "user", "And then tables."]).await.exits(0);
    let second = current("the bridge is current again").await;
    assert_ne!(second["package"], first["package"]);
    assert_eq!(loads(&house).await.len(), 1, "it is loaded already");
    let packages = house.run(&["handoff", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(packages["packages"].as_array().unwrap().len(), 1, "the newer one replaced it");

    let begun = bridges(&house, "sync", &["--session", "s"]).await;
    assert_eq!(begun[0]["package"], second["package"], "there was nothing to make");
    bridges(&house, "close", &ends).await;
    assert_eq!(bridges(&house, "status", &[]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_bridge_from_another_model_than_the_owner_is_refused_with_the_reason() {
    let house = house().await;
    let refused = |end: &'static [&'static str]| {
        house.command(&[&["handoff", "bridge"], end].concat()).output()
    };
    let said = refused(&["open", "--session", "s", "--from", "sonnet", "--to", "local"]).await;
    let said = said.exits(1).stderr;
    assert!(said.contains("belongs to opus, not to sonnet"), "{said}");
    refused(&["open", "--session", "s", "--from", "opus", "--to", "opus"]).await.exits(1);
    refused(&["open", "--session", "s", "--from", "opus"]).await.exits(2);
    refused(&["open", "--session", "none", "--from", "opus", "--to", "local"]).await.exits(3);
    refused(&["close", "--session", "s", "--to", "local"]).await.exits(3);
    refused(&["sync", "--session", "s"]).await.exits(3);
}
