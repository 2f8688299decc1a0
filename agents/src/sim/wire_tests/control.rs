use super::*;

async fn control(world: &World, path: &str, body: &Value) -> (u16, Value) {
    super::body(world.post(path, body).send().await.unwrap()).await
}

#[tokio::test]
async fn faults_are_added_listed_and_cleared_over_http() {
    let world = World::new().await;
    let faults = json!([
        {"wire": "anthropic", "model": "claude-opus-*", "for": "6s", "do": {"preset": "anthropic.family_429"}},
        {"wire": "anthropic", "times": 1, "do": [{"cut": {"after": 3}}, {"split": 2}]}
    ]);

    assert_eq!(control(&world, "/_sim/faults", &faults).await, (200, json!({"ids": [1, 2]})));
    assert_eq!(world.messages(&claude("hi")).await.status().as_u16(), 429);
    assert_eq!(world.get("/_sim/faults").await["faults"][0]["fired"], 1);
    world
        .client
        .delete(format!("http://{}/_sim/faults", world.sim.address()))
        .send()
        .await
        .unwrap();
    assert!(world.messages(&claude("hi")).await.status().is_success());
}

#[tokio::test]
async fn a_mistake_is_answered_with_what_is_wrong() {
    let world = World::new().await;

    let (status, wrong) =
        control(&world, "/_sim/faults", &json!({"modle": "x", "do": {"html": 502}})).await;
    assert_eq!(status, 400);
    assert!(wrong["error"].as_str().unwrap().contains("unknown field `modle`"), "{wrong}");
    let (_, wrong) =
        control(&world, "/_sim/faults", &json!({"do": {"preset": "anthropic.nope"}})).await;
    assert_eq!(wrong["error"], "unknown preset `anthropic.nope`");
    let (_, wrong) = control(&world, "/_sim/quotas", &json!({"use_up": "nope"})).await;
    assert_eq!(wrong["error"], "unknown quota `nope`");
}

#[tokio::test]
async fn quotas_are_set_used_up_and_refilled_over_http() {
    let world = World::new().await;
    let set = json!({"set": {"name": "q", "model": "gpt-*", "kind": "requests", "limit": 5}});

    assert_eq!(control(&world, "/_sim/quotas", &set).await.1["quotas"][0]["left"], 5.0);
    assert_eq!(
        control(&world, "/_sim/quotas", &json!({"use_up": "q"})).await.1["quotas"][0]["left"],
        0.0
    );
    assert_eq!(world.completions(&gpt("hi")).await.status().as_u16(), 429);
    control(&world, "/_sim/quotas", &json!({"refill": "*"})).await;
    assert!(world.completions(&gpt("hi")).await.status().is_success());
}

#[tokio::test]
async fn the_journal_can_be_waited_for_and_shows_no_key() {
    let world = World::new().await;
    let request = world.post("/v1/messages", &claude("hi")).header("x-api-key", "sk-canary");
    let waiting = world.get("/_sim/journal?wait=1");

    let (journal, _) =
        tokio::join!(waiting, request.header("anthropic-version", "2023-06-01").send());

    assert_eq!(journal["timed_out"], false);
    let entry = &journal["entries"][0];
    assert_eq!(entry["headers"]["x-api-key"], "present");
    assert_eq!(entry["body"]["messages"][0]["content"], "hi");
    assert!(!journal.to_string().contains("canary"));
    assert_eq!(world.get("/_sim/journal?since=1&wait=1&timeout_ms=1").await["timed_out"], true);
}

#[tokio::test]
async fn a_reset_brings_the_script_back() {
    let script = r#"{"tokens_per_second": 0, "first_token": 0,
        "quotas": [{"name": "q", "wire": "anthropic", "kind": "requests", "limit": 1}],
        "faults": [{"do": {"preset": "openai.overloaded_503"}}]}"#;
    let world = World::with(serde_json::from_str(script).unwrap()).await;
    for _ in 0..2 {
        assert!(world.messages(&claude("hi")).await.status().is_success());
        assert_eq!(world.messages(&claude("hi")).await.status().as_u16(), 429);
        assert_eq!(world.completions(&gpt("hi")).await.status().as_u16(), 503);

        assert_eq!(control(&world, "/_sim/reset", &json!({})).await.0, 200);
    }

    assert_eq!(world.get("/_sim/state").await["requests"], 0);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let listen = "0.0.0.0:0".parse().unwrap();

    let refused = Simulator::start(Options { listen, ..Options::default() }).await;

    assert!(refused.is_err());
}

#[tokio::test]
async fn each_wire_has_the_base_its_sdk_takes() {
    let world = World::new().await;

    assert!(world.sim.base_url(Wire::OpenAi).ends_with("/v1"));
    assert!(!world.sim.base_url(Wire::Anthropic).ends_with("/v1"));
}
