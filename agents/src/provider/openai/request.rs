//! A prompt in the words of chat completions.

use async_openai::types::chat::{
    ChatCompletionMessageToolCall, ChatCompletionMessageToolCalls,
    ChatCompletionRequestAssistantMessage, ChatCompletionRequestAssistantMessageContent,
    ChatCompletionRequestMessage, ChatCompletionRequestMessageContentPartImage,
    ChatCompletionRequestMessageContentPartText, ChatCompletionRequestSystemMessage,
    ChatCompletionRequestSystemMessageContent, ChatCompletionRequestToolMessage,
    ChatCompletionRequestToolMessageContent, ChatCompletionRequestUserMessage,
    ChatCompletionRequestUserMessageContent, ChatCompletionRequestUserMessageContentPart,
    ChatCompletionStreamOptions, ChatCompletionTool, ChatCompletionToolChoiceOption,
    ChatCompletionTools, CreateChatCompletionRequest, FunctionCall, FunctionObject, ImageUrl,
    StopConfiguration, ToolChoiceOptions,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use broker_config::Model;
use broker_proto::{Part, ToolChoice};
use http::Uri;

use crate::provider::prompt::{Prompt, Speaker, Turn, images, plain};

/// Whether the vendor itself is behind this address, whose models know the new names and refuse some old ones.
pub(super) fn is_vendor(base_url: &str) -> bool {
    let uri = base_url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    host == "openai.com" || host.ends_with(".openai.com") || host.ends_with(".openai.azure.com")
}

/// The vendor's reasoning models refuse any temperature but the default; its others and other servers take one.
fn takes_temperature(model: &Model) -> bool {
    let prefixes = ["gpt-3", "gpt-4", "chatgpt-4"];
    !is_vendor(&model.base_url) || prefixes.iter().any(|prefix| model.id.starts_with(prefix))
}

/// The body of `POST /chat/completions`.
///
/// The cap on output has two names. The vendor's newer models refuse `max_tokens`; many compatible servers know
/// nothing else and would ignore `max_completion_tokens`, so that an answer had no end. Both at once is refused by
/// the vendor. So the address decides.
#[expect(deprecated, reason = "`max_tokens` is the only name that compatible servers all know")]
pub(super) fn body(prompt: &Prompt, model: &Model) -> CreateChatCompletionRequest {
    let (max_completion_tokens, max_tokens) = match is_vendor(&model.base_url) {
        true => (prompt.max_output_tokens, None),
        false => (None, prompt.max_output_tokens),
    };
    // The API takes one decimal or two; what f32 loses of them is not written.
    let temperature = prompt.temperature.filter(|_| takes_temperature(model)).map(|t| t as f32);
    CreateChatCompletionRequest {
        model: prompt.model.clone(),
        messages: messages(prompt),
        max_completion_tokens,
        max_tokens,
        temperature,
        stop: (!prompt.stop_sequences.is_empty())
            .then(|| StopConfiguration::StringArray(prompt.stop_sequences.clone())),
        stream: Some(true),
        stream_options: Some(ChatCompletionStreamOptions {
            include_usage: Some(true),
            include_obfuscation: None,
        }),
        tools: (!prompt.tools.is_empty()).then(|| tools(prompt)),
        tool_choice: prompt.tool_choice.filter(|_| !prompt.tools.is_empty()).map(|choice| {
            ChatCompletionToolChoiceOption::Mode(match choice {
                ToolChoice::Auto => ToolChoiceOptions::Auto,
                ToolChoice::None => ToolChoiceOptions::None,
                ToolChoice::Required => ToolChoiceOptions::Required,
            })
        }),
        ..CreateChatCompletionRequest::default()
    }
}

fn tools(prompt: &Prompt) -> Vec<ChatCompletionTools> {
    let tool = |tool: &crate::provider::prompt::Tool| {
        ChatCompletionTools::Function(ChatCompletionTool {
            function: FunctionObject {
                name: tool.name.clone(),
                description: (!tool.description.is_empty()).then(|| tool.description.clone()),
                parameters: Some(tool.schema.clone()),
                strict: None,
            },
        })
    };
    prompt.tools.iter().map(tool).collect()
}

fn messages(prompt: &Prompt) -> Vec<ChatCompletionRequestMessage> {
    let mut messages = Vec::new();
    if !prompt.system.is_empty() {
        messages.push(ChatCompletionRequestMessage::System(ChatCompletionRequestSystemMessage {
            content: ChatCompletionRequestSystemMessageContent::Text(prompt.system.clone()),
            name: None,
        }));
    }
    for turn in &prompt.turns {
        match turn.speaker {
            Speaker::User => user(turn, &mut messages),
            Speaker::Assistant => messages.push(assistant(turn)),
        }
    }
    messages
}

/// Results are messages of their own. They hold text only, so their images follow with the user's words.
fn user(turn: &Turn, messages: &mut Vec<ChatCompletionRequestMessage>) {
    for part in &turn.parts {
        if let Part::ToolResult { call_id, parts, .. } = part {
            messages.push(ChatCompletionRequestMessage::Tool(ChatCompletionRequestToolMessage {
                content: ChatCompletionRequestToolMessageContent::Text(plain(parts)),
                tool_call_id: call_id.clone(),
            }));
        }
    }
    let content: Vec<_> = turn.parts.iter().flat_map(said).collect();
    if !content.is_empty() {
        messages.push(ChatCompletionRequestMessage::User(ChatCompletionRequestUserMessage {
            content: simplest(content),
            name: None,
        }));
    }
}

fn said(part: &Part) -> Vec<ChatCompletionRequestUserMessageContentPart> {
    match part {
        Part::Text(text) => vec![ChatCompletionRequestUserMessageContentPart::Text(
            ChatCompletionRequestMessageContentPartText {
                text: text.clone(),
                prompt_cache_breakpoint: None,
            },
        )],
        part => images(std::slice::from_ref(part))
            .into_iter()
            .map(|(kind, data)| image(kind, data))
            .collect(),
    }
}

fn image(media_type: &str, data: &[u8]) -> ChatCompletionRequestUserMessageContentPart {
    let url = format!("data:{media_type};base64,{}", STANDARD.encode(data));
    ChatCompletionRequestUserMessageContentPart::ImageUrl(
        ChatCompletionRequestMessageContentPartImage {
            image_url: ImageUrl { url, detail: None },
            prompt_cache_breakpoint: None,
        },
    )
}

/// Text alone is sent as a string: servers that take no images often take no lists either.
fn simplest(
    content: Vec<ChatCompletionRequestUserMessageContentPart>,
) -> ChatCompletionRequestUserMessageContent {
    let texts: Option<Vec<&str>> = content
        .iter()
        .map(|part| match part {
            ChatCompletionRequestUserMessageContentPart::Text(text) => Some(text.text.as_str()),
            _ => None,
        })
        .collect();
    match texts {
        Some(texts) => ChatCompletionRequestUserMessageContent::Text(texts.join("\n\n")),
        None => ChatCompletionRequestUserMessageContent::Array(content),
    }
}

fn assistant(turn: &Turn) -> ChatCompletionRequestMessage {
    let text = plain(&turn.parts);
    let calls: Vec<_> = turn
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::ToolCall { id, name, arguments } => Some(call(id, name, arguments)),
            _ => None,
        })
        .collect();
    // A turn of which nothing but foreign reasoning remains was dropped before; one with calls needs no text.
    let content = (!text.is_empty() || calls.is_empty()).then_some(text);
    ChatCompletionRequestMessage::Assistant(ChatCompletionRequestAssistantMessage {
        content: content.map(ChatCompletionRequestAssistantMessageContent::Text),
        tool_calls: (!calls.is_empty()).then_some(calls),
        ..ChatCompletionRequestAssistantMessage::default()
    })
}

fn call(id: &str, name: &str, arguments: &[u8]) -> ChatCompletionMessageToolCalls {
    let text = String::from_utf8_lossy(arguments).into_owned();
    let arguments = if text.trim().is_empty() { "{}".to_owned() } else { text };
    ChatCompletionMessageToolCalls::Function(ChatCompletionMessageToolCall {
        id: id.to_owned(),
        function: FunctionCall { name: name.to_owned(), arguments },
    })
}
