//! Transcripts of coding agents, one JSON object a line, read into the conversation of a message.
//!
//! Two ways of writing are taken, also mixed: OpenAI's (`content` a string or a list, `tool_calls`, `tool_call_id`)
//! and Anthropic's (`content` blocks such as `tool_use` and `tool_result`). What only one provider knows is kept as
//! it came, as an opaque part.
//!
//! Invariant: an error names the line and the field, never what stands in it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker_proto::types::{Entry, Part, Role};
use bytes::Bytes;
use serde_json::{Map, Value};

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
    #[error("`{field}` is missing")]
    Missing { field: &'static str },
    #[error("`{field}` must be {want}")]
    Wrong { field: &'static str, want: &'static str },
}

/// Reads a transcript; blank lines and turns that say nothing are left out.
///
/// # Errors
/// [`Error`] for the first line that is no turn.
pub fn parse(text: &str) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            let turn = turn(line).map_err(|problem| Error { line: index + 1, problem })?;
            entries.extend(turn.into_iter().filter(|entry| !entry.parts.is_empty()));
        }
    }
    Ok(entries)
}

fn turn(line: &str) -> Result<Vec<Entry>, Problem> {
    let value: Value =
        serde_json::from_str(line).map_err(|err| Problem::NotJson { column: err.column() })?;
    let Value::Object(turn) = value else { return Err(Problem::NotJson { column: 1 }) };
    let name = match turn.get("name") {
        None | Some(Value::Null) => String::new(),
        Some(_) => text(&turn, "name")?.to_owned(),
    };
    match text(&turn, "role")? {
        "system" | "developer" => Ok(vec![entry(Role::System, name, content(&turn)?)]),
        "user" => Ok(user(name, content(&turn)?)),
        "assistant" => {
            let mut parts = content(&turn)?;
            parts.extend(tool_calls(&turn)?);
            Ok(vec![entry(Role::Assistant, name, parts)])
        }
        "tool" => {
            let call_id = text(&turn, "tool_call_id")?.to_owned();
            let result = Part::ToolResult { call_id, parts: content(&turn)?, is_error: false };
            Ok(vec![entry(Role::Tool, name, vec![result])])
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

/// Anthropic gives results of tools back in the user's turn, in front of what the user says.
fn user(name: String, parts: Vec<Part>) -> Vec<Entry> {
    let is_result = |part: &Part| matches!(part, Part::ToolResult { .. });
    let (results, said): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(is_result);
    vec![entry(Role::Tool, String::new(), results), entry(Role::User, name, said)]
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
            provider: "anthropic".to_owned(),
        }),
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
