//! What the simulator was sent, and what became of it.
//!
//! Invariant: no credential enters a record; only that one was there.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::{answer::Usage, script::Wire};

/// Entries kept; older ones are forgotten.
const MOST_ENTRIES: usize = 10_000;
/// A larger body is not kept.
const LARGEST_BODY: usize = 1 << 20;
/// Bodies kept together; beyond it the oldest entries lose theirs.
const MOST_BODY_BYTES: usize = 128 << 20;
/// Always listed, present or absent.
const CREDENTIALS: [&str; 2] = ["authorization", "x-api-key"];

/// One request and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// From 1, in the order of arrival.
    pub number: u64,
    /// Milliseconds since the simulator started.
    pub at_ms: u64,
    pub ended_ms: Option<u64>,
    pub wire: Option<Wire>,
    pub method: String,
    pub path: String,
    pub query: Option<String>,
    pub model: Option<String>,
    pub stream: bool,
    /// Credentials are `present` or `absent`.
    pub headers: BTreeMap<String, String>,
    /// Null when it was no JSON, or larger than 1 MiB.
    pub body: Value,
    pub body_bytes: u64,
    pub status: Option<u16>,
    /// The fault or the quota that shaped the reply.
    pub fault: Option<String>,
    pub quota: Option<String>,
    pub tokens: Option<Tokens>,
    pub images: u64,
    /// Events or lines sent.
    pub chunks_sent: u64,
    pub output_tokens_sent: u64,
    /// The reply ended, by whichever side.
    pub done: bool,
    /// The client left before the end of the reply.
    pub client_gone: bool,
}

/// The true counts of an answer, whatever the reply said.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tokens {
    /// The whole prompt, cached or not.
    pub prompt: u64,
    pub cache_read: u64,
    pub cache_write: u64,
    /// With reasoning.
    pub output: u64,
    pub reasoning: u64,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        let Usage { prompt, cache_read, cache_write, output, reasoning } = usage;
        Self { prompt, cache_read, cache_write, output, reasoning }
    }
}

struct Record {
    entry: Entry,
    body: Bytes,
}

#[derive(Default)]
struct Log {
    records: VecDeque<Record>,
    /// Of all time; numbers continue over a clearing.
    total: u64,
    /// The total when the journal was cleared last.
    cleared: u64,
    body_bytes: usize,
}

/// The journal of one simulator.
pub(super) struct Journal {
    log: Mutex<Log>,
    changed: watch::Sender<u64>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Journal").field("total", &self.log().total).finish_non_exhaustive()
    }
}

/// What a request looked like when it came.
pub(super) struct Arrival<'a> {
    pub(super) at: Duration,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    pub(super) wire: Option<Wire>,
    pub(super) model: Option<&'a str>,
    pub(super) stream: bool,
    pub(super) body: Bytes,
}

/// What was decided to answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) fault: Option<String>,
    pub(super) quota: Option<String>,
    pub(super) usage: Option<Usage>,
    pub(super) images: u64,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self { log: Mutex::new(Log::default()), changed: watch::Sender::new(0) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an arrival; returns its number.
    pub(super) fn open(&self, arrival: Arrival<'_>) -> u64 {
        let mut log = self.log();
        log.total += 1;
        let number = log.total;
        let entry = Entry {
            number,
            at_ms: millis(arrival.at),
            ended_ms: None,
            wire: arrival.wire,
            method: arrival.method.to_owned(),
            path: arrival.path.to_owned(),
            query: arrival.query.map(redacted_query),
            model: arrival.model.map(str::to_owned),
            stream: arrival.stream,
            headers: redacted(arrival.headers),
            body: Value::Null,
            body_bytes: arrival.body.len() as u64,
            status: None,
            fault: None,
            quota: None,
            tokens: None,
            images: 0,
            chunks_sent: 0,
            output_tokens_sent: 0,
            done: false,
            client_gone: false,
        };
        let body = if arrival.body.len() <= LARGEST_BODY { arrival.body } else { Bytes::new() };
        log.body_bytes += body.len();
        log.records.push_back(Record { entry, body });
        log.trim();
        drop(log);
        self.notify();
        number
    }

    pub(super) fn change(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        let mut log = self.log();
        if let Some(record) = log.find(number) {
            change(&mut record.entry);
        }
        drop(log);
        self.notify();
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Entries with a number above `since`, oldest first.
    pub(super) fn since(&self, since: u64) -> Vec<Entry> {
        let log = self.log();
        log.records.iter().filter(|record| record.entry.number > since).map(Record::view).collect()
    }

    /// How many entries above `since` there are (of all time), and how many of them a client left.
    pub(super) fn counts(&self, since: u64) -> (u64, u64) {
        let log = self.log();
        let gone = log
            .records
            .iter()
            .filter(|record| record.entry.number > since && record.entry.client_gone)
            .count();
        (log.total.saturating_sub(since.max(log.cleared)), gone as u64)
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.log().records.iter().filter(|record| !record.entry.done).count() as u64
    }

    pub(super) fn clear(&self) {
        let mut log = self.log();
        log.records.clear();
        log.cleared = log.total;
        log.body_bytes = 0;
    }

    /// Tells of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Log {
    fn trim(&mut self) {
        while self.records.len() > MOST_ENTRIES {
            if let Some(old) = self.records.pop_front() {
                self.body_bytes -= old.body.len();
            }
        }
        let mut index = 0;
        while self.body_bytes > MOST_BODY_BYTES && index < self.records.len() {
            self.body_bytes -= std::mem::take(&mut self.records[index].body).len();
            index += 1;
        }
    }

    /// Numbers are consecutive, so the place follows from the first.
    fn find(&mut self, number: u64) -> Option<&mut Record> {
        let first = self.records.front()?.entry.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.records.get_mut(index)
    }
}

impl Record {
    fn view(&self) -> Entry {
        Entry { body: serde_json::from_slice(&self.body).unwrap_or_default(), ..self.entry.clone() }
    }
}

fn redacted(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> =
        CREDENTIALS.into_iter().map(|name| (name.to_owned(), "absent".to_owned())).collect();
    for name in headers.keys() {
        let lower = name.as_str();
        let is_secret =
            ["auth", "key", "token", "secret", "cookie"].iter().any(|word| lower.contains(word));
        let value = if is_secret {
            "present".to_owned()
        } else {
            let values: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            values.join(", ")
        };
        shown.insert(lower.to_owned(), value);
    }
    shown
}

fn redacted_query(query: &str) -> String {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _))
            if ["key", "token", "secret"].iter().any(|word| name.to_lowercase().contains(word)) =>
        {
            format!("{name}=present")
        }
        _ => pair.to_owned(),
    };
    query.split('&').map(pair).collect::<Vec<_>>().join("&")
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival<'a>(headers: &'a HeaderMap, body: &str) -> Arrival<'a> {
        Arrival {
            at: Duration::ZERO,
            method: "POST",
            path: "/v1/messages",
            query: Some("beta=true&api_key=canary"),
            headers,
            wire: Some(Wire::Anthropic),
            model: Some("m"),
            stream: true,
            body: Bytes::from(body.to_owned()),
        }
    }

    #[test]
    fn no_credential_enters_the_journal() {
        let journal = Journal::new();
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", "sk-canary".parse().unwrap());
        journal.open(arrival(&headers, "{}"));

        let entry = &journal.since(0)[0];

        assert_eq!(
            (entry.headers["x-api-key"].as_str(), entry.headers["authorization"].as_str()),
            ("present", "absent")
        );
        assert!(!serde_json::to_string(entry).unwrap().contains("canary"));
    }

    #[test]
    fn the_oldest_entries_are_forgotten() {
        let journal = Journal::new();
        for _ in 0..MOST_ENTRIES + 5 {
            journal.open(arrival(&HeaderMap::new(), "{}"));
        }

        assert_eq!(journal.since(0).len(), MOST_ENTRIES);
        assert_eq!(journal.since(0)[0].number, 6);
    }

    #[test]
    fn a_large_body_is_measured_but_not_kept() {
        let journal = Journal::new();
        journal.open(arrival(&HeaderMap::new(), &format!("\"{}\"", "x".repeat(LARGEST_BODY))));

        let entry = &journal.since(0)[0];

        assert_eq!((entry.body.is_null(), entry.body_bytes), (true, LARGEST_BODY as u64 + 2));
    }
}
