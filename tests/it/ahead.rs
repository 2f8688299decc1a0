//! What is ready before a session moves: bridges from the street, and a local model that is loaded beforehand.

use broker_tests::{Place, TestBroker, TestHouse, eventually};
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
            (it["health"] == "healthy" && it["lag_turns"] == 0).then_some(it)
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
    let own = refused(&["open", "--session", "s", "--from", "opus", "--to", "opus"]).await;
    let own = own.exits(1).stderr;
    assert!(own.contains("belongs to opus already"), "{own}");
    refused(&["open", "--session", "s", "--from", "opus", "--to", "nobody"]).await.exits(3);
    refused(&["open", "--session", "s", "--from", "opus", "--to", "local"]).await.exits(0);
    let twice = refused(&["open", "--session", "s", "--from", "opus", "--to", "local"]).await;
    let twice = twice.exits(1).stderr;
    assert!(twice.contains("has a bridge to local already"), "{twice}");
    refused(&["close", "--session", "s", "--to", "local"]).await.exits(0);
    refused(&["open", "--session", "s", "--from", "opus"]).await.exits(2);
    refused(&["open", "--session", "none", "--from", "opus", "--to", "local"]).await.exits(3);
    refused(&["close", "--session", "s", "--to", "local"]).await.exits(3);
    refused(&["sync", "--session", "s"]).await.exits(3);
}

#[tokio::test]
async fn near_its_limit_a_session_has_a_package_for_the_local_model_and_that_is_loaded() {
    let house = house().await;
    let only = ["handoff", "models", "--remove", "sonnet", "--remove", "gpt-4o"];
    house.run(&only).await.exits(0);
    assert_eq!(loads(&house).await, Vec::<Value>::new());

    let used = ["usage", "record", "tokens", "--model", "opus", "--session", "s"];
    house.run(&[&used[..], &["--input", "760000", "--output", "1"]].concat()).await.exits(0);
    // From the warning level on each turn makes one.
    house.run(&["session", "append", "s", "--role", "user", "And then tables."]).await.exits(0);

    let loaded = eventually("the local model is loaded", async || loads(&house).await.pop()).await;
    assert_eq!(loaded["path"], "/api/chat");
    let packages = house.run(&["handoff", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(packages["packages"][0]["target_model"], "local", "{packages}");
}

#[tokio::test]
async fn a_bridge_says_how_far_it_is_behind_and_that_its_receiver_is_gone() {
    let broker = TestBroker::with(Place::Memory, "[routing]\nagent_grace = \"1ms\"\n").await;
    broker.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    let append = ["session", "append", "s", "--role", "user", "We port the parser."];
    broker.run(&append).await.exits(0);
    let mut sonnet = broker.agent("sonnet", &["sonnet"]).await;
    let open = ["handoff", "bridge", "open", "--session", "s", "--to", "sonnet"];
    broker.run(&open).await.exits(0);
    let status = ["handoff", "bridge", "status", "--output", "json"];
    let health = async |words: &str| {
        eventually(words, async || {
            let mut told = broker.run(&status).await.exits(0).json();
            let it = told["bridges"][0].take();
            (it["health"] == words).then_some(it)
        })
        .await
    };
    assert_eq!(health("healthy").await["lag_turns"], 0);

    sonnet.crash();

    let broken = health("broken").await;
    assert!(broken["problem"].as_str().unwrap().contains("no agent serves it"), "{broken}");
    let table = broker.run(&status[..3]).await.exits(0).stdout;
    assert!(table.contains("0 turns, 0 tokens") && table.contains("broken"), "{table}");
}

#[tokio::test]
async fn a_receiver_that_is_too_small_gets_no_bridge() {
    let id = "id = \"claude-sonnet-5-5\"";
    let models = broker_tests::MODELS.replace(id, &format!("{id}\ncontext_window = 900"));
    let broker = TestBroker::with(Place::Memory, &models).await;
    broker.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    let open = ["handoff", "bridge", "open", "--session", "s", "--to", "sonnet"];
    let refused = broker.run(&open).await.exits(1);
    assert!(refused.stderr.contains("do not fit"), "{}", refused.stderr);
}
