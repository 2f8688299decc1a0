//! A package as parts, and as the one JSON document that people and programs read (`docs/schema/`).

use std::{borrow::Cow, cell::Cell};

use broker_proto::{Hex, PackageContents, PackageInfo, PackedConversation, WallTime};
use serde::{
    Deserialize as _, Serialize,
    de::{Deserializer, IntoDeserializer, Visitor, value::MapDeserializer},
    forward_to_deserialize_any,
};
use serde_json::{Value, json};

use super::{OTHERS_MAX, RawPart, Refused, record::PartsRecord, rfc3339};
use crate::context::Tokenizer;

/// The version of the document, not of the file.
const VERSION: &str = "1.0";
/// Of the conversation: what was chosen of it, and by whom it was counted.
const CONVERSATION: &str = "conversation_history";
/// The part that may be large, and the only one that is no JSON: the conversation's text as it is, so that no byte of it
/// is looked at for escapes. It takes no more room than it has bytes.
const TEXT: &str = "conversation_text";

/// Contents as the parts of a file; nobody has counted them yet.
pub(super) fn parts(contents: &PackageContents) -> Vec<RawPart<'_>> {
    let record = PartsRecord::from(contents);
    vec![
        part("origin", &record.origin),
        part("checkpoint", &record.checkpoint),
        part("task_queue", &record.task_queue),
        part("task_queue_left_out", &record.task_queue_left_out),
        part("current_work", &record.current_work),
        part("token_usage", &record.token_usage),
        part("credit_state", &record.credit_state),
        part("current_task", &record.current_task),
        part("files", &record.files),
        part("next_steps", &record.next_steps),
        part("user_preferences", &record.user_preferences),
        part("pending_subagents", &record.pending_subagents),
        part("resumption_instructions", &record.resumption_instructions),
        part("context", &record.context),
        part("shared_context", &record.shared_context),
        part(CONVERSATION, &record.conversation_history),
        part("memory_graph", &record.memory_graph),
        part("active_patterns", &record.active_patterns),
        part("learning_state", &record.learning_state),
        raw(TEXT, contents.conversation.text.as_bytes().into()),
    ]
}

fn part<'a>(name: &'a str, value: &impl Serialize) -> RawPart<'a> {
    // A record of texts, numbers and lists is always JSON.
    raw(name, serde_json::to_vec(value).unwrap_or_default().into())
}

fn raw<'a>(name: &'a str, bytes: Cow<'a, [u8]>) -> RawPart<'a> {
    RawPart { name: name.into(), bytes, tokens: 0 }
}

/// Counts the parts by their receiver's tokenizer. What the rendering of `talk` has counted with the same one stands.
pub(super) fn count(parts: &mut [RawPart<'_>], talk: &PackedConversation, tokenizer: Tokenizer) {
    let is_counted = !talk.text.is_empty() && talk.tokenizer == tokenizer.to_string();
    for part in parts {
        part.tokens = match std::str::from_utf8(&part.bytes) {
            Ok(_) if is_counted && part.name == TEXT => talk.tokens,
            Ok(text) => tokenizer.count(text),
            Err(_) => 0,
        };
    }
}

/// Refuses what would be too much to read: two bytes of a list become 32 in memory.
pub(super) fn others_fit(parts: &[RawPart<'_>]) -> Result<(), Refused> {
    // In the first version the text is in there.
    let large = if parts.iter().any(|part| part.name == TEXT) { TEXT } else { CONVERSATION };
    let others = parts.iter().filter(|part| part.name != large);
    let bytes: u64 = others.map(|part| part.bytes.len() as u64).sum();
    if bytes > OTHERS_MAX { Err(Refused::TooLarge) } else { Ok(()) }
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
pub fn read(parts: &[RawPart<'_>]) -> Result<PackageContents, Refused> {
    others_fit(parts)?;
    let at = Cell::new("");
    let fields = parts.iter().filter(|part| part.name != TEXT).map(|part| {
        at.set(&part.name);
        (part.name.as_ref(), PartReader(&part.bytes))
    });
    let record = PartsRecord::deserialize(MapDeserializer::new(fields));
    let record = record.map_err(|_: serde_json::Error| Refused::Contents(at.get().to_owned()))?;
    let refused = |part: &str| Refused::Contents(part.to_owned());
    let has_text = record.conversation_history.text.is_some();
    let mut contents = PackageContents::try_from(record).map_err(refused)?;
    match parts.iter().find(|part| part.name == TEXT) {
        // Once, and not in two places.
        Some(text) if !has_text => {
            let text = std::str::from_utf8(&text.bytes).map_err(|_| refused(TEXT))?;
            text.clone_into(&mut contents.conversation.text);
        }
        None if has_text => {}
        _ => return Err(refused(TEXT)),
    }
    Ok(contents)
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
            "checksum": Hex(&info.checksum).to_string(),
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
        // In the document the text is where people look for it.
        if let Some(talk) = parts.get_mut(CONVERSATION) {
            talk["text"] = contents.conversation.text.as_str().into();
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
                "sha256": Hex(&part.sha256).to_string(),
                "bytes": part.size_bytes,
                "tokens": part.tokens,
            })
        })
        .collect();
    json!({
        "parts": parts,
        "packed_bytes": info.size_bytes,
        "tokens": info.tokens(),
        // Whose count it is, or how it was estimated.
        "tokens_are": info.tokenizer,
    })
}
