use super::*;
use crate::sim::{Kind, QuotaSpec, Refill, script::Span};

fn quota(name: &str, model: &str, kind: Kind, limit: f64, per: Option<u64>) -> QuotaSpec {
    QuotaSpec {
        name: name.into(),
        wire: None,
        model: Some(model.into()),
        key: None,
        kind,
        limit,
        per: per.map(|seconds| Span(Duration::from_secs(seconds))),
        refill: Refill::Window,
        refusal: None,
    }
}

#[tokio::test]
async fn a_used_up_family_is_refused_with_its_time_and_other_families_are_not() {
    let world = World::new().await;
    world.sim.quota(quota("opus", "claude-opus-*", Kind::Requests, 1.0, Some(3_600))).unwrap();

    let first = world.messages(&claude("hi")).await;
    let second = world.messages(&claude("hi")).await;

    assert_eq!(header(&first, "anthropic-ratelimit-requests-remaining").as_deref(), Some("0"));
    assert_eq!(second.status().as_u16(), 429);
    let wait: u64 = header(&second, "retry-after").unwrap().parse().unwrap();
    assert!((3_590..=3_600).contains(&wait), "{wait}");
    let mut sonnet = claude("hi");
    sonnet["model"] = json!("claude-sonnet-5-5");
    assert!(world.messages(&sonnet).await.status().is_success());
    assert_eq!(world.sim.journal()[1].quota.as_deref(), Some("opus"));
}

#[tokio::test]
async fn a_refilled_quota_lets_requests_pass_again() {
    let world = World::new().await;
    world.sim.quota(quota("opus", "claude-opus-*", Kind::Requests, 1.0, None)).unwrap();
    world.sim.use_up("opus").unwrap();
    assert_eq!(world.messages(&claude("hi")).await.status().as_u16(), 429);

    world.sim.refill("opus").unwrap();

    assert!(world.messages(&claude("hi")).await.status().is_success());
}

#[tokio::test]
async fn spent_money_is_refused_in_each_vendors_own_way() {
    let world = World::new().await;
    for (name, model) in [("anthropic", "claude-*"), ("openai", "gpt-*")] {
        world.sim.quota(quota(name, model, Kind::Money, 0.000_1, None)).unwrap();
    }
    world.messages(&claude("hi")).await.text().await.unwrap();
    world.completions(&gpt("hi")).await.text().await.unwrap();

    let (status, broke) = body(world.messages(&claude("hi")).await).await;
    assert_eq!(status, 400);
    assert!(
        broke["error"]["message"].as_str().unwrap().starts_with("Your credit balance is too low")
    );
    let (status, broke) = body(world.completions(&gpt("hi")).await).await;
    assert_eq!((status, &broke["error"]["type"]), (429, &json!("insufficient_quota")));
}

#[tokio::test]
async fn openai_says_when_to_try_again_or_that_it_never_helps() {
    let world = World::new().await;
    world.sim.quota(quota("tpm", "gpt-4o", Kind::Tokens, 200.0, Some(60))).unwrap();
    world.completions(&gpt(&"x".repeat(700))).await.text().await.unwrap();

    let response = world.completions(&gpt(&"x".repeat(700))).await;
    assert!(header(&response, "retry-after-ms").is_some());
    let (_, limited) = body(response).await;
    assert!(limited["error"]["message"].as_str().unwrap().contains("Please try again in "));
    let (_, large) = body(world.completions(&gpt(&"x".repeat(4_000))).await).await;
    let message = large["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Request too large for gpt-4o") && !message.contains("try again"),
        "{message}"
    );
}

#[tokio::test]
async fn ollama_is_busy() {
    let world = World::new().await;
    world.sim.quota(quota("queue", "llama3.2", Kind::Requests, 0.0, None)).unwrap();

    let (status, refusal) = body(world.ollama(&llama("hi")).await).await;

    assert_eq!(status, 503);
    assert!(refusal["error"].as_str().unwrap().starts_with("server busy"));
}

#[tokio::test]
async fn what_is_left_is_shown_on_successful_replies() {
    let world = World::new().await;
    world.sim.quota(quota("itpm", "claude-*", Kind::InputTokens, 30_000.0, Some(3_600))).unwrap();

    world.messages(&claude(&"x".repeat(16_000))).await.text().await.unwrap();
    let response = world.messages(&claude("hi")).await;

    assert_eq!(
        header(&response, "anthropic-ratelimit-input-tokens-limit").as_deref(),
        Some("30000")
    );
    assert_eq!(
        header(&response, "anthropic-ratelimit-input-tokens-remaining").as_deref(),
        Some("26000")
    );
    assert_eq!(header(&response, "anthropic-ratelimit-tokens-remaining").as_deref(), Some("26000"));
}

#[tokio::test]
async fn cached_reads_count_towards_openais_limits_and_not_towards_anthropics() {
    let world = World::new().await;
    world.sim.quota(quota("anthropic", "claude-*", Kind::InputTokens, 2_000.0, None)).unwrap();
    world.sim.quota(quota("openai", "gpt-*", Kind::InputTokens, 2_000.0, None)).unwrap();
    let long = "word ".repeat(1_000);
    let talk = |question: &str| json!([{"role": "user", "content": long}, {"role": "user", "content": question}]);
    let mut statuses = Vec::new();

    for question in ["one", "two"] {
        let ask = json!({"model": "claude-opus-5-5", "max_tokens": 64, "messages": talk(question)});
        statuses.push(world.messages(&ask).await.status().as_u16());
        let ask = json!({"model": "gpt-4o", "messages": talk(question)});
        statuses.push(world.completions(&ask).await.status().as_u16());
    }

    assert_eq!(statuses, [200, 200, 200, 429]);
}
