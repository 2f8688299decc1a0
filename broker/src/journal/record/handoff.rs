//! Records of handoffs.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use broker_proto::{
    Bridge, Handoff, HandoffId, ModelName, SessionId, Trigger, TriggerKind, Urgency, WallTime,
    convert::Stored as _,
};

use super::{SubjectRecord, read_subject, write_subject};
use crate::core::{
    Event, Redirected, SliceMoved,
    handoff::{self, bridge::Changed},
};

pub(super) const CHANGED: u16 = 100;
pub(super) const SLICE_MOVED: u16 = 101;
pub(super) const REDIRECTED: u16 = 102;
pub(super) const POLICY_SET: u16 = 103;
pub(super) const ADVISED: u16 = 104;
pub(super) const BRIDGE_CHANGED: u16 = 105;

pub(super) const FORGOTTEN: u16 = 106;

/// Every kind that is about handoffs.
pub(super) const KINDS: [u16; 7] =
    [CHANGED, SLICE_MOVED, REDIRECTED, POLICY_SET, ADVISED, BRIDGE_CHANGED, FORGOTTEN];

#[derive(Clone, PartialEq, prost::Message)]
struct ForgottenRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    session: String,
    #[prost(string, repeated, tag = "3")]
    ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangedRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(bytes = "bytes", tag = "2")]
    handoff: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PolicyRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(btree_map = "string, string", tag = "2")]
    overrides: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AdvisedRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(string, tag = "2")]
    session: String,
    /// Empty: nothing is advised any more.
    #[prost(string, tag = "3")]
    to: String,
    #[prost(string, tag = "4")]
    kind: String,
    #[prost(string, tag = "5")]
    reasoning: String,
    #[prost(double, tag = "6")]
    confidence: f64,
    #[prost(string, tag = "7")]
    urgency: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SliceMovedRecord {
    #[prost(message, repeated, tag = "1")]
    subjects: Vec<SubjectRecord>,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(string, tag = "3")]
    to: String,
    #[prost(string, tag = "4")]
    why: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RedirectedRecord {
    #[prost(message, optional, tag = "1")]
    subject: Option<SubjectRecord>,
    #[prost(string, tag = "2")]
    to: String,
    #[prost(string, tag = "3")]
    why: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BridgeRecord {
    #[prost(string, tag = "1")]
    session: String,
    #[prost(string, tag = "2")]
    from: String,
    #[prost(string, tag = "3")]
    to: String,
    #[prost(uint64, tag = "4")]
    opened_at: u64,
    #[prost(uint64, tag = "5")]
    at: u64,
    #[prost(bool, tag = "6")]
    is_open: bool,
    #[prost(string, tag = "7")]
    why: String,
}

pub(super) fn write(event: &handoff::Event) -> (u16, Vec<u8>) {
    match event {
        handoff::Event::Changed { at, handoff } => {
            let handoff = Handoff::clone(handoff).encode();
            (CHANGED, ChangedRecord { at: at.0, handoff }.encode_to_vec())
        }
        handoff::Event::PolicySet { at, overrides } => {
            let record = PolicyRecord { at: at.0, overrides: overrides.clone() };
            (POLICY_SET, record.encode_to_vec())
        }
        handoff::Event::Advised { at, session, advised } => {
            let mut record = AdvisedRecord {
                at: at.0,
                session: session.to_string(),
                ..AdvisedRecord::default()
            };
            if let Some(handoff::Advised { to, trigger }) = advised {
                record.to = to.to_string();
                record.kind = trigger.kind.as_str().to_owned();
                record.reasoning.clone_from(&trigger.reasoning);
                record.confidence = trigger.confidence;
                record.urgency = trigger.urgency.as_str().to_owned();
            }
            (ADVISED, record.encode_to_vec())
        }
        handoff::Event::Forgotten { at, session, ids } => {
            let ids = ids.iter().map(ToString::to_string).collect();
            let record = ForgottenRecord { at: at.0, session: session.to_string(), ids };
            (FORGOTTEN, record.encode_to_vec())
        }
    }
}

pub(super) fn write_bridge(changed: &Changed) -> (u16, Vec<u8>) {
    let Changed { at, bridge, is_open, why } = changed;
    let record = BridgeRecord {
        session: bridge.session.to_string(),
        from: bridge.from.to_string(),
        to: bridge.to.to_string(),
        opened_at: bridge.opened_at.0,
        at: at.0,
        is_open: *is_open,
        why: why.clone(),
    };
    (BRIDGE_CHANGED, record.encode_to_vec())
}

fn read_bridge(record: BridgeRecord) -> Option<Event> {
    let bridge = Bridge {
        session: SessionId::parse(&record.session).ok()?,
        from: ModelName::parse(&record.from).ok()?,
        to: ModelName::parse(&record.to).ok()?,
        opened_at: WallTime(record.opened_at),
    };
    let BridgeRecord { at, is_open, why, .. } = record;
    Some(Event::Bridge(Box::new(Changed { at: WallTime(at), bridge, is_open, why })))
}

pub(super) fn write_slice(moved: &SliceMoved) -> (u16, Vec<u8>) {
    let record = SliceMovedRecord {
        subjects: moved.subjects.iter().map(|subject| write_subject(*subject, moved.at)).collect(),
        at: moved.at.0,
        to: moved.to.to_string(),
        why: moved.why.clone(),
    };
    (SLICE_MOVED, record.encode_to_vec())
}

pub(super) fn write_redirected(redirected: &Redirected) -> (u16, Vec<u8>) {
    let Redirected { subject, at, to, why } = redirected;
    let subject = Some(write_subject(*subject, *at));
    let record = RedirectedRecord { subject, to: to.to_string(), why: why.clone() };
    (REDIRECTED, record.encode_to_vec())
}

/// The event of a record of one of [`KINDS`].
pub(super) fn read(kind: u16, body: Bytes) -> Option<Event> {
    Some(match kind {
        CHANGED => {
            let record = ChangedRecord::decode(body).ok()?;
            let handoff = Box::new(Handoff::decode(record.handoff).ok()?);
            Event::Handoff(Box::new(handoff::Event::Changed { at: WallTime(record.at), handoff }))
        }
        POLICY_SET => {
            let PolicyRecord { at, overrides } = PolicyRecord::decode(body).ok()?;
            Event::Handoff(Box::new(handoff::Event::PolicySet { at: WallTime(at), overrides }))
        }
        ADVISED => {
            let record = AdvisedRecord::decode(body).ok()?;
            let advised = match record.to.as_str() {
                "" => None,
                to => Some(handoff::Advised {
                    to: ModelName::parse(to).ok()?,
                    trigger: Trigger {
                        kind: TriggerKind::parse(&record.kind)?,
                        reasoning: record.reasoning,
                        confidence: record.confidence,
                        urgency: Urgency::parse(&record.urgency)?,
                    },
                }),
            };
            let (at, session) = (WallTime(record.at), SessionId::parse(&record.session).ok()?);
            Event::Handoff(Box::new(handoff::Event::Advised { at, session, advised }))
        }
        FORGOTTEN => {
            let ForgottenRecord { at, session, ids } = ForgottenRecord::decode(body).ok()?;
            let ids = ids.iter().map(|id| HandoffId::parse(id)).collect::<Option<_>>()?;
            let (at, session) = (WallTime(at), SessionId::parse(&session).ok()?);
            Event::Handoff(Box::new(handoff::Event::Forgotten { at, session, ids }))
        }
        BRIDGE_CHANGED => read_bridge(BridgeRecord::decode(body).ok()?)?,
        SLICE_MOVED => {
            let record = SliceMovedRecord::decode(body).ok()?;
            let subjects =
                record.subjects.into_iter().map(|subject| Some(read_subject(Some(subject))?.0));
            Event::SliceMoved(Box::new(SliceMoved {
                subjects: subjects.collect::<Option<_>>()?,
                at: WallTime(record.at),
                to: ModelName::parse(&record.to).ok()?,
                why: record.why,
            }))
        }
        REDIRECTED => {
            let record = RedirectedRecord::decode(body).ok()?;
            let (subject, at) = read_subject(record.subject)?;
            let to = ModelName::parse(&record.to).ok()?;
            Event::Redirected(Box::new(Redirected { subject, at, to, why: record.why }))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_reads_back_as_it_was_written() {
        let ids =
            vec![HandoffId::from_parts(WallTime(7), 1), HandoffId::from_parts(WallTime(8), 2)];
        let session = SessionId::parse("s1").unwrap();
        let event = handoff::Event::Forgotten { at: WallTime(9), session, ids };
        let (kind, body) = write(&event);
        assert!(KINDS.contains(&kind));
        assert_eq!(read(kind, body.into()), Some(Event::Handoff(Box::new(event))));
    }

    #[test]
    fn a_bridge_reads_back_as_it_was_written() {
        for is_open in [true, false] {
            let bridge = Bridge {
                session: SessionId::parse("s1").unwrap(),
                from: ModelName::parse("opus").unwrap(),
                to: ModelName::parse("local").unwrap(),
                opened_at: WallTime(5),
            };
            let changed = Changed { at: WallTime(9), bridge, is_open, why: "moved".into() };
            let (kind, body) = write_bridge(&changed);
            assert!(KINDS.contains(&kind));
            assert_eq!(read(kind, body.into()), Some(Event::Bridge(Box::new(changed))));
        }
    }
}
