//! The journal's own form of the core's events: versioned protobuf, one kind number per event.
//!
//! A kind, a version and a field number are never used again. Types that the wire has too are stored in the wire's
//! encoding, which keeps the same promise.

mod handoff;
mod package;
mod ring;
mod session;
mod usage;

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use broker_proto::{
    AgentName, AnswerSummary, AskOptions, Attempt, ContentHash, Correlation, Failure, FailureClass,
    MessageId, MessageState, MessageType, ModelName, Numbered, PassedOver, Priority, ProducerName,
    RateLimit, Recipient, RoleName, RootBudget, Sender, Usage, WallTime, convert::Stored,
};

use super::Record;
use crate::core::{
    Accepted, Copied, Event, FannedOut, Finished, NewConsultation, Subject,
    queue::{Body, BodyKey, Digest, Hold, Seq},
    route::{ModelRoute, Shut},
    tree::{Branch, Tree},
    usage::ModelTotals,
};

const VERSION: u16 = 1;

/// A record that this program cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record kind {kind} version {version} is newer than this program")]
    TooNew { kind: u16, version: u16 },
    #[error("record kind {kind} is damaged")]
    Damaged { kind: u16 },
}

/// The record of a session's change, whose bytes a row keeps.
#[must_use]
pub fn session_changed(body: Vec<u8>) -> Record {
    Record { kind: kind::SESSION_CHANGED, version: VERSION, body: body.into() }
}

/// The kind of [`Event::Leased`], for rows that count deliveries.
pub const LEASED: u16 = kind::LEASED;

mod kind {
    pub(super) const ACCEPTED: u16 = 1;
    pub(super) const ROUTED: u16 = 2;
    pub(super) const LEASED: u16 = 3;
    pub(super) const ATTEMPT_FAILED: u16 = 4;
    pub(super) const LEASE_LOST: u16 = 5;
    pub(super) const FINISHED: u16 = 6;
    pub(super) const ROUTE_CHANGED: u16 = 7;
    pub(super) const USAGE_CHANGED: u16 = 8;
    pub(super) const TOKEN_CHANGED: u16 = 9;
    pub(super) const CONTENT_STORED: u16 = 10;
    pub(super) const CONTENT_FORGOTTEN: u16 = 12;
    pub(super) const HELD: u16 = 11;
    pub(super) const ROLE_KNOWN: u16 = 20;
    pub(super) const FANNED_OUT: u16 = 21;
    pub(super) const DELIVERY_FAILED: u16 = 30;
    pub(super) const PARKED: u16 = 31;
    pub(super) const REDRIVEN: u16 = 32;
    pub(super) const PURGED: u16 = 33;
    pub(super) const QUEUE_PAUSED: u16 = 34;
    pub(super) const TASK_ASKED: u16 = 40;
    pub(super) const TASK_ANSWERED: u16 = 41;
    pub(super) const TASK_STOPPED: u16 = 42;
    pub(super) const CLOCK_JUMPED: u16 = 35;

    /// Every kind that this program reads.
    pub(super) const ALL: &[u16] = &[
        ACCEPTED,
        ROUTED,
        LEASED,
        ATTEMPT_FAILED,
        LEASE_LOST,
        FINISHED,
        ROUTE_CHANGED,
        USAGE_CHANGED,
        TOKEN_CHANGED,
        CONTENT_STORED,
        CONTENT_FORGOTTEN,
        HELD,
        ROLE_KNOWN,
        FANNED_OUT,
        DELIVERY_FAILED,
        PARKED,
        REDRIVEN,
        PURGED,
        QUEUE_PAUSED,
        TASK_ASKED,
        TASK_ANSWERED,
        TASK_STOPPED,
        CLOCK_JUMPED,
        TREE_CHANGED,
        SESSION_ENTRIES,
        SESSION_CHANGED,
    ];
    pub(super) const TREE_CHANGED: u16 = 50;
    pub(super) const SESSION_ENTRIES: u16 = 60;
    pub(super) const SESSION_CHANGED: u16 = 61;
}

#[derive(Clone, PartialEq, prost::Message)]
struct BodyRecord {
    /// 40 bytes each.
    #[prost(bytes = "vec", tag = "1")]
    keys: Vec<u8>,
    #[prost(uint64, tag = "2")]
    size_bytes: u64,
}

/// Every event about a message begins with these.
#[derive(Clone, PartialEq, prost::Message)]
struct SubjectRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ConsultationRecord {
    #[prost(string, tag = "1")]
    asked: String,
    #[prost(bytes = "bytes", tag = "2")]
    options: Bytes,
    #[prost(uint64, tag = "3")]
    prompt_bytes: u64,
    #[prost(bool, tag = "4")]
    needs_vision: bool,
    #[prost(uint32, optional, tag = "5")]
    max_output_tokens: Option<u32>,
    #[prost(uint64, tag = "6")]
    history_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct BudgetRecord {
    #[prost(uint64, optional, tag = "1")]
    max_total_tokens: Option<u64>,
    #[prost(double, optional, tag = "2")]
    max_total_cost_usd: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TreeRecord {
    #[prost(uint64, tag = "1")]
    root: u64,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(bool, tag = "3")]
    is_forgotten: bool,
    #[prost(uint64, tag = "4")]
    messages: u64,
    #[prost(uint64, tag = "5")]
    tokens: u64,
    #[prost(double, tag = "6")]
    cost_usd: f64,
    #[prost(message, optional, tag = "7")]
    budget: Option<BudgetRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AcceptedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(string, tag = "2")]
    sender: String,
    #[prost(bytes = "bytes", tag = "3")]
    to: Bytes,
    #[prost(int32, tag = "4")]
    kind: i32,
    #[prost(int32, tag = "5")]
    priority: i32,
    #[prost(bytes = "vec", tag = "6")]
    digest: Vec<u8>,
    #[prost(message, optional, tag = "7")]
    body: Option<BodyRecord>,
    #[prost(uint64, tag = "8")]
    deadline: u64,
    #[prost(string, optional, tag = "9")]
    session: Option<String>,
    #[prost(string, optional, tag = "10")]
    ordering_key: Option<String>,
    #[prost(bytes = "vec", tag = "11")]
    root: Vec<u8>,
    #[prost(bytes = "vec", tag = "12")]
    parent: Vec<u8>,
    #[prost(uint32, tag = "13")]
    hops: u32,
    #[prost(btree_map = "string, string", tag = "14")]
    labels: std::collections::BTreeMap<String, String>,
    #[prost(message, optional, tag = "15")]
    consultation: Option<ConsultationRecord>,
    #[prost(uint64, optional, tag = "30")]
    expires_at: Option<u64>,
    /// How a bulk sender counts it; empty and 0 when it does not.
    #[prost(string, tag = "16")]
    producer: String,
    #[prost(uint64, tag = "17")]
    number: u64,
    /// The first message of its request; 0 for that one itself.
    #[prost(uint64, tag = "18")]
    root_seq: u64,
    #[prost(uint32, tag = "19")]
    depth: u32,
    #[prost(message, optional, tag = "20")]
    budget: Option<BudgetRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PassedOverRecord {
    #[prost(string, tag = "1")]
    model: String,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(int32, tag = "3")]
    class: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RoutedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "bytes", tag = "2")]
    queue: Bytes,
    #[prost(uint32, tag = "3")]
    candidate: u32,
    #[prost(uint64, optional, tag = "4")]
    wait_until: Option<u64>,
    #[prost(message, repeated, tag = "5")]
    passed_over: Vec<PassedOverRecord>,
    #[prost(string, tag = "6")]
    why: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeldRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "bytes", tag = "2")]
    queue: Bytes,
    #[prost(uint32, tag = "3")]
    hold: u32,
    #[prost(string, tag = "4")]
    why: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeasedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(uint32, tag = "2")]
    epoch: u32,
    #[prost(string, tag = "3")]
    agent: String,
    #[prost(string, tag = "4")]
    instance: String,
    #[prost(uint64, optional, tag = "5")]
    pulled_ms: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AttemptFailedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "bytes", tag = "2")]
    attempt: Bytes,
    #[prost(bool, tag = "3")]
    shown: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseLostRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(uint32, tag = "2")]
    epoch: u32,
    #[prost(string, tag = "3")]
    why: String,
    #[prost(bool, tag = "4")]
    counts: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeliveryFailedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(uint32, tag = "2")]
    epoch: u32,
    #[prost(string, tag = "3")]
    agent: String,
    #[prost(bytes = "bytes", tag = "4")]
    failure: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ParkedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "bytes", tag = "2")]
    queue: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    failure: Bytes,
    #[prost(message, optional, tag = "4")]
    reply: Option<BodyRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RedrivenRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(uint64, tag = "2")]
    deadline: u64,
    #[prost(uint32, tag = "3")]
    generation: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PurgedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClockJumpedRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(uint64, optional, tag = "2")]
    ahead_ms: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QueuePausedRecord {
    #[prost(bytes = "bytes", tag = "1")]
    queue: Bytes,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(bool, tag = "3")]
    is_paused: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskAskedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(uint32, tag = "2")]
    number: u32,
    #[prost(message, optional, tag = "3")]
    question: Option<BodyRecord>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    attempt: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskAnsweredRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "vec", tag = "2")]
    input: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    digest: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    answer: Option<BodyRecord>,
    #[prost(bool, tag = "5")]
    has_images: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TaskStoppedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    attempt: Option<Bytes>,
    #[prost(message, optional, tag = "3")]
    partial: Option<BodyRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FinishedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(int32, tag = "2")]
    state: i32,
    #[prost(uint32, tag = "3")]
    epoch: u32,
    #[prost(bytes = "bytes", optional, tag = "4")]
    summary: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    failure: Option<Bytes>,
    #[prost(message, optional, tag = "6")]
    reply: Option<BodyRecord>,
    #[prost(uint32, tag = "7")]
    copies: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RouteRecord {
    #[prost(string, tag = "1")]
    model: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(uint32, tag = "3")]
    failures: u32,
    #[prost(uint32, tag = "4")]
    closings: u32,
    #[prost(message, optional, tag = "5")]
    shut: Option<ShutRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ShutRecord {
    #[prost(uint64, optional, tag = "1")]
    until: Option<u64>,
    #[prost(bool, tag = "2")]
    is_told: bool,
    #[prost(int32, tag = "3")]
    class: i32,
    #[prost(string, tag = "4")]
    reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UsageRecord {
    #[prost(string, tag = "1")]
    model: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(uint64, tag = "3")]
    calls: u64,
    #[prost(uint64, tag = "4")]
    failures: u64,
    #[prost(bytes = "bytes", tag = "5")]
    usage: Bytes,
    #[prost(double, tag = "6")]
    cost_usd: f64,
    #[prost(uint64, tag = "7")]
    unpriced: u64,
    #[prost(bytes = "bytes", repeated, tag = "8")]
    limits: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TokenRecord {
    #[prost(string, tag = "1")]
    agent: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(bytes = "vec", optional, tag = "3")]
    hash: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContentRecord {
    #[prost(bytes = "vec", tag = "1")]
    hash: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(message, optional, tag = "3")]
    body: Option<BodyRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RoleRecord {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FannedOutRecord {
    #[prost(message, optional, tag = "1")]
    original: Option<AcceptedRecord>,
    #[prost(message, repeated, tag = "2")]
    copies: Vec<CopiedRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CopiedRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(string, tag = "3")]
    agent: String,
}

/// The record of an event.
#[must_use]
pub fn encode(event: &Event) -> Record {
    let (kind, body) = match event {
        Event::Accepted(accepted) => (kind::ACCEPTED, write_accepted(accepted).encode_to_vec()),
        Event::FannedOut(fanned) => (kind::FANNED_OUT, write_fanned_out(fanned)),
        Event::TreeChanged { root, at, tree } => {
            let counted = tree.as_deref().copied().unwrap_or_default();
            let record = TreeRecord {
                root: root.0,
                at: at.0,
                is_forgotten: tree.is_none(),
                messages: counted.messages,
                tokens: counted.tokens,
                cost_usd: counted.cost_usd,
                budget: Some(write_budget(counted.budget)),
            };
            (kind::TREE_CHANGED, record.encode_to_vec())
        }
        Event::Session(event) => session::write(event),
        Event::RoleKnown { role, at } => {
            let record = RoleRecord { role: role.to_string(), at: at.0 };
            (kind::ROLE_KNOWN, record.encode_to_vec())
        }
        Event::Routed { subject, at, queue, candidate, wait_until, passed_over, why } => {
            let passed_over = passed_over.iter().map(|passed| PassedOverRecord {
                model: passed.model.to_string(),
                reason: passed.reason.clone(),
                class: passed.class.map_or(0, FailureClass::to_wire),
            });
            let record = RoutedRecord {
                subject: Some(write_subject(*subject, *at)),
                queue: queue.clone().encode(),
                candidate: *candidate,
                wait_until: wait_until.map(|until| until.0),
                passed_over: passed_over.collect(),
                why: why.clone(),
            };
            (kind::ROUTED, record.encode_to_vec())
        }
        Event::Held { subject, at, queue, hold, why } => {
            let record = HeldRecord {
                subject: Some(write_subject(*subject, *at)),
                queue: queue.clone().encode(),
                hold: write_hold(*hold),
                why: why.clone(),
            };
            (kind::HELD, record.encode_to_vec())
        }
        Event::Leased { subject, at, epoch, agent, instance, pulled } => {
            let record = LeasedRecord {
                subject: Some(write_subject(*subject, *at)),
                epoch: *epoch,
                agent: agent.to_string(),
                instance: instance.clone(),
                pulled_ms: pulled
                    .map(|length| u64::try_from(length.as_millis()).unwrap_or(u64::MAX)),
            };
            (kind::LEASED, record.encode_to_vec())
        }
        Event::AttemptFailed { subject, at, attempt, shown } => {
            let record = AttemptFailedRecord {
                subject: Some(write_subject(*subject, *at)),
                attempt: (**attempt).clone().encode(),
                shown: *shown,
            };
            (kind::ATTEMPT_FAILED, record.encode_to_vec())
        }
        Event::LeaseLost { subject, at, epoch, why, counts } => {
            let record = LeaseLostRecord {
                subject: Some(write_subject(*subject, *at)),
                epoch: *epoch,
                why: why.clone(),
                counts: *counts,
            };
            (kind::LEASE_LOST, record.encode_to_vec())
        }
        Event::DeliveryFailed { subject, at, epoch, agent, failure } => {
            let record = DeliveryFailedRecord {
                subject: Some(write_subject(*subject, *at)),
                epoch: *epoch,
                agent: agent.to_string(),
                failure: (**failure).clone().encode(),
            };
            (kind::DELIVERY_FAILED, record.encode_to_vec())
        }
        Event::Parked { subject, at, queue, failure, reply } => {
            let record = ParkedRecord {
                subject: Some(write_subject(*subject, *at)),
                queue: queue.clone().encode(),
                failure: (**failure).clone().encode(),
                reply: reply.as_ref().map(write_body),
            };
            (kind::PARKED, record.encode_to_vec())
        }
        Event::Redriven { subject, at, deadline, generation } => {
            let record = RedrivenRecord {
                subject: Some(write_subject(*subject, *at)),
                deadline: deadline.0,
                generation: *generation,
            };
            (kind::REDRIVEN, record.encode_to_vec())
        }
        Event::Purged { subject, at } => {
            let record = PurgedRecord { subject: Some(write_subject(*subject, *at)) };
            (kind::PURGED, record.encode_to_vec())
        }
        Event::ClockJumped { at, ahead } => {
            let ahead_ms = ahead.map(|ahead| u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX));
            let record = ClockJumpedRecord { at: at.0, ahead_ms };
            (kind::CLOCK_JUMPED, record.encode_to_vec())
        }
        Event::QueuePaused { queue, at, is_paused } => {
            let queue = queue.clone().encode();
            let record = QueuePausedRecord { queue, at: at.0, is_paused: *is_paused };
            (kind::QUEUE_PAUSED, record.encode_to_vec())
        }
        Event::TaskAsked { subject, at, number, question, attempt } => {
            let record = TaskAskedRecord {
                subject: Some(write_subject(*subject, *at)),
                number: *number,
                question: Some(write_body(question)),
                attempt: attempt.as_deref().cloned().map(Stored::encode),
            };
            (kind::TASK_ASKED, record.encode_to_vec())
        }
        Event::TaskAnswered { subject, at, id, digest, answer, has_images } => {
            let record = TaskAnsweredRecord {
                subject: Some(write_subject(*subject, *at)),
                input: write_id(Some(*id)),
                digest: digest.0.to_vec(),
                answer: Some(write_body(answer)),
                has_images: *has_images,
            };
            (kind::TASK_ANSWERED, record.encode_to_vec())
        }
        Event::TaskStopped { subject, at, attempt, partial } => {
            let record = TaskStoppedRecord {
                subject: Some(write_subject(*subject, *at)),
                attempt: attempt.as_deref().cloned().map(Stored::encode),
                partial: partial.as_ref().map(write_body),
            };
            (kind::TASK_STOPPED, record.encode_to_vec())
        }
        Event::Finished(finished) => {
            let record = FinishedRecord {
                subject: Some(write_subject(finished.subject, finished.at)),
                state: finished.state.to_wire(),
                epoch: finished.epoch,
                summary: finished.summary.clone().map(Stored::encode),
                failure: finished.failure.clone().map(Stored::encode),
                reply: finished.reply.as_ref().map(write_body),
                copies: finished.copies,
            };
            (kind::FINISHED, record.encode_to_vec())
        }
        Event::RouteChanged { model, at, route } => {
            let record = RouteRecord {
                model: model.to_string(),
                at: at.0,
                failures: route.failures,
                closings: route.closings,
                shut: route.shut.as_ref().map(|shut| ShutRecord {
                    until: shut.until.map(|until| until.0),
                    is_told: shut.is_told,
                    class: shut.class.to_wire(),
                    reason: shut.reason.clone(),
                }),
            };
            (kind::ROUTE_CHANGED, record.encode_to_vec())
        }
        Event::UsageChanged { model, at, totals } => {
            let record = UsageRecord {
                model: model.to_string(),
                at: at.0,
                calls: totals.calls,
                failures: totals.failures,
                usage: totals.usage.encode(),
                cost_usd: totals.cost_usd,
                unpriced: totals.unpriced,
                limits: totals.limits.iter().cloned().map(Stored::encode).collect(),
            };
            (kind::USAGE_CHANGED, record.encode_to_vec())
        }
        Event::Usage(event) => usage::write(event),
        Event::TokenChanged { agent, at, hash } => {
            let hash = hash.map(|hash| hash.to_vec());
            let record = TokenRecord { agent: agent.to_string(), at: at.0, hash };
            (kind::TOKEN_CHANGED, record.encode_to_vec())
        }
        Event::Package(event) => package::write(event),
        Event::Handoff(event) => handoff::write(event),
        Event::Bridge(changed) => handoff::write_bridge(changed),
        Event::Ring(event) => ring::write(event),
        Event::SliceMoved(moved) => handoff::write_slice(moved),
        Event::Redirected(redirected) => handoff::write_redirected(redirected),
        Event::ContentStored { hash, at, body } => {
            let body = Some(write_body(body));
            let record = ContentRecord { hash: hash.0.to_vec(), at: at.0, body };
            (kind::CONTENT_STORED, record.encode_to_vec())
        }
        Event::ContentForgotten { hash, at } => {
            let record = ContentRecord { hash: hash.0.to_vec(), at: at.0, body: None };
            (kind::CONTENT_FORGOTTEN, record.encode_to_vec())
        }
    };
    Record { kind, version: VERSION, body: body.into() }
}

/// The record of an acceptance whose body was kept alone.
#[must_use]
pub fn accepted(body: Vec<u8>) -> Record {
    Record { kind: kind::ACCEPTED, version: VERSION, body: body.into() }
}

/// The record of an end whose body was kept alone.
#[must_use]
pub fn finished(body: Vec<u8>) -> Record {
    Record { kind: kind::FINISHED, version: VERSION, body: body.into() }
}

/// The event of a record; `None` for records that are the journal's own.
///
/// # Errors
/// [`RecordError`] when the record is newer than this program, or damaged.
pub fn decode(record: &Record) -> Result<Option<Event>, RecordError> {
    if record.kind == super::CLAIMED {
        return Ok(None);
    }
    let kinds = [kind::ALL, &package::KINDS, &handoff::KINDS, &ring::KINDS, usage::ALL];
    let is_known = kinds.iter().any(|kinds| kinds.contains(&record.kind));
    if record.version != VERSION || !is_known {
        return Err(RecordError::TooNew { kind: record.kind, version: record.version });
    }
    read(record).map(Some).ok_or(RecordError::Damaged { kind: record.kind })
}

fn read(record: &Record) -> Option<Event> {
    let body = record.body.clone();
    Some(match record.kind {
        kind::ACCEPTED => {
            let record = AcceptedRecord::decode(body).ok()?;
            Event::Accepted(Box::new(read_accepted(record)?))
        }
        kind::FANNED_OUT => Event::FannedOut(Box::new(read_fanned_out(body)?)),
        kind::TREE_CHANGED => {
            let record = TreeRecord::decode(body).ok()?;
            let tree = Tree {
                messages: record.messages,
                tokens: record.tokens,
                cost_usd: record.cost_usd,
                budget: record.budget.map(read_budget).unwrap_or_default(),
            };
            let tree = (!record.is_forgotten).then(|| Box::new(tree));
            Event::TreeChanged { root: Seq(record.root), at: WallTime(record.at), tree }
        }
        kind::SESSION_ENTRIES => Event::Session(Box::new(session::read_entries(body)?)),
        kind::SESSION_CHANGED => Event::Session(Box::new(session::read_changed(body)?)),
        kind::ROLE_KNOWN => {
            let record = RoleRecord::decode(body).ok()?;
            let role = RoleName::parse(&record.role).ok()?;
            Event::RoleKnown { role, at: WallTime(record.at) }
        }
        kind::ROUTED => {
            let record = RoutedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            Event::Routed {
                subject,
                at,
                queue: Recipient::decode(record.queue).ok()?,
                candidate: record.candidate,
                wait_until: record.wait_until.map(WallTime),
                passed_over: record
                    .passed_over
                    .into_iter()
                    .map(|passed| {
                        let model = ModelName::parse(&passed.model).ok()?;
                        let class = FailureClass::from_wire(passed.class);
                        Some(PassedOver { model, reason: passed.reason, class })
                    })
                    .collect::<Option<_>>()?,
                why: record.why,
            }
        }
        kind::HELD => {
            let record = HeldRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let queue = Recipient::decode(record.queue).ok()?;
            Event::Held { subject, at, queue, hold: read_hold(record.hold)?, why: record.why }
        }
        kind::LEASED => {
            let record = LeasedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let agent = AgentName::parse(&record.agent).ok()?;
            Event::Leased {
                subject,
                at,
                epoch: record.epoch,
                agent,
                instance: record.instance,
                pulled: record.pulled_ms.map(Duration::from_millis),
            }
        }
        kind::ATTEMPT_FAILED => {
            let record = AttemptFailedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let attempt = Box::new(Attempt::decode(record.attempt).ok()?);
            Event::AttemptFailed { subject, at, attempt, shown: record.shown }
        }
        kind::LEASE_LOST => {
            let record = LeaseLostRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let (epoch, why, counts) = (record.epoch, record.why, record.counts);
            Event::LeaseLost { subject, at, epoch, why, counts }
        }
        kind::DELIVERY_FAILED => {
            let record = DeliveryFailedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let agent = AgentName::parse(&record.agent).ok()?;
            let failure = Box::new(Failure::decode(record.failure).ok()?);
            Event::DeliveryFailed { subject, at, epoch: record.epoch, agent, failure }
        }
        kind::PARKED => {
            let record = ParkedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            Event::Parked {
                subject,
                at,
                queue: Recipient::decode(record.queue).ok()?,
                failure: Box::new(Failure::decode(record.failure).ok()?),
                reply: match record.reply {
                    Some(body) => Some(read_body(Some(body))?),
                    None => None,
                },
            }
        }
        kind::REDRIVEN => {
            let record = RedrivenRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let (deadline, generation) = (WallTime(record.deadline), record.generation);
            Event::Redriven { subject, at, deadline, generation }
        }
        kind::PURGED => {
            let (subject, at) = read_subject(PurgedRecord::decode(body).ok()?.subject)?;
            Event::Purged { subject, at }
        }
        kind::CLOCK_JUMPED => {
            let record = ClockJumpedRecord::decode(body).ok()?;
            let ahead = record.ahead_ms.map(Duration::from_millis);
            Event::ClockJumped { at: WallTime(record.at), ahead }
        }
        kind::QUEUE_PAUSED => {
            let record = QueuePausedRecord::decode(body).ok()?;
            let (at, is_paused) = (WallTime(record.at), record.is_paused);
            Event::QueuePaused { queue: Recipient::decode(record.queue).ok()?, at, is_paused }
        }
        kind::TASK_ASKED => {
            let record = TaskAskedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let question = read_body(record.question)?;
            let attempt = read_attempt(record.attempt)?;
            Event::TaskAsked { subject, at, number: record.number, question, attempt }
        }
        kind::TASK_ANSWERED => {
            let record = TaskAnsweredRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            Event::TaskAnswered {
                subject,
                at,
                id: read_id(&record.input)?,
                digest: Digest(record.digest.try_into().ok()?),
                answer: read_body(record.answer)?,
                has_images: record.has_images,
            }
        }
        kind::TASK_STOPPED => {
            let record = TaskStoppedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let attempt = read_attempt(record.attempt)?;
            let partial = match record.partial {
                Some(body) => Some(read_body(Some(body))?),
                None => None,
            };
            Event::TaskStopped { subject, at, attempt, partial }
        }
        kind::FINISHED => {
            let record = FinishedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            Event::Finished(Box::new(Finished {
                subject,
                at,
                state: MessageState::from_wire(record.state)?,
                epoch: record.epoch,
                summary: record.summary.map(AnswerSummary::decode).transpose().ok()?,
                failure: record.failure.map(Failure::decode).transpose().ok()?,
                reply: match record.reply {
                    Some(body) => Some(read_body(Some(body))?),
                    None => None,
                },
                copies: record.copies,
            }))
        }
        kind::ROUTE_CHANGED => {
            let record = RouteRecord::decode(body).ok()?;
            let shut = match record.shut {
                None => None,
                Some(shut) => Some(Shut {
                    until: shut.until.map(WallTime),
                    is_told: shut.is_told,
                    class: FailureClass::from_wire(shut.class)?,
                    reason: shut.reason,
                }),
            };
            Event::RouteChanged {
                model: ModelName::parse(&record.model).ok()?,
                at: WallTime(record.at),
                route: ModelRoute { failures: record.failures, closings: record.closings, shut },
            }
        }
        kind::USAGE_CHANGED => {
            let record = UsageRecord::decode(body).ok()?;
            let limits = record.limits.into_iter().map(RateLimit::decode);
            Event::UsageChanged {
                model: ModelName::parse(&record.model).ok()?,
                at: WallTime(record.at),
                totals: Box::new(ModelTotals {
                    calls: record.calls,
                    failures: record.failures,
                    usage: Usage::decode(record.usage).ok()?,
                    cost_usd: record.cost_usd,
                    unpriced: record.unpriced,
                    limits: limits.collect::<Result<_, _>>().ok()?,
                }),
            }
        }
        kind if usage::ALL.contains(&kind) => Event::Usage(usage::read(kind, body)?),
        kind::TOKEN_CHANGED => {
            let record = TokenRecord::decode(body).ok()?;
            let hash = match record.hash {
                None => None,
                Some(hash) => Some(hash.try_into().ok()?),
            };
            let agent = AgentName::parse(&record.agent).ok()?;
            Event::TokenChanged { agent, at: WallTime(record.at), hash }
        }
        kind::CONTENT_STORED => {
            let record = ContentRecord::decode(body).ok()?;
            let hash = ContentHash(record.hash.try_into().ok()?);
            Event::ContentStored { hash, at: WallTime(record.at), body: read_body(record.body)? }
        }
        kind::CONTENT_FORGOTTEN => {
            let record = ContentRecord::decode(body).ok()?;
            let hash = ContentHash(record.hash.try_into().ok()?);
            Event::ContentForgotten { hash, at: WallTime(record.at) }
        }
        kind if handoff::KINDS.contains(&kind) => handoff::read(kind, body)?,
        ring::CHANGED => ring::read(body)?,
        kind => Event::Package(Box::new(package::read(kind, &body)?)),
    })
}

fn write_subject(subject: Subject, at: WallTime) -> SubjectRecord {
    let id = subject.id.as_u128().to_be_bytes().to_vec();
    SubjectRecord { seq: subject.seq.0, id, at: at.0 }
}

fn read_subject(record: Option<SubjectRecord>) -> Option<(Subject, WallTime)> {
    let record = record?;
    let id = read_id(&record.id)?;
    Some((Subject { seq: Seq(record.seq), id }, WallTime(record.at)))
}

fn read_id(bytes: &[u8]) -> Option<MessageId> {
    Some(MessageId::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
}

fn write_id(id: Option<MessageId>) -> Vec<u8> {
    id.map(|id| id.as_u128().to_be_bytes().to_vec()).unwrap_or_default()
}

fn read_optional_id(bytes: &[u8]) -> Option<Option<MessageId>> {
    if bytes.is_empty() { Some(None) } else { read_id(bytes).map(Some) }
}

fn read_attempt(bytes: Option<Bytes>) -> Option<Option<Box<Attempt>>> {
    let attempt = bytes.map(Attempt::decode).transpose().ok()?;
    Some(attempt.map(Box::new))
}

fn write_budget(budget: RootBudget) -> BudgetRecord {
    let RootBudget { max_total_tokens, max_total_cost_usd } = budget;
    BudgetRecord { max_total_tokens, max_total_cost_usd }
}

fn read_budget(record: BudgetRecord) -> RootBudget {
    let BudgetRecord { max_total_tokens, max_total_cost_usd } = record;
    RootBudget { max_total_tokens, max_total_cost_usd }
}

fn write_hold(hold: Hold) -> u32 {
    match hold {
        Hold::Parked => 1,
        Hold::Suspended => 2,
        Hold::InputRequired => 3,
        Hold::Handoff => 4,
        Hold::Paused => 5,
    }
}

fn read_hold(number: u32) -> Option<Hold> {
    [Hold::Parked, Hold::Suspended, Hold::InputRequired, Hold::Handoff, Hold::Paused]
        .into_iter()
        .find(|hold| write_hold(*hold) == number)
}

fn write_body(body: &Body) -> BodyRecord {
    BodyRecord {
        keys: body.keys.iter().flat_map(|key| key.0).collect(),
        size_bytes: body.size_bytes,
    }
}

fn read_body(record: Option<BodyRecord>) -> Option<Body> {
    let record = record?;
    let (keys, rest) = record.keys.as_chunks::<40>();
    let keys = keys.iter().map(|key| BodyKey(*key)).collect();
    rest.is_empty().then_some(Body { keys, size_bytes: record.size_bytes })
}

fn write_accepted(accepted: &Accepted) -> AcceptedRecord {
    AcceptedRecord {
        subject: Some(write_subject(accepted.subject, accepted.at)),
        sender: accepted.sender.to_string(),
        to: accepted.to.clone().encode(),
        kind: accepted.kind.to_wire(),
        priority: accepted.priority.to_wire(),
        digest: accepted.digest.0.to_vec(),
        body: Some(write_body(&accepted.body)),
        deadline: accepted.deadline.0,
        session: accepted.session.clone(),
        ordering_key: accepted.ordering_key.clone(),
        root: write_id(accepted.correlation.root),
        parent: write_id(accepted.correlation.parent),
        hops: accepted.correlation.hops,
        labels: accepted.labels.clone(),
        consultation: accepted.consultation.as_ref().map(|new| ConsultationRecord {
            asked: new.asked.to_string(),
            options: new.options.clone().encode(),
            prompt_bytes: new.prompt_bytes,
            history_bytes: new.history_bytes,
            needs_vision: new.needs_vision,
            max_output_tokens: new.max_output_tokens,
        }),
        expires_at: accepted.expires_at.map(|at| at.0),
        producer: accepted.numbered.as_ref().map(|of| of.producer.to_string()).unwrap_or_default(),
        number: accepted.numbered.as_ref().map_or(0, |of| of.number),
        root_seq: accepted.branch.map_or(0, |branch| branch.root.0),
        depth: accepted.branch.map_or(0, |branch| branch.depth),
        budget: accepted.budget.map(write_budget),
    }
}

fn write_fanned_out(fanned: &FannedOut) -> Vec<u8> {
    let copy = |copy: &Copied| CopiedRecord {
        seq: copy.subject.seq.0,
        id: write_id(Some(copy.subject.id)),
        agent: copy.agent.to_string(),
    };
    let copies = fanned.copies.iter().map(copy).collect();
    FannedOutRecord { original: Some(write_accepted(&fanned.original)), copies }.encode_to_vec()
}

fn read_fanned_out(body: Bytes) -> Option<FannedOut> {
    let record = FannedOutRecord::decode(body).ok()?;
    let copy = |copy: CopiedRecord| {
        let subject = Subject { seq: Seq(copy.seq), id: read_id(&copy.id)? };
        Some(Copied { subject, agent: AgentName::parse(&copy.agent).ok()? })
    };
    let copies = record.copies.into_iter().map(copy).collect::<Option<_>>()?;
    Some(FannedOut { original: read_accepted(record.original?)?, copies })
}

fn read_accepted(record: AcceptedRecord) -> Option<Accepted> {
    let (subject, at) = read_subject(record.subject)?;
    let consultation = match record.consultation {
        None => None,
        Some(new) => Some(NewConsultation {
            asked: ModelName::parse(&new.asked).ok()?,
            options: AskOptions::decode(new.options).ok()?,
            prompt_bytes: new.prompt_bytes,
            history_bytes: new.history_bytes,
            needs_vision: new.needs_vision,
            max_output_tokens: new.max_output_tokens,
        }),
    };
    Some(Accepted {
        subject,
        at,
        sender: Sender::parse(&record.sender).ok()?,
        to: Recipient::decode(record.to).ok()?,
        kind: MessageType::from_wire(record.kind)?,
        priority: Priority::from_wire(record.priority)?,
        digest: Digest(record.digest.try_into().ok()?),
        body: read_body(record.body)?,
        deadline: WallTime(record.deadline),
        session: record.session,
        ordering_key: record.ordering_key,
        correlation: Correlation {
            root: read_optional_id(&record.root)?,
            parent: read_optional_id(&record.parent)?,
            hops: record.hops,
        },
        labels: record.labels,
        expires_at: record.expires_at.map(WallTime),
        consultation,
        branch: match record.root_seq {
            0 => None,
            root => Some(Branch { root: Seq(root), depth: record.depth }),
        },
        budget: record.budget.map(read_budget),
        numbered: match record.number {
            0 => None,
            number => {
                Some(Numbered { producer: ProducerName::parse(&record.producer).ok()?, number })
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(event: &Event) {
        let record = encode(event);
        assert_eq!(decode(&record), Ok(Some(event.clone())));
    }

    fn subject() -> Subject {
        Subject { seq: Seq(7), id: MessageId::from_u128(42) }
    }

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    fn body() -> Body {
        Body { keys: [BodyKey([3; 40]), BodyKey([4; 40])].into_iter().collect(), size_bytes: 99 }
    }

    fn fanned_out(at: WallTime) -> FannedOut {
        let original = Accepted {
            subject: subject(),
            at,
            sender: Sender::parse("local").unwrap(),
            to: Recipient::AgentsOf(opus()),
            kind: MessageType::Status,
            priority: Priority::Low,
            digest: Digest([9; 32]),
            body: body(),
            deadline: at,
            session: None,
            ordering_key: None,
            correlation: Correlation::default(),
            labels: std::collections::BTreeMap::new(),
            expires_at: None,
            consultation: None,
            numbered: None,
            branch: None,
            budget: None,
        };
        let copy = |n: u64| Copied {
            subject: Subject { seq: Seq(7 + n), id: MessageId::from_u128(42 + u128::from(n)) },
            agent: AgentName::parse(&format!("a{n}")).unwrap(),
        };
        FannedOut { original, copies: vec![copy(1), copy(2)] }
    }

    fn attempt() -> Attempt {
        Attempt {
            number: 2,
            model: opus(),
            agent: AgentName::parse("opus").ok(),
            failure: Some(Failure::new(FailureClass::Overloaded, "anthropic", "busy")),
            latency: std::time::Duration::from_millis(12),
            wait: std::time::Duration::from_millis(3),
            first_token: None,
            usage: Usage { input_tokens: Some(5), ..Usage::default() },
            cost_usd: None,
        }
    }

    #[test]
    fn every_event_reads_back_as_it_was_written() {
        let at = WallTime(1_795_161_600_123);
        let consultation = NewConsultation {
            asked: opus(),
            options: AskOptions { max_cost_usd: Some(0.5), ..AskOptions::default() },
            prompt_bytes: 400,
            history_bytes: 300,
            needs_vision: true,
            max_output_tokens: Some(100),
        };
        round_trip(&Event::Accepted(Box::new(Accepted {
            subject: subject(),
            at,
            sender: Sender::parse("local").unwrap(),
            to: Recipient::Model(opus()),
            kind: MessageType::Consultation,
            priority: Priority::High,
            digest: Digest([9; 32]),
            body: body(),
            deadline: at,
            session: Some("s".into()),
            ordering_key: None,
            correlation: Correlation { root: Some(subject().id), parent: None, hops: 2 },
            labels: [("a".to_owned(), "b".to_owned())].into(),
            expires_at: Some(at),
            consultation: Some(consultation),
            numbered: ProducerName::parse("bulk")
                .ok()
                .map(|producer| Numbered { producer, number: 7 }),
            branch: Some(Branch { root: Seq(3), depth: 2 }),
            budget: Some(RootBudget { max_total_tokens: Some(9), max_total_cost_usd: None }),
        })));
        round_trip(&Event::Routed {
            subject: subject(),
            at,
            queue: Recipient::Model(opus()),
            candidate: 1,
            wait_until: Some(at),
            passed_over: vec![PassedOver {
                model: opus(),
                reason: "shut".into(),
                class: Some(FailureClass::Timeout),
            }],
            why: "asked".into(),
        });
        let agent = AgentName::parse("opus").unwrap();
        let instance = "i1".to_owned();
        for pulled in [None, Some(Duration::from_secs(120))] {
            let (agent, instance) = (agent.clone(), instance.clone());
            round_trip(&Event::Leased {
                subject: subject(),
                at,
                epoch: 3,
                agent,
                instance,
                pulled,
            });
        }
        let attempt = Box::new(attempt());
        round_trip(&Event::AttemptFailed { subject: subject(), at, attempt, shown: true });
        for hold in
            [Hold::Parked, Hold::Suspended, Hold::InputRequired, Hold::Handoff, Hold::Paused]
        {
            let (queue, why) = (Recipient::Model(opus()), "asked back".to_owned());
            round_trip(&Event::Held { subject: subject(), at, queue, hold, why });
        }
        let agent = AgentName::parse("scribe").unwrap();
        let failure = Box::new(Failure::new(FailureClass::Overloaded, "agent", "busy"));
        let lost = failure.clone();
        round_trip(&Event::DeliveryFailed { subject: subject(), at, epoch: 2, agent, failure });
        for reply in [None, Some(body())] {
            let (queue, failure) = (Recipient::Model(opus()), lost.clone());
            round_trip(&Event::Parked { subject: subject(), at, queue, failure, reply });
        }
        let deadline = WallTime(at.0 + 5);
        round_trip(&Event::Redriven { subject: subject(), at, deadline, generation: 2 });
        round_trip(&Event::Purged { subject: subject(), at });
        for ahead in [None, Some(Duration::from_millis(61_000))] {
            round_trip(&Event::ClockJumped { at, ahead });
        }
        for is_paused in [true, false] {
            round_trip(&Event::QueuePaused { queue: Recipient::Model(opus()), at, is_paused });
        }
        for attempt in [None, Some(Box::new(self::attempt()))] {
            let (subject, question) = (subject(), body());
            round_trip(&Event::TaskAsked { subject, at, number: 2, question, attempt });
        }
        round_trip(&Event::TaskAnswered {
            subject: subject(),
            at,
            id: MessageId::from_u128(43),
            digest: Digest([8; 32]),
            answer: body(),
            has_images: true,
        });
        for (attempt, partial) in [(None, None), (Some(Box::new(self::attempt())), Some(body()))] {
            round_trip(&Event::TaskStopped { subject: subject(), at, attempt, partial });
        }
        let why = "gone".to_owned();
        round_trip(&Event::LeaseLost { subject: subject(), at, epoch: 3, why, counts: true });
        round_trip(&Event::Finished(Box::new(Finished {
            subject: subject(),
            at,
            state: MessageState::Failed,
            epoch: 3,
            summary: None,
            failure: Some(Failure::new(FailureClass::Timeout, "openai", "first byte")),
            reply: Some(body()),
            copies: 3,
        })));
        round_trip(&Event::FannedOut(Box::new(fanned_out(at))));
        let role = RoleName::parse("reviewer").unwrap();
        round_trip(&Event::RoleKnown { role, at });
        let budget = RootBudget { max_total_tokens: Some(9), max_total_cost_usd: Some(0.5) };
        let tree = Tree { messages: 3, tokens: 7, cost_usd: 0.25, budget };
        round_trip(&Event::TreeChanged { root: Seq(7), at, tree: Some(Box::new(tree)) });
        round_trip(&Event::TreeChanged { root: Seq(7), at, tree: None });
        let shut = Some(Shut {
            until: Some(at),
            is_told: true,
            class: FailureClass::RateLimited,
            reason: "rate limited".into(),
        });
        let route = ModelRoute { failures: 1, closings: 2, shut };
        round_trip(&Event::RouteChanged { model: opus(), at, route });
        let totals = Box::new(ModelTotals { calls: 4, cost_usd: 0.25, ..ModelTotals::default() });
        round_trip(&Event::UsageChanged { model: opus(), at, totals });
        let agent = AgentName::parse("opus").unwrap();
        round_trip(&Event::TokenChanged { agent, at, hash: Some([1; 32]) });
        round_trip(&Event::ContentStored { hash: ContentHash([2; 32]), at, body: body() });
        round_trip(&Event::ContentForgotten { hash: ContentHash([2; 32]), at });
    }

    #[test]
    fn newer_and_damaged_records_are_told_apart() {
        let agent = AgentName::parse("a").unwrap();
        let good = encode(&Event::TokenChanged { agent, at: WallTime(1), hash: None });
        let newer = Record { version: 2, ..good.clone() };
        assert_eq!(decode(&newer), Err(RecordError::TooNew { kind: 9, version: 2 }));
        let unknown = Record { kind: 500, ..good.clone() };
        assert_eq!(decode(&unknown), Err(RecordError::TooNew { kind: 500, version: 1 }));
        let damaged = Record { body: Bytes::from_static(b"\xff\xff"), ..good };
        assert_eq!(decode(&damaged), Err(RecordError::Damaged { kind: 9 }));
    }
}
