//! Transcripts of coding agents, one JSON object a line, read into the conversation of a message.
//!
//! Two ways of writing are taken, also mixed: OpenAI's (`content` a string or a list, `tool_calls`, `tool_call_id`)
//! and Anthropic's (`content` blocks such as `tool_use` and `tool_result`). What only one provider knows is kept as
//! it came, as an opaque part.
//!
//! Invariant: an error names the line and the field, never what stands in it.

mod write;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_proto::types::{Entry, EntryKind, ModelName, NewSessionEntry, Part, Role, WallTime};
use bytes::Bytes;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use write::write;

/// A line that is no turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Error {
    /// Counts from 1.
    pub line: usize,
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("not a JSON object (column {column})")]
    NotJson { column: usize },
    #[error("nested too deep (column {column})")]
    TooDeep { column: usize },
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{field}` must be {want}")]
    Wrong { field: &'static str, want: &'static str },
}

/// Reads a transcript for the context of a message; blank lines and turns that say nothing are left out, and results of
/// tools stand before what a user says in the same turn.
///
/// # Errors
/// [`Error`] for the first line that is no turn.
pub fn parse(text: &str) -> Result<Vec<Entry>, Error> {
    let turns = parse_entries(text)?;
    let parted = turns.into_iter().flat_map(|turn| apart(turn.entry));
    Ok(parted.filter(|entry| !entry.parts.is_empty()).collect())
}

/// Reads a transcript for a session: each line is one entry, also one that says nothing; only blank lines are none. Who
/// said it, with which model and when is kept where the line says so.
///
/// # Errors
/// [`Error`] for the first line that is no turn.
pub fn parse_entries(text: &str) -> Result<Vec<NewSessionEntry>, Error> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        // A file may begin with a byte order mark.
        let line = line.trim_start_matches('\u{feff}');
        if !line.trim().is_empty() {
            entries.push(turn(line).map_err(|problem| Error { line: index + 1, problem })?);
        }
    }
    Ok(entries)
}

/// An entry as providers take it: what tools gave back is a turn of its own, in front of what the user says.
#[must_use]
pub fn apart(entry: Entry) -> Vec<Entry> {
    if entry.role != Role::User {
        return vec![entry];
    }
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    let Entry { role, name, parts } = entry;
    let (results, said): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_result);
    match (results.is_empty(), said.is_empty()) {
        (true, _) => vec![self::entry(role, name, said)],
        (false, true) => vec![self::entry(Role::Tool, String::new(), results)],
        (false, false) => {
            vec![self::entry(Role::Tool, String::new(), results), self::entry(role, name, said)]
        }
    }
}

fn object(line: &str) -> Result<Map<String, Value>, Problem> {
    match serde_json::from_str(line) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::NotJson { column: 1 }),
        Err(err) if err.to_string().starts_with("recursion limit") => {
            Err(Problem::TooDeep { column: err.column() })
        }
        Err(err) => Err(Problem::NotJson { column: err.column() }),
    }
}

fn turn(line: &str) -> Result<NewSessionEntry, Problem> {
    let outer = object(line)?;
    // Some agents write each turn as the `message` of a larger object, which says when it was.
    let inner = match outer.get("message") {
        Some(Value::Object(message)) if !outer.contains_key("role") => message,
        _ => &outer,
    };
    let name = match inner.get("name") {
        None | Some(Value::Null) => String::new(),
        Some(_) => name(text(inner, "name")?)?,
    };
    let model = [inner, &outer].into_iter().find_map(|turn| turn.get("model")?.as_str());
    Ok(NewSessionEntry {
        kind: match outer.get("kind").and_then(Value::as_str) {
            Some("advice") => EntryKind::Advice,
            _ => EntryKind::Turn,
        },
        entry: said(inner, name)?,
        // One that no broker could have configured is no model here.
        model: model.and_then(|model| ModelName::parse(&model.to_lowercase()).ok()),
        created_at: created_at(inner)?.or(created_at(&outer)?),
    })
}

/// Bytes of a name.
const NAME: usize = 256;

fn name(text: &str) -> Result<String, Problem> {
    if text.len() > NAME || text.chars().any(char::is_control) {
        return Err(Problem::Wrong { field: "name", want: "one line of at most 256 bytes" });
    }
    Ok(text.to_owned())
}

fn created_at(turn: &Map<String, Value>) -> Result<Option<WallTime>, Problem> {
    let field = ["created_at", "timestamp"].into_iter().find(|field| turn.contains_key(*field));
    let wrong = |field| Problem::Wrong { field, want: "a time as RFC 3339 writes it" };
    match field.map(|field| (field, &turn[field])) {
        None | Some((_, Value::Null)) => Ok(None),
        Some((field, Value::String(text))) => {
            let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong(field))?;
            let millis = moment.unix_timestamp_nanos() / 1_000_000;
            Ok(Some(WallTime(u64::try_from(millis).map_err(|_| wrong(field))?)))
        }
        Some((field, _)) => Err(wrong(field)),
    }
}

fn said(turn: &Map<String, Value>, name: String) -> Result<Entry, Problem> {
    match text(turn, "role")? {
        "system" | "developer" => Ok(entry(Role::System, name, content(turn)?)),
        "user" => {
            let parts = content(turn)?;
            let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
            let is_tools = !parts.is_empty() && parts.iter().all(is_result);
            Ok(entry(if is_tools { Role::Tool } else { Role::User }, name, parts))
        }
        "assistant" => {
            let mut parts = content(turn)?;
            parts.extend(tool_calls(turn)?);
            Ok(entry(Role::Assistant, name, parts))
        }
        "tool" => {
            let parts = content(turn)?;
            let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
            if !turn.contains_key("tool_call_id") && parts.iter().any(is_result) {
                return Ok(entry(Role::Tool, name, parts));
            }
            let call_id = text(turn, "tool_call_id")?.to_owned();
            let result = Part::ToolResult { call_id, parts, is_error: false };
            Ok(entry(Role::Tool, name, vec![result]))
        }
        _ => Err(Problem::Wrong {
            field: "role",
            want: "system, developer, user, assistant or tool",
        }),
    }
}

fn entry(role: Role, name: String, parts: Vec<Part>) -> Entry {
    Entry { role, name, parts }
}

fn content(object: &Map<String, Value>) -> Result<Vec<Part>, Problem> {
    match object.get("content") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![Part::text(text)]),
        Some(Value::Array(blocks)) => {
            let parts = blocks.iter().map(block).collect::<Result<Vec<_>, _>>()?;
            Ok(parts.into_iter().filter(|part| *part != Part::text("")).collect())
        }
        Some(_) => Err(Problem::Wrong { field: "content", want: "a string or a list of parts" }),
    }
}

fn block(value: &Value) -> Result<Part, Problem> {
    let want = Problem::Wrong { field: "content", want: "a list of objects with a `type`" };
    let block = value.as_object().ok_or(want)?;
    match text(block, "type")? {
        "text" | "input_text" | "output_text" => Ok(Part::text(text(block, "text")?)),
        "thinking" => Ok(Part::Thinking {
            text: text(block, "thinking")?.to_owned(),
            signature: block
                .get("signature")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            provider: block
                .get("provider")
                .and_then(Value::as_str)
                .unwrap_or("anthropic")
                .to_owned(),
        }),
        "opaque" => {
            let want = Problem::Wrong { field: "data", want: "bytes in base 64" };
            Ok(Part::Opaque {
                provider: text(block, "provider")?.to_owned(),
                kind: text(block, "kind")?.to_owned(),
                data: STANDARD.decode(text(block, "data")?).map_err(|_| want)?.into(),
            })
        }
        "tool_use" => Ok(Part::ToolCall {
            id: text(block, "id")?.to_owned(),
            name: text(block, "name")?.to_owned(),
            arguments: arguments(block.get("input")),
        }),
        "tool_result" => Ok(Part::ToolResult {
            call_id: text(block, "tool_use_id")?.to_owned(),
            parts: content(block)?,
            is_error: block.get("is_error").and_then(Value::as_bool).unwrap_or(false),
        }),
        "image" => anthropic_image(block, value),
        "image_url" => openai_image(block, value),
        "refusal" => Ok(Part::text(text(block, "refusal")?)),
        "file" | "input_audio" => Ok(opaque("openai", value)),
        _ => Ok(opaque("anthropic", value)),
    }
}

fn anthropic_image(block: &Map<String, Value>, whole: &Value) -> Result<Part, Problem> {
    let Some(source) = block.get("source").and_then(Value::as_object) else {
        return Err(Problem::Missing { field: "source" });
    };
    // A source by address or file id is the provider's to fetch.
    if source.get("type").and_then(Value::as_str) != Some("base64") {
        return Ok(opaque("anthropic", whole));
    }
    image(text(source, "media_type")?, text(source, "data")?)
}

fn openai_image(block: &Map<String, Value>, whole: &Value) -> Result<Part, Problem> {
    let url = match block.get("image_url") {
        Some(Value::Object(image)) => text(image, "url")?,
        _ => text(block, "image_url")?,
    };
    let inline = url.strip_prefix("data:").and_then(|data| data.split_once(";base64,"));
    match inline {
        Some((media_type, data)) => image(media_type, data),
        None => Ok(opaque("openai", whole)),
    }
}

fn image(media_type: &str, data: &str) -> Result<Part, Problem> {
    let data = STANDARD
        .decode(data)
        .map_err(|_| Problem::Wrong { field: "data", want: "an image in base 64" })?;
    Ok(Part::Image { media_type: media_type.to_owned(), data: data.into() })
}

fn opaque(provider: &str, block: &Value) -> Part {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    Part::Opaque { provider: provider.to_owned(), kind, data: block.to_string().into() }
}

fn tool_calls(turn: &Map<String, Value>) -> Result<Vec<Part>, Problem> {
    let want = Problem::Wrong { field: "tool_calls", want: "a list of calls with a `function`" };
    let calls = match turn.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(calls) => calls.as_array().ok_or_else(|| want.clone())?,
    };
    calls
        .iter()
        .map(|call| {
            let call = call.as_object().ok_or_else(|| want.clone())?;
            let function =
                call.get("function").and_then(Value::as_object).ok_or_else(|| want.clone())?;
            Ok(Part::ToolCall {
                id: text(call, "id")?.to_owned(),
                name: text(function, "name")?.to_owned(),
                arguments: arguments(function.get("arguments")),
            })
        })
        .collect()
}

/// As the model wrote them: a string of JSON stays as it is, valid or not.
fn arguments(value: Option<&Value>) -> Bytes {
    match value {
        None | Some(Value::Null) => Bytes::from_static(b"{}"),
        Some(Value::String(text)) => Bytes::from(text.clone()),
        Some(value) => Bytes::from(value.to_string()),
    }
}

fn text<'a>(object: &'a Map<String, Value>, field: &'static str) -> Result<&'a str, Problem> {
    match object.get(field) {
        None | Some(Value::Null) => Err(Problem::Missing { field }),
        Some(value) => value.as_str().ok_or(Problem::Wrong { field, want: "a string" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, name: &str, arguments: &'static str) -> Part {
        Part::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    fn result(call_id: &str, text: &str, is_error: bool) -> Part {
        Part::ToolResult { call_id: call_id.into(), parts: vec![Part::text(text)], is_error }
    }

    #[test]
    fn openai_turns_keep_calls_and_results() {
        let text = r#"{"role":"developer","content":"Be brief."}
{"role":"user","name":"ada","content":[{"type":"text","text":"List the files."}]}

{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"ls","arguments":"{\"dir\": broken"}}]}
{"role":"tool","tool_call_id":"c1","content":"a.rs"}
{"role":"assistant","content":"One file."}"#;

        let entries = parse(text).unwrap();

        let want = [
            entry(Role::System, String::new(), vec![Part::text("Be brief.")]),
            entry(Role::User, "ada".into(), vec![Part::text("List the files.")]),
            entry(Role::Assistant, String::new(), vec![call("c1", "ls", "{\"dir\": broken")]),
            entry(Role::Tool, String::new(), vec![result("c1", "a.rs", false)]),
            entry(Role::Assistant, String::new(), vec![Part::text("One file.")]),
        ];
        assert_eq!(entries, want);
    }

    #[test]
    fn a_line_is_one_entry_that_says_who_when_and_with_which_model() {
        let text = r#"{"role":"user","name":"ada","content":"hi","created_at":"2026-03-01T12:00:00.250+01:00"}
{"role":"assistant","content":"","model":"Opus"}
{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"ok"},{"type":"text","text":"go on"}]}
{"type":"user","message":{"role":"user","content":"wrapped"},"timestamp":"1970-01-01T00:00:01Z"}"#;

        let entries = parse_entries(text).unwrap();

        assert_eq!(entries.len(), 4);
        assert_eq!(entries[0].created_at, Some(WallTime(1_772_362_800_250)));
        assert_eq!(entries[0].entry.name, "ada");
        assert_eq!(entries[1].entry, entry(Role::Assistant, String::new(), vec![]));
        assert_eq!(entries[1].model, ModelName::parse("opus").ok());
        let mixed = vec![result("t1", "ok", false), Part::text("go on")];
        assert_eq!(entries[2].entry, entry(Role::User, String::new(), mixed));
        assert_eq!(entries[3].created_at, Some(WallTime(1_000)));
        assert_eq!(parse(text).unwrap().len(), 4, "an empty turn goes, a mixed one becomes two");
    }

    #[test]
    fn anthropic_results_become_a_turn_of_the_tool() {
        let text = r#"{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"I look."},{"type":"tool_use","id":"t1","name":"read","input":{"path":"a"}}]}
{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"no such file","is_error":true},{"type":"text","text":"Try b."}]}"#;

        let entries = parse(text).unwrap();

        let thinking = Part::Thinking {
            text: "hm".into(),
            signature: "s".into(),
            provider: "anthropic".into(),
        };
        let answer = vec![thinking, Part::text("I look."), call("t1", "read", r#"{"path":"a"}"#)];
        let want = [
            entry(Role::Assistant, String::new(), answer),
            entry(Role::Tool, String::new(), vec![result("t1", "no such file", true)]),
            entry(Role::User, String::new(), vec![Part::text("Try b.")]),
        ];
        assert_eq!(entries, want);
    }

    #[test]
    fn inline_images_are_images_and_other_blocks_stay_as_they_came() {
        let text = r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAEC"}},{"type":"image","source":{"type":"base64","media_type":"image/gif","data":"AAEC"}},{"type":"image_url","image_url":{"url":"https://example.com/a.png"}},{"type":"container_upload","file_id":"f"}]}"#;

        let parts = parse(text).unwrap().remove(0).parts;

        let image = |media_type: &str| Part::Image {
            media_type: media_type.into(),
            data: Bytes::from_static(&[0, 1, 2]),
        };
        assert_eq!(parts[..2], [image("image/png"), image("image/gif")]);
        assert!(
            matches!(&parts[2], Part::Opaque { provider, kind, .. } if provider == "openai" && kind == "image_url")
        );
        assert!(
            matches!(&parts[3], Part::Opaque { provider, kind, .. } if provider == "anthropic" && kind == "container_upload")
        );
    }

    #[test]
    fn turns_that_say_nothing_are_left_out_but_an_empty_result_stays() {
        let text = r#"{"role":"assistant","content":""}
{"role":"tool","tool_call_id":"c1","content":""}"#;

        let entries = parse(text).unwrap();

        let empty = Part::ToolResult { call_id: "c1".into(), parts: vec![], is_error: false };
        assert_eq!(entries, [entry(Role::Tool, String::new(), vec![empty])]);
    }

    #[track_caller]
    fn check(line: &str, want: &str) {
        let text = format!("{{\"role\":\"user\",\"content\":\"ok\"}}\n\n{line}");
        assert_eq!(parse(&text).unwrap_err().to_string(), format!("line 3: {want}"), "{line}");
    }

    #[test]
    fn a_broken_line_is_named_and_not_shown() {
        check(r#"{"role":"user""#, "not a JSON object (column 14)");
        check(r#"["sk-canary"]"#, "not a JSON object (column 1)");
        check(r#"{"content":"x"}"#, "`role` is missing");
        check(&"[".repeat(100_000), "nested too deep (column 128)");
        check(
            r#"{"role":"user","content":"x","created_at":"yesterday"}"#,
            "`created_at` must be a time as RFC 3339 writes it",
        );
        check(r#"{"role":7}"#, "`role` must be a string");
        check(
            r#"{"role":"sk-canary"}"#,
            "`role` must be system, developer, user, assistant or tool",
        );
        check(r#"{"role":"tool","content":"x"}"#, "`tool_call_id` is missing");
        check(r#"{"role":"user","content":3}"#, "`content` must be a string or a list of parts");
        check(
            r#"{"role":"user","content":["x"]}"#,
            "`content` must be a list of objects with a `type`",
        );
        check(
            r#"{"role":"assistant","tool_calls":[{"id":"1"}]}"#,
            "`tool_calls` must be a list of calls with a `function`",
        );
        check(
            r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,*"}}]}"#,
            "`data` must be an image in base 64",
        );
    }
}
