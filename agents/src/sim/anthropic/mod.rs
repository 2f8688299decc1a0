//! Anthropic's wire: credentials, errors, rate-limit headers, lists. Requests are read in [`request`], answers
//! written in [`reply`].

pub(super) mod reply;
pub(super) mod request;

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    models::Model,
    quota::{Gauge, Kind, UsedUp},
    reply::{Moment, Reply, thousands},
    script::Key,
};

pub(super) const NEWEST_VERSION: &str = "2026-10-21";
const VERSIONS: [&str; 2] = ["2023-06-01", NEWEST_VERSION];
const ORGANIZATION: &str = "org_sim";
const STEP: f64 = 1_000.0;

/// `{"type":"error",...}` with the request's id in body and header.
pub(super) fn error(at: &Moment, status: u16, kind: &str, code: &str, message: &str) -> Reply {
    let mut error = json!({"type": kind, "message": message});
    if !code.is_empty() {
        error["details"] = json!({"error_code": code});
    }
    let body = json!({"type": "error", "error": error, "request_id": request_id(at.number)});
    Reply::json(status, &body).with_headers(identity(at.number))
}

pub(super) fn invalid(at: &Moment, message: &str) -> Reply {
    error(at, 400, "invalid_request_error", "", message)
}

pub(super) fn request_id(number: u64) -> String {
    format!("req_011SIM{number:010}")
}

pub(super) fn identity(number: u64) -> Vec<(String, String)> {
    vec![
        ("request-id".to_owned(), request_id(number)),
        ("anthropic-organization-id".to_owned(), ORGANIZATION.to_owned()),
    ]
}

/// The key of a request; `x-api-key` counts when both headers are there.
pub(super) fn key(headers: &HeaderMap, rejected: &[Key], at: &Moment) -> Result<Key, Box<Reply>> {
    let refuse = |message: &str| Box::new(error(at, 401, "authentication_error", "", message));
    let text = |name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty())
    };
    let (key, message) = match (
        text("x-api-key"),
        text("authorization").and_then(|text| text.strip_prefix("Bearer ")),
    ) {
        (Some(key), _) => (Key::new(key), "invalid x-api-key"),
        (None, Some(key)) => (Key::new(key), "invalid bearer token"),
        (None, None) => return Err(refuse("x-api-key header is required")),
    };
    if key.is_invalid() || rejected.contains(&key) {
        return Err(refuse(message));
    }
    Ok(key)
}

/// The version of the wire that a request asks for.
pub(super) fn version<'a>(headers: &'a HeaderMap, at: &Moment) -> Result<&'a str, Box<Reply>> {
    let Some(version) = headers.get("anthropic-version").and_then(|value| value.to_str().ok())
    else {
        return Err(Box::new(invalid(at, "anthropic-version: header is required")));
    };
    if VERSIONS.contains(&version) {
        return Ok(version);
    }
    Err(Box::new(invalid(at, &format!("anthropic-version: \"{version}\" is not a valid version"))))
}

/// A model that nobody declared.
pub(super) fn not_found(at: &Moment, model: &str) -> Reply {
    error(at, 404, "not_found_error", "", &format!("model: {model}"))
}

/// `anthropic-ratelimit-*`, from the scripted quotas, else a generous tier.
pub(super) fn limit_headers(gauges: &[Gauge], at: &Moment) -> Vec<(String, String)> {
    let of = |kind: Kind, generous: f64| {
        gauges.iter().find(|gauge| gauge.kind == kind).copied().unwrap_or(Gauge {
            kind,
            limit: generous,
            left: generous,
            full_in: Duration::ZERO,
        })
    };
    let input = of(Kind::InputTokens, 2_000_000.0);
    let output = of(Kind::OutputTokens, 400_000.0);
    // `tokens-*` shows the most restrictive token limit in force.
    let tokens = gauges
        .iter()
        .filter(|gauge| matches!(gauge.kind, Kind::Tokens | Kind::InputTokens | Kind::OutputTokens))
        .min_by(|a, b| (a.left / a.limit).total_cmp(&(b.left / b.limit)))
        .copied()
        .unwrap_or(Gauge {
            kind: Kind::Tokens,
            limit: 2_400_000.0,
            left: 2_400_000.0,
            full_in: Duration::ZERO,
        });
    let kinds = [
        ("requests", of(Kind::Requests, 4_000.0)),
        ("input-tokens", input),
        ("output-tokens", output),
        ("tokens", tokens),
    ];
    let mut headers = Vec::with_capacity(12);
    for (name, gauge) in kinds {
        let mut put = |what: &str, value: String| {
            headers.push((format!("anthropic-ratelimit-{name}-{what}"), value));
        };
        // What is left of tokens is rounded to the nearest thousand; scripted limits too small for that are shown
        // as they are.
        let is_rounded = gauge.kind != Kind::Requests && gauge.limit >= 10.0 * STEP;
        let left = if is_rounded { (gauge.left / STEP).round() * STEP } else { gauge.left.floor() };
        put("limit", format!("{:.0}", gauge.limit));
        put("remaining", format!("{:.0}", left.min(gauge.limit)));
        put("reset", at.rfc3339(gauge.full_in));
    }
    headers
}

/// The refusal of a quota that has no preset of its own.
pub(super) fn used_up(used: &UsedUp, model: &str, gauges: &[Gauge], at: &Moment) -> Reply {
    let what = match used.spec.kind {
        Kind::Requests => "requests",
        Kind::Tokens => "tokens",
        Kind::InputTokens => "input tokens",
        Kind::OutputTokens => "output tokens",
        Kind::Money => "dollars",
    };
    let limit = thousands(used.spec.limit);
    let pool = match used.spec.model.as_deref().and_then(|pattern| pattern.strip_suffix('*')) {
        Some(family) => format!(
            " The limit is shared by all models of the family {}.",
            family.trim_end_matches('-')
        ),
        None => String::new(),
    };
    let message = format!(
        "This request would exceed the rate limit for your organization ({ORGANIZATION}) of {limit} {what} per minute for {model}.{pool} Please reduce the prompt length or the maximum tokens requested, or try again later."
    );
    let mut reply =
        error(at, 429, "rate_limit_error", "", &message).with_headers(limit_headers(gauges, at));
    if let Some(wait) = used.wait.filter(|_| !used.too_large) {
        reply = reply.header("retry-after", super::reply::ceil(wait).as_secs().max(1).to_string());
    }
    reply
}

pub(super) fn model_entry(model: &Model) -> Value {
    json!({
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": "2026-01-01T00:00:00Z",
        "max_input_tokens": model.window,
        "max_tokens": model.max_output,
        "lifecycle": "active",
    })
}

pub(super) fn list(models: &[Model]) -> Value {
    let data: Vec<Value> = models.iter().map(model_entry).collect();
    json!({
        "first_id": models.first().map(|model| &model.id),
        "last_id": models.last().map(|model| &model.id),
        "has_more": false,
        "data": data,
    })
}
