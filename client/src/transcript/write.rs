//! Entries written as a transcript that `parse_entries` reads back as they are.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_proto::types::{Entry, EntryKind, NewSessionEntry, Part, Role, WallTime};
use serde_json::{Map, Value, json};

/// One line for each entry: `role`, `content` (a string where it is one text, else blocks as Anthropic writes them), and
/// `name`, `model`, `created_at` and `kind` where there is something to say.
#[must_use]
pub fn write(entries: &[NewSessionEntry]) -> String {
    entries.iter().map(|entry| format!("{}\n", line(entry))).collect()
}

fn line(said: &NewSessionEntry) -> Value {
    let Entry { role, name, parts } = &said.entry;
    let mut line = Map::new();
    line.insert("role".into(), role_of(*role).into());
    if !name.is_empty() {
        line.insert("name".into(), name.as_str().into());
    }
    line.insert("content".into(), content(parts));
    if let Some(model) = &said.model {
        line.insert("model".into(), model.as_str().into());
    }
    if let Some(at) = said.created_at.and_then(WallTime::rfc3339) {
        line.insert("created_at".into(), at.into());
    }
    if said.kind == EntryKind::Advice {
        line.insert("kind".into(), "advice".into());
    }
    Value::Object(line)
}

fn role_of(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

fn content(parts: &[Part]) -> Value {
    match parts {
        [] => "".into(),
        [Part::Text(text)] => text.as_str().into(),
        parts => parts.iter().map(block).collect(),
    }
}

fn block(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({ "type": "text", "text": text }),
        Part::Thinking { text, signature, provider } => json!({
            "type": "thinking", "thinking": text, "signature": signature, "provider": provider,
        }),
        Part::ToolCall { id, name, arguments } => json!({
            "type": "tool_use", "id": id, "name": name, "input": input(arguments),
        }),
        Part::ToolResult { call_id, parts, is_error } => json!({
            "type": "tool_result", "tool_use_id": call_id, "content": content(parts),
            "is_error": is_error,
        }),
        Part::Image { media_type, data } => json!({
            "type": "image",
            "source": { "type": "base64", "media_type": media_type, "data": STANDARD.encode(data) },
        }),
        Part::Opaque { provider, kind, data } => json!({
            "type": "opaque", "provider": provider, "kind": kind, "data": STANDARD.encode(data),
        }),
        Part::Ref(part) => json!({ "type": "ref", "hash": part.hash.to_string() }),
    }
}

/// An object where it is one that is written back in the same bytes, else the text.
fn input(arguments: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(arguments) {
        Ok(value @ Value::Object(_)) if value.to_string().as_bytes() == arguments => value,
        _ => String::from_utf8_lossy(arguments).into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::transcript::parse_entries;

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let said = |role, parts| NewSessionEntry {
            kind: EntryKind::Turn,
            entry: Entry { role, name: String::new(), parts },
            model: None,
            created_at: None,
        };
        let call = |arguments: &'static str| Part::ToolCall {
            id: "c".into(),
            name: "ls".into(),
            arguments: Bytes::from_static(arguments.as_bytes()),
        };
        let result = Part::ToolResult {
            call_id: "c".into(),
            parts: vec![Part::text("a"), Part::text("b")],
            is_error: true,
        };
        let thinking =
            Part::Thinking { text: "hm".into(), signature: "s".into(), provider: "openai".into() };
        let bytes = Bytes::from_static(&[0, 159, 1]);
        let image = Part::Image { media_type: "image/png".into(), data: bytes.clone() };
        let opaque = Part::Opaque { provider: "openai".into(), kind: "file".into(), data: bytes };
        let mut advice = said(Role::Assistant, vec![Part::text("two\nlines")]);
        advice.kind = EntryKind::Advice;
        advice.entry.name = "sonnet".into();
        advice.model = broker_proto::types::ModelName::parse("sonnet").ok();
        advice.created_at = Some(WallTime(1_700_000_000_123));
        let entries = vec![
            said(Role::System, vec![Part::text("be brief")]),
            said(Role::User, vec![Part::text("look"), image]),
            said(
                Role::Assistant,
                vec![thinking, call("{\"a\":1}"), call("{\"a\": 1}"), call("{broken")],
            ),
            said(Role::Tool, vec![result]),
            said(Role::Assistant, vec![]),
            said(Role::User, vec![opaque]),
            advice,
        ];

        let text = write(&entries);

        assert_eq!(text.lines().count(), entries.len());
        assert_eq!(parse_entries(&text).unwrap(), entries);
    }
}
