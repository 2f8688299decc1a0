use broker_config::Provider as Name;
use broker_proto::{
    FailureClass as Class, FailureScope as Scope, Part, Provenance, StopReason, Usage,
};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    errors,
    reply::Reply,
    request::{self, Sizes},
};
use crate::provider::{
    ChunkStream, Clock, decode,
    fixture::{
        Fake, Leave, NOW, ask, conversation, hear, image, json, load, model, nowhere, played,
        prompt_of, split,
    },
    http::{Body, Refusal},
};

const ASK: Name = Name::Ollama;

fn read(body: decode::Bodies) -> ChunkStream {
    decode::chunks(decode::Wire::lines(body), Reply::new(0, 0, Clock::fixed(NOW)), Vec::new())
}

fn counted(input: u64, output: u64) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
}

#[tokio::test]
async fn text_thinking_and_usage_of_an_answer_are_heard() {
    let heard = played(ASK, "ollama/text.http").await;
    assert_eq!(heard.text(), "A naïve crab: 🦀");
    assert!(matches!(&heard.parts[0], (Part::Thinking { .. }, text, None) if text == "hm"));
    assert_eq!(heard.done, Some((counted(11, 18), Some(StopReason::End))));
}

#[tokio::test]
async fn an_answer_survives_every_split_of_its_bytes() {
    let body = load("ollama/text.http").body;
    let whole = hear(read(split(&body, 0))).await;
    for at in 1..body.len() {
        assert_eq!(hear(read(split(&body, at))).await, whole, "split at {at}");
    }
}

#[tokio::test]
async fn an_answer_survives_chunks_of_one_byte() {
    let fake = Fake::start_in_pieces(load("ollama/text.http"), 1, Leave::Cleanly).await;
    let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
    assert_eq!(heard.text(), "A naïve crab: 🦀");
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_before_its_last_line_is_truncated() {
    let body = load("ollama/text.http").body;
    // The last line may lack its newline.
    for at in 0..body.len() - 1 {
        let heard = hear(read(split(&body.slice(..at), 0))).await;
        assert_eq!(heard.failure().class, Class::Truncated, "cut at {at}");
    }
}

#[tokio::test]
async fn counts_left_out_of_the_last_line_are_zero() {
    let heard = played(ASK, "ollama/omitted-zeros.http").await;
    assert_eq!(heard.done, Some((counted(11, 0), Some(StopReason::MaxTokens))));
}

#[tokio::test]
async fn tool_calls_come_whole_and_each_gets_an_id() {
    let heard = played(ASK, "ollama/tool-calls.http").await;
    let call = |id: &str, name: &str| Part::ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: Bytes::new(),
    };
    let made = format!("call_{}_0", NOW.0);
    assert_eq!(
        heard.parts,
        [
            (call(&made, "read_file"), r#"{"path":"a.txt"}"#.to_owned(), None),
            (call("call_x", "list"), "{}".to_owned(), None),
        ]
    );
    assert_eq!(heard.done.unwrap().1, Some(StopReason::ToolCall));
}

#[tokio::test]
async fn an_error_line_is_a_failure_with_what_came_before() {
    let heard = played(ASK, "ollama/error-line.http").await;
    assert_eq!(heard.text(), "Half an");
    assert_eq!(heard.failure().class, Class::Truncated);
    assert_eq!(heard.failed.unwrap().usage.provenance, Provenance::Partial);
}

#[tokio::test]
async fn an_end_without_done_is_truncated() {
    for leave in [Leave::Cleanly, Leave::Abruptly] {
        let fake = Fake::start_in_pieces(load("ollama/cut.http"), usize::MAX, leave).await;
        let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
        assert_eq!(
            (heard.text().as_str(), heard.failure().class),
            ("Half an", Class::Truncated),
            "{leave:?}"
        );
    }
}

#[tokio::test]
async fn a_prompt_that_the_server_cut_is_too_long() {
    let fake = Fake::start(load("ollama/text.http")).await;
    let prompt =
        prompt_of(ASK, |payload| payload.request = vec![Part::text("a word or two ".repeat(400))]);
    let estimated = prompt.estimated_tokens;

    let heard = ask(&*fake.adapter(ASK), prompt).await;

    let failure = heard.failure();
    assert_eq!(failure.class, Class::ContextTooLong);
    assert_eq!((failure.limit_tokens, failure.actual_tokens), (Some(11), Some(estimated)));
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let mut fake = Fake::start_in_pieces(load("ollama/cut.http"), usize::MAX, Leave::Never).await;
    let mut chunks = fake.adapter(ASK).complete(prompt_of(ASK, |_| {})).await.unwrap();
    futures::StreamExt::next(&mut chunks).await.unwrap().unwrap();

    drop(chunks);

    fake.client_gone().await;
}

fn body(change: impl FnOnce(&mut broker_proto::Payload)) -> Value {
    let prompt = prompt_of(ASK, change);
    let model = model(ASK);
    request::body(&prompt, &model, Sizes::of(&prompt, &model))
}

#[test]
fn the_request_carries_the_whole_conversation() {
    let mut body = body(conversation);
    // The crate keeps temperatures as f32.
    body["options"]["temperature"] = json!(0.2);
    assert_eq!(body, json("ollama/conversation.request.json"));
}

#[tokio::test]
async fn images_go_beside_the_words() {
    let fake = Fake::start(load("ollama/text.http")).await;
    let model = broker_config::Model { vision: true, ..fake.model(ASK) };
    let mut delivery = crate::provider::fixture::delivery();
    delivery.message.payload.request.push(image());
    let prompt = crate::provider::Prompt::of(&delivery, &model).unwrap();

    ask(&*fake.adapter(ASK), prompt).await;

    assert!(fake.head().starts_with("POST /api/chat HTTP/1.1"));
    assert_eq!(
        fake.body()["messages"][0],
        json!({"role": "user", "content": "hi", "images": ["iVBORw=="]})
    );
}

#[test]
fn the_window_asked_for_holds_prompt_and_answer_and_changes_rarely() {
    let check = |bytes: usize, asked: Option<u32>, want: (u64, u32)| {
        let prompt = prompt_of(ASK, |payload| {
            payload.request = vec![Part::text("x".repeat(bytes))];
            payload.generation.max_output_tokens = asked;
        });
        let model = broker_config::Model { context_window: 20_000, ..model(ASK) };
        let Sizes { num_ctx, num_predict } = Sizes::of(&prompt, &model);
        assert_eq!((num_ctx, num_predict), want, "{bytes} {asked:?}");
    };
    check(10, None, (4_096, 2_048));
    check(3_500, None, (4_096, 2_048));
    check(10_000, None, (8_192, 2_048));
    check(10_000, Some(100), (4_096, 100));
    check(60_000, None, (20_000, 2_048));
}

#[test]
fn every_error_has_its_class() {
    let check = |status: u16, text: &str, want: (Class, Scope)| {
        let body = Body::of(json!({ "error": text }));
        let failure = errors::classify(&Refusal { status, headers: HeaderMap::new(), body }, NOW);
        assert_eq!((failure.class, failure.scope), want, "{status} {text}");
    };
    let (model, request) = (Scope::Model, Scope::Request);
    check(404, "model 'x' not found", (Class::ModelNotFound, model));
    check(404, "model \"x\" not found, try pulling it first", (Class::ModelNotFound, model));
    check(400, "missing request body", (Class::InvalidRequest, request));
    check(400, "\"x\" does not support tools", (Class::InvalidRequest, model));
    let long = "the prompt is longer than the context length currently available to the model; shorten the prompt";
    check(400, long, (Class::ContextTooLong, request));
    check(401, "unauthorized", (Class::CredentialsRejected, Scope::Key));
    check(403, "x", (Class::CredentialsRejected, Scope::Key));
    check(413, "", (Class::RequestTooLarge, request));
    check(429, "x", (Class::RateLimited, model));
    check(499, "request canceled", (Class::Truncated, request));
    check(
        500,
        "model requires more system memory (8.4 GiB) than is available (3.1 GiB)",
        (Class::Overloaded, model),
    );
    check(502, "x", (Class::Overloaded, model));
    check(
        503,
        "server busy, please try again.  maximum pending requests exceeded",
        (Class::Overloaded, model),
    );
    check(504, "", (Class::Timeout, request));
    check(301, "", (Class::MalformedReply, request));
}

#[tokio::test]
async fn a_model_that_is_not_installed_is_not_found() {
    let heard = played(ASK, "ollama/404.http").await;
    assert_eq!(heard.failure().class, Class::ModelNotFound);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let mut model = model(ASK);
    model.base_url = nowhere();
    let adapter = crate::provider::adapter(&model, None, Clock::fixed(NOW)).unwrap();
    let heard = ask(&*adapter, prompt_of(ASK, |_| {})).await;
    assert_eq!(
        (heard.failure().class, heard.failure().scope),
        (Class::Unreachable, Scope::Provider)
    );
}

#[tokio::test]
async fn a_check_warns_of_a_window_the_model_was_not_trained_for() {
    // The fake answers every call alike, so one body serves the list and the model's details.
    let fake = Fake::start(load("ollama/tags.http")).await;
    let warning = fake.adapter(ASK).check().await.unwrap();
    assert_eq!(
        warning.as_deref(),
        Some("the model was trained for 4096 tokens, and context_window says 8192")
    );
}
