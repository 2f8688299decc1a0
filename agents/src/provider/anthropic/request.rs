//! A prompt in the words of the Messages API.

use base64::{Engine, engine::general_purpose::STANDARD};
use broker_config::Model;
use broker_proto::{Part, ToolChoice};
use serde_json::{Map, Value, json};

use crate::provider::prompt::{Prompt, Speaker, Turn, arguments};

/// Where nobody asked for a length: enough for a long answer, and every model allows it.
const USUAL_OUTPUT: u64 = 8_192;

/// The body of `POST /v1/messages`.
///
/// No `temperature`, `top_p`, `top_k` and no `thinking`: models after Opus 4.6 refuse them with a 400, whatever
/// the version, so a setting that some models take would make a request that others cannot answer.
pub(super) fn body(prompt: &Prompt, model: &Model) -> Value {
    let usual = model.max_output_tokens.min(USUAL_OUTPUT);
    let mut body = json!({
        "model": prompt.model,
        "max_tokens": prompt.max_output_tokens.map_or(usual, u64::from),
        "messages": messages(&prompt.turns),
        "stream": true,
    });
    if !prompt.system.is_empty() {
        body["system"] = json!(prompt.system);
    }
    if !prompt.stop_sequences.is_empty() {
        body["stop_sequences"] = json!(prompt.stop_sequences);
    }
    let tools = tools(prompt);
    if !tools.is_empty() {
        body["tools"] = Value::Array(tools);
        // Tools that only stand in for those of earlier turns must not be called.
        let choice =
            if prompt.tools.is_empty() { Some(ToolChoice::None) } else { prompt.tool_choice };
        if let Some(choice) = choice {
            body["tool_choice"] = match choice {
                ToolChoice::Auto => json!({"type": "auto"}),
                ToolChoice::None => json!({"type": "none"}),
                ToolChoice::Required => json!({"type": "any"}),
            };
        }
    }
    body
}

/// The tools on offer. Calls in earlier turns need a definition, so where none is given each gets an empty one.
fn tools(prompt: &Prompt) -> Vec<Value> {
    if prompt.tools.is_empty() {
        let mut names: Vec<&str> = Vec::new();
        for part in prompt.turns.iter().flat_map(|turn| &turn.parts) {
            if let Part::ToolCall { name, .. } = part
                && !names.contains(&name.as_str())
            {
                names.push(name);
            }
        }
        return names
            .into_iter()
            .map(|name| json!({"name": name, "input_schema": {"type": "object"}}))
            .collect();
    }
    let define = |tool: &crate::provider::prompt::Tool| {
        let mut schema = tool.schema.clone();
        if let Some(schema) = schema.as_object_mut() {
            schema.entry("type").or_insert_with(|| json!("object"));
        }
        let mut definition = json!({"name": tool.name, "input_schema": schema});
        if !tool.description.is_empty() {
            definition["description"] = json!(tool.description);
        }
        definition
    };
    prompt.tools.iter().map(define).collect()
}

fn messages(turns: &[Turn]) -> Vec<Value> {
    let mut messages = Vec::with_capacity(turns.len() + 1);
    if turns.first().is_some_and(|turn| turn.speaker == Speaker::Assistant) {
        messages.push(json!({"role": "user", "content": "(Earlier turns are left out.)"}));
    }
    for turn in turns {
        let role = match turn.speaker {
            Speaker::User => "user",
            Speaker::Assistant => "assistant",
        };
        let content: Vec<Value> = turn.parts.iter().filter_map(block).collect();
        messages.push(json!({"role": role, "content": content}));
    }
    messages
}

fn block(part: &Part) -> Option<Value> {
    Some(match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Thinking { text, signature, .. } => {
            json!({"type": "thinking", "thinking": text, "signature": signature})
        }
        Part::ToolCall { id, name, arguments: text } => {
            json!({"type": "tool_use", "id": plain_id(id), "name": name, "input": arguments(text)})
        }
        Part::ToolResult { call_id, parts, is_error } => {
            let content: Vec<Value> =
                parts.iter().filter(|part| is_result(part)).filter_map(block).collect();
            json!({"type": "tool_result", "tool_use_id": plain_id(call_id), "content": content, "is_error": is_error})
        }
        Part::Image { media_type, data } => json!({
            "type": "image",
            "source": {"type": "base64", "media_type": media_type, "data": STANDARD.encode(data)},
        }),
        Part::Opaque { data, .. } => {
            serde_json::from_slice::<Map<String, Value>>(data).ok().map(Value::Object)?
        }
        Part::Ref(_) => return None,
    })
}

/// A result holds text and images, and its text must not be empty either.
fn is_result(part: &Part) -> bool {
    match part {
        Part::Text(text) => !text.trim().is_empty(),
        Part::Image { .. } => true,
        _ => false,
    }
}

/// Ids of other providers may hold characters that are refused here; a call and its result change alike.
fn plain_id(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    if id.is_empty() { "_".to_owned() } else { id.chars().map(plain).collect() }
}
