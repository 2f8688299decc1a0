//! What a refusal of Anthropic means: by status, type, stable code, and last by the sentence.
//!
//! Two kinds of 400 mean that money is out; one kind of 429 means that waiting is useless.

use broker_proto::{Failure, FailureClass as Class, FailureScope as Scope, WallTime};
use http::HeaderMap;
use serde_json::Value;

use super::NAME;
use crate::provider::{
    http::{Body, Refusal, numbers, said},
    limits, when,
};

/// The class of a reply that is no success.
pub(super) fn classify(refusal: &Refusal, now: WallTime) -> Failure {
    meaning(refusal.status, &refusal.body, &refusal.headers, now)
}

/// The class of an `error` event. The status stays 200, so the type says which one it would have been.
pub(super) fn in_stream(body: Value, headers: &HeaderMap, now: WallTime) -> Failure {
    let body = Body::of(body);
    let status = match body.kind.as_str() {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => 500,
    };
    let mut failure = meaning(status, &body, headers, now);
    failure.detail = said(NAME, 200, &body, "an error came within the answer");
    failure
}

fn meaning(status: u16, body: &Body, headers: &HeaderMap, now: WallTime) -> Failure {
    let fail = |class: Class, why: &str| Failure::new(class, NAME, said(NAME, status, body, why));
    let of_account = |mut failure: Failure| {
        failure.scope = Scope::Account;
        failure
    };
    if let Some(failure) = spent(body, now, &fail) {
        return of_account(failure);
    }
    match status {
        400 if is_too_long(body) => {
            let mut failure = fail(Class::ContextTooLong, "the prompt is too long for the model");
            (failure.actual_tokens, failure.limit_tokens) = tokens(body);
            failure
        }
        400 if is_on_hold(body) => {
            of_account(fail(Class::CredentialsRejected, "the organization is disabled"))
        }
        401 => fail(Class::CredentialsRejected, "the key is rejected"),
        402 => of_account(fail(Class::CreditExhausted, "the account has a payment problem")),
        403 => {
            let mut failure = fail(Class::CredentialsRejected, "the key may not use this model");
            failure.scope = Scope::Model;
            failure
        }
        404 => fail(Class::ModelNotFound, "there is no such model, or base_url is wrong"),
        408 => fail(Class::Timeout, "the provider gave up waiting"),
        413 => {
            let mut failure =
                fail(Class::RequestTooLarge, "the request is over the provider's size");
            failure.another_model_may_help = false;
            failure
        }
        429 => rate_limited(headers, now, &fail),
        504 => fail(Class::Timeout, "the provider's own deadline passed"),
        409 | 500..=503 | 505..=599 => {
            let mut failure = fail(Class::Overloaded, "the provider failed or is overloaded");
            failure.retry_at = when::retry_after(headers, now);
            failure
        }
        400..=499 => fail(Class::InvalidRequest, "the request cannot work as it is"),
        _ => fail(Class::MalformedReply, "no answer, and no error either: base_url may be wrong"),
    }
}

/// What says, under any status, that the account has nothing left.
fn spent(body: &Body, now: WallTime, fail: &dyn Fn(Class, &str) -> Failure) -> Option<Failure> {
    let (class, why, retry_at) = match body.code.as_str() {
        // The tier's cap on a month; it says no time, and is known to end with the month.
        "enforced_spend_limit_reached" => {
            (Class::QuotaExhausted, "the month's spend limit is reached", when::next_month(now))
        }
        "contract_spend_limit_reached"
        | "linked_organization_spend_limit_reached"
        | "linked_organization_billing_unavailable" => {
            (Class::CreditExhausted, "the account's spend limit is reached", None)
        }
        _ if body.message.contains("credit balance is too low") => {
            (Class::CreditExhausted, "the account's credit is used up", None)
        }
        _ if body.message.contains("API usage limits") => (
            Class::QuotaExhausted,
            "the usage limit set for the account is reached",
            when::regain_access(&body.message),
        ),
        _ => return None,
    };
    let mut failure = fail(class, why);
    failure.retry_at = retry_at;
    Some(failure)
}

fn rate_limited(
    headers: &HeaderMap,
    now: WallTime,
    fail: &dyn Fn(Class, &str) -> Failure,
) -> Failure {
    let after = when::retry_after(headers, now);
    if limits::is_unified_rejected(headers) {
        let mut failure = fail(Class::QuotaExhausted, "the subscription's limit is reached");
        failure.scope = Scope::Account;
        failure.retry_at = limits::unified_reset(headers).or(after);
        return failure;
    }
    let mut failure = fail(Class::RateLimited, "the rate limit of the model's family is reached");
    failure.retry_at = after.or_else(|| limits::reset_of_used_up(&limits::anthropic(headers)));
    failure
}

fn is_on_hold(body: &Body) -> bool {
    body.code == "organization_on_hold" || body.message.contains("organization has been disabled")
}

fn is_too_long(body: &Body) -> bool {
    // A type of llama.cpp, which speaks this wire too.
    body.kind == "exceed_context_size_error"
        || body.message.contains("prompt is too long")
        || body.message.contains("exceed context limit")
}

/// Actual and limit of `210050 tokens > 200000 maximum` or `190000 + 20000 > 200000`; llama.cpp has fields for both.
fn tokens(body: &Body) -> (Option<u64>, Option<u64>) {
    let error = &body.json["error"];
    let fields = (error["n_prompt_tokens"].as_u64(), error["n_ctx"].as_u64());
    if fields.1.is_some() {
        return fields;
    }
    let Some((actual, limit)) = body.message.split_once('>') else { return (None, None) };
    let actual: u64 = numbers(actual).into_iter().fold(0, u64::saturating_add);
    (Some(actual).filter(|actual| *actual > 0), numbers(limit).first().copied())
}
