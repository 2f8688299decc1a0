//! Reads a Messages request, and refuses it in the words of the real API.

use serde_json::Value;

use crate::sim::{
    models::{Model, claude_version},
    prompt::{Choice, Prompt, Role, Tool, Turn},
};

const BLOCKS: [&str; 11] = [
    "text",
    "image",
    "document",
    "thinking",
    "redacted_thinking",
    "tool_use",
    "tool_result",
    "search_result",
    "server_tool_use",
    "web_search_tool_result",
    "container_upload",
];
const KNOWN: [&str; 18] = [
    "model",
    "max_tokens",
    "messages",
    "system",
    "stream",
    "stop_sequences",
    "metadata",
    "tools",
    "tool_choice",
    "thinking",
    "temperature",
    "top_p",
    "top_k",
    "service_tier",
    "container",
    "context_management",
    "mcp_servers",
    "output_config",
];
const SAMPLING: [&str; 3] = ["temperature", "top_p", "top_k"];

/// How a request is to be read.
pub(crate) struct Reading<'a> {
    pub(crate) model: &'a Model,
    pub(crate) version: &'a str,
    /// `count_tokens`: without `max_tokens`.
    pub(crate) counts: bool,
    pub(crate) strict: bool,
}

/// The prompt, or the message of a 400.
pub(crate) fn read(body: &Value, reading: &Reading<'_>) -> Result<Prompt, String> {
    let max_output = max_tokens(body, reading)?;
    parameters(body, reading)?;
    let messages =
        body.get("messages").and_then(Value::as_array).ok_or("messages: Field required")?;
    if messages.is_empty() {
        return Err("messages: at least one message is required".into());
    }
    let mut prompt = Prompt {
        model: reading.model.id.clone(),
        stream: flag(body, "stream"),
        max_output,
        stop: strings(body.get("stop_sequences")),
        thinks: matches!(
            body.pointer("/thinking/type").and_then(Value::as_str),
            Some("enabled" | "adaptive")
        ),
        caches_an_hour: body.to_string().contains(r#""ttl":"1h""#),
        ..Prompt::default()
    };
    if let Some(system) = body.get("system").filter(|system| !system.is_null()) {
        prompt.turns.push(turn(Role::System, "system", system, reading)?);
    }
    for (index, message) in messages.iter().enumerate() {
        let role = role(index, message)?;
        let path = format!("messages.{index}");
        let content =
            message.get("content").ok_or_else(|| format!("{path}.content: Field required"))?;
        prompt.turns.push(turn(role, &path, content, reading)?);
    }
    if role(messages.len() - 1, &messages[messages.len() - 1])? == Role::Assistant
        && locks_sampling(&reading.model.id)
    {
        return Err("This model does not support assistant message prefill. The conversation must end with a user message.".into());
    }
    pairing(messages)?;
    tools(body, &mut prompt, reading)?;
    Ok(prompt)
}

fn max_tokens(body: &Value, reading: &Reading<'_>) -> Result<Option<u64>, String> {
    if reading.counts {
        return Ok(None);
    }
    let field = body
        .get("max_tokens")
        .filter(|value| !value.is_null())
        .ok_or("max_tokens: Field required")?;
    let asked = field.as_i64().ok_or("max_tokens: Input should be a valid integer")?;
    let Some(asked) = u64::try_from(asked).ok().filter(|asked| *asked >= 1) else {
        return Err("max_tokens: Input should be greater than or equal to 1".into());
    };
    let (most, id) = (reading.model.max_output, &reading.model.id);
    if asked > most {
        return Err(format!(
            "max_tokens: {asked} > {most}, which is the maximum allowed number of output tokens for {id}"
        ));
    }
    Ok(Some(asked))
}

/// Models after Opus 4.6 take no sampling parameters and no prefill.
fn locks_sampling(id: &str) -> bool {
    claude_version(id) > (4, 6)
}

fn parameters(body: &Value, reading: &Reading<'_>) -> Result<(), String> {
    let id = &reading.model.id;
    for name in SAMPLING {
        let Some(value) = body.get(name).filter(|value| !value.is_null()) else { continue };
        if reading.version == super::NEWEST_VERSION {
            return Err(format!("{name}: Extra inputs are not permitted"));
        }
        let is_default = name != "top_k"
            && value.as_f64().is_some_and(|value| (value - 1.0).abs() < f64::EPSILON);
        if locks_sampling(id) && !is_default {
            return Err(format!("{name}: sampling parameters are not supported for {id}"));
        }
    }
    let (major, minor) = claude_version(id);
    if major >= 5 && body.pointer("/thinking/type").and_then(Value::as_str) == Some("enabled") {
        return Err(format!(
            "thinking.type: \"enabled\" is not supported for {id}; use \"adaptive\""
        ));
    }
    let always_thinks = (id.contains("opus") && (major, minor) >= (5, 5))
        || (id.contains("fable") && (major, minor) >= (5, 1));
    let forced =
        matches!(body.pointer("/tool_choice/type").and_then(Value::as_str), Some("any" | "tool"));
    if always_thinks && forced {
        return Err("tool_choice: forcing tool use is not supported while thinking is on".into());
    }
    let unknown = body
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys())
        .find(|name| !KNOWN.contains(&name.as_str()));
    match unknown {
        Some(name) if reading.strict => Err(format!("{name}: Extra inputs are not permitted")),
        _ => Ok(()),
    }
}

fn role(index: usize, message: &Value) -> Result<Role, String> {
    match (index, message.get("role").and_then(Value::as_str)) {
        (_, Some("user")) => Ok(Role::User),
        (0, Some("assistant")) => Err("messages: first message must use the \"user\" role".into()),
        (_, Some("assistant")) => Ok(Role::Assistant),
        (_, Some("system")) => Err("messages: Unexpected role \"system\". The Messages API accepts a top-level `system` parameter, not \"system\" as an input message role.".into()),
        (_, Some(_)) => Err(format!("messages.{index}.role: Input should be 'user' or 'assistant'")),
        (_, None) => Err(format!("messages.{index}.role: Field required")),
    }
}

fn turn(role: Role, path: &str, content: &Value, reading: &Reading<'_>) -> Result<Turn, String> {
    let mut turn = Turn::new(role, String::new());
    match content {
        Value::String(text) if text.is_empty() => {
            return Err(format!(
                "{path}: all messages must have non-empty content except for the optional final assistant message"
            ));
        }
        Value::String(text) => turn.text.clone_from(text),
        Value::Array(blocks) => {
            for (index, block) in blocks.iter().enumerate() {
                add_block(&mut turn, &format!("{path}.content.{index}"), block, reading)?;
            }
        }
        _ => return Err(format!("{path}.content: Input should be a valid string or list")),
    }
    Ok(turn)
}

fn add_block(
    turn: &mut Turn,
    path: &str,
    block: &Value,
    reading: &Reading<'_>,
) -> Result<(), String> {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    let is_newest = reading.version == super::NEWEST_VERSION;
    turn.marked |= block.get("cache_control").is_some_and(|mark| !mark.is_null());
    match (kind, turn.role) {
        ("text", role) => {
            let text = block
                .get("text")
                .and_then(Value::as_str)
                .ok_or_else(|| format!("{path}.text.text: Field required"))?;
            if text.is_empty() {
                return Err("messages: text content blocks must be non-empty".into());
            }
            let cites =
                block.get("citations").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
            if is_newest && role == Role::User && cites {
                return Err(format!("{path}.citations: Extra inputs are not permitted"));
            }
            if !turn.text.is_empty() {
                turn.text.push('\n');
            }
            turn.text.push_str(text);
        }
        ("image", _) if !reading.model.can("vision") => {
            return Err(format!("{path}: image input is not supported for {}", reading.model.id));
        }
        ("image", _) => turn.images += 1,
        ("document", Role::Assistant) if is_newest => {
            return Err(format!("{path}: document blocks are not permitted in assistant messages"));
        }
        ("tool_result", Role::User) => {
            turn.is_tool_result = true;
            turn.images += images_in(block.get("content"));
            turn.text.push_str(&text_in(block.get("content")));
        }
        (known, _) if BLOCKS.contains(&known) => turn.text.push_str(&block.to_string()),
        (unknown, _) => {
            return Err(format!(
                "{path}.type: Input tag '{unknown}' found using 'type' does not match any of the expected tags"
            ));
        }
    }
    Ok(())
}

fn text_in(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => blocks
            .iter()
            .filter_map(|block| block.get("text").and_then(Value::as_str))
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}

fn images_in(content: Option<&Value>) -> u64 {
    let blocks = content.and_then(Value::as_array);
    blocks
        .into_iter()
        .flatten()
        .filter(|block| block.get("type").and_then(Value::as_str) == Some("image"))
        .count() as u64
}

/// Every call has its result in the next message, and no result stands without its call.
fn pairing(messages: &[Value]) -> Result<(), String> {
    for (index, message) in messages.iter().enumerate() {
        let calls = ids(message, "tool_use", "id");
        let results = messages
            .get(index + 1)
            .map(|next| ids(next, "tool_result", "tool_use_id"))
            .unwrap_or_default();
        let open: Vec<&str> = calls
            .iter()
            .filter(|(_, id)| !results.iter().any(|(_, done)| done == id))
            .map(|(_, id)| *id)
            .collect();
        if !open.is_empty() && index + 1 < messages.len() {
            return Err(format!(
                "messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                open.join(", ")
            ));
        }
        let before = index
            .checked_sub(1)
            .map(|before| ids(&messages[before], "tool_use", "id"))
            .unwrap_or_default();
        for (place, id) in ids(message, "tool_result", "tool_use_id") {
            if !before.iter().any(|(_, call)| *call == id) {
                return Err(format!(
                    "messages.{index}.content.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                ));
            }
        }
    }
    Ok(())
}

fn ids<'a>(message: &'a Value, kind: &str, field: &str) -> Vec<(usize, &'a str)> {
    let blocks = message.get("content").and_then(Value::as_array);
    blocks
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, block)| block.get("type").and_then(Value::as_str) == Some(kind))
        .map(|(place, block)| (place, block.get(field).and_then(Value::as_str).unwrap_or_default()))
        .collect()
}

fn tools(body: &Value, prompt: &mut Prompt, reading: &Reading<'_>) -> Result<(), String> {
    let Some(tools) = body.get("tools").and_then(Value::as_array).filter(|tools| !tools.is_empty())
    else {
        return Ok(());
    };
    if !reading.model.can("tools") {
        return Err(format!("tools: not supported for {}", reading.model.id));
    }
    for (index, tool) in tools.iter().enumerate() {
        let name = tool
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("tools.{index}.name: Field required"))?;
        // Server tools have a type and no schema.
        let is_custom = matches!(tool.get("type").and_then(Value::as_str), None | Some("custom"));
        let schema = tool.get("input_schema");
        if is_custom && schema.is_none() {
            return Err(format!("tools.{index}.custom.input_schema: Field required"));
        }
        if is_custom {
            prompt
                .tools
                .push(Tool { name: name.to_owned(), schema: schema.cloned().unwrap_or_default() });
        }
    }
    prompt.tools_text = Value::Array(tools.clone()).to_string();
    prompt.choice = match body.pointer("/tool_choice/type").and_then(Value::as_str) {
        Some("none") => Choice::Never,
        Some("any") => Choice::Any,
        Some("tool") => Choice::Named(
            body.pointer("/tool_choice/name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        ),
        _ => Choice::Auto,
    };
    Ok(())
}

/// What does not fit the window; `None` when it fits.
pub(crate) fn too_long(prompt: &Prompt, window: u64) -> Option<String> {
    let (tokens, most) = (prompt.tokens(), prompt.max_output.unwrap_or(0));
    if tokens > window {
        return Some(format!("prompt is too long: {tokens} tokens > {window} maximum"));
    }
    (tokens + most > window).then(|| {
        format!(
            "input length and `max_tokens` exceed context limit: {tokens} + {most} > {window}, decrease input length or `max_tokens` and try again"
        )
    })
}

pub(crate) fn flag(body: &Value, name: &str) -> bool {
    body.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// A string, or a list of them.
pub(crate) fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::{ModelSpec, Wire};
    use serde_json::json;

    fn read_with(version: &str, body: &Value) -> Result<Prompt, String> {
        let id =
            body.get("model").and_then(Value::as_str).unwrap_or("claude-sonnet-4-5").to_owned();
        let model = Model::of(&ModelSpec { id, ..ModelSpec::default() }, Wire::Anthropic);
        read(body, &Reading { model: &model, version, counts: false, strict: false })
    }

    #[track_caller]
    fn refused(body: &Value, words: &str) {
        let message = read_with("2023-06-01", body).unwrap_err();
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn a_malformed_request_is_refused_in_the_apis_words() {
        let hi = json!([{"role": "user", "content": "hi"}]);
        refused(&json!({"messages": hi}), "max_tokens: Field required");
        refused(&json!({"max_tokens": 0, "messages": hi}), "greater than or equal to 1");
        refused(
            &json!({"max_tokens": 999_999, "messages": hi}),
            "999999 > 64000, which is the maximum",
        );
        refused(&json!({"max_tokens": 9, "messages": []}), "at least one message");
        refused(
            &json!({"max_tokens": 9, "messages": [{"role": "assistant", "content": "hi"}]}),
            "first message must use",
        );
        refused(
            &json!({"max_tokens": 9, "messages": [{"role": "tool", "content": "hi"}]}),
            "should be 'user' or 'assistant'",
        );
        refused(
            &json!({"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}),
            "text content blocks must be non-empty",
        );
    }

    #[test]
    fn a_tool_call_without_its_result_is_refused_and_the_other_way_round() {
        let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "t", "input": {}}]});
        let result = json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}]});
        let hi = json!({"role": "user", "content": "hi"});
        refused(
            &json!({"max_tokens": 9, "messages": [hi, call, hi]}),
            "without `tool_result` blocks",
        );
        refused(&json!({"max_tokens": 9, "messages": [hi, result]}), "unexpected `tool_use_id`");

        let prompt =
            read_with("2023-06-01", &json!({"max_tokens": 9, "messages": [hi, call, result]}))
                .unwrap();
        assert!(prompt.ends_with_tool_result());
    }

    #[test]
    fn sampling_is_refused_by_the_new_version_and_by_new_models() {
        let body = |model: &str| json!({"model": model, "max_tokens": 9, "temperature": 0.2, "messages": [{"role": "user", "content": "hi"}]});

        assert!(read_with("2023-06-01", &body("claude-sonnet-4-5")).is_ok());
        assert_eq!(
            read_with("2026-10-21", &body("claude-sonnet-4-5")).unwrap_err(),
            "temperature: Extra inputs are not permitted"
        );
        refused(&body("claude-opus-5-5"), "temperature");
    }

    #[test]
    fn a_window_is_overrun_by_the_prompt_or_by_prompt_and_answer() {
        let mut prompt = Prompt {
            max_output: Some(50),
            turns: vec![Turn::new(Role::User, "x".repeat(400))],
            ..Prompt::default()
        };

        assert_eq!(
            too_long(&prompt, 100).as_deref(),
            Some("prompt is too long: 104 tokens > 100 maximum")
        );
        assert!(
            too_long(&prompt, 150)
                .unwrap()
                .starts_with("input length and `max_tokens` exceed context limit: 104 + 50 > 150")
        );
        prompt.max_output = Some(40);
        assert_eq!(too_long(&prompt, 150), None);
    }
}
