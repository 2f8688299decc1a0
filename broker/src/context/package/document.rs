//! A package as parts, and as the one JSON document that people and programs read (`docs/schema/`).

use std::cell::Cell;

use broker_proto::{PackageContents, PackageInfo, WallTime};
use serde::{
    Deserialize as _,
    de::{Deserializer, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Value, json};

use super::{OTHERS_MAX, PackError, RawPart, Refused, hex, record::PartsRecord, rfc3339};

/// The version of the document, not of the file.
const VERSION: &str = "1.0";
/// The part that may be large: it is text, and takes no more room than it has bytes.
const CONVERSATION: &str = "conversation_history";

/// Contents as the parts of a file, in the order of their names.
pub(super) fn parts(contents: &PackageContents) -> Vec<RawPart> {
    // A record of texts, numbers and lists is always JSON.
    let Ok(Value::Object(fields)) = serde_json::to_value(PartsRecord::from(contents)) else {
        return Vec::new();
    };
    let part = |(name, value): (String, Value)| RawPart { name, bytes: value.to_string().into() };
    fields.into_iter().map(part).collect()
}

/// Refuses what would be too much to read: two bytes of a list become 32 in memory.
pub(super) fn others_fit(parts: &[RawPart]) -> Result<(), PackError> {
    let others = parts.iter().filter(|part| part.name != CONVERSATION);
    let bytes: u64 = others.map(|part| part.bytes.len() as u64).sum();
    if bytes > OTHERS_MAX { Err(PackError::OthersTooLarge) } else { Ok(()) }
}

/// One part, read as what it is to become, with nothing in between. Bounded in depth: a text nested a hundred thousand
/// times is refused, and not followed down.
struct PartReader<'a>(&'a [u8]);

impl<'de> Deserializer<'de> for PartReader<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let mut json = serde_json::Deserializer::from_slice(self.0);
        let value = json.deserialize_any(visitor)?;
        json.end()?;
        Ok(value)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for PartReader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Contents out of the parts of a file that was verified.
///
/// # Errors
/// [`Refused::Contents`] when they are not what the format describes.
pub fn read(parts: &[RawPart]) -> Result<PackageContents, Refused> {
    others_fit(parts).map_err(|_| Refused::TooLarge)?;
    let at = Cell::new("");
    let fields = parts.iter().map(|part| {
        at.set(&part.name);
        (part.name.as_str(), PartReader(&part.bytes))
    });
    let record = PartsRecord::deserialize(MapDeserializer::new(fields));
    let record = record.map_err(|_: serde_json::Error| Refused::Contents(at.get().to_owned()))?;
    record.try_into().map_err(|part: &str| Refused::Contents(part.to_owned()))
}

/// The document of a package.
#[must_use]
pub fn document(info: &PackageInfo, contents: &PackageContents, verified_at: WallTime) -> Value {
    let header = &info.header;
    let mut document = json!({
        "version": VERSION,
        "id": header.id.to_string(),
        "session_id": header.session.as_ref().map(ToString::to_string),
        "project": header.project,
        "source_model": Some(header.sender.as_str()).filter(|name| !name.is_empty()),
        "target_model": header.recipient.as_ref().map(ToString::to_string),
        "preservation_level": header.level.as_str(),
        "reason": header.reason,
        "created_at": rfc3339(header.created_at),
        "expires_at": rfc3339(header.expires_at),
        "hops": header.hops,
        "task": contents.task.goal,
        "manifest": manifest(info),
        "integrity": {
            "algorithm": "sha256",
            "checksum": hex(&info.checksum),
            "signature": "ed25519",
            "signed_by": info.signer.to_string(),
            "signer_name": info.signed_by,
            "verified_at": rfc3339(verified_at),
            "valid": true,
        },
    });
    let parts = serde_json::to_value(PartsRecord::from(contents));
    if let (Value::Object(document), Ok(Value::Object(mut parts))) = (&mut document, parts) {
        if let Some(Value::Object(origin)) = parts.remove("origin") {
            document.extend(origin);
        }
        document.extend(parts);
    }
    document
}

fn manifest(info: &PackageInfo) -> Value {
    let parts: Vec<Value> = info
        .parts
        .iter()
        .map(|part| {
            json!({
                "name": part.name,
                "sha256": hex(&part.sha256),
                "bytes": part.size_bytes,
                "tokens": part.tokens,
            })
        })
        .collect();
    json!({
        "parts": parts,
        "packed_bytes": info.size_bytes,
        "tokens": info.tokens(),
        // Said, because it is no tokenizer's count.
        "tokens_are": "estimated",
    })
}
