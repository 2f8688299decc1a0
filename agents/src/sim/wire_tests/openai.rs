use super::*;

#[tokio::test]
async fn a_completion_is_answered_whole_with_the_snapshots_name() {
    let world = World::new().await;

    let response = world.completions(&gpt("Why?")).await;

    assert!(header(&response, "x-request-id").is_some());
    assert_eq!(header(&response, "x-ratelimit-reset-requests").unwrap(), "6ms");
    let (_, completion) = body(response).await;
    assert_eq!(completion["model"], "gpt-4o-2024-08-06");
    assert_eq!(completion["choices"][0]["finish_reason"], "stop");
    let text = completion["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(completion["usage"]["completion_tokens"], crate::sim::count(text));
}

#[tokio::test]
async fn usage_is_streamed_only_on_demand_in_a_chunk_without_choices() {
    let world = World::new().await;
    let mut ask = streamed(gpt("Why?"));
    let plain = world.completions(&ask).await.text().await.unwrap();
    ask["stream_options"] = json!({"include_usage": true});

    let text = world.completions(&ask).await.text().await.unwrap();

    assert!(!plain.contains("\"usage\""));
    assert!(plain.ends_with("data: [DONE]\n\n") && text.ends_with("data: [DONE]\n\n"));
    let chunks = data(&text);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chunks[0]["usage"], Value::Null);
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"]["completion_tokens"],
        crate::sim::count(&joined(&chunks, "/choices/0/delta/content"))
    );
}

#[tokio::test]
async fn a_tool_is_called_with_its_arguments_as_text_in_pieces() {
    let world = World::new().await;
    let mut ask = streamed(gpt("use the tool for Brno"));
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    ask["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);

    let chunks = data(&world.completions(&ask).await.text().await.unwrap());

    let arguments = joined(&chunks, "/choices/0/delta/tool_calls/0/function/arguments");
    assert_eq!(arguments, r#"{"city":"Brno"}"#);
    assert_eq!(joined(&chunks, "/choices/0/finish_reason"), "tool_calls");

    ask["stream"] = json!(false);
    let (_, whole) = body(world.completions(&ask).await).await;
    assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
}

#[tokio::test]
async fn cached_tokens_are_part_of_the_prompt() {
    let world = World::new().await;
    let talk = |question: &str| json!({"model": "gpt-4o", "messages": [{"role": "system", "content": "word ".repeat(1_000)}, {"role": "user", "content": question}]});

    world.completions(&talk("one")).await;
    let (_, second) = body(world.completions(&talk("two")).await).await;

    assert_eq!(second["usage"]["prompt_tokens"], 1_259);
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 1_152);
}

#[tokio::test]
async fn a_reasoning_model_can_spend_everything_on_reasoning() {
    let world = World::new().await;
    let mut ask = gpt("Why?");
    ask["model"] = json!("gpt-5");
    ask["max_completion_tokens"] = json!(20);

    let (_, completion) = body(world.completions(&ask).await).await;

    assert_eq!(completion["choices"][0]["finish_reason"], "length");
    assert_eq!(completion["choices"][0]["message"]["content"], "");
    assert_eq!(completion["usage"]["completion_tokens_details"]["reasoning_tokens"], 20);
}

#[tokio::test]
async fn refusals_have_the_wires_form() {
    let world =
        World::with(fast_with(vec![ModelSpec { window: Some(1_000), ..spec("gpt-4o") }])).await;
    let mut nope = gpt("hi");
    nope["model"] = json!("gpt-nope");

    let (status, unknown) = body(world.completions(&nope).await).await;
    assert_eq!((status, &unknown["error"]["code"]), (404, &json!("model_not_found")));
    let (status, long) = body(world.completions(&gpt(&"word ".repeat(2_000))).await).await;
    assert_eq!(
        (status, &long["error"]["code"], &long["error"]["param"]),
        (400, &json!("context_length_exceeded"), &json!("messages"))
    );
    let request = world.post("/v1/chat/completions", &gpt("hi")).bearer_auth("sk-invalid-canary");
    let (status, dead) = body(request.send().await.unwrap()).await;
    assert_eq!((status, &dead["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(!dead.to_string().contains("canary"));
}

#[tokio::test]
async fn models_are_listed_and_shown() {
    let world = World::new().await;

    assert_eq!(world.get("/v1/models").await["data"][0]["id"], "gpt-4o");
    assert_eq!(world.get("/v1/models/gpt-4o-mini").await["object"], "model");
}
