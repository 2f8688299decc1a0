//! Reads a chat or generate request: the window in force, and what is quietly dropped to fit it.

use serde_json::{Value, json};

use crate::sim::{
    models::Model,
    prompt::{Prompt, Role, Tool, Turn},
};

const TOO_LONG: &str = "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context length in settings, or use a model with a longer context length";

/// The prompt as the model gets to see it, or the message of a 400.
pub(crate) fn read(body: &Value, model: &Model, generates: bool) -> Result<Prompt, String> {
    let num_ctx = body
        .pointer("/options/num_ctx")
        .and_then(Value::as_u64)
        .unwrap_or(model.num_ctx)
        .min(model.window);
    let mut prompt = Prompt {
        model: model.id.clone(),
        // The default is to stream.
        stream: body.get("stream").and_then(Value::as_bool).unwrap_or(true),
        // Zero and below mean no limit, or to the end of the window.
        max_output: body
            .pointer("/options/num_predict")
            .and_then(Value::as_u64)
            .filter(|most| *most > 0),
        stop: crate::sim::anthropic::request::strings(body.pointer("/options/stop")),
        thinks: body
            .get("think")
            .is_some_and(|think| think.is_string() || think.as_bool() == Some(true)),
        num_ctx,
        ..Prompt::default()
    };
    if prompt.thinks && !model.can("thinking") {
        return Err(format!("\"{}\" does not support thinking", model.id));
    }
    prompt.turns = if generates { generated(body) } else { chat(body)? };
    tools(body, &mut prompt, model)?;
    fit(&mut prompt, body, model)?;
    if !model.shift {
        let left = num_ctx.saturating_sub(prompt.tokens());
        prompt.max_output = Some(prompt.max_output.map_or(left, |most| most.min(left)));
    }
    Ok(prompt)
}

fn chat(body: &Value) -> Result<Vec<Turn>, String> {
    let messages = body.get("messages").and_then(Value::as_array);
    messages.into_iter().flatten().map(turn).collect()
}

fn turn(message: &Value) -> Result<Turn, String> {
    let role = match message.get("role").and_then(Value::as_str) {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        other => return Err(format!("invalid role: {}", other.unwrap_or_default())),
    };
    let content = message.get("content").unwrap_or(&Value::Null);
    let Some(text) = content.as_str().or_else(|| content.is_null().then_some("")) else {
        return Err("json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string".into());
    };
    let mut turn = Turn::new(role, text.to_owned());
    turn.images =
        message.get("images").and_then(Value::as_array).map_or(0, |images| images.len() as u64);
    if let Some(calls) = message.get("tool_calls").filter(|calls| !calls.is_null()) {
        turn.text.push_str(&calls.to_string());
    }
    Ok(turn)
}

fn generated(body: &Value) -> Vec<Turn> {
    let text = |name: &str| {
        body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut turns: Vec<Turn> =
        text("system").map(|text| Turn::new(Role::System, text)).into_iter().collect();
    if let Some(prompt) = text("prompt") {
        let mut turn = Turn::new(Role::User, prompt);
        turn.images =
            body.get("images").and_then(Value::as_array).map_or(0, |images| images.len() as u64);
        turns.push(turn);
    }
    turns
}

fn tools(body: &Value, prompt: &mut Prompt, model: &Model) -> Result<(), String> {
    let Some(tools) = body.get("tools").and_then(Value::as_array).filter(|tools| !tools.is_empty())
    else {
        return Ok(());
    };
    if !model.can("tools") {
        return Err(format!("\"{}\" does not support tools", model.id));
    }
    for tool in tools {
        let name =
            tool.pointer("/function/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        prompt.tools.push(Tool {
            name,
            schema: tool.pointer("/function/parameters").cloned().unwrap_or(json!({})),
        });
    }
    prompt.tools_text = Value::Array(tools.clone()).to_string();
    Ok(())
}

/// Drops the oldest messages (never system ones, never the last) until the prompt fits; cuts the middle of the
/// last when that is not enough. All without a word, unless the request or the model forbids it.
fn fit(prompt: &mut Prompt, body: &Value, model: &Model) -> Result<(), String> {
    if prompt.tokens() <= prompt.num_ctx {
        return Ok(());
    }
    if body.get("truncate").and_then(Value::as_bool) == Some(false) || !model.shift {
        return Err(TOO_LONG.into());
    }
    while prompt.tokens() > prompt.num_ctx {
        let last = prompt.turns.len().saturating_sub(1);
        match prompt.turns[..last].iter().position(|turn| turn.role != Role::System) {
            Some(oldest) => drop(prompt.turns.remove(oldest)),
            None => break,
        }
    }
    if prompt.tokens() > prompt.num_ctx {
        prompt.cut_to = Some(prompt.num_ctx / 2 + 2);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::script::{ModelSpec, Wire};

    fn model(spec: ModelSpec) -> Model {
        Model::of(&ModelSpec { id: "llama3.2".into(), ..spec }, Wire::Ollama)
    }

    fn talk(words: &[usize]) -> Value {
        let turn = |tokens: &usize| json!({"role": "user", "content": "x".repeat(tokens * 4)});
        json!({"messages": words.iter().map(turn).collect::<Vec<_>>()})
    }

    #[test]
    fn streaming_is_the_default_and_the_window_is_4096() {
        let prompt = read(&talk(&[1]), &model(ModelSpec::default()), false).unwrap();

        assert!(prompt.stream);
        assert_eq!(prompt.num_ctx, 4_096);
    }

    #[test]
    fn the_oldest_messages_are_dropped_silently() {
        let prompt =
            read(&talk(&[3_000, 1_000, 500]), &model(ModelSpec::default()), false).unwrap();

        assert_eq!((prompt.turns.len(), prompt.tokens()), (2, 1_508));
    }

    #[test]
    fn a_last_message_that_is_too_big_leaves_half_the_window() {
        let prompt = read(&talk(&[9_000]), &model(ModelSpec::default()), false).unwrap();

        assert_eq!(prompt.tokens(), 2_050);
    }

    #[test]
    fn truncate_false_and_models_without_shift_answer_with_the_error() {
        let mut strict = talk(&[9_000]);
        strict["truncate"] = json!(false);
        let unshifted = model(ModelSpec { shift: Some(false), ..ModelSpec::default() });

        assert!(
            read(&strict, &model(ModelSpec::default()), false)
                .unwrap_err()
                .starts_with("the prompt is longer")
        );
        assert!(read(&talk(&[9_000]), &unshifted, false).is_err());
    }

    #[test]
    fn num_ctx_is_capped_at_the_trained_length() {
        let mut body = talk(&[9_000]);
        body["options"] = json!({"num_ctx": 1_000_000});

        let prompt = read(&body, &model(ModelSpec::default()), false).unwrap();

        assert_eq!((prompt.num_ctx, prompt.tokens()), (131_072, 9_004));
    }
}
