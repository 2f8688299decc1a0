//! Packages as the journal has them.

use broker_proto::{
    HandoffKept, ModelName, PackageHeader, PackageId, PackageInfo, PackageKey, PackagePart,
    Preservation, SessionId, WallTime, convert::Stored as _,
};
use bytes::Bytes;
use prost::Message as _;

use super::{BodyRecord, read_body, write_body};
use crate::core::package::{Event, MadeOf, Saved, Spent};

pub(super) const SAVED: u16 = 80;
pub(super) const DELETED: u16 = 81;
pub(super) const FORGOTTEN: u16 = 82;
pub(super) const TRUSTED: u16 = 83;
pub(super) const ARCHIVED: u16 = 84;

/// Every kind that is about packages.
pub(super) const KINDS: [u16; 5] = [SAVED, DELETED, FORGOTTEN, TRUSTED, ARCHIVED];

#[derive(Clone, PartialEq, prost::Message)]
struct PartRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "vec", tag = "2")]
    sha256: Vec<u8>,
    #[prost(uint64, tag = "3")]
    size_bytes: u64,
    #[prost(uint64, tag = "4")]
    tokens: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at: u64,
    #[prost(string, tag = "3")]
    session: String,
    #[prost(string, tag = "4")]
    project: String,
    #[prost(string, tag = "5")]
    sender: String,
    #[prost(string, tag = "6")]
    recipient: String,
    #[prost(string, tag = "7")]
    level: String,
    #[prost(uint64, tag = "8")]
    created_at: u64,
    #[prost(uint64, tag = "9")]
    expires_at: u64,
    #[prost(uint32, tag = "10")]
    hops: u32,
    #[prost(bytes = "vec", tag = "11")]
    nonce: Vec<u8>,
    #[prost(string, tag = "12")]
    reason: String,
    #[prost(string, tag = "13")]
    task: String,
    #[prost(message, repeated, tag = "14")]
    parts: Vec<PartRecord>,
    #[prost(bytes = "vec", tag = "15")]
    checksum: Vec<u8>,
    #[prost(bytes = "vec", tag = "16")]
    signer: Vec<u8>,
    #[prost(bool, tag = "17")]
    is_imported: bool,
    #[prost(message, optional, tag = "18")]
    body: Option<BodyRecord>,
    /// Empty in the first records: four bytes a token.
    #[prost(string, tag = "19")]
    tokenizer: String,
    #[prost(message, optional, tag = "20")]
    of: Option<MadeOfRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MadeOfRecord {
    #[prost(uint64, tag = "1")]
    version: u64,
    #[prost(bytes = "bytes", tag = "2")]
    kept: Bytes,
    #[prost(bool, tag = "3")]
    is_ahead: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeletedRecord {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at: u64,
    /// Empty when it was made here.
    #[prost(bytes = "vec", tag = "3")]
    spent: Vec<u8>,
    #[prost(uint64, tag = "4")]
    until: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ForgottenRecord {
    /// 16 bytes each.
    #[prost(bytes = "vec", tag = "1")]
    nonces: Vec<u8>,
    #[prost(uint64, tag = "2")]
    at: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrustedRecord {
    #[prost(string, tag = "1")]
    name: String,
    /// Empty: trusted no more.
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(uint64, tag = "3")]
    at: u64,
}

fn write_id(id: PackageId) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}

fn read_id(bytes: &[u8]) -> Option<PackageId> {
    Some(PackageId::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
}

pub(super) fn write(event: &Event) -> (u16, Vec<u8>) {
    match event {
        Event::Saved(saved) => (SAVED, write_saved(saved).encode_to_vec()),
        Event::Deleted { id, at, spent } => {
            let record = DeletedRecord {
                id: write_id(*id),
                at: at.0,
                spent: spent.map(|spent| spent.nonce.to_vec()).unwrap_or_default(),
                until: spent.map_or(0, |spent| spent.until.0),
            };
            (DELETED, record.encode_to_vec())
        }
        Event::Archived { id, at } => {
            let record = DeletedRecord { id: write_id(*id), at: at.0, ..Default::default() };
            (ARCHIVED, record.encode_to_vec())
        }
        Event::Forgotten { nonces, at } => {
            (FORGOTTEN, ForgottenRecord { nonces: nonces.concat(), at: at.0 }.encode_to_vec())
        }
        Event::Trusted { name, key, at } => {
            let key = key.map(|key| key.0.to_vec()).unwrap_or_default();
            (TRUSTED, TrustedRecord { name: name.clone(), key, at: at.0 }.encode_to_vec())
        }
    }
}

fn write_saved(saved: &Saved) -> SavedRecord {
    let PackageInfo { header, task, parts, tokenizer, checksum, signer, is_imported, .. } =
        &saved.info;
    let part = |part: &PackagePart| PartRecord {
        name: part.name.clone(),
        sha256: part.sha256.to_vec(),
        size_bytes: part.size_bytes,
        tokens: part.tokens,
    };
    SavedRecord {
        id: write_id(header.id),
        at: saved.at.0,
        session: header.session.as_ref().map(ToString::to_string).unwrap_or_default(),
        project: header.project.clone(),
        sender: header.sender.clone(),
        recipient: header.recipient.as_ref().map(ToString::to_string).unwrap_or_default(),
        level: header.level.as_str().to_owned(),
        created_at: header.created_at.0,
        expires_at: header.expires_at.0,
        hops: header.hops,
        nonce: header.nonce.to_vec(),
        reason: header.reason.clone(),
        task: task.clone(),
        parts: parts.iter().map(part).collect(),
        checksum: checksum.to_vec(),
        signer: signer.0.to_vec(),
        is_imported: *is_imported,
        body: Some(write_body(&saved.body)),
        tokenizer: tokenizer.clone(),
        of: saved.of.as_ref().map(|of| MadeOfRecord {
            version: of.version,
            kept: of.kept.clone().encode(),
            is_ahead: of.is_ahead,
        }),
    }
}

/// The event of a record of one of [`KINDS`].
pub(super) fn read(kind: u16, body: &[u8]) -> Option<Event> {
    Some(match kind {
        SAVED => Event::Saved(Box::new(read_saved(SavedRecord::decode(body).ok()?)?)),
        DELETED => {
            let record = DeletedRecord::decode(body).ok()?;
            let spent = match record.spent.as_slice() {
                [] => None,
                nonce => {
                    Some(Spent { nonce: nonce.try_into().ok()?, until: WallTime(record.until) })
                }
            };
            Event::Deleted { id: read_id(&record.id)?, at: WallTime(record.at), spent }
        }
        ARCHIVED => {
            let record = DeletedRecord::decode(body).ok()?;
            Event::Archived { id: read_id(&record.id)?, at: WallTime(record.at) }
        }
        FORGOTTEN => {
            let record = ForgottenRecord::decode(body).ok()?;
            let (nonces, rest) = record.nonces.as_chunks::<16>();
            if !rest.is_empty() {
                return None;
            }
            Event::Forgotten { nonces: nonces.to_vec(), at: WallTime(record.at) }
        }
        TRUSTED => {
            let record = TrustedRecord::decode(body).ok()?;
            let key = match record.key.as_slice() {
                [] => None,
                key => Some(PackageKey(key.try_into().ok()?)),
            };
            Event::Trusted { name: record.name, key, at: WallTime(record.at) }
        }
        _ => return None,
    })
}

fn read_saved(record: SavedRecord) -> Option<Saved> {
    let part = |part: PartRecord| {
        Some(PackagePart {
            name: part.name,
            sha256: part.sha256.try_into().ok()?,
            size_bytes: part.size_bytes,
            tokens: part.tokens,
        })
    };
    let body = read_body(record.body)?;
    let tokenizer =
        if record.tokenizer.is_empty() { "estimated".to_owned() } else { record.tokenizer };
    let header = PackageHeader {
        id: read_id(&record.id)?,
        session: named(&record.session, |text| SessionId::parse(text).ok())?,
        project: record.project,
        sender: record.sender,
        recipient: named(&record.recipient, |text| ModelName::parse(text).ok())?,
        level: Preservation::parse(&record.level)?,
        created_at: WallTime(record.created_at),
        expires_at: WallTime(record.expires_at),
        hops: record.hops,
        nonce: record.nonce.try_into().ok()?,
        reason: record.reason,
    };
    let info = PackageInfo {
        header,
        task: record.task,
        parts: record.parts.into_iter().map(part).collect::<Option<_>>()?,
        tokenizer,
        size_bytes: body.size_bytes,
        checksum: record.checksum.try_into().ok()?,
        signer: PackageKey(record.signer.try_into().ok()?),
        signed_by: None,
        is_imported: record.is_imported,
        is_expired: false,
        archived_at: None,
    };
    let of = match record.of {
        None => None,
        Some(MadeOfRecord { version, kept, is_ahead }) => {
            Some(Box::new(MadeOf { version, kept: HandoffKept::decode(kept).ok()?, is_ahead }))
        }
    };
    Some(Saved { info, body, at: WallTime(record.at), of })
}

/// A name that may be missing.
fn named<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { read(text).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{package::sample::info, queue::Body};

    #[track_caller]
    fn round_trip(event: &Event) {
        let (kind, body) = write(event);
        assert!(KINDS.contains(&kind));
        assert_eq!(read(kind, &body).as_ref(), Some(event));
        assert_eq!(read(kind, b"\xff\xff"), None);
    }

    #[test]
    fn every_event_comes_back_as_it_was() {
        let at = WallTime(7);
        let body = Body { size_bytes: 900, ..Body::default() };
        let mut bare = info(3);
        (bare.header.session, bare.header.recipient) = (None, None);
        for info in [info(2), bare] {
            let kept = HandoffKept { entries: 4, score: 0.5, ..HandoffKept::default() };
            let made = MadeOf { version: 9, kept, is_ahead: true };
            for of in [None, Some(Box::new(made))] {
                let (info, body) = (info.clone(), body.clone());
                round_trip(&Event::Saved(Box::new(Saved { info, body, at, of })));
            }
        }
        let id = info(2).header.id;
        let spent = Spent { nonce: [1; 16], until: WallTime(9) };
        round_trip(&Event::Deleted { id, at, spent: Some(spent) });
        round_trip(&Event::Deleted { id, at, spent: None });
        round_trip(&Event::Archived { id, at });
        round_trip(&Event::Forgotten { nonces: vec![[1; 16], [2; 16]], at });
        for key in [Some(PackageKey([8; 32])), None] {
            round_trip(&Event::Trusted { name: "laptop".into(), key, at });
        }
    }
}
