use super::*;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_chat_streams_by_default_and_leaves_zero_metrics_out() {
    let world = World::new().await;

    let response = world.ollama(&llama("Why?")).await;

    assert_eq!(header(&response, "content-type").unwrap(), "application/x-ndjson");
    let lines = lines(&response.text().await.unwrap());
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!(last["eval_count"], crate::sim::count(&joined(&lines, "/message/content")));
    assert!(last.get("load_duration").is_none() && last.get("eval_duration").is_none());
    assert!(lines[..lines.len() - 1].iter().all(|line| line["done"] == false));
}

#[tokio::test]
async fn the_first_call_loads_and_a_changed_window_loads_again() {
    let load = super::super::script::Span(Duration::from_millis(5));
    let world =
        World::with(fast_with(vec![ModelSpec { load: Some(load), ..spec("llama3.2") }])).await;
    let ask = |num_ctx: u64| {
        let mut ask = llama("Why?");
        ask["stream"] = json!(false);
        ask["options"] = json!({"num_ctx": num_ctx});
        ask
    };
    let mut loads = Vec::new();
    for num_ctx in [4_096, 4_096, 8_192] {
        let (_, reply) = body(world.ollama(&ask(num_ctx)).await).await;
        loads.push(reply.get("load_duration").is_some());
    }

    assert_eq!(loads, [true, false, true]);
    assert_eq!(world.get("/api/ps").await["models"][0]["context_length"], 8_192);
}

#[tokio::test]
async fn a_prompt_over_the_window_is_cut_without_a_word() {
    let world = World::new().await;
    let mut ask = llama(&"word ".repeat(20_000));
    ask["stream"] = json!(false);

    let (status, reply) = body(world.ollama(&ask).await).await;
    assert_eq!((status, &reply["prompt_eval_count"]), (200, &json!(2_050)));

    ask["truncate"] = json!(false);
    let (status, refusal) = body(world.ollama(&ask).await).await;
    assert_eq!(status, 400);
    assert!(
        refusal["error"]
            .as_str()
            .unwrap()
            .starts_with("the prompt is longer than the context length")
    );
}

#[tokio::test]
async fn an_empty_chat_loads_and_an_unknown_model_is_not_found() {
    let world = World::with(fast_with(vec![spec("llama3.2")])).await;

    let (_, loaded) = body(world.ollama(&json!({"model": "llama3.2", "messages": []})).await).await;
    assert_eq!(loaded["done_reason"], "load");
    let (_, unloaded) =
        body(world.ollama(&json!({"model": "llama3.2", "messages": [], "keep_alive": 0})).await)
            .await;
    assert_eq!(unloaded["done_reason"], "unload");
    let (status, refusal) =
        body(world.ollama(&json!({"model": "nope", "messages": []})).await).await;
    assert_eq!((status, refusal), (404, json!({"error": "model 'nope' not found"})));
}

#[tokio::test]
async fn thinking_and_tools_have_their_places() {
    let world = World::new().await;
    let mut ask = llama("use the tool for Brno");
    ask["think"] = json!(true);
    ask["tools"] = json!([{"type": "function", "function": {"name": "t", "parameters": {"properties": {"city": {"type": "string"}}}}}]);

    let lines = lines(&world.ollama(&ask).await.text().await.unwrap());

    assert!(!joined(&lines, "/message/thinking").is_empty());
    let call =
        lines.iter().find_map(|line| line.pointer("/message/tool_calls/0/function")).unwrap();
    assert_eq!(call, &json!({"name": "t", "arguments": {"city": "Brno"}}));
    assert_eq!(lines.last().unwrap()["done_reason"], "stop");
}

#[tokio::test]
async fn the_unary_calls_answer() {
    let world = World::new().await;

    let root = world.client.get(format!("http://{}/", world.sim.address())).send().await.unwrap();
    assert_eq!(root.text().await.unwrap(), "Ollama is running");
    assert_eq!(world.get("/api/tags").await["models"][0]["name"], "llama3.2:latest");
    assert!(world.get("/api/version").await["version"].is_string());
    let (_, shown) =
        body(world.post("/api/show", &json!({"model": "llama3.2"})).send().await.unwrap()).await;
    assert_eq!(shown["model_info"]["llama.context_length"], 131_072);
    let generate = json!({"model": "llama3.2", "prompt": "Why?", "stream": false});
    let (_, generated) = body(world.post("/api/generate", &generate).send().await.unwrap()).await;
    assert!(generated["response"].as_str().unwrap().contains("Why"));
}
