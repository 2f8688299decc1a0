//! Reads a chat request, and refuses it in the words of the real API.

use serde_json::Value;

use super::Problem;
use crate::sim::{
    anthropic::request::{flag, strings},
    models::{Model, is_openai_reasoning},
    prompt::{Choice, Prompt, Role, Tool, Turn},
};

const KNOWN: [&str; 34] = [
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "seed",
    "user",
    "metadata",
    "store",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "modalities",
    "audio",
    "prediction",
    "functions",
    "function_call",
    "web_search_options",
    "prompt_cache_key",
    "safety_identifier",
];

/// The prompt, or the problem of a 400.
pub(crate) fn read(body: &Value, model: &Model, strict: bool) -> Result<Prompt, Problem> {
    let missing = |name: &str| {
        Problem::invalid(
            "missing_required_parameter",
            name,
            format!("Missing required parameter: '{name}'."),
        )
    };
    let messages =
        body.get("messages").and_then(Value::as_array).ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(Problem::invalid("empty_array", "messages", message));
    }
    parameters(body, model, strict)?;
    let mut prompt = Prompt {
        model: model.id.clone(),
        stream: flag(body, "stream"),
        include_usage: body
            .pointer("/stream_options/include_usage")
            .and_then(Value::as_bool)
            .unwrap_or(false),
        max_output: max_output(body, model)?,
        stop: strings(body.get("stop")),
        ..Prompt::default()
    };
    for (index, message) in messages.iter().enumerate() {
        prompt.turns.push(turn(index, message, model)?);
    }
    pairing(messages)?;
    tools(body, &mut prompt, &missing)?;
    Ok(prompt)
}

fn reasons(model: &Model) -> bool {
    model.reasoning || is_openai_reasoning(&model.id)
}

fn parameters(body: &Value, model: &Model, strict: bool) -> Result<(), Problem> {
    let temperature = body.get("temperature").filter(|value| !value.is_null());
    if let Some(value) = temperature.filter(|value| reasons(model) && value.as_f64() != Some(1.0)) {
        let message = format!(
            "Unsupported value: 'temperature' does not support {value} with this model. Only the default (1) value is supported."
        );
        return Err(Problem::invalid("unsupported_value", "temperature", message));
    }
    if body.get("stream_options").is_some_and(|value| !value.is_null()) && !flag(body, "stream") {
        let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
        return Err(Problem::invalid("", "stream_options", message));
    }
    let unknown = body
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys())
        .find(|name| !KNOWN.contains(&name.as_str()));
    match unknown {
        Some(name) if strict => Err(Problem::invalid(
            "unknown_parameter",
            name,
            format!("Unrecognized request argument supplied: {name}"),
        )),
        _ => Ok(()),
    }
}

fn max_output(body: &Value, model: &Model) -> Result<Option<u64>, Problem> {
    let given = |name: &str| body.get(name).filter(|value| !value.is_null());
    let (old, new) = (given("max_tokens"), given("max_completion_tokens"));
    if old.is_some() && reasons(model) {
        let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        return Err(Problem::invalid("unsupported_parameter", "max_tokens", message));
    }
    let (name, value) = match (old, new) {
        (Some(_), Some(_)) => {
            let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
            return Err(Problem::invalid("invalid_parameter_combination", "", message));
        }
        (Some(value), None) => ("max_tokens", value),
        (None, Some(value)) => ("max_completion_tokens", value),
        (None, None) => return Ok(None),
    };
    let Some(asked) = value.as_u64().filter(|asked| *asked >= 1) else {
        let message = format!(
            "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
        );
        return Err(Problem::invalid("integer_below_min_value", name, message));
    };
    if asked > model.max_output {
        let message = format!(
            "{name} is too large: {asked}. This model supports at most {} completion tokens, whereas you provided {asked}.",
            model.max_output
        );
        return Err(Problem::invalid("invalid_value", name, message));
    }
    Ok(Some(asked))
}

fn turn(index: usize, message: &Value, model: &Model) -> Result<Turn, Problem> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool" | "function") => Role::Tool,
        other => {
            let text = format!(
                "Invalid value: '{}'. Supported values are: 'system', 'assistant', 'user', 'function', 'tool', and 'developer'.",
                other.unwrap_or_default()
            );
            return Err(Problem::invalid("invalid_value", format!("messages[{index}].role"), text));
        }
    };
    let mut turn = Turn::new(role, String::new());
    match message.get("content") {
        Some(Value::String(text)) => turn.text.clone_from(text),
        Some(Value::Array(parts)) => {
            for (place, part) in parts.iter().enumerate() {
                add_part(&mut turn, &format!("messages[{index}].content[{place}]"), part, model)?;
            }
        }
        _ if role == Role::Assistant => {}
        _ => {
            let text = format!(
                "Invalid value for 'content': expected a string, got null. (messages[{index}].content)"
            );
            return Err(Problem::invalid("", format!("messages.[{index}].content"), text));
        }
    }
    if let Some(calls) = message.get("tool_calls").filter(|calls| !calls.is_null()) {
        turn.text.push_str(&calls.to_string());
    }
    Ok(turn)
}

fn add_part(turn: &mut Turn, path: &str, part: &Value, model: &Model) -> Result<(), Problem> {
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "refusal") => {
            let text = part
                .get("text")
                .or_else(|| part.get("refusal"))
                .and_then(Value::as_str)
                .unwrap_or_default();
            if !turn.text.is_empty() {
                turn.text.push('\n');
            }
            turn.text.push_str(text);
        }
        Some("image_url") if !model.can("vision") => {
            let text = "Invalid content type. image_url is only supported by certain models.";
            return Err(Problem::invalid("", format!("{path}.type"), text));
        }
        Some("image_url") => turn.images += 1,
        Some("input_audio" | "file") => turn.text.push_str(&part.to_string()),
        other => {
            let text = format!(
                "Invalid value: '{}'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', 'audio', and 'file'.",
                other.unwrap_or_default()
            );
            return Err(Problem::invalid("invalid_value", format!("{path}.type"), text));
        }
    }
    Ok(())
}

/// A tool message answers a call, and every call is answered before the talk goes on.
fn pairing(messages: &[Value]) -> Result<(), Problem> {
    let mut open: Vec<&str> = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if message.get("role").and_then(Value::as_str) == Some("tool") {
            let id = message.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
            let Some(place) = open.iter().position(|call| *call == id) else {
                let text = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
                return Err(Problem::invalid("", format!("messages.[{index}].role"), text));
            };
            open.swap_remove(place);
            continue;
        }
        unanswered(&open, index)?;
        let calls = message.get("tool_calls").and_then(Value::as_array);
        open = calls
            .into_iter()
            .flatten()
            .filter_map(|call| call.get("id").and_then(Value::as_str))
            .collect();
    }
    unanswered(&open, messages.len())
}

fn unanswered(open: &[&str], index: usize) -> Result<(), Problem> {
    if open.is_empty() {
        return Ok(());
    }
    let text = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        open.join(", ")
    );
    Err(Problem::invalid("", format!("messages.[{index}].role"), text))
}

fn tools(
    body: &Value,
    prompt: &mut Prompt,
    missing: &dyn Fn(&str) -> Problem,
) -> Result<(), Problem> {
    let Some(tools) = body.get("tools").and_then(Value::as_array).filter(|tools| !tools.is_empty())
    else {
        return Ok(());
    };
    for (index, tool) in tools.iter().enumerate() {
        let name = tool.pointer("/function/name").and_then(Value::as_str);
        let name = name.ok_or_else(|| missing(&format!("tools[{index}].function.name")))?;
        let schema = tool.pointer("/function/parameters").cloned().unwrap_or_default();
        prompt.tools.push(Tool { name: name.to_owned(), schema });
    }
    prompt.tools_text = Value::Array(tools.clone()).to_string();
    prompt.choice = match body.get("tool_choice") {
        Some(Value::String(word)) if word == "none" => Choice::Never,
        Some(Value::String(word)) if word == "required" => Choice::Any,
        Some(choice @ Value::Object(_)) => Choice::Named(
            choice.pointer("/function/name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        ),
        _ => Choice::Auto,
    };
    Ok(())
}

/// What does not fit the window; `None` when it fits.
pub(crate) fn too_long(prompt: &Prompt, window: u64) -> Option<Problem> {
    let (tokens, most) = (prompt.tokens(), prompt.max_output.unwrap_or(0));
    let begin = format!("This model's maximum context length is {window} tokens. However,");
    let message = if tokens > window {
        format!(
            "{begin} your messages resulted in {tokens} tokens. Please reduce the length of the messages."
        )
    } else if tokens + most > window {
        format!(
            "{begin} you requested {} tokens ({tokens} in the messages, {most} in the completion). Please reduce the length of the messages or completion.",
            tokens + most
        )
    } else {
        return None;
    };
    Some(Problem::invalid("context_length_exceeded", "messages", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::{ModelSpec, Wire};
    use serde_json::json;

    fn read_for(id: &str, body: &Value) -> Result<Prompt, Problem> {
        read(
            body,
            &Model::of(&ModelSpec { id: id.into(), ..ModelSpec::default() }, Wire::OpenAi),
            false,
        )
    }

    fn hi() -> Value {
        json!({"role": "user", "content": "hi"})
    }

    #[track_caller]
    fn refused(id: &str, body: &Value, code: &str, words: &str) {
        let problem = read_for(id, body).unwrap_err();
        assert_eq!(problem.code, code);
        assert!(problem.message.contains(words), "{}", problem.message);
    }

    #[test]
    fn a_malformed_request_is_refused_in_the_apis_words() {
        refused("gpt-4o", &json!({}), "missing_required_parameter", "'messages'");
        refused("gpt-4o", &json!({"messages": []}), "empty_array", "minimum length 1");
        refused(
            "gpt-4o",
            &json!({"messages": [{"role": "robot", "content": "hi"}]}),
            "invalid_value",
            "'robot'",
        );
        refused(
            "gpt-4o",
            &json!({"messages": [hi()], "max_tokens": 99_999}),
            "invalid_value",
            "at most 16384",
        );
        refused(
            "gpt-4o",
            &json!({"messages": [hi()], "stream_options": {"include_usage": true}}),
            "",
            "only allowed when",
        );
    }

    #[test]
    fn reasoning_models_refuse_old_parameters_that_gpt_4o_takes() {
        let old = json!({"messages": [hi()], "max_tokens": 10});
        refused("gpt-5", &old, "unsupported_parameter", "Use 'max_completion_tokens' instead");
        refused(
            "o3-mini",
            &json!({"messages": [hi()], "temperature": 0.2}),
            "unsupported_value",
            "'temperature'",
        );

        assert_eq!(read_for("gpt-4o", &old).unwrap().max_output, Some(10));
    }

    #[test]
    fn tool_calls_and_tool_messages_belong_together() {
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "t", "arguments": "{}"}}]});
        let result = json!({"role": "tool", "tool_call_id": "call_1", "content": "ok"});
        refused(
            "gpt-4o",
            &json!({"messages": [hi(), call, hi()]}),
            "",
            "did not have response messages: call_1",
        );
        refused("gpt-4o", &json!({"messages": [hi(), result]}), "", "must be a response");

        assert!(
            read_for("gpt-4o", &json!({"messages": [hi(), call, result]}))
                .unwrap()
                .ends_with_tool_result()
        );
    }
}
