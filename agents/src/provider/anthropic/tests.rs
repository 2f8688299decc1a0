use broker_config::Provider as Name;
use broker_proto::{
    FailureClass as Class, FailureScope as Scope, Part, Provenance, StopReason, ToolChoice, Usage,
    WallTime,
};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{NAME, errors, reply::Reply, request};
use crate::provider::{
    ChunkStream, Clock, decode,
    fixture::{
        CANARY, Fake, Heard, Leave, NOW, ask, conversation, hear, image, json, load, model,
        nowhere, played, prompt_of, split,
    },
    http::{Body, Refusal},
};

const ASK: Name = Name::Anthropic;

fn read(body: decode::Bodies) -> ChunkStream {
    let reply = Reply::new(HeaderMap::new(), Clock::fixed(NOW));
    decode::chunks(decode::Wire::events(body), reply, Vec::new())
}

fn thinking(text: &str, signature: &str) -> Part {
    Part::Thinking { text: text.into(), signature: signature.into(), provider: NAME.into() }
}

#[tokio::test]
async fn text_usage_and_limits_of_a_message_are_heard() {
    let heard = played(ASK, "anthropic/text.http").await;

    assert_eq!(heard.text(), "A naïve crab: 🦀");
    let usage = Usage {
        input_tokens: Some(12),
        output_tokens: Some(40),
        cache_read_tokens: Some(2_048),
        cache_write_tokens: Some(100),
        reasoning_tokens: Some(25),
        provenance: Provenance::Reported,
    };
    assert_eq!(heard.done, Some((usage, Some(StopReason::End))));
    let limits: Vec<_> =
        heard.limits.iter().map(|limit| (limit.name.as_str(), limit.remaining)).collect();
    assert_eq!(limits, [("requests", Some(49)), ("input-tokens", Some(28_000))]);
}

#[tokio::test]
async fn a_message_survives_every_split_of_its_bytes() {
    let body = load("anthropic/text.http").body;
    let whole = hear(read(split(&body, 0))).await;
    for at in 1..body.len() {
        assert_eq!(hear(read(split(&body, at))).await, whole, "split at {at}");
    }
}

#[tokio::test]
async fn a_message_survives_chunks_of_one_byte() {
    let fake = Fake::start_in_pieces(load("anthropic/text.http"), 1, Leave::Cleanly).await;
    let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
    assert_eq!(heard.text(), "A naïve crab: 🦀");
}

#[tokio::test]
async fn thinking_tools_and_unknown_blocks_keep_what_makes_them_usable_again() {
    let mut heard = played(ASK, "anthropic/tool-use.http").await;

    // JSON has no order.
    let Some(Part::Opaque { data, .. }) = &mut heard.parts[1].2 else { panic!("no block") };
    let block: Value = serde_json::from_slice(&std::mem::take(data)).unwrap();
    assert_eq!(block, json!({"type": "redacted_thinking", "data": "b3BhcXVl"}));
    let call = |id: &str, name: &str| Part::ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: Bytes::new(),
    };
    let redacted = Part::Opaque {
        provider: NAME.into(),
        kind: "redacted_thinking".into(),
        data: Bytes::new(),
    };
    assert_eq!(
        heard.parts,
        [
            (thinking("", ""), "A file, then.".to_owned(), Some(thinking("", "c2ln"))),
            (redacted.clone(), String::new(), Some(redacted)),
            (call("toolu_1", "read_file"), r#"{"path":"a.txt"}"#.to_owned(), None),
            (call("toolu_2", "list"), "{}".to_owned(), None),
        ]
    );
    assert_eq!(heard.done.unwrap().1, Some(StopReason::ToolCall));
}

#[tokio::test]
async fn an_error_event_inside_a_200_is_a_failure_with_what_came_before() {
    let heard = played(ASK, "anthropic/error-in-200.http").await;

    assert_eq!(heard.text(), "Half an");
    assert_eq!(heard.failure().class, Class::Overloaded);
    let failed = heard.failed.unwrap();
    assert_eq!((failed.usage.input_tokens, failed.usage.output_tokens), (Some(12), None));
    assert_eq!(failed.usage.provenance, Provenance::Partial);
    assert_eq!(failed.limits.len(), 1);
}

#[tokio::test]
async fn an_end_without_the_final_event_is_truncated() {
    for leave in [Leave::Cleanly, Leave::Abruptly] {
        let fake = Fake::start_in_pieces(load("anthropic/cut.http"), usize::MAX, leave).await;
        let heard = ask(&*fake.adapter(ASK), prompt_of(ASK, |_| {})).await;
        assert_eq!(heard.text(), "Half an", "{leave:?}");
        assert_eq!(heard.failure().class, Class::Truncated, "{leave:?}");
    }
}

#[tokio::test]
async fn a_refusal_may_be_answered_by_another_model() {
    let heard = played(ASK, "anthropic/refusal.http").await;
    assert_eq!(heard.failure().class, Class::ContentRefused);
    assert!(heard.failure().another_model_may_help);
    assert_eq!(heard.failed.unwrap().usage.output_tokens, Some(4));
}

#[tokio::test]
async fn what_is_no_event_is_malformed() {
    let heard = hear(read(split(&Bytes::from_static(b"data: {oops\n\n"), 0))).await;
    assert_eq!(heard.failure().class, Class::MalformedReply);
    let page = Bytes::from_static(b"<html>\nwelcome</html>");
    assert_eq!(hear(read(split(&page, 7))).await.failure().class, Class::MalformedReply);
    assert_eq!(hear(read(split(&Bytes::new(), 0))).await.failure().class, Class::Truncated);
}

#[tokio::test]
async fn each_stop_reason_has_its_meaning() {
    let check = async |reason: &str, want: Option<StopReason>| {
        let events = format!(
            "data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":{reason}}}}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n"
        );
        let heard = hear(read(split(&Bytes::from(events), 0))).await;
        assert_eq!(heard.done.unwrap().1, want, "{reason}");
    };
    check("\"end_turn\"", Some(StopReason::End)).await;
    check("\"max_tokens\"", Some(StopReason::MaxTokens)).await;
    check("\"stop_sequence\"", Some(StopReason::StopSequence)).await;
    check("\"tool_use\"", Some(StopReason::ToolCall)).await;
    check("\"pause_turn\"", Some(StopReason::Paused)).await;
    check("\"model_context_window_exceeded\"", Some(StopReason::WindowFull)).await;
    check("\"brand_new\"", Some(StopReason::End)).await;
    check("null", None).await;
}

#[tokio::test]
async fn dropping_the_answer_closes_the_connection() {
    let mut fake =
        Fake::start_in_pieces(load("anthropic/cut.http"), usize::MAX, Leave::Never).await;
    let mut chunks = fake.adapter(ASK).complete(prompt_of(ASK, |_| {})).await.unwrap();
    futures::StreamExt::next(&mut chunks).await.unwrap().unwrap();

    drop(chunks);

    fake.client_gone().await;
}

#[tokio::test]
async fn the_request_carries_key_version_and_the_whole_conversation() {
    let fake = Fake::start(load("anthropic/text.http")).await;
    ask(&*fake.adapter(ASK), prompt_of(ASK, conversation)).await;

    assert_eq!(fake.body(), json("anthropic/conversation.request.json"));
    let head = fake.head();
    assert!(head.starts_with("POST /v1/messages HTTP/1.1"), "{head}");
    assert!(
        head.contains(&format!("x-api-key: {CANARY}"))
            && head.contains("anthropic-version: 2023-06-01"),
        "{head}"
    );
}

fn body(change: impl FnOnce(&mut broker_proto::Payload)) -> Value {
    request::body(&prompt_of(ASK, change), &model(ASK))
}

#[test]
fn a_length_is_always_sent_and_sampling_and_thinking_never() {
    let body = body(|payload| payload.generation.temperature = Some(0.7));
    assert_eq!(body["max_tokens"], 8_192);
    for key in ["temperature", "top_p", "top_k", "thinking", "system", "tools", "tool_choice"] {
        assert!(body.get(key).is_none(), "{key}");
    }
}

#[test]
fn images_go_as_base64_also_inside_results() {
    let body = body(|payload| {
        let call =
            Part::ToolCall { id: "a b".into(), name: "look".into(), arguments: Bytes::new() };
        payload.context =
            vec![crate::provider::fixture::entry(broker_proto::Role::Assistant, [call])];
        let result =
            Part::ToolResult { call_id: "a b".into(), parts: vec![image()], is_error: false };
        payload.request = vec![result, image(), Part::text("what is it?")];
    });
    let block = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}});
    let last = &body["messages"][2]["content"];
    assert_eq!(last[0]["content"][0], block);
    assert_eq!(last[1], block);
    // The id may hold neither space nor dot here; both of its places changed alike.
    assert_eq!(
        (&body["messages"][1]["content"][0]["id"], &last[0]["tool_use_id"]),
        (&json!("a_b"), &json!("a_b"))
    );
    assert_eq!(body["messages"][0]["role"], "user", "the first turn is the user's");
    // The call's tool is no longer on offer, so one that may not be called stands in for it.
    assert_eq!(body["tools"][0]["name"], "look");
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
}

#[test]
fn signed_thinking_and_unknown_blocks_go_back_as_they_came() {
    let body = body(|payload| {
        let opaque = Part::Opaque {
            provider: NAME.into(),
            kind: "redacted_thinking".into(),
            data: Bytes::from_static(br#"{"type":"redacted_thinking","data":"eA=="}"#),
        };
        payload.context = vec![
            crate::provider::fixture::entry(broker_proto::Role::User, [Part::text("q")]),
            crate::provider::fixture::entry(
                broker_proto::Role::Assistant,
                [thinking("hm", "c2ln"), opaque],
            ),
        ];
        payload.generation.tool_choice = Some(ToolChoice::Required);
    });
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "eA=="},
        ])
    );
    assert!(body.get("tool_choice").is_none(), "a choice without tools is refused");
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
/// To 2026-12-01T00:00:00Z.
const TO_DECEMBER: u64 = (10 * 24 + 15) * 3_600_000;

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
            r#"{"error":{"type":"invalid_request_error","message":"messages: at least one message is required"}}"#,
            (Class::InvalidRequest, REQUEST),
            None,
            false,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 210050 tokens > 200000 maximum"}}"#,
            (Class::ContextTooLong, REQUEST),
            None,
            true,
        ),
        // llama.cpp on this wire.
        row(
            400,
            r#"{"error":{"code":400,"message":"request (4020 tokens) exceeds the available context size (1024 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":4020,"n_ctx":1024}}"#,
            (Class::ContextTooLong, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"}}"#,
            (Class::ContextTooLong, REQUEST),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."}}"#,
            (Class::QuotaExhausted, ACCOUNT),
            Some(TO_DECEMBER),
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"You have reached your specified workspace API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."}}"#,
            (Class::QuotaExhausted, ACCOUNT),
            Some(TO_DECEMBER),
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
            (Class::CredentialsRejected, ACCOUNT),
            None,
            true,
        ),
        row(
            400,
            r#"{"error":{"type":"invalid_request_error","message":"x","details":{"error_code":"organization_on_hold"}}}"#,
            (Class::CredentialsRejected, ACCOUNT),
            None,
            true,
        ),
        row(
            401,
            r#"{"error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
            (Class::CredentialsRejected, Scope::Key),
            None,
            true,
        ),
        row(
            402,
            r#"{"error":{"type":"billing_error","message":"x","details":{"error_code":"linked_organization_spend_limit_reached"}}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        row(402, "", (Class::CreditExhausted, ACCOUNT), None, true),
        row(
            403,
            r#"{"error":{"type":"permission_error","message":"x"}}"#,
            (Class::CredentialsRejected, MODEL),
            None,
            true,
        ),
        row(
            404,
            r#"{"error":{"type":"not_found_error","message":"model: claude-nope"}}"#,
            (Class::ModelNotFound, MODEL),
            None,
            true,
        ),
        row(408, "", (Class::Timeout, REQUEST), None, true),
        row(
            409,
            r#"{"error":{"type":"conflict_error","message":"x"}}"#,
            (Class::Overloaded, MODEL),
            None,
            true,
        ),
        row(413, "<html>", (Class::RequestTooLarge, REQUEST), None, false),
        row(422, "", (Class::InvalidRequest, REQUEST), None, false),
        Row {
            headers: &[("retry-after", "7")],
            ..row(
                429,
                r#"{"error":{"type":"rate_limit_error","message":"This request would exceed the rate limit for your organization (o) of 30,000 input tokens per minute."}}"#,
                (Class::RateLimited, MODEL),
                Some(7_000),
                true,
            )
        },
        Row {
            headers: &[
                ("anthropic-ratelimit-tokens-remaining", "0"),
                ("anthropic-ratelimit-tokens-reset", "2026-11-20T09:00:42Z"),
            ],
            ..row(429, "", (Class::RateLimited, MODEL), Some(42_000), true)
        },
        Row {
            headers: &[("retry-after", "30")],
            ..row(
                429,
                r#"{"error":{"type":"rate_limit_error","message":"x","details":{"error_code":"ramp_limit_exceeded"}}}"#,
                (Class::RateLimited, MODEL),
                Some(30_000),
                true,
            )
        },
        row(
            429,
            r#"{"error":{"type":"rate_limit_error","message":"x","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
            (Class::QuotaExhausted, ACCOUNT),
            Some(TO_DECEMBER),
            true,
        ),
        row(
            429,
            r#"{"error":{"type":"rate_limit_error","message":"x","details":{"error_code":"contract_spend_limit_reached"}}}"#,
            (Class::CreditExhausted, ACCOUNT),
            None,
            true,
        ),
        Row {
            headers: &[
                ("anthropic-ratelimit-unified-status", "rejected"),
                ("anthropic-ratelimit-unified-reset", "1795168800"),
            ],
            ..row(429, "", (Class::QuotaExhausted, ACCOUNT), Some(3_600_000), true)
        },
        row(
            500,
            r#"{"error":{"type":"api_error","message":"Internal server error"}}"#,
            (Class::Overloaded, MODEL),
            None,
            true,
        ),
        row(503, "upstream connect error", (Class::Overloaded, MODEL), None, true),
        row(
            504,
            r#"{"error":{"type":"timeout_error","message":"x"}}"#,
            (Class::Timeout, REQUEST),
            None,
            true,
        ),
        row(
            529,
            r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            (Class::Overloaded, MODEL),
            None,
            true,
        ),
        Row {
            headers: &[("retry-after", "2")],
            ..row(503, "", (Class::Overloaded, MODEL), Some(2_000), true)
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
fn each_form_of_too_long_says_both_counts() {
    let counts: Vec<_> = rows()
        .iter()
        .map(|row| errors::classify(&refusal(row), NOW))
        .filter(|failure| failure.class == Class::ContextTooLong)
        .map(|failure| (failure.actual_tokens, failure.limit_tokens))
        .collect();
    let want = [(210_050, 200_000), (4_020, 1_024), (210_000, 200_000)];
    assert_eq!(counts, want.map(|(actual, limit)| (Some(actual), Some(limit))));
}

#[test]
fn each_error_event_has_the_class_of_its_type() {
    let check = |kind: &str, want: Class| {
        let body = json!({"type": "error", "error": {"type": kind, "message": CANARY}});
        let failure = errors::in_stream(body, &HeaderMap::new(), NOW);
        assert_eq!(failure.class, want, "{kind}");
        assert!(!failure.detail.contains("canary"));
    };
    check("overloaded_error", Class::Overloaded);
    check("api_error", Class::Overloaded);
    check("rate_limit_error", Class::RateLimited);
    check("timeout_error", Class::Timeout);
    check("brand_new_error", Class::Overloaded);
}

#[tokio::test]
async fn limits_are_read_from_a_failure_too() {
    let heard = played(ASK, "anthropic/429-rate-limit.http").await;
    assert_eq!(heard.failure().retry_at, Some(WallTime(NOW.0 + 7_000)));
    let limit = &heard.limits[0];
    assert_eq!((limit.name.as_str(), limit.remaining), ("input-tokens", Some(0)));
}

#[tokio::test]
async fn a_refusal_in_html_keeps_its_status() {
    let heard = played(ASK, "anthropic/400-html.http").await;
    assert_eq!(heard.failure().class, Class::InvalidRequest);
    assert!(!format!("{heard:?}").contains("canary"));
}

#[tokio::test]
async fn the_key_is_in_no_error_and_no_debug_text() {
    let fake = Fake::start(load("anthropic/401-invalid-key.http")).await;
    let adapter = fake.adapter(ASK);
    let heard: Heard = ask(&*adapter, prompt_of(ASK, |_| {})).await;
    assert_eq!(heard.failure().class, Class::CredentialsRejected);
    assert_eq!(
        heard.failure().detail,
        "the key is rejected: anthropic answered 401 (authentication_error)"
    );
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
    assert!(heard.failure().detail.ends_with("connection refused"), "{}", heard.failure().detail);
}
