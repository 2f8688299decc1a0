//! What a refusal on OpenAI's wire means: by status, code, type, and last by the sentence.
//!
//! One kind of 429 means that money is out, another that the request never fits; waiting helps with neither.

use broker_proto::{Failure, FailureClass as Class, FailureScope as Scope, WallTime};
use http::HeaderMap;
use serde_json::Value;

use super::NAME;
use crate::provider::{
    http::{Body, Refusal, numbers, said},
    limits, when,
};

/// Codes that say the account's money or cap is used up; `insufficient_quota` may be the type instead.
const SPENT: [&str; 6] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_not_active",
];

/// The class of a reply that is no success.
pub(super) fn classify(refusal: &Refusal, now: WallTime) -> Failure {
    meaning(refusal.status, &refusal.body, &refusal.headers, now)
}

/// The class of an error within the stream: what its type, or a code that is a status, would have been alone.
pub(super) fn in_stream(body: Value, headers: &HeaderMap, now: WallTime) -> Failure {
    let body = Body::of(body);
    let status = match (body.code.parse::<u16>(), body.kind.as_str(), body.code.as_str()) {
        (Ok(status @ 400..=599), ..) => status,
        (_, "invalid_request_error", _) => 400,
        (_, "insufficient_quota" | "rate_limit_error" | "tokens" | "requests", _) => 429,
        (_, _, "rate_limit_exceeded" | "insufficient_quota") => 429,
        (_, "service_unavailable_error", _) => 503,
        (_, "exceed_context_size_error", _) => 400,
        _ => 500,
    };
    let mut failure = meaning(status, &body, headers, now);
    failure.detail = said(NAME, 200, &body, "an error came within the answer");
    failure
}

fn meaning(status: u16, body: &Body, headers: &HeaderMap, now: WallTime) -> Failure {
    let fail = |class: Class, why: &str| Failure::new(class, NAME, said(NAME, status, body, why));
    if SPENT.contains(&body.code.as_str()) || SPENT.contains(&body.kind.as_str()) {
        return fail(Class::CreditExhausted, "the account's quota is used up");
    }
    if (400..=499).contains(&status) && is_too_long(body) {
        let mut failure = fail(Class::ContextTooLong, "the prompt is too long for the model");
        (failure.actual_tokens, failure.limit_tokens) = tokens(body);
        return failure;
    }
    match status {
        401 => fail(Class::CredentialsRejected, "the key is rejected"),
        403 if body.code != "model_not_found" => {
            let mut failure = fail(Class::CredentialsRejected, "the key may not be used for this");
            failure.scope = Scope::Account;
            failure
        }
        400 | 403 | 404 if status == 404 || is_unknown_model(body) => {
            fail(Class::ModelNotFound, "there is no such model, or base_url is wrong")
        }
        408 => fail(Class::Timeout, "the provider gave up waiting"),
        413 => {
            let mut failure =
                fail(Class::RequestTooLarge, "the request is over the provider's size");
            failure.another_model_may_help = false;
            failure
        }
        // No wait makes a request fit that is larger than the limit itself.
        429 if body.message.starts_with("Request too large") => fail(
            Class::RequestTooLarge,
            "the request is larger than the limit of tokens per minute",
        ),
        429 => rate_limited(body, headers, now, &fail),
        504 => fail(Class::Timeout, "the provider's own deadline passed"),
        409 | 500..=503 | 505..=599 => {
            let mut failure = fail(Class::Overloaded, "the provider failed or is overloaded");
            failure.retry_at = when::retry_after(headers, now);
            failure
        }
        400 if matches!(
            body.code.as_str(),
            "content_policy_violation" | "content_filter" | "invalid_prompt"
        ) =>
        {
            let mut failure = fail(Class::ContentRefused, "the provider refuses this content");
            failure.another_model_may_help = true;
            failure
        }
        400..=499 => fail(Class::InvalidRequest, "the request cannot work as it is"),
        _ => fail(Class::MalformedReply, "no answer, and no error either: base_url may be wrong"),
    }
}

fn rate_limited(
    body: &Body,
    headers: &HeaderMap,
    now: WallTime,
    fail: &dyn Fn(Class, &str) -> Failure,
) -> Failure {
    let mut failure = fail(Class::RateLimited, "the model's rate limit is reached");
    failure.retry_at = when::retry_after(headers, now)
        .or_else(|| when::try_again(&body.message, now))
        .or_else(|| limits::reset_of_used_up(&limits::openai(headers, now)));
    failure
}

fn is_too_long(body: &Body) -> bool {
    body.code == "context_length_exceeded"
        || body.kind == "exceed_context_size_error"
        || body.message.contains("maximum context length")
        || body.message.contains("exceeds the available context size")
}

/// Compatible servers put an unknown model under 400.
fn is_unknown_model(body: &Body) -> bool {
    let message = body.message.to_lowercase();
    body.code == "model_not_found"
        || (message.contains("model")
            && (message.contains("not found") || message.contains("does not exist")))
}

/// llama.cpp says both numbers in fields; the vendor says them in the sentence, the limit first.
fn tokens(body: &Body) -> (Option<u64>, Option<u64>) {
    let error = &body.json["error"];
    let fields = (error["n_prompt_tokens"].as_u64(), error["n_ctx"].as_u64());
    if fields.1.is_some() {
        return fields;
    }
    let Some((_, rest)) = body.message.split_once("maximum context length") else {
        return (None, None);
    };
    let numbers = numbers(rest);
    (numbers.get(1).copied(), numbers.first().copied())
}
