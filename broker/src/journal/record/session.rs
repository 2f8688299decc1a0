//! Records of sessions.

use bytes::Bytes;
use prost::Message as _;

use broker_proto::{
    EntryHash, MessageId, SessionInfo, WallTime, convert::Stored as _, convert::session_id,
};

use super::{BodyRecord, kind, read_body, write_body};
use crate::core::session::{Change, Entries, EntryRow, Event, Session};

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct RowRecord {
    #[prost(uint32, tag = "1")]
    length: u32,
    #[prost(uint64, tag = "2")]
    tokens: u64,
    #[prost(uint64, tag = "3")]
    size_bytes: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntriesRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(uint64, tag = "2")]
    first: u64,
    #[prost(bytes = "vec", tag = "3")]
    previous: Vec<u8>,
    #[prost(uint64, tag = "4")]
    tokens: u64,
    #[prost(uint64, tag = "5")]
    size_bytes: u64,
    #[prost(message, optional, tag = "6")]
    body: Option<BodyRecord>,
    #[prost(uint64, tag = "7")]
    offset: u64,
    /// 32 bytes each.
    #[prost(bytes = "vec", tag = "8")]
    hashes: Vec<u8>,
    #[prost(message, repeated, tag = "9")]
    rows: Vec<RowRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChangedRecord {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(string, tag = "3")]
    change: String,
    #[prost(string, tag = "4")]
    detail: String,
    #[prost(bytes = "bytes", optional, tag = "5")]
    info: Option<Bytes>,
    #[prost(message, optional, tag = "6")]
    task: Option<BodyRecord>,
    #[prost(message, optional, tag = "7")]
    shared: Option<BodyRecord>,
    /// 16 bytes each.
    #[prost(bytes = "vec", tag = "8")]
    answered: Vec<u8>,
}

pub(super) fn write(event: &Event) -> (u16, Vec<u8>) {
    match event {
        Event::Entries(entries) => (kind::SESSION_ENTRIES, write_entries(entries).encode_to_vec()),
        Event::Changed { id, at, change, detail, after } => {
            let record = ChangedRecord {
                id: id.to_string(),
                at: at.0,
                change: change.as_str().to_owned(),
                detail: detail.clone(),
                info: after.as_ref().map(|session| session.info.clone().encode()),
                task: after.as_ref().and_then(|session| session.task.as_ref()).map(write_body),
                shared: after.as_ref().and_then(|session| session.shared.as_ref()).map(write_body),
                answered: after
                    .iter()
                    .flat_map(|session| &session.answered)
                    .flat_map(|id| id.as_u128().to_be_bytes())
                    .collect(),
            };
            (kind::SESSION_CHANGED, record.encode_to_vec())
        }
    }
}

fn write_entries(entries: &Entries) -> EntriesRecord {
    let row = |row: &EntryRow| RowRecord {
        length: row.length,
        tokens: row.tokens,
        size_bytes: row.size_bytes,
    };
    EntriesRecord {
        at: entries.at.0,
        first: entries.first,
        previous: entries.previous.0.to_vec(),
        tokens: entries.tokens,
        size_bytes: entries.size_bytes,
        body: Some(write_body(&entries.body)),
        offset: entries.offset,
        hashes: entries.rows.iter().flat_map(|row| row.hash.0).collect(),
        rows: entries.rows.iter().map(row).collect(),
    }
}

pub(super) fn read_entries(body: Bytes) -> Option<Event> {
    let record = EntriesRecord::decode(body).ok()?;
    let (hashes, rest) = record.hashes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != record.rows.len() {
        return None;
    }
    let rows = hashes.iter().zip(&record.rows).map(|(hash, row)| EntryRow {
        hash: EntryHash(*hash),
        length: row.length,
        tokens: row.tokens,
        size_bytes: row.size_bytes,
    });
    Some(Event::Entries(Box::new(Entries {
        at: WallTime(record.at),
        first: record.first,
        previous: EntryHash(record.previous.try_into().ok()?),
        tokens: record.tokens,
        size_bytes: record.size_bytes,
        body: read_body(record.body)?,
        offset: record.offset,
        rows: rows.collect(),
    })))
}

pub(super) fn read_changed(body: Bytes) -> Option<Event> {
    let record = ChangedRecord::decode(body).ok()?;
    let known = Change::ALL.into_iter().find(|change| change.as_str() == record.change)?;
    let optional = |record: Option<BodyRecord>| match record {
        None => Some(None),
        Some(record) => read_body(Some(record)).map(Some),
    };
    let after = match record.info {
        None => None,
        Some(info) => Some(Box::new(Session {
            info: SessionInfo::decode(info).ok()?,
            task: optional(record.task)?,
            shared: optional(record.shared)?,
            answered: read_ids(&record.answered)?,
        })),
    };
    Some(Event::Changed {
        id: session_id(&record.id, "id").ok()?,
        at: WallTime(record.at),
        change: known,
        detail: record.detail,
        after,
    })
}

fn read_ids(bytes: &[u8]) -> Option<Vec<MessageId>> {
    let (ids, rest) = bytes.as_chunks::<16>();
    let ids = ids.iter().map(|id| MessageId::from_u128(u128::from_be_bytes(*id))).collect();
    rest.is_empty().then_some(ids)
}

#[cfg(test)]
mod tests {
    use broker_proto::{ModelName, SessionHead, SessionId, SessionOwner};

    use super::*;
    use crate::{
        core::{
            self,
            queue::{Body, BodyKey},
        },
        journal::record::{decode, encode},
    };

    fn session(task: Option<Body>) -> Session {
        let opus = ModelName::parse("opus").unwrap();
        let head = SessionHead { entries: 3, hash: EntryHash([5; 32]) };
        let info = SessionInfo {
            id: SessionId::parse("s").unwrap(),
            title: "A title".into(),
            owner: SessionOwner { model: opus.clone(), agent: None, epoch: 2 },
            head,
            tokens: 7,
            size_bytes: 30,
            version: 4,
            started_at: WallTime(1_000),
            changed_at: WallTime(2_000),
            forked_from: SessionId::parse("r").ok().map(|from| (from, 2)),
            models: vec![opus.clone()],
            handed_over: None,
            pause: task.is_some().then(|| broker_proto::SessionPause {
                at: WallTime(1_900),
                reason: "lunch".into(),
                package: broker_proto::PackageId::from_u128(9),
                by: "user".into(),
                handoff: Some(broker_proto::HandoffId::from_parts(WallTime(1_900), 3)),
            }),
            unverified: task.is_some().then(|| broker_proto::Unverified {
                home: opus.clone(),
                from: 1,
                until: 3,
                by: vec![ModelName::parse("sonnet").unwrap()],
            }),
        };
        let answered = vec![MessageId::from_u128(7), MessageId::from_u128(8)];
        Session { info, task, shared: None, answered }
    }

    #[test]
    fn every_event_of_a_session_reads_back_as_it_was_written() {
        let body = Body { keys: BodyKey([3; 40]).into(), size_bytes: 99 };
        let row =
            |n: u8| EntryRow { hash: EntryHash([n; 32]), length: 9, tokens: 2, size_bytes: 9 };
        let entries = Entries {
            at: WallTime(5),
            first: 2,
            previous: EntryHash::NONE,
            tokens: 1,
            size_bytes: 4,
            body: body.clone(),
            offset: 7,
            rows: vec![row(1), row(2)],
        };
        let mut events = vec![Event::Entries(Box::new(entries))];
        for change in Change::ALL {
            for after in [None, Some(session(None)), Some(session(Some(body.clone())))] {
                events.push(Event::Changed {
                    id: SessionId::parse("s").unwrap(),
                    at: WallTime(2_000),
                    change,
                    detail: "2 entries".into(),
                    after: after.map(Box::new),
                });
            }
        }
        for event in events {
            let event = core::Event::Session(Box::new(event));
            assert_eq!(decode(&encode(&event)), Ok(Some(event)));
        }
    }
}
