//! The control endpoint, under `/_sim`: faults, quotas, journal, state. Its manual is `docs/simulator.md`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Error, exchange,
    journal::millis,
    quota::QuotaSpec,
    script::{Fault, OneOrMany},
    shared::Shared,
};

/// How long `wait` waits when no `timeout_ms` is given.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/_sim/faults", get(list_faults).post(add_faults).delete(clear_faults))
        .route("/_sim/quotas", get(list_quotas).post(change_quotas).delete(clear_quotas))
        .route("/_sim/journal", get(read_journal).delete(clear_journal))
        .route("/_sim/reset", post(reset))
        .route("/_sim/state", get(state))
        .fallback(exchange::handle)
        .with_state(shared)
}

type Shares = State<Arc<Shared>>;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(json!({"error": self.to_string()}))).into_response()
    }
}

/// Read by hand, so that a mistake is answered with its place and not with a type of the framework.
fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(Error::Request)
}

async fn list_faults(State(shared): Shares) -> Json<Value> {
    let now = shared.now();
    let faults = shared.state().faults.list(now);
    Json(json!({"faults": faults}))
}

async fn add_faults(State(shared): Shares, body: Bytes) -> Result<Json<Value>, Error> {
    // First what it is, then what it says: an untagged choice would hide the mistake.
    let faults: Vec<Fault> =
        if body.trim_ascii_start().starts_with(b"[") { read(&body)? } else { vec![read(&body)?] };
    let mut ids = Vec::with_capacity(faults.len());
    for fault in faults {
        ids.push(shared.install(fault).await?);
    }
    Ok(Json(json!({"ids": ids})))
}

async fn clear_faults(State(shared): Shares) -> Json<Value> {
    shared.state().faults.clear();
    Json(json!({}))
}

async fn list_quotas(State(shared): Shares) -> Json<Value> {
    let now = shared.now();
    let quotas = shared.state().quotas.list(now);
    Json(json!({"quotas": quotas}))
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum QuotaChange {
    Set(OneOrMany<QuotaSpec>),
    /// Nothing is left of the quotas of this name (or beginning and `*`).
    UseUp(String),
    /// All is left again.
    Refill(String),
}

async fn change_quotas(State(shared): Shares, body: Bytes) -> Result<Json<Value>, Error> {
    match read(&body)? {
        QuotaChange::Set(specs) => {
            specs.into_vec().into_iter().try_for_each(|spec| shared.set_quota(spec))?
        }
        QuotaChange::UseUp(name) => fill(&shared, name, 0.0)?,
        QuotaChange::Refill(name) => fill(&shared, name, 1.0)?,
    }
    Ok(list_quotas(State(shared)).await)
}

async fn clear_quotas(State(shared): Shares) -> Json<Value> {
    shared.state().quotas.clear();
    Json(json!({}))
}

/// Sets what is left of the named quotas, as a share of their limits.
pub(super) fn fill(shared: &Shared, name: String, share: f64) -> Result<(), Error> {
    let now = shared.now();
    if shared.state().quotas.fill(&name, share, now) == 0 {
        return Err(Error::UnknownQuota(name));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct JournalQuery {
    since: u64,
    wait: u64,
    gone: u64,
    timeout_ms: u64,
}

impl Default for JournalQuery {
    fn default() -> Self {
        Self { since: 0, wait: 0, gone: 0, timeout_ms: millis(PATIENCE) }
    }
}

async fn read_journal(State(shared): Shares, Query(query): Query<JournalQuery>) -> Json<Value> {
    let journal = &shared.journal;
    let mut changes = journal.watch();
    let until = Instant::now() + Duration::from_millis(query.timeout_ms);
    let is_there = loop {
        changes.mark_unchanged();
        let (entries, gone) = journal.counts(query.since);
        if entries >= query.wait && gone >= query.gone {
            break true;
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(until) => break false,
            () = shared.stopping.cancelled() => break false,
        }
    };
    let entries = journal.since(query.since);
    let next = entries.last().map_or(query.since, |entry| entry.number);
    Json(json!({"entries": entries, "next": next, "timed_out": !is_there}))
}

async fn clear_journal(State(shared): Shares) -> Json<Value> {
    shared.journal.clear();
    Json(json!({}))
}

async fn reset(State(shared): Shares) -> Result<Json<Value>, Error> {
    shared.reset().await?;
    Ok(Json(json!({})))
}

async fn state(State(shared): Shares) -> Json<Value> {
    let (requests, gone) = shared.journal.counts(0);
    let now = shared.now();
    let mut state = shared.state();
    let faults = state.faults.list(now);
    let quotas = state.quotas.list(now);
    Json(json!({
        "uptime_ms": millis(now),
        "requests": requests,
        "in_flight": shared.journal.in_flight(),
        "gone": gone,
        "seed": shared.seed,
        "tokens_per_second": shared.pace,
        "first_token_ms": millis(shared.first_token),
        "loaded": state.loaded,
        "faults": faults,
        "quotas": quotas,
    }))
}
