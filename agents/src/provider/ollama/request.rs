//! A prompt in the words of `/api/chat`.

use base64::{Engine, engine::general_purpose::STANDARD};
use broker_config::Model;
use broker_proto::{Part, ToolChoice};
use ollama_rs::{
    generation::{
        chat::{ChatMessage, MessageRole, request::ChatMessageRequest},
        images::Image,
        parameters::{KeepAlive, TimeUnit},
        tools::{ToolCall, ToolCallFunction, ToolInfo},
    },
    models::ModelOptions,
};
use serde_json::{Value, json};

use crate::provider::prompt::{Prompt, Speaker, Turn, arguments, images, plain};

/// Where nobody asked for a length.
const USUAL_OUTPUT: u64 = 2_048;
/// Another `num_ctx` reloads the model, so prompts of about one size share one: powers of two from here on.
const SMALLEST_WINDOW: u64 = 4_096;

/// The window to ask for, and the most tokens to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) num_ctx: u64,
    pub(super) num_predict: u32,
}

impl Sizes {
    /// Room for the prompt, a tenth more because it is an estimate, and for the answer; never more than the model has.
    pub(super) fn of(prompt: &Prompt, model: &Model) -> Self {
        Self::for_tokens(prompt.estimated_tokens, prompt.max_output_tokens, model)
    }

    pub(super) fn for_tokens(tokens: u64, most_output: Option<u32>, model: &Model) -> Self {
        let usual = u32::try_from(model.max_output_tokens.min(USUAL_OUTPUT)).unwrap_or(u32::MAX);
        let num_predict = most_output.unwrap_or(usual);
        let wanted = tokens.saturating_add(tokens / 10).saturating_add(u64::from(num_predict));
        let rounded = wanted.max(SMALLEST_WINDOW).checked_next_power_of_two().unwrap_or(u64::MAX);
        Self { num_ctx: rounded.min(model.context_window), num_predict }
    }
}

/// The body of `POST /api/chat`.
///
/// `truncate` and `shift` are off: with them on, the server drops the oldest messages of a prompt that does not fit,
/// or of an answer that fills the window, and says nothing.
pub(super) fn body(prompt: &Prompt, model: &Model, sizes: Sizes) -> Value {
    let mut options = ModelOptions::default()
        .num_ctx(sizes.num_ctx)
        .num_predict(i32::try_from(sizes.num_predict).unwrap_or(i32::MAX));
    if let Some(temperature) = prompt.temperature {
        options = options.temperature(temperature as f32);
    }
    if !prompt.stop_sequences.is_empty() {
        options = options.stop(prompt.stop_sequences.clone());
    }
    let messages = messages(prompt);
    let words = messages.iter().map(|message| message.words.clone()).collect();
    let request = ChatMessageRequest::new(prompt.model.clone(), words)
        .options(options)
        .tools(tools(prompt))
        .keep_alive(KeepAlive::Until { time: model.keep_alive.as_secs(), unit: TimeUnit::Seconds });
    // What the crate's types have no field for.
    let mut body = serde_json::to_value(request).unwrap_or_default();
    body["stream"] = json!(true);
    body["truncate"] = json!(false);
    body["shift"] = json!(false);
    for (at, message) in messages.iter().enumerate() {
        let written = &mut body["messages"][at];
        if let Some(written) = written.as_object_mut() {
            written.retain(|_, value| !value.is_null() && value != &json!([]));
        }
        if let Some(name) = &message.tool_name {
            written["tool_name"] = json!(name);
        }
        for (call, id) in message.call_ids.iter().enumerate() {
            written["tool_calls"][call]["id"] = json!(id);
        }
    }
    body
}

/// The body that loads a model and asks nothing: no messages, and the window that a prompt would be given.
pub(super) fn empty(model: &Model, sizes: Sizes) -> Value {
    json!({
        "model": model.id,
        "messages": [],
        "stream": false,
        "options": {"num_ctx": sizes.num_ctx},
        "keep_alive": format!("{}s", model.keep_alive.as_secs()),
    })
}

/// A message, and what the crate's type for it leaves out.
struct Message {
    words: ChatMessage,
    tool_name: Option<String>,
    call_ids: Vec<String>,
}

impl From<ChatMessage> for Message {
    fn from(words: ChatMessage) -> Self {
        Self { words, tool_name: None, call_ids: Vec::new() }
    }
}

fn messages(prompt: &Prompt) -> Vec<Message> {
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(ChatMessage::system(prompt.system.clone()).into());
    }
    let mut names = Vec::new();
    for turn in &prompt.turns {
        match turn.speaker {
            Speaker::User => user(turn, &names, &mut messages),
            Speaker::Assistant => {
                names = calls(turn);
                messages.push(assistant(turn));
            }
        }
    }
    messages
}

fn calls(turn: &Turn) -> Vec<(String, String)> {
    let calls = turn.parts.iter().filter_map(|part| match part {
        Part::ToolCall { id, name, .. } => Some((id.clone(), name.clone())),
        _ => None,
    });
    calls.collect()
}

/// Results are messages of their own and name their tool; their images go with the user's words.
fn user(turn: &Turn, names: &[(String, String)], messages: &mut Vec<Message>) {
    for part in &turn.parts {
        if let Part::ToolResult { call_id, parts, .. } = part {
            let name = names.iter().find(|(id, _)| id == call_id).map(|(_, name)| name.clone());
            let words = ChatMessage::tool(plain(parts));
            messages.push(Message { words, tool_name: name, call_ids: Vec::new() });
        }
    }
    let others: Vec<Part> = turn
        .parts
        .iter()
        .filter(|part| !matches!(part, Part::ToolResult { .. }))
        .cloned()
        .collect();
    let text = plain(&others);
    let images: Vec<Image> = images(&turn.parts)
        .into_iter()
        .map(|(_, data)| Image::from_base64(STANDARD.encode(data)))
        .collect();
    if !text.is_empty() || !images.is_empty() {
        let mut message = ChatMessage::user(text);
        message.images = (!images.is_empty()).then_some(images);
        messages.push(message.into());
    }
}

fn assistant(turn: &Turn) -> Message {
    let mut words = ChatMessage::new(MessageRole::Assistant, plain(&turn.parts));
    for part in &turn.parts {
        if let Part::ToolCall { name, arguments: text, .. } = part {
            let function = ToolCallFunction { name: name.clone(), arguments: arguments(text) };
            words.tool_calls.push(ToolCall { function });
        }
    }
    Message {
        words,
        tool_name: None,
        call_ids: calls(turn).into_iter().map(|(id, _)| id).collect(),
    }
}

/// The wire has no choice of tools: none are offered when none may be called.
fn tools(prompt: &Prompt) -> Vec<ToolInfo> {
    if prompt.tool_choice == Some(ToolChoice::None) {
        return Vec::new();
    }
    let tool = |tool: &crate::provider::prompt::Tool| {
        let function =
            json!({"name": tool.name, "description": tool.description, "parameters": tool.schema});
        serde_json::from_value(json!({"type": "function", "function": function})).ok()
    };
    prompt.tools.iter().filter_map(tool).collect()
}
