//! `OpenAI`'s wire: credentials, errors, rate-limit headers, lists. Requests are read in [`request`], answers
//! written in [`reply`].

pub(super) mod reply;
pub(super) mod request;

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    models::Model,
    quota::{Gauge, Kind, UsedUp},
    reply::{Moment, Reply, go_duration},
    script::Key,
};

const ORGANIZATION: &str = "org-sim";
const DAY: Duration = Duration::from_secs(86_400);

/// An error's `kind` (the wire's `type`), code, parameter and message; empty texts are null.
#[derive(Debug, Default)]
pub(super) struct Problem {
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    pub(super) param: String,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn invalid(
        code: &'static str,
        param: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { kind: "invalid_request_error", code, param: param.into(), message: message.into() }
    }

    pub(super) fn reply(&self, at: &Moment, status: u16) -> Reply {
        error(at, status, self.kind, or_null(self.code), or_null(&self.param), &self.message)
    }
}

fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// `code` is a JSON value because compatible servers send numbers there.
#[expect(clippy::needless_pass_by_value, reason = "the values are made for this call")]
pub(super) fn error(
    at: &Moment,
    status: u16,
    kind: &str,
    code: Value,
    param: Value,
    message: &str,
) -> Reply {
    let body = json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    Reply::json(status, &body).with_headers(identity(at.number))
}

pub(super) fn identity(number: u64) -> Vec<(String, String)> {
    [
        ("x-request-id", format!("req_sim{number:010}")),
        ("openai-organization", ORGANIZATION.to_owned()),
        ("openai-processing-ms", "12".to_owned()),
        ("openai-version", "2020-10-01".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

pub(super) fn key(headers: &HeaderMap, rejected: &[Key], at: &Moment) -> Result<Key, Box<Reply>> {
    let refuse = |problem: Problem| Box::new(problem.reply(at, 401));
    let header = headers.get("authorization").and_then(|value| value.to_str().ok());
    let Some(text) =
        header.and_then(|text| text.strip_prefix("Bearer ")).filter(|text| !text.is_empty())
    else {
        return Err(refuse(Problem::invalid(
            "",
            "",
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )));
    };
    let key = Key::new(text);
    if key.is_invalid() || rejected.contains(&key) {
        // The real text shows the ends of the key; this one shows nothing of it.
        return Err(refuse(Problem::invalid(
            "invalid_api_key",
            "",
            "Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys.",
        )));
    }
    Ok(key)
}

pub(super) fn not_found(at: &Moment, model: &str) -> Reply {
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    Problem::invalid("model_not_found", "", message).reply(at, 404)
}

/// `x-ratelimit-*`, from the scripted quotas, else a generous tier.
pub(super) fn limit_headers(gauges: &[Gauge]) -> Vec<(String, String)> {
    let generous =
        |kind, limit| Gauge { kind, limit, left: limit - 1.0, full_in: Duration::from_millis(6) };
    let requests = gauges.iter().find(|gauge| gauge.kind == Kind::Requests).copied();
    let tokens = gauges
        .iter()
        .filter(|gauge| matches!(gauge.kind, Kind::Tokens | Kind::InputTokens | Kind::OutputTokens))
        .min_by(|a, b| (a.left / a.limit).total_cmp(&(b.left / b.limit)))
        .copied();
    let kinds = [
        ("requests", requests.unwrap_or_else(|| generous(Kind::Requests, 10_000.0))),
        ("tokens", tokens.unwrap_or_else(|| generous(Kind::Tokens, 30_000_000.0))),
    ];
    let mut headers = Vec::with_capacity(6);
    for (name, gauge) in kinds {
        headers.push((format!("x-ratelimit-limit-{name}"), format!("{:.0}", gauge.limit)));
        headers
            .push((format!("x-ratelimit-remaining-{name}"), format!("{:.0}", gauge.left.floor())));
        headers.push((format!("x-ratelimit-reset-{name}"), go_duration(gauge.full_in)));
    }
    headers
}

/// The refusal of a quota that has no preset of its own.
pub(super) fn used_up(used: &UsedUp, model: &str, gauges: &[Gauge], at: &Moment) -> Reply {
    let is_daily = used.spec.per.is_some_and(|per| per.0 >= DAY);
    let (kind, unit) = match (used.spec.kind, is_daily) {
        (Kind::Requests, true) => ("requests", "requests per day (RPD)"),
        (Kind::Requests, false) => ("requests", "requests per min (RPM)"),
        (_, true) => ("tokens", "tokens per day (TPD)"),
        (_, false) => ("tokens", "tokens per min (TPM)"),
    };
    let (limit, needed) = (used.spec.limit, used.needed.ceil());
    let begin = if used.too_large { "Request too large" } else { "Rate limit reached" };
    let head =
        format!("{begin} for {model} in organization {ORGANIZATION} on {unit}: Limit {limit:.0}");
    let message = match used.wait {
        _ if used.too_large => format!(
            "{head}, Requested {needed:.0}. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
        ),
        Some(wait) => format!(
            "{head}, Used {:.0}, Requested {needed:.0}. Please try again in {}. Visit https://platform.openai.com/account/rate-limits to learn more.",
            limit - used.left,
            go_duration(wait)
        ),
        None => format!("{head}, Used {:.0}, Requested {needed:.0}.", limit - used.left),
    };
    let mut reply = error(at, 429, kind, json!("rate_limit_exceeded"), Value::Null, &message)
        .with_headers(limit_headers(gauges));
    if let Some(wait) = used.wait.filter(|_| !used.too_large) {
        reply = reply
            .header("retry-after", super::reply::ceil(wait).as_secs().max(1).to_string())
            .header("retry-after-ms", wait.as_millis().to_string());
    }
    reply
}

pub(super) fn model_entry(model: &Model) -> Value {
    json!({"id": model.id, "object": "model", "created": 1_715_367_049, "owned_by": "system"})
}

pub(super) fn list(models: &[Model]) -> Value {
    json!({"object": "list", "data": models.iter().map(model_entry).collect::<Vec<_>>()})
}
