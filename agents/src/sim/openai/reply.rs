//! Writes an answer as a chat completion, whole or as chunks.

use serde_json::{Value, json};

use crate::sim::{
    answer::{Answer, Stop, Usage},
    models::Model,
    prompt::Prompt,
    reply::{Chunk, Moment},
    text, tokens,
};

pub(crate) fn whole(answer: &Answer, model: &Model, at: &Moment) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
    if let Some(call) = &answer.call {
        message["content"] = Value::Null;
        message["tool_calls"] = json!([{
            "id": call_id(at.number),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments.to_string()},
        }]);
    }
    let mut body = shell("chat.completion", model, at);
    body["choices"] = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish(answer)}]);
    body["usage"] = usage(&answer.usage);
    body
}

/// The chunks of a stream, `[DONE]` last.
pub(crate) fn chunks(answer: &Answer, prompt: &Prompt, model: &Model, at: &Moment) -> Vec<Chunk> {
    let shell = shell("chat.completion.chunk", model, at);
    let hidden = answer.usage.reasoning;
    let mut events = Vec::new();
    let mut push = |choices: Value, usage: Option<Value>, tokens: u64| {
        let mut body = shell.clone();
        body["choices"] = choices;
        if prompt.include_usage {
            body["usage"] = usage.unwrap_or_default();
        }
        events.push(Chunk::new(event(&body), tokens));
    };
    let choice = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
    push(
        choice(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null),
        None,
        hidden,
    );
    let mut bytes = 0;
    for piece in text::pieces(&answer.text) {
        bytes += piece.len();
        push(
            choice(json!({"content": piece}), Value::Null),
            None,
            hidden + tokens::of_bytes(bytes),
        );
    }
    if let Some(call) = &answer.call {
        let begun = json!({"tool_calls": [{"index": 0, "id": call_id(at.number), "type": "function", "function": {"name": call.name, "arguments": ""}}]});
        push(choice(begun, Value::Null), None, hidden);
        for piece in text::slices(&call.arguments.to_string()) {
            bytes += piece.len();
            let delta = json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]});
            push(choice(delta, Value::Null), None, hidden + tokens::of_bytes(bytes));
        }
    }
    push(choice(json!({}), finish(answer)), None, answer.usage.output);
    if prompt.include_usage {
        push(json!([]), Some(usage(&answer.usage)), answer.usage.output);
    }
    events.push(Chunk::last("data: [DONE]\n\n", answer.usage.output));
    events
}

pub(crate) fn event(body: &Value) -> String {
    format!("data: {body}\n\n")
}

fn shell(object: &str, model: &Model, at: &Moment) -> Value {
    json!({
        "id": format!("chatcmpl-SIM{:010}", at.number),
        "object": object,
        "created": at.wall.unix_timestamp(),
        "model": model.snapshot,
        "system_fingerprint": "fp_sim",
        "service_tier": "default",
    })
}

fn call_id(number: u64) -> String {
    format!("call_SIM{number:010}")
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.output,
        "total_tokens": usage.prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn finish(answer: &Answer) -> Value {
    match &answer.stop {
        Stop::End | Stop::Sequence(_) => json!("stop"),
        Stop::MaxTokens => json!("length"),
        Stop::ToolUse => json!("tool_calls"),
        Stop::Scripted(word) => json!(word),
    }
}
