use broker_config::Provider as Name;
use broker_proto::{
    FailureClass as Class, FailureScope as Scope, Part, Provenance, StopReason, Usage, WallTime,
};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{NAME, errors, reply::Reply, request};
use crate::provider::{
    ChunkStream, Clock, decode,
    fixture::{
        CANARY, Fake, Leave, NOW, ask, conversation, hear, image, json, load, model, nowhere,
        played, prompt_of, split,
    },
    http::{Body, Refusal},
};

const ASK: Name = Name::OpenAi;

fn read(body: decode::Bodies) -> ChunkStream {
    let reply = Reply::new(HeaderMap::new(), Clock::fixed(NOW));
    decode::chunks(decode::Wire::events(body), reply, Vec::new())
}

fn counted(input: u64, output: u64) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
}

#[tokio::test]
async fn text_usage_and_limits_of_a_completion_are_heard() {
    let heard = played(ASK, "openai/text.http").await;

    assert_eq!(heard.text(), "A naïve crab: 🦀");
    // The vendor's prompt count includes the 1,024 that were read from the cache.
    let usage =
        Usage { cache_read_tokens: Some(1_024), reasoning_tokens: Some(25), ..counted(176, 40) };
    assert_eq!(heard.done, Some((usage, Some(StopReason::End))));
    let limits: Vec<_> =
        heard.limits.iter().map(|l| (l.name.as_str(), l.remaining, l.resets_at)).collect();
    let at = |ms| Some(WallTime(NOW.0 + ms));
    assert_eq!(limits, [("requests", Some(499), at(120)), ("tokens", Some(29_000), at(360_000))]);
}

#[tokio::test]
async fn a_completion_survives_every_split_of_its_bytes() {
    let body = load("openai/text.http").body;
    let whole = hear(read(split(&body, 0))).await;
    for at in 1..body.len() {
        assert_eq!(hear(read(split(&body, at))).await, whole, "split at {at}");
    }
}

#[tokio::test]
async fn a_completion_survives_chunks_of_one_byte() {
    let fake = Fake::start_in_pieces(load("openai/text.http"), 1, Leave::Cleanly).await;
    let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
    assert_eq!(heard.text(), "A naïve crab: 🦀");
}

#[tokio::test]
async fn pieces_of_tool_calls_are_joined_by_their_index() {
    let heard = played(ASK, "openai/tool-calls.http").await;

    let call = |id: &str, name: &str| Part::ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: Bytes::new(),
    };
    assert_eq!(
        heard.parts,
        [
            (Part::text(""), "Looking.".to_owned(), None),
            (call("call_1", "read_file"), r#"{"path":"a.txt"}"#.to_owned(), None),
            (call("call_2", "list"), "{}".to_owned(), None),
        ]
    );
    let (usage, stop_reason) = heard.done.unwrap();
    assert_eq!(stop_reason, Some(StopReason::ToolCall));
    // The server sent no usage: that is unknown, not zero.
    assert_eq!((usage.input_tokens, usage.output_tokens), (None, None));
}

#[tokio::test]
async fn usage_is_found_where_gateways_put_it() {
    let heard = played(ASK, "openai/gateway-usage.http").await;
    assert_eq!(heard.done, Some((counted(9, 1), Some(StopReason::MaxTokens))));
    let heard = played(ASK, "openai/usage-on-last-chunk.http").await;
    assert_eq!(heard.done, Some((counted(9, 1), Some(StopReason::End))));
    assert!(matches!(&heard.parts[0], (Part::Thinking { .. }, text, None) if text == "hm"));
    assert_eq!(heard.text(), "ok");
}

#[tokio::test]
async fn a_finish_reason_without_done_is_a_whole_answer() {
    for leave in [Leave::Cleanly, Leave::Abruptly] {
        let fake = Fake::start_in_pieces(load("openai/no-done.http"), usize::MAX, leave).await;
        let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
        assert_eq!(heard.text(), "whole", "{leave:?}");
        assert_eq!(heard.done.unwrap().1, Some(StopReason::End), "{leave:?}");
    }
}

#[tokio::test]
async fn an_end_without_done_or_finish_reason_is_truncated() {
    for leave in [Leave::Cleanly, Leave::Abruptly] {
        let fake = Fake::start_in_pieces(load("openai/cut.http"), usize::MAX, leave).await;
        let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
        assert_eq!(heard.text(), "Half an", "{leave:?}");
        assert_eq!(heard.failure().class, Class::Truncated, "{leave:?}");
        assert_eq!(heard.failed.unwrap().usage.provenance, Provenance::Partial);
    }
}

#[tokio::test]
async fn an_error_event_inside_a_200_is_a_failure_with_what_came_before() {
    let heard = played(ASK, "openai/error-in-200.http").await;
    assert_eq!(heard.text(), "Half an");
    assert_eq!(heard.failure().class, Class::Overloaded);
    assert_eq!(
        heard.failure().detail,
        "an error came within the answer: openai answered 200 (server_error)"
    );
}

#[tokio::test]
async fn filtered_content_may_be_answered_by_another_model() {
    let heard = played(ASK, "openai/content-filter.http").await;
    assert_eq!(heard.failure().class, Class::ContentRefused);
    assert!(heard.failure().another_model_may_help);
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let mut fake = Fake::start_in_pieces(load("openai/cut.http"), usize::MAX, Leave::Never).await;
    let mut chunks = fake.adapter(ASK).complete(prompt_of(ASK, |_| {})).await.unwrap();
    futures::StreamExt::next(&mut chunks).await.unwrap().unwrap();

    drop(chunks);

    fake.client_gone().await;
}

#[test]
fn the_request_carries_the_whole_conversation() {
    let body = body("https://api.openai.com/v1", conversation);
    // What f32 makes of 0.2 is written as 0.2.
    assert_eq!(body, json("openai/conversation.request.json"));
}

#[tokio::test]
async fn a_call_is_one_request_with_a_bearer_key() {
    let fake = Fake::start(load("openai/429-rate-limit.http")).await;
    ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
    assert_eq!(fake.calls(), 1, "the crate's own retries are off");
    let head = fake.head();
    assert!(head.starts_with("POST /chat/completions HTTP/1.1"), "{head}");
    assert!(head.contains(&format!("authorization: Bearer {CANARY}")), "{head}");
}

fn body(base_url: &str, change: impl FnOnce(&mut broker_proto::Payload)) -> Value {
    let model = broker_config::Model { base_url: base_url.into(), ..model(ASK) };
    let text = serde_json::to_string(&request::body(&prompt_of(ASK, change), &model)).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_cap_on_output_has_the_name_that_the_server_knows() {
    let cap = |payload: &mut broker_proto::Payload| payload.generation.max_output_tokens = Some(9);
    let vendor = body("https://api.openai.com/v1", cap);
    assert_eq!((&vendor["max_completion_tokens"], vendor.get("max_tokens")), (&json!(9), None));
    let other = body("http://127.0.0.1:8080/v1", cap);
    assert_eq!((&other["max_tokens"], other.get("max_completion_tokens")), (&json!(9), None));
    assert!(request::is_vendor("https://eu.api.openai.com/v1"));
    assert!(!request::is_vendor("https://openai.com.example.org/v1"));
}

#[test]
fn a_reasoning_model_gets_no_temperature() {
    let warm = prompt_of(ASK, |payload| payload.generation.temperature = Some(0.5));
    let sent = |id: &str| {
        let model = broker_config::Model::new("m", ASK, id);
        request::body(&warm, &model).temperature
    };
    assert_eq!(sent("gpt-4o"), Some(0.5));
    assert_eq!(sent("gpt-5.5"), None);
    assert_eq!(sent("o3"), None);
}

#[test]
fn images_go_as_data_urls_also_those_of_results() {
    let body = body("https://api.openai.com/v1", |payload| {
        let call = Part::ToolCall { id: "a".into(), name: "look".into(), arguments: Bytes::new() };
        payload.context =
            vec![crate::provider::fixture::entry(broker_proto::Role::Assistant, [call])];
        let parts = vec![Part::text("seen"), image()];
        payload.request = vec![
            Part::ToolResult { call_id: "a".into(), parts, is_error: false },
            Part::text("well?"),
        ];
    });
    let messages = &body["messages"];
    assert_eq!(messages[0]["tool_calls"][0]["function"]["arguments"], "{}");
    assert!(messages[0].get("content").is_none());
    assert_eq!(messages[1], json!({"role": "tool", "tool_call_id": "a", "content": "seen"}));
    assert_eq!(messages[2]["content"][0]["image_url"]["url"], "data:image/png;base64,iVBORw==");
    assert_eq!(messages[2]["content"][1], json!({"type": "text", "text": "well?"}));
}

/// One row of the table of errors.
struct Row {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    want: (Class, Scope),
    /// Milliseconds from now.
    retry_in: Option<u64>,
    another_may_help: bool,
}

const ACCOUNT: Scope = Scope::Account;
const REQUEST: Scope = Scope::Request;
const MODEL: Scope = Scope::Model;

fn row(
    status: u16,
    body: &'static str,
    want: (Class, Scope),
    retry_in: Option<u64>,
    another_may_help: bool,
) -> Row {
    Row { status, headers: &[], body, want, retry_in, another_may_help }
}

fn rows() -> Vec<Row> {
    vec![
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"context_length_exceeded","param":"messages","message":"This model's maximum context length is 128000 tokens. However, your messages resulted in 204308 tokens. Please reduce the length of the messages."}}"#,
            (Class::ContextTooLong, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"exceed_context_size_error","code":400,"message":"x","n_prompt_tokens":5000,"n_ctx":4096}}"#,
            (Class::ContextTooLong, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"unsupported_parameter","param":"max_tokens","message":"Unsupported parameter: 'max_tokens' is not supported with this model."}}"#,
            (Class::InvalidRequest, REQUEST),
            None,
            false,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","code":null,"message":"x"}}"#,
            (Class::InvalidRequest, REQUEST),
            None,
            false,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"content_policy_violation","message":"x"}}"#,
            (Class::ContentRefused, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","code":"invalid_prompt","message":"x"}}"#,
            (Class::ContentRefused, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"BadRequestError","code":400,"message":"The model `nope` does not exist."}}"#,
            (Class::ModelNotFound, MODEL),
            None,
            true,
        ),
        row(
            401,
            r#"{"error":{"type":"invalid_request_error","code":"invalid_api_key","message":"Incorrect API key provided: sk-...XYZ."}}"#,
            (Class::CredentialsRejected, Scope::Key),
            None,
            true,
        ),
        row(
            403,
            r#"{"error":{"type":"request_forbidden","code":"unsupported_country_region_territory","message":"x"}}"#,
            (Class::CredentialsRejected, ACCOUNT),
            None,
            true,
        ),
        row(
            403,
            r#"{"error":{"type":"invalid_request_error","code":"model_not_found","message":"x"}}"#,
            (Class::ModelNotFound, MODEL),
            None,
            true,
        ),
        row(
            404,
            r#"{"error":{"type":"invalid_request_error","code":"model_not_found","message":"The model `gpt-nope` does not exist or you do not have access to it."}}"#,
            (Class::ModelNotFound, MODEL),
            None,
            true,
        ),
        row(404, "<html>", (Class::ModelNotFound, MODEL), None, true),
        row(408, "", (Class::Timeout, REQUEST), None, true),
        row(409, "", (Class::Overloaded, MODEL), None, true),
        row(413, "<html>", (Class::RequestTooLarge, REQUEST), None, false),
        row(422, "", (Class::InvalidRequest, REQUEST), None, false),
        row(
            429,
            r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in 18.642s. Visit ..."}}"#,
            (Class::RateLimited, MODEL),
            Some(18_642),
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 31538. The input or output tokens must be reduced in order to run successfully."}}"#,
            (Class::RequestTooLarge, REQUEST),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"requests","code":"rate_limit_exceeded","message":"Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200. Please try again in 7m12s."}}"#,
            (Class::RateLimited, MODEL),
            Some(432_000),
            true,
        ),
        Row {
            headers: &[("retry-after-ms", "900"), ("retry-after", "1")],
            ..row(
                429,
                r#"{"error":{"type":"requests","code":"rate_limit_exceeded","message":"Please try again in 5s"}}"#,
                (Class::RateLimited, MODEL),
                Some(900),
                true,
            )
        },
        Row {
            headers: &[("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s")],
            ..row(
                429,
                r#"{"error":{"type":"tokens","code":"rate_limit_exceeded","message":"x"}}"#,
                (Class::RateLimited, MODEL),
                Some(360_000),
                true,
            )
        },
        row(
            429,
            r#"{"error":{"type":"throttling_error","code":"429","message":"x"}}"#,
            (Class::RateLimited, MODEL),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"You exceeded your current quota, please check your plan and billing details."}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"insufficient_quota","code":"credit_balance_exhausted","message":"x"}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"x","code":"organization_spend_limit_exceeded","message":"x"}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"x","code":"project_spend_limit_exceeded","message":"x"}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"x","code":"organization_usage_limit_exceeded","message":"x"}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"x","code":"billing_not_active","message":"Your account is not active, please check your billing details on our website."}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"rate_limit_error","code":"slow_down","message":"x"}}"#,
            (Class::RateLimited, MODEL),
            None,
            true,
        ),
        row(
            500,
            r#"{"error":{"type":"server_error","code":null,"message":"x"}}"#,
            (Class::Overloaded, MODEL),
            None,
            true,
        ),
        row(502, "<html>", (Class::Overloaded, MODEL), None, true),
        row(
            503,
            r#"{"error":{"type":"service_unavailable_error","code":"server_is_overloaded","message":"x"}}"#,
            (Class::Overloaded, MODEL),
            None,
            true,
        ),
        row(504, "", (Class::Timeout, REQUEST), None, true),
        Row {
            headers: &[("retry-after-ms", "300")],
            ..row(503, "", (Class::Overloaded, MODEL), Some(300), true)
        },
        row(301, "", (Class::MalformedReply, REQUEST), None, true),
    ]
}

fn refusal(row: &Row) -> Refusal {
    let headers = row
        .headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
    let json = serde_json::from_str(row.body).unwrap_or_default();
    Refusal { status: row.status, headers, body: Body::of(json) }
}

#[test]
fn every_error_has_its_class_scope_and_time() {
    for row in rows() {
        let failure = errors::classify(&refusal(&row), NOW);
        let place = format!("{} {}", row.status, row.body);
        assert_eq!((failure.class, failure.scope), row.want, "{place}");
        assert_eq!(failure.retry_at, row.retry_in.map(|ms| WallTime(NOW.0 + ms)), "{place}");
        assert_eq!(failure.another_model_may_help, row.another_may_help, "{place}");
        assert_eq!(failure.refused_by, NAME);
    }
}

#[test]
fn too_long_says_both_counts() {
    let counts: Vec<_> = rows()
        .iter()
        .map(|row| errors::classify(&refusal(row), NOW))
        .filter(|failure| failure.class == Class::ContextTooLong)
        .map(|failure| (failure.actual_tokens, failure.limit_tokens))
        .collect();
    assert_eq!(counts, [(Some(204_308), Some(128_000)), (Some(5_000), Some(4_096))]);
}

#[test]
fn an_error_within_the_stream_has_the_class_of_its_code_or_type() {
    let check = |error: Value, want: Class| {
        let failure = errors::in_stream(json!({ "error": error }), &HeaderMap::new(), NOW);
        assert_eq!(failure.class, want, "{error}");
    };
    check(json!({"type": "server_error", "code": null}), Class::Overloaded);
    check(json!({"type": "tokens", "code": "rate_limit_exceeded"}), Class::RateLimited);
    check(
        json!({"type": "insufficient_quota", "code": "insufficient_quota"}),
        Class::CreditExhausted,
    );
    check(json!({"message": "x", "code": 429}), Class::RateLimited);
    check(json!({"message": "x", "code": "400"}), Class::InvalidRequest);
    check(json!("out of luck"), Class::Overloaded);
}

#[tokio::test]
async fn limits_are_read_from_a_failure_too() {
    let heard = played(ASK, "openai/429-rate-limit.http").await;
    assert_eq!(heard.failure().retry_at, Some(WallTime(NOW.0 + 18_642)));
    assert_eq!((heard.limits[0].name.as_str(), heard.limits[0].remaining), ("tokens", Some(0)));
}

#[tokio::test]
async fn a_4xx_that_is_not_the_vendors_json_keeps_its_status() {
    let heard = played(ASK, "openai/413-html.http").await;
    assert_eq!(heard.failure().class, Class::RequestTooLarge);
    let heard = played(ASK, "openai/400-integer-code.http").await;
    assert_eq!(heard.failure().class, Class::ContextTooLong);
}

#[tokio::test]
async fn the_key_is_in_no_error_and_no_debug_text() {
    let fake = Fake::start(load("openai/401-invalid-key.http")).await;
    let adapter = fake.adapter(ASK);
    let heard = ask(&*adapter, prompt_of(ASK, |_| {})).await;
    assert_eq!(heard.failure().class, Class::CredentialsRejected);
    assert!(!format!("{heard:?} {adapter:?}").contains("canary"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let mut model = model(ASK);
    model.base_url = nowhere();
    let adapter = crate::provider::adapter(&model, Some(CANARY.into()), Clock::fixed(NOW)).unwrap();
    let heard = ask(&*adapter, prompt_of(ASK, |_| {})).await;
    assert_eq!(
        (heard.failure().class, heard.failure().scope),
        (Class::Unreachable, Scope::Provider)
    );
}
