//! Usage for programs. Names and places of these keys are promised.

use broker_proto::types::{
    CountedWindow, LedgerLine, LimitForecast, ModelUsage, ScopeUsage, SessionUsage, Usage,
    UsageBurn, UsageStatus, UsageWindow, WallTime,
};
use serde_json::{Value, json};

use crate::output;

pub(super) fn status(status: &UsageStatus) -> Value {
    json!({
        "models": status.models.iter().map(model).collect::<Vec<_>>(),
        "scopes": status.scopes.iter().map(scope).collect::<Vec<_>>(),
        "sessions": status.sessions.iter().map(session).collect::<Vec<_>>(),
    })
}

fn time(at: Option<WallTime>) -> Value {
    at.and_then(output::rfc3339).into()
}

fn model(model: &ModelUsage) -> Value {
    json!({
        "name": model.model.to_string(),
        "level": model.level.level,
        "cause": model.level.cause,
        "reason": model.level.reason,
        "action": model.level.action,
        "pace": model.level.pace,
        "since": time(model.level.since),
        "next": model.next.as_ref().map(ToString::to_string),
        "signals": {
            "rate_limit_count": model.signals.rate_limit_count,
            "slow_streak": model.signals.slow_streak,
            "error_rate": model.signals.error_rate,
            "avg_response_seconds": model.signals.avg_response_seconds,
        },
        "windows": model.windows.iter().map(window).collect::<Vec<_>>(),
        "forecast_at": time(model.forecast_at),
        "burn": burn(&model.burn),
        "counted": model.counted.iter().map(counted).collect::<Vec<_>>(),
        "usage": tokens(model.total),
        "calls": model.calls,
        "failures": model.failures,
        "cost_usd": model.cost_usd,
        "unavailable_until": time(model.unavailable_until),
        "key": model.key,
        "simulated": model.is_simulated,
    })
}

fn scope(scope: &ScopeUsage) -> Value {
    json!({
        "kind": scope.kind,
        "name": scope.name,
        "windows": scope.windows.iter().map(window).collect::<Vec<_>>(),
        "counted": scope.counted.iter().map(counted).collect::<Vec<_>>(),
        "burn": burn(&scope.burn),
        "calls": scope.calls,
        "cost_usd": scope.cost_usd,
    })
}

fn session(session: &SessionUsage) -> Value {
    json!({
        "name": session.session,
        "model": session.model.as_ref().map(ToString::to_string),
        "tokens": session.tokens,
        "context_window": session.context_window,
        "warning_threshold": session.warning_threshold,
        "auto_switch_threshold": session.switch_threshold,
        "percentage_used": percent(Some(session.tokens), session.context_window),
        "level": session.level.level,
        "cause": session.level.cause,
        "reason": session.level.reason,
        "action": session.level.action,
        "windows": session.windows.iter().map(window).collect::<Vec<_>>(),
        "counted": session.counted.iter().map(counted).collect::<Vec<_>>(),
        "usage": tokens(session.total),
        "calls": session.calls,
        "cost_usd": session.cost_usd,
        "duration_seconds": session.duration.as_secs_f64(),
        "worked_seconds": session.worked.as_secs_f64(),
        "complexity": session.complexity,
        "rating": session.rating,
        "last_at": time(session.last_at),
    })
}

pub(super) fn window(window: &UsageWindow) -> Value {
    json!({
        "name": window.name,
        "used": figure(window.used, &window.unit),
        "limit": figure(window.limit, &window.unit),
        "resets_at": time(window.resets_at),
        "unit": Some(&window.unit).filter(|unit| !unit.is_empty()),
    })
}

/// In the window's unit; USD arrive in billionths.
#[expect(clippy::cast_precision_loss, reason = "millions of dollars are exact")]
pub(super) fn figure(figure: Option<u64>, unit: &str) -> Value {
    match figure {
        Some(nanos) if unit == "usd" => (nanos as f64 / 1e9).into(),
        figure => figure.into(),
    }
}

/// Of a limit; `None` where there is none.
#[expect(clippy::cast_precision_loss, reason = "a share")]
pub(super) fn percent(used: Option<u64>, limit: Option<u64>) -> Option<f64> {
    let (used, limit) = (used?, limit.filter(|limit| *limit > 0)?);
    Some((used as f64 / limit as f64 * 1000.0).round() / 10.0)
}

fn counted(window: &CountedWindow) -> Value {
    json!({
        "name": window.name, "requests": window.requests, "tokens": window.tokens,
        "cost_usd": window.cost_usd, "resets_at": time(window.resets_at),
    })
}

fn burn(burn: &UsageBurn) -> Value {
    json!({
        "requests_per_hour": burn.requests_per_hour,
        "tokens_per_hour": burn.tokens_per_hour,
        "cost_usd_per_hour": burn.cost_usd_per_hour,
        "confidence": burn.confidence,
    })
}

fn tokens(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
    })
}

pub(super) fn forecast(limit: &LimitForecast) -> Value {
    json!({
        "scope": limit.kind,
        "name": limit.name,
        "window": window(&limit.window),
        "per_hour": figure(Some(limit.per_hour), &limit.window.unit),
        "reached_at": time(limit.reached_at),
        "confidence": limit.confidence,
    })
}

pub(super) fn line(line: &LedgerLine) -> Value {
    json!({
        "at": time(Some(line.at)),
        "source": line.source,
        "model": line.model.to_string(),
        "key": line.key,
        "session": line.session,
        "message_id": line.message.map(|id| id.to_string()),
        "attempt": line.attempt,
        "agent": line.agent.as_ref().map(ToString::to_string),
        "outcome": line.outcome,
        "usage": tokens(line.usage),
        "provenance": provenance(line.usage),
        "cost_usd": line.cost_usd,
        "latency_ms": line.latency.map(output::millis),
        "first_token_ms": line.first_token.map(output::millis),
    })
}

/// Where the figures come from.
pub(super) fn provenance(usage: Usage) -> &'static str {
    use broker_proto::types::Provenance;
    match usage.provenance {
        Provenance::Reported => "reported",
        Provenance::Estimated => "estimated",
        Provenance::Partial => "partial",
    }
}
