use super::*;

fn kinds(events: &[Value]) -> Vec<String> {
    let mut kinds: Vec<String> =
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn a_message_is_answered_whole_with_its_usage_and_headers() {
    let world = World::new().await;

    let response = world.messages(&claude("Why is the sync slow?")).await;

    assert!(header(&response, "request-id").unwrap().starts_with("req_"));
    assert_eq!(header(&response, "anthropic-ratelimit-requests-limit").unwrap(), "4000");
    assert!(header(&response, "anthropic-ratelimit-tokens-reset").unwrap().ends_with('Z'));
    let (status, message) = body(response).await;
    assert_eq!((status, message["stop_reason"].as_str()), (200, Some("end_turn")));
    let text = message["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Why is the sync slow"), "{text}");
    assert_eq!(message["usage"]["output_tokens"], crate::sim::count(text));
    assert_eq!(message["usage"]["input_tokens"], crate::sim::count("Why is the sync slow?") + 4);
}

#[tokio::test]
async fn a_stream_has_the_events_in_order_and_the_text_of_the_whole() {
    let world = World::new().await;
    let (_, whole) = body(world.messages(&claude("Why?")).await).await;

    let text = world.messages(&streamed(claude("Why?"))).await.text().await.unwrap();

    let events = data(&text);
    let order: Vec<String> = kinds(&events).into_iter().filter(|kind| kind != "ping").collect();
    let mut order = order;
    order.dedup();
    assert_eq!(
        order,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert!(text.contains("event: ping\n"));
    assert_eq!(joined(&events, "/delta/text"), whole["content"][0]["text"].as_str().unwrap());
    let delta = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(delta["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[tokio::test]
async fn a_tool_is_called_in_pieces_and_its_result_answered() {
    let world = World::new().await;
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "exact": {"type": "boolean"}}});
    let mut ask = streamed(claude("use the tool for Brno"));
    ask["tools"] = json!([{"name": "get_weather", "input_schema": schema}]);

    let events = data(&world.messages(&ask).await.text().await.unwrap());

    let arguments = joined(&events, "/delta/partial_json");
    assert_eq!(
        serde_json::from_str::<Value>(&arguments).unwrap(),
        json!({"city": "Brno", "exact": true})
    );
    let call = events.iter().find(|event| event["content_block"]["type"] == "tool_use").unwrap();
    let delta = events.iter().find(|event| event["type"] == "message_delta").unwrap();
    assert_eq!(delta["delta"]["stop_reason"], "tool_use");

    let id = &call["content_block"]["id"];
    let talk = ask["messages"].as_array_mut().unwrap();
    talk.push(json!({"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "get_weather", "input": {}}]}));
    talk.push(json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "12 degrees"}]}));
    let events = data(&world.messages(&ask).await.text().await.unwrap());
    assert!(joined(&events, "/delta/text").starts_with("The tool's result is in."));
}

#[tokio::test]
async fn thinking_comes_in_a_block_of_its_own_and_counts_as_output() {
    let world = World::new().await;
    let mut ask = claude("Why?");
    ask["thinking"] = json!({"type": "adaptive"});

    let (_, message) = body(world.messages(&ask).await).await;

    assert_eq!(message["content"][0]["type"], "thinking");
    let thinking = message["usage"]["output_tokens_details"]["thinking_tokens"].as_u64().unwrap();
    assert!(thinking > 0 && message["usage"]["output_tokens"].as_u64().unwrap() > thinking);
}

#[tokio::test]
async fn a_conversation_that_grows_is_read_from_the_cache_and_input_excludes_it() {
    let world = World::new().await;
    let long = "word ".repeat(1_000);
    let talk = |question: &str| json!({"model": "claude-opus-5-5", "max_tokens": 64, "system": long, "messages": [{"role": "user", "content": question}]});

    let (_, first) = body(world.messages(&talk("one")).await).await;
    let (_, second) = body(world.messages(&talk("two")).await).await;

    assert_eq!(first["usage"]["cache_read_input_tokens"], 0);
    assert_eq!(second["usage"]["cache_read_input_tokens"], 1_254);
    assert_eq!(second["usage"]["input_tokens"], 5);
}

#[tokio::test]
async fn a_marked_prompt_is_written_to_the_cache() {
    let world = World::new().await;
    let block = json!({"type": "text", "text": "word ".repeat(1_000), "cache_control": {"type": "ephemeral"}});
    let mut ask = claude("Why?");
    ask["system"] = json!([block]);

    let (_, message) = body(world.messages(&ask).await).await;

    assert_eq!(message["usage"]["cache_creation_input_tokens"], 1_254);
    assert_eq!(message["usage"]["cache_creation"]["ephemeral_5m_input_tokens"], 1_254);
    assert_eq!(message["usage"]["input_tokens"], 5);
}

#[tokio::test]
async fn credentials_are_asked_for_and_rejected_in_the_wires_form() {
    let world = World::new().await;
    let ask = |name: &'static str, value: &'static str| {
        world
            .post("/v1/messages", &claude("hi"))
            .header("anthropic-version", "2026-10-21")
            .header(name, value)
            .send()
    };

    let (status, none) = body(ask("x-other", "1").await.unwrap()).await;
    assert_eq!((status, &none["error"]["type"]), (401, &json!("authentication_error")));
    let (_, key) = body(ask("x-api-key", "my-invalid-key").await.unwrap()).await;
    assert_eq!(key["error"]["message"], "invalid x-api-key");
    let (_, bearer) = body(ask("authorization", "Bearer my-invalid-key").await.unwrap()).await;
    assert_eq!(bearer["error"]["message"], "invalid bearer token");
    assert!(ask("authorization", "Bearer anything").await.unwrap().status().is_success());
}

#[tokio::test]
async fn a_model_that_is_not_declared_is_not_found() {
    let world = World::with(fast_with(vec![spec("claude-sonnet-5-5")])).await;

    let (status, refusal) = body(world.messages(&claude("hi")).await).await;

    assert_eq!(status, 404);
    assert_eq!(
        refusal["error"],
        json!({"type": "not_found_error", "message": "model: claude-opus-5-5"})
    );
}

#[tokio::test]
async fn a_prompt_over_the_window_is_refused_with_both_numbers() {
    let world =
        World::with(fast_with(vec![ModelSpec { window: Some(2_000), ..spec("claude-opus-5-5") }]))
            .await;

    let (status, refusal) = body(world.messages(&claude(&"word ".repeat(2_000))).await).await;

    assert_eq!(
        (status, refusal["error"]["message"].as_str()),
        (400, Some("prompt is too long: 2504 tokens > 2000 maximum"))
    );
}

#[tokio::test]
async fn tokens_are_counted_and_models_listed() {
    let world = World::new().await;
    let mut ask = claude("abcd");
    ask.as_object_mut().unwrap().remove("max_tokens");
    let request = world.post("/v1/messages/count_tokens", &ask).header("x-api-key", "key");

    let (_, counted) =
        body(request.header("anthropic-version", "2023-06-01").send().await.unwrap()).await;
    assert_eq!(counted, json!({"input_tokens": 5}));

    let list = world.client.get(format!("http://{}/v1/models", world.sim.address()));
    let list: Value = list.header("x-api-key", "key").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["data"][0]["id"], "claude-opus-5-5");
    assert_eq!(list["has_more"], false);
}

#[tokio::test]
async fn an_image_is_counted() {
    let world = World::new().await;
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}});
    let ask = json!({"model": "claude-opus-5-5", "max_tokens": 64, "messages": [{"role": "user", "content": [image, {"type": "text", "text": "what is it"}]}]});

    let (_, message) = body(world.messages(&ask).await).await;

    assert_eq!(message["usage"]["input_tokens"], 1_007);
    assert_eq!(world.sim.journal()[0].images, 1);
}
