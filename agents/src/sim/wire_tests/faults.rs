use super::*;
use crate::sim::{Effect, Fault, RetryForm, script::Span};
use futures::StreamExt;

/// The text that came, and whether the reply ended cleanly.
async fn drained(response: Response) -> (String, bool) {
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(_) => return (String::from_utf8_lossy(&bytes).into_owned(), false),
        }
    }
    (String::from_utf8(bytes).unwrap(), true)
}

async fn faulty(effect: Effect) -> (World, (String, bool)) {
    let world = World::new().await;
    world.sim.fault(Fault::once(effect)).await.unwrap();
    let drained = drained(world.messages(&streamed(claude("Why?"))).await).await;
    (world, drained)
}

#[tokio::test]
async fn a_preset_refuses_once_and_then_all_is_well() {
    let world = World::new().await;
    let wait = Duration::from_secs(6);
    world
        .sim
        .fault(Fault::preset("anthropic.family_429").retry_after(wait, RetryForm::Seconds))
        .await
        .unwrap();

    let refused = world.messages(&claude("hi")).await;

    assert_eq!(
        (refused.status().as_u16(), header(&refused, "retry-after").as_deref()),
        (429, Some("6"))
    );
    assert_eq!(header(&refused, "anthropic-ratelimit-tokens-remaining").as_deref(), Some("0"));
    assert!(world.messages(&claude("hi")).await.status().is_success());
    assert_eq!(world.sim.journal()[0].fault.as_deref(), Some("anthropic.family_429"));
}

#[tokio::test]
async fn a_preset_of_one_wire_leaves_the_others_alone() {
    let world = World::new().await;
    world.sim.fault(Fault::preset("openai.insufficient_quota")).await.unwrap();

    assert!(world.messages(&claude("hi")).await.status().is_success());
    assert_eq!(world.completions(&gpt("hi")).await.status().as_u16(), 429);
}

#[tokio::test]
async fn a_page_of_html_comes_instead_of_json() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::Html(502))).await.unwrap();

    let response = world.completions(&gpt("hi")).await;

    assert_eq!(
        (response.status().as_u16(), header(&response, "content-type").as_deref()),
        (502, Some("text/html"))
    );
}

#[tokio::test]
async fn an_error_event_ends_a_stream_that_began_well() {
    let (_, (text, is_clean)) =
        faulty(Effect::ErrorEvent { after: 4, kind: None, message: None }).await;

    assert!(is_clean);
    let events = data(&text);
    assert_eq!((events.len(), &events[4]["error"]["type"]), (5, &json!("overloaded_error")));
}

#[tokio::test]
async fn a_cut_breaks_the_connection_after_so_many_chunks() {
    let (world, (text, is_clean)) = faulty(Effect::Cut { after: 8 }).await;

    assert!(!is_clean);
    assert_eq!(data(&text).len(), 8);
    assert!(!world.sim.journal()[0].client_gone, "it was the simulator that left");
}

#[tokio::test]
async fn a_cut_before_the_first_chunk_leaves_no_reply_at_all() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::Cut { after: 0 })).await.unwrap();

    let request = world.post("/v1/messages", &streamed(claude("hi"))).header("x-api-key", "key");

    assert!(request.header("anthropic-version", "2023-06-01").send().await.is_err());
}

#[tokio::test]
async fn an_end_without_the_final_event_is_clean_and_incomplete() {
    let (_, (text, is_clean)) = faulty(Effect::End { after: None }).await;

    assert!(is_clean && text.contains("message_delta") && !text.contains("message_stop"));

    let world = World::new().await;
    for _ in 0..2 {
        world.sim.fault(Fault::once(Effect::End { after: None })).await.unwrap();
    }
    assert!(
        !world.completions(&streamed(gpt("hi"))).await.text().await.unwrap().contains("[DONE]")
    );
    assert!(!world.ollama(&llama("hi")).await.text().await.unwrap().contains("\"done\":true"));
}

#[tokio::test]
async fn split_bytes_and_noise_leave_the_text_whole() {
    let world = World::new().await;
    let plain = data(&drained(world.messages(&streamed(claude("naïve → why?"))).await).await.0);
    world.sim.fault(Fault::once(Effect::Split(1)).and(Effect::Noise { every: 2 })).await.unwrap();

    let mut chunks = world.messages(&streamed(claude("naïve → why?"))).await.bytes_stream();
    let mut bytes = Vec::new();
    let mut largest = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        largest = largest.max(chunk.len());
        bytes.extend_from_slice(&chunk);
    }

    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(largest, 1, "every byte came alone");
    assert!(text.contains("weather_report") && text.contains(": keep-alive"));
    assert_eq!(joined(&data(&text), "/delta/text"), joined(&plain, "/delta/text"));
    assert!(joined(&plain, "/delta/text").contains("naïve →"));
}

#[tokio::test]
async fn garbage_comes_in_the_place_of_json() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::Garbage { after: 0 })).await.unwrap();

    let text = world.completions(&gpt("hi")).await.text().await.unwrap();

    assert!(serde_json::from_str::<Value>(&text).is_err());
}

#[tokio::test]
async fn a_stalled_reply_is_noticed_as_left_by_its_client() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::StallFirst { lasts: None })).await.unwrap();
    let ask = streamed(claude("hi"));
    let request = world.messages(&ask);

    let arrived = world.sim.wait_for(PATIENCE, |entries| entries.len() == 1);
    tokio::select! {
        _ = request => panic!("the reply stalls"),
        arrived = arrived => drop(arrived.unwrap()),
    }

    let entries = world.sim.wait_for(PATIENCE, |entries| entries[0].client_gone).await.unwrap();
    assert_eq!(entries[0].chunks_sent, 0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_is_noticed_with_what_it_got() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::StallBetween { after: 5, lasts: None })).await.unwrap();
    let mut chunks = world.messages(&streamed(claude("hi"))).await.bytes_stream();
    chunks.next().await.unwrap().unwrap();

    drop(chunks);

    let entries = world.sim.wait_for(PATIENCE, |entries| entries[0].client_gone).await.unwrap();
    assert_eq!(entries[0].chunks_sent, 5);
}

#[tokio::test]
async fn a_whole_reply_is_not_left_by_a_client_that_got_it() {
    let world = World::new().await;

    world.messages(&streamed(claude("hi"))).await.text().await.unwrap();

    let entries = world.sim.wait_for(PATIENCE, |entries| entries[0].done).await.unwrap();
    assert!(!entries[0].client_gone);
    assert_eq!(entries[0].output_tokens_sent, entries[0].tokens.unwrap().output);
}

#[tokio::test]
async fn connections_are_refused_for_a_while() {
    let world = World::new().await;
    world.messages(&claude("hi")).await.text().await.unwrap();
    let lasts = Duration::from_secs(1);

    world.sim.fault(Fault::once(Effect::Refuse(Span(lasts)))).await.unwrap();

    let refused =
        world.client.get(format!("http://{}/", world.sim.address())).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    let again = async {
        while world.client.get(format!("http://{}/", world.sim.address())).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
}

#[tokio::test]
async fn headers_are_set_and_taken_away_and_usage_left_out() {
    let world = World::new().await;
    let headers = [
        ("anthropic-ratelimit-unified-status".to_owned(), Some("allowed_warning".to_owned())),
        ("request-id".to_owned(), None),
    ];
    world
        .sim
        .fault(Fault::once(Effect::Headers(headers.into())).and(Effect::OmitUsage))
        .await
        .unwrap();

    let response = world.messages(&claude("hi")).await;

    assert_eq!(
        header(&response, "anthropic-ratelimit-unified-status").as_deref(),
        Some("allowed_warning")
    );
    assert_eq!(header(&response, "request-id"), None);
    assert!(body(response).await.1.get("usage").is_none());
}

#[tokio::test]
async fn a_prompt_is_truncated_and_a_load_shown_on_command() {
    let world = World::new().await;
    let load = Span(Duration::from_millis(3));
    world
        .sim
        .fault(Fault::once(Effect::TruncatePrompt(2)).and(Effect::LoadDelay(load)))
        .await
        .unwrap();
    let mut ask = llama("a question of several tokens");
    ask["stream"] = json!(false);

    let (_, reply) = body(world.ollama(&ask).await).await;

    assert_eq!(
        (&reply["prompt_eval_count"], &reply["load_duration"]),
        (&json!(2), &json!(3_000_000))
    );
}

#[tokio::test]
async fn a_stopped_simulator_breaks_what_it_was_sending() {
    let world = World::new().await;
    world.sim.fault(Fault::once(Effect::StallBetween { after: 2, lasts: None })).await.unwrap();
    let response = world.messages(&streamed(claude("hi"))).await;

    let address = world.sim.address();
    world.sim.stop().await;

    assert!(!drained(response).await.1);
    assert!(world.client.get(format!("http://{address}/")).send().await.unwrap_err().is_connect());
}
