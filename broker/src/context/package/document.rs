//! A package as parts, and as the one JSON document that people and programs read (`docs/schema/`).

use broker_proto::{PackageContents, PackageInfo, WallTime};
use serde_json::{Map, Value, json};

use super::{RawPart, Refused, hex, record::PartsRecord, rfc3339};

/// The version of the document, not of the file.
const VERSION: &str = "1.0";

/// Contents as the parts of a file, in the order of their names.
pub(super) fn parts(contents: &PackageContents) -> Vec<RawPart> {
    // A record of texts, numbers and lists is always JSON.
    let Ok(Value::Object(fields)) = serde_json::to_value(PartsRecord::from(contents)) else {
        return Vec::new();
    };
    let part = |(name, value): (String, Value)| RawPart { name, bytes: value.to_string().into() };
    fields.into_iter().map(part).collect()
}

/// Contents out of the parts of a file that was verified.
///
/// # Errors
/// [`Refused::Contents`] when they are not what the format describes.
pub fn read(parts: &[RawPart]) -> Result<PackageContents, Refused> {
    let mut fields = Map::new();
    for part in parts {
        // Bounded in depth: a text nested a hundred thousand times is refused, and not followed down.
        let value: Value = serde_json::from_slice(&part.bytes)
            .map_err(|_| Refused::Contents(part.name.clone()))?;
        fields.insert(part.name.clone(), value);
    }
    let record: PartsRecord = serde_json::from_value(Value::Object(fields))
        .map_err(|_| Refused::Contents("contents".to_owned()))?;
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
        "source_model": header.sender,
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
