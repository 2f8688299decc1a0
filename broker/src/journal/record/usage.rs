//! Records of usage: calls, levels, reservations, settings; and the meters that rows keep in place of every call.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use prost::Message as _;

use broker_proto::{
    AgentName, FailureClass, MessageId, ModelName, RateLimit, Usage, WallTime, convert::Stored,
};

use crate::core::{
    queue::Seq,
    usage::{
        Action, Amount, Call, Change, Ended, Event, FirstSeen, Heard, Level, Meter, ModelTotals,
        Nanos, Recent, Reservation, Said, Scope, SessionFigures, Signals, Source, Subject, Window,
        Windows,
    },
};

pub(super) const COUNTED: u16 = 90;
pub(super) const HOLDS: u16 = 91;
pub(super) const SAID: u16 = 92;
pub(super) const RESET: u16 = 93;
pub(super) const FORGOTTEN: u16 = 94;
pub(super) const LEVEL_CHANGED: u16 = 95;
pub(super) const RESERVED: u16 = 96;
pub(super) const RELEASED: u16 = 97;
pub(super) const POLICY_SET: u16 = 98;
/// Only in rows, never in the journal.
pub(super) const METERED: u16 = 99;

pub(super) const ALL: &[u16] = &[
    COUNTED,
    HOLDS,
    SAID,
    RESET,
    FORGOTTEN,
    LEVEL_CHANGED,
    RESERVED,
    RELEASED,
    POLICY_SET,
    METERED,
];

#[derive(Clone, PartialEq, prost::Message)]
struct CallRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(uint32, tag = "2")]
    source: u32,
    #[prost(string, tag = "3")]
    model: String,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(string, optional, tag = "5")]
    session: Option<String>,
    #[prost(bytes = "vec", tag = "6")]
    message: Vec<u8>,
    #[prost(uint32, tag = "7")]
    number: u32,
    #[prost(string, tag = "8")]
    agent: String,
    /// 0: nobody said; 1: done; from 2 on: the class of its failure, and 1.
    #[prost(int32, tag = "9")]
    ended: i32,
    #[prost(bytes = "bytes", tag = "10")]
    usage: Bytes,
    #[prost(uint64, optional, tag = "11")]
    cost_nanos: Option<u64>,
    #[prost(uint64, optional, tag = "12")]
    latency_ms: Option<u64>,
    #[prost(uint64, optional, tag = "13")]
    first_token_ms: Option<u64>,
    #[prost(uint32, tag = "14")]
    requests: u32,
    #[prost(bytes = "bytes", repeated, tag = "15")]
    limits: Vec<Bytes>,
    #[prost(bool, tag = "16")]
    grows_session: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HoldsRecord {
    #[prost(string, tag = "1")]
    session: String,
    #[prost(string, tag = "2")]
    model: String,
    #[prost(uint64, tag = "3")]
    at: u64,
    #[prost(uint64, tag = "4")]
    tokens: u64,
    #[prost(bool, tag = "5")]
    is_fresh: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SaidRecord {
    #[prost(string, tag = "1")]
    session: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(double, optional, tag = "3")]
    complexity: Option<f64>,
    #[prost(uint32, optional, tag = "4")]
    rating: Option<u32>,
}

/// A scope, or a session, and when.
#[derive(Clone, PartialEq, prost::Message)]
struct NamedRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangeRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    scope: String,
    #[prost(string, tag = "3")]
    model: String,
    #[prost(string, tag = "4")]
    from: String,
    #[prost(string, tag = "5")]
    to: String,
    #[prost(string, tag = "6")]
    cause: String,
    #[prost(string, tag = "7")]
    reason: String,
    #[prost(uint32, tag = "8")]
    action: u32,
    #[prost(string, repeated, tag = "9")]
    diagnosis: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct AmountRecord {
    #[prost(uint64, tag = "1")]
    requests: u64,
    #[prost(uint64, tag = "2")]
    tokens: u64,
    #[prost(uint64, tag = "3")]
    cost_nanos: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReservedRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(string, tag = "3")]
    model: String,
    #[prost(string, tag = "4")]
    key: String,
    #[prost(string, optional, tag = "5")]
    session: Option<String>,
    #[prost(message, optional, tag = "6")]
    amount: Option<AmountRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReleasedRecord {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PolicyRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(btree_map = "string, string", tag = "2")]
    overrides: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WindowRecord {
    #[prost(message, optional, tag = "1")]
    used: Option<AmountRecord>,
    #[prost(uint64, optional, tag = "2")]
    ends: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PieceRecord {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, optional, tag = "2")]
    used: Option<AmountRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HeardRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(int32, tag = "2")]
    ended: i32,
    #[prost(uint64, optional, tag = "3")]
    latency_ms: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    first_token_ms: Option<u64>,
    #[prost(bytes = "vec", tag = "5")]
    message: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SeenRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(uint64, tag = "3")]
    used: u64,
    #[prost(uint64, optional, tag = "4")]
    resets_at: Option<u64>,
    #[prost(uint64, tag = "5")]
    times: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SessionRecord {
    #[prost(string, tag = "1")]
    model: String,
    #[prost(uint64, tag = "2")]
    tokens: u64,
    #[prost(uint64, optional, tag = "3")]
    first_at: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    last_at: Option<u64>,
    #[prost(uint64, tag = "5")]
    worked_ms: u64,
    #[prost(double, optional, tag = "6")]
    complexity: Option<f64>,
    #[prost(uint32, optional, tag = "7")]
    rating: Option<u32>,
    #[prost(uint64, tag = "8")]
    held: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MeterRecord {
    #[prost(string, tag = "1")]
    scope: String,
    #[prost(uint64, tag = "2")]
    calls: u64,
    #[prost(uint64, tag = "3")]
    failures: u64,
    #[prost(bytes = "bytes", tag = "4")]
    usage: Bytes,
    #[prost(double, tag = "5")]
    cost_usd: f64,
    #[prost(uint64, tag = "6")]
    unpriced: u64,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    limits: Vec<Bytes>,
    #[prost(message, repeated, tag = "8")]
    windows: Vec<WindowRecord>,
    #[prost(message, repeated, tag = "9")]
    pieces: Vec<PieceRecord>,
    #[prost(message, repeated, tag = "10")]
    heard: Vec<HeardRecord>,
    #[prost(message, repeated, tag = "11")]
    seen: Vec<SeenRecord>,
    #[prost(message, optional, tag = "12")]
    session: Option<SessionRecord>,
}

pub(super) fn write(event: &Event) -> (u16, Vec<u8>) {
    match event {
        Event::Counted(call) => (COUNTED, write_call(call).encode_to_vec()),
        Event::Holds { session, model, at, tokens, is_fresh } => {
            let (session, model) = (session.clone(), model.to_string());
            let (at, tokens, is_fresh) = (at.0, *tokens, *is_fresh);
            let record = HoldsRecord { session, model, at, tokens, is_fresh };
            (HOLDS, record.encode_to_vec())
        }
        Event::Said(Said { session, at, complexity, rating }) => {
            let session = session.clone();
            let (complexity, rating) = (*complexity, *rating);
            (SAID, SaidRecord { session, at: at.0, complexity, rating }.encode_to_vec())
        }
        Event::Reset { scope, at } => {
            (RESET, NamedRecord { name: scope.to_string(), at: at.0 }.encode_to_vec())
        }
        Event::Forgotten { session, at } => {
            (FORGOTTEN, NamedRecord { name: session.clone(), at: at.0 }.encode_to_vec())
        }
        Event::LevelChanged(change) => (LEVEL_CHANGED, write_change(change).encode_to_vec()),
        Event::Reserved(reservation) => {
            let Reservation { seq, at, model, key, session, amount } = &**reservation;
            let record = ReservedRecord {
                seq: seq.0,
                at: at.0,
                model: model.to_string(),
                key: key.clone(),
                session: session.clone(),
                amount: Some(write_amount(*amount)),
            };
            (RESERVED, record.encode_to_vec())
        }
        Event::Released { seq, at } => {
            (RELEASED, ReleasedRecord { seq: seq.0, at: at.0 }.encode_to_vec())
        }
        Event::PolicySet { at, overrides } => {
            let record = PolicyRecord { at: at.0, overrides: overrides.clone() };
            (POLICY_SET, record.encode_to_vec())
        }
        Event::Metered { scope, meter } => (METERED, write_meter(scope, meter).encode_to_vec()),
    }
}

pub(super) fn read(kind: u16, body: Bytes) -> Option<Event> {
    Some(match kind {
        COUNTED => Event::Counted(Box::new(read_call(CallRecord::decode(body).ok()?)?)),
        HOLDS => {
            let record = HoldsRecord::decode(body).ok()?;
            Event::Holds {
                session: record.session,
                model: ModelName::parse(&record.model).ok()?,
                at: WallTime(record.at),
                tokens: record.tokens,
                is_fresh: record.is_fresh,
            }
        }
        SAID => {
            let SaidRecord { session, at, complexity, rating } = SaidRecord::decode(body).ok()?;
            Event::Said(Said { session, at: WallTime(at), complexity, rating })
        }
        RESET => {
            let record = NamedRecord::decode(body).ok()?;
            Event::Reset { scope: Scope::parse(&record.name)?, at: WallTime(record.at) }
        }
        FORGOTTEN => {
            let record = NamedRecord::decode(body).ok()?;
            Event::Forgotten { session: record.name, at: WallTime(record.at) }
        }
        LEVEL_CHANGED => {
            Event::LevelChanged(Box::new(read_change(ChangeRecord::decode(body).ok()?)?))
        }
        RESERVED => {
            let record = ReservedRecord::decode(body).ok()?;
            Event::Reserved(Box::new(Reservation {
                seq: Seq(record.seq),
                at: WallTime(record.at),
                model: ModelName::parse(&record.model).ok()?,
                key: record.key,
                session: record.session,
                amount: record.amount.map(read_amount).unwrap_or_default(),
            }))
        }
        RELEASED => {
            let record = ReleasedRecord::decode(body).ok()?;
            Event::Released { seq: Seq(record.seq), at: WallTime(record.at) }
        }
        POLICY_SET => {
            let PolicyRecord { at, overrides } = PolicyRecord::decode(body).ok()?;
            Event::PolicySet { at: WallTime(at), overrides }
        }
        METERED => read_meter(MeterRecord::decode(body).ok()?)?,
        _ => return None,
    })
}

fn write_call(call: &Call) -> CallRecord {
    CallRecord {
        at: call.at.0,
        source: call.source as u32,
        model: call.model.to_string(),
        key: call.key.clone(),
        session: call.session.clone(),
        message: write_id(call.message),
        number: call.number,
        agent: call.agent.as_ref().map(ToString::to_string).unwrap_or_default(),
        ended: write_ended(call.ended),
        usage: call.usage.encode(),
        cost_nanos: call.cost.map(|cost| cost.0),
        latency_ms: call.latency.map(write_span),
        first_token_ms: call.first_token.map(write_span),
        requests: call.requests,
        limits: call.limits.iter().cloned().map(Stored::encode).collect(),
        grows_session: call.grows_session,
    }
}

fn read_call(record: CallRecord) -> Option<Call> {
    Some(Call {
        at: WallTime(record.at),
        source: *Source::ALL.get(record.source as usize)?,
        model: ModelName::parse(&record.model).ok()?,
        key: record.key,
        session: record.session,
        message: read_id(&record.message)?,
        number: record.number,
        agent: match record.agent.as_str() {
            "" => None,
            name => Some(AgentName::parse(name).ok()?),
        },
        ended: read_ended(record.ended)?,
        usage: Usage::decode(record.usage).ok()?,
        cost: record.cost_nanos.map(Nanos),
        latency: record.latency_ms.map(Duration::from_millis),
        first_token: record.first_token_ms.map(Duration::from_millis),
        requests: record.requests,
        limits: read_limits(record.limits)?,
        grows_session: record.grows_session,
    })
}

fn write_change(change: &Change) -> ChangeRecord {
    ChangeRecord {
        at: change.at.0,
        scope: change.subject.scope().to_string(),
        model: change.model.as_ref().map(ToString::to_string).unwrap_or_default(),
        from: change.from.as_str().into(),
        to: change.to.as_str().into(),
        cause: change.cause.clone(),
        reason: change.reason.clone(),
        action: change.action as u32,
        diagnosis: change.diagnosis.clone(),
    }
}

fn read_change(record: ChangeRecord) -> Option<Change> {
    const ACTIONS: [Action; 6] = [
        Action::None,
        Action::Log,
        Action::Prepare,
        Action::Move,
        Action::MoveGradually,
        Action::MoveDiagnosed,
    ];
    Some(Change {
        at: WallTime(record.at),
        subject: match Scope::parse(&record.scope)? {
            Scope::Model(model) => Subject::Model(model),
            Scope::Session(name) => Subject::Session(name),
            Scope::Namespace | Scope::Key(_) => return None,
        },
        model: match record.model.as_str() {
            "" => None,
            name => Some(ModelName::parse(name).ok()?),
        },
        from: Level::parse(&record.from)?,
        to: Level::parse(&record.to)?,
        cause: record.cause,
        reason: record.reason,
        action: *ACTIONS.get(record.action as usize)?,
        diagnosis: record.diagnosis,
    })
}

fn write_meter(scope: &Scope, meter: &Meter) -> MeterRecord {
    let window = |window: &Window| WindowRecord {
        used: Some(write_amount(window.used)),
        ends: window.ends.map(|at| at.0),
    };
    let pieces = meter.recent.pieces.iter();
    let totals = &meter.totals;
    MeterRecord {
        scope: scope.to_string(),
        calls: totals.calls,
        failures: totals.failures,
        usage: totals.usage.encode(),
        cost_usd: totals.cost_usd,
        unpriced: totals.unpriced,
        limits: totals.limits.iter().cloned().map(Stored::encode).collect(),
        windows: meter.windows.0.iter().map(window).collect(),
        pieces: pieces
            .map(|(number, used)| PieceRecord { number: *number, used: Some(write_amount(*used)) })
            .collect(),
        heard: meter.signals.heard.iter().map(write_heard).collect(),
        seen: meter.seen.iter().map(write_seen).collect(),
        session: matches!(scope, Scope::Session(_)).then(|| write_session(&meter.session)),
    }
}

fn read_meter(record: MeterRecord) -> Option<Event> {
    let mut windows = Windows::default();
    for (window, stored) in windows.0.iter_mut().zip(record.windows) {
        let used = stored.used.map(read_amount).unwrap_or_default();
        *window = Window { used, ends: stored.ends.map(WallTime) };
    }
    let piece = |it: PieceRecord| (it.number, it.used.map(read_amount).unwrap_or_default());
    let heard = record.heard.iter().map(read_heard).collect::<Option<_>>()?;
    let seen = record.seen.into_iter().map(|it| FirstSeen {
        name: it.name,
        at: WallTime(it.at),
        used: it.used,
        resets_at: it.resets_at.map(WallTime),
        times: it.times,
    });
    let meter = Meter {
        totals: ModelTotals {
            calls: record.calls,
            failures: record.failures,
            usage: Usage::decode(record.usage).ok()?,
            cost_usd: record.cost_usd,
            unpriced: record.unpriced,
            limits: read_limits(record.limits)?,
        },
        windows,
        recent: Recent { pieces: record.pieces.into_iter().map(piece).collect() },
        signals: Signals { heard },
        seen: seen.collect(),
        session: match &record.session {
            Some(session) => read_session(session)?,
            None => SessionFigures::default(),
        },
    };
    Some(Event::Metered { scope: Scope::parse(&record.scope)?, meter: Box::new(meter) })
}

pub(super) fn write_heard(heard: &Heard) -> HeardRecord {
    HeardRecord {
        at: heard.at.0,
        ended: write_ended(heard.ended),
        latency_ms: heard.latency.map(write_span),
        first_token_ms: heard.first_token.map(write_span),
        message: write_id(heard.message),
    }
}

pub(super) fn read_heard(record: &HeardRecord) -> Option<Heard> {
    Some(Heard {
        at: WallTime(record.at),
        ended: read_ended(record.ended)?,
        latency: record.latency_ms.map(Duration::from_millis),
        first_token: record.first_token_ms.map(Duration::from_millis),
        message: read_id(&record.message)?,
    })
}

fn write_seen(seen: &FirstSeen) -> SeenRecord {
    SeenRecord {
        name: seen.name.clone(),
        at: seen.at.0,
        used: seen.used,
        resets_at: seen.resets_at.map(|at| at.0),
        times: seen.times,
    }
}

fn write_session(session: &SessionFigures) -> SessionRecord {
    SessionRecord {
        model: session.model.as_ref().map(ToString::to_string).unwrap_or_default(),
        tokens: session.recorded,
        held: session.held,
        first_at: session.first_at.map(|at| at.0),
        last_at: session.last_at.map(|at| at.0),
        worked_ms: write_span(session.worked),
        complexity: session.complexity,
        rating: session.rating,
    }
}

fn read_session(record: &SessionRecord) -> Option<SessionFigures> {
    Some(SessionFigures {
        model: match record.model.as_str() {
            "" => None,
            name => Some(ModelName::parse(name).ok()?),
        },
        recorded: record.tokens,
        held: record.held,
        first_at: record.first_at.map(WallTime),
        last_at: record.last_at.map(WallTime),
        worked: Duration::from_millis(record.worked_ms),
        complexity: record.complexity,
        rating: record.rating,
    })
}

fn write_amount(amount: Amount) -> AmountRecord {
    let Amount { requests, tokens, cost } = amount;
    AmountRecord { requests, tokens, cost_nanos: cost.0 }
}

fn read_amount(record: AmountRecord) -> Amount {
    let AmountRecord { requests, tokens, cost_nanos } = record;
    Amount { requests, tokens, cost: Nanos(cost_nanos) }
}

fn read_limits(limits: Vec<Bytes>) -> Option<Vec<RateLimit>> {
    limits.into_iter().map(RateLimit::decode).collect::<Result<_, _>>().ok()
}

fn write_ended(ended: Ended) -> i32 {
    match ended {
        Ended::Unknown => 0,
        Ended::Done => 1,
        Ended::Failed(class) => class.to_wire() + 1,
    }
}

fn read_ended(number: i32) -> Option<Ended> {
    match number {
        0 => Some(Ended::Unknown),
        1 => Some(Ended::Done),
        number => FailureClass::from_wire(number.checked_sub(1)?).map(Ended::Failed),
    }
}

fn write_id(id: Option<MessageId>) -> Vec<u8> {
    id.map(|id| id.as_u128().to_be_bytes().to_vec()).unwrap_or_default()
}

/// `Some(None)` for nothing, `None` for what is no id.
#[expect(clippy::option_option, reason = "absent and damaged are two things")]
fn read_id(bytes: &[u8]) -> Option<Option<MessageId>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(Some(MessageId::from_u128(u128::from_be_bytes(bytes))))
}

pub(super) fn write_span(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: WallTime = WallTime(1_767_225_600_123);

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    fn call() -> Call {
        let limit = RateLimit {
            name: "5h".into(),
            limit: Some(100),
            remaining: Some(40),
            resets_at: Some(AT),
        };
        Call {
            session: Some("s".into()),
            message: Some(MessageId::from_u128(7)),
            number: 2,
            agent: Some(AgentName::parse("a").unwrap()),
            ended: Ended::Failed(FailureClass::Timeout),
            usage: Usage { input_tokens: Some(5), ..Usage::default() },
            cost: Some(Nanos(9)),
            latency: Some(Duration::from_millis(1_500)),
            first_token: Some(Duration::from_millis(20)),
            limits: vec![limit],
            grows_session: true,
            ..Call::new(AT, Source::Recorded, opus(), "KEY")
        }
    }

    #[track_caller]
    fn round_trip(event: &Event) {
        let (kind, body) = write(event);
        assert!(ALL.contains(&kind));
        assert_eq!(read(kind, body.into()).as_ref(), Some(event));
    }

    #[test]
    fn every_event_of_usage_is_read_as_it_was_written() {
        let session = || "s".to_owned();
        round_trip(&Event::Counted(Box::new(call())));
        let bare = Call { ended: Ended::Done, ..Call::new(AT, Source::Attempt, opus(), "") };
        round_trip(&Event::Counted(Box::new(bare)));
        for is_fresh in [false, true] {
            round_trip(&Event::Holds {
                session: session(),
                model: opus(),
                at: AT,
                tokens: 8,
                is_fresh,
            });
        }
        let (complexity, rating) = (Some(0.5), Some(4));
        round_trip(&Event::Said(Said { session: session(), at: AT, complexity, rating }));
        round_trip(&Event::Reset { scope: Scope::Key("A/B".into()), at: AT });
        round_trip(&Event::Forgotten { session: session(), at: AT });
        round_trip(&Event::Released { seq: Seq(4), at: AT });
        let overrides = BTreeMap::from([("warning".to_owned(), "60".to_owned())]);
        round_trip(&Event::PolicySet { at: AT, overrides });
        let amount = Amount { requests: 1, tokens: 2, cost: Nanos(3) };
        let key = "KEY".to_owned();
        let reservation =
            Reservation { seq: Seq(4), at: AT, model: opus(), key, session: None, amount };
        round_trip(&Event::Reserved(Box::new(reservation)));
    }

    #[test]
    fn every_action_of_a_level_is_read_as_it_was_written() {
        for (action, to) in [
            (Action::None, Level::Healthy),
            (Action::Log, Level::Warning),
            (Action::Prepare, Level::Critical),
            (Action::Move, Level::Exhausted),
            (Action::MoveGradually, Level::Exhausted),
            (Action::MoveDiagnosed, Level::Exhausted),
        ] {
            round_trip(&Event::LevelChanged(Box::new(Change {
                at: AT,
                subject: Subject::Session("s".into()),
                model: Some(opus()),
                from: Level::Healthy,
                to,
                cause: "5h".into(),
                reason: "1 of 2 5h".into(),
                action,
                diagnosis: vec!["a call".into()],
            })));
        }
    }

    #[test]
    fn a_meter_is_read_as_it_was_written() {
        for scope in [Scope::Session("s".into()), Scope::Model(opus()), Scope::Namespace] {
            let mut meter = Meter::default();
            meter.apply(&scope, &Event::Counted(Box::new(call())));
            let said =
                Said { session: "s".into(), at: AT, complexity: Some(0.25), rating: Some(1) };
            if let Scope::Session(_) = scope {
                meter.apply(&scope, &Event::Said(said));
            }
            round_trip(&Event::Metered { scope, meter: Box::new(meter) });
        }
    }

    #[test]
    fn damage_is_told() {
        assert_eq!(read(COUNTED, Bytes::from_static(b"\xff")), None);
        assert_eq!(
            read(RESET, NamedRecord { name: "x/y".into(), at: 0 }.encode_to_vec().into()),
            None
        );
    }
}
