//! Writes an answer as a Messages reply, whole or as events.

use serde_json::{Value, json};

use crate::sim::{
    answer::{Answer, Stop},
    models::Model,
    prompt::Prompt,
    reply::Chunk,
    text, tokens,
};

/// Text deltas between two pings.
const PING_EVERY: usize = 24;

/// The whole message.
pub(crate) fn whole(answer: &Answer, prompt: &Prompt, model: &Model, number: u64) -> Value {
    let mut content = Vec::new();
    if let Some(thinking) = &answer.thinking {
        content.push(
            json!({"type": "thinking", "thinking": thinking, "signature": signature(number)}),
        );
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    if let Some(call) = &answer.call {
        content.push(json!({"type": "tool_use", "id": call_id(number), "name": call.name, "input": call.arguments}));
    }
    let (reason, sequence, details) = stop(answer);
    let mut message = shell(model, number);
    message["content"] = Value::Array(content);
    message["stop_reason"] = reason;
    message["stop_sequence"] = sequence;
    message["stop_details"] = details;
    message["usage"] = input_usage(answer, prompt);
    message["usage"]["output_tokens"] = json!(answer.usage.output);
    message["usage"]["output_tokens_details"] = json!({"thinking_tokens": answer.usage.reasoning});
    message["usage"]["service_tier"] = json!("standard");
    message
}

/// The events of a stream, in their order.
pub(crate) fn chunks(answer: &Answer, prompt: &Prompt, model: &Model, number: u64) -> Vec<Chunk> {
    let mut events = Events { chunks: Vec::new(), index: 0, bytes: 0, base: 0 };
    let mut message = shell(model, number);
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["stop_sequence"] = Value::Null;
    message["usage"] = input_usage(answer, prompt);
    // A placeholder, as on the real wire.
    message["usage"]["output_tokens"] = json!(1);
    events.push(&json!({"type": "message_start", "message": message}));
    if let Some(thinking) = &answer.thinking {
        events.start(&json!({"type": "thinking", "thinking": "", "signature": ""}));
        events.deltas(
            text::pieces(thinking),
            |piece| json!({"type": "thinking_delta", "thinking": piece}),
        );
        events.delta(&json!({"type": "signature_delta", "signature": signature(number)}));
        events.stop();
    }
    if !answer.text.is_empty() {
        events.start(&json!({"type": "text", "text": ""}));
        events.deltas(
            text::pieces(&answer.text),
            |piece| json!({"type": "text_delta", "text": piece}),
        );
        events.stop();
    }
    if let Some(call) = &answer.call {
        events.start(
            &json!({"type": "tool_use", "id": call_id(number), "name": call.name, "input": {}}),
        );
        events.delta(&json!({"type": "input_json_delta", "partial_json": ""}));
        let arguments = call.arguments.to_string();
        events.deltas(
            text::slices(&arguments),
            |piece| json!({"type": "input_json_delta", "partial_json": piece}),
        );
        events.stop();
    }
    let (reason, sequence, _) = stop(answer);
    let usage = json!({"output_tokens": answer.usage.output, "output_tokens_details": {"thinking_tokens": answer.usage.reasoning}});
    events.end(answer.usage.output, &json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": sequence}, "usage": usage}));
    events.chunks.push(Chunk::last(event(&json!({"type": "message_stop"})), answer.usage.output));
    events.chunks
}

/// One event on the wire: `event:` and `data:`, both with the type.
pub(crate) fn event(data: &Value) -> String {
    let name = data.get("type").and_then(Value::as_str).unwrap_or("ping");
    format!("event: {name}\ndata: {data}\n\n")
}

struct Events {
    chunks: Vec<Chunk>,
    index: usize,
    /// Bytes of the block so far, and tokens of the blocks before it.
    bytes: usize,
    base: u64,
}

impl Events {
    fn tokens(&self) -> u64 {
        self.base + tokens::of_bytes(self.bytes)
    }

    fn push(&mut self, data: &Value) {
        let tokens = self.tokens();
        self.chunks.push(Chunk::new(event(data), tokens));
    }

    fn start(&mut self, block: &Value) {
        let index = self.index;
        self.push(&json!({"type": "content_block_start", "index": index, "content_block": block}));
        if index == 0 {
            self.push(&json!({"type": "ping"}));
        }
    }

    fn delta(&mut self, delta: &Value) {
        let index = self.index;
        self.push(&json!({"type": "content_block_delta", "index": index, "delta": delta}));
    }

    fn deltas<'a>(&mut self, pieces: impl Iterator<Item = &'a str>, delta: impl Fn(&str) -> Value) {
        for (place, piece) in pieces.enumerate() {
            if place > 0 && place.is_multiple_of(PING_EVERY) {
                self.push(&json!({"type": "ping"}));
            }
            self.bytes += piece.len();
            self.delta(&delta(piece));
        }
    }

    fn stop(&mut self) {
        let index = self.index;
        self.push(&json!({"type": "content_block_stop", "index": index}));
        self.base = self.tokens();
        self.bytes = 0;
        self.index += 1;
    }

    fn end(&mut self, output: u64, data: &Value) {
        self.chunks.push(Chunk::new(event(data), output));
    }
}

fn shell(model: &Model, number: u64) -> Value {
    json!({"id": format!("msg_01SIM{number:010}"), "type": "message", "role": "assistant", "model": model.id})
}

fn call_id(number: u64) -> String {
    format!("toolu_01SIM{number:010}")
}

/// Opaque to callers, who must send it back unchanged.
fn signature(number: u64) -> String {
    format!("EqSIM{number:010}==")
}

fn input_usage(answer: &Answer, prompt: &Prompt) -> Value {
    let usage = &answer.usage;
    let (short, long) =
        if prompt.caches_an_hour { (0, usage.cache_write) } else { (usage.cache_write, 0) };
    json!({
        "input_tokens": usage.uncached(),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
    })
}

fn stop(answer: &Answer) -> (Value, Value, Value) {
    let (reason, sequence) = match &answer.stop {
        Stop::End => ("end_turn", Value::Null),
        Stop::MaxTokens => ("max_tokens", Value::Null),
        Stop::Sequence(sequence) => ("stop_sequence", json!(sequence)),
        Stop::ToolUse => ("tool_use", Value::Null),
        Stop::Scripted(word) => (word.as_str(), Value::Null),
    };
    let details = match reason {
        "refusal" => {
            json!({"type": "refusal", "category": "other", "explanation": "This request was declined."})
        }
        _ => Value::Null,
    };
    (json!(reason), sequence, details)
}
