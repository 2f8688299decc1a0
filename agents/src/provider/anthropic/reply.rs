//! The event stream of a message, as a state machine.

use std::collections::{BTreeMap, VecDeque};

use broker_proto::{Failure, FailureClass, Part, Provenance, StopReason, Usage};
use bytes::Bytes;
use http::HeaderMap;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{NAME, errors};
use crate::provider::{
    Chunk, Clock,
    decode::{Decoder, malformed, truncated},
};

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: u64,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {
        index: u64,
    },
    MessageDelta {
        delta: Ending,
        #[serde(default)]
        usage: Option<Counts>,
    },
    MessageStop,
    Error,
    /// `ping`, and whatever is added without notice.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Ending {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// Cumulative: the last count of each that is not null holds.
#[derive(Deserialize, Default)]
struct Counts {
    #[serde(default, deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(default)]
    output_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default, deserialize_with = "count")]
    thinking_tokens: Option<u64>,
}

/// What is no count is unknown: it is not worth an answer that can be read.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_u64())
}

/// A block that has begun and not ended.
struct Block {
    part: u32,
    kind: Kind,
}

enum Kind {
    Text,
    Thinking { signature: String },
    ToolCall { input: Value, has_arguments: bool },
    Opaque { block: Value, input: String },
}

/// Reads one message.
pub(super) struct Reply {
    headers: HeaderMap,
    clock: Clock,
    blocks: BTreeMap<u64, Block>,
    parts: u32,
    usage: Usage,
    stop_reason: Option<StopReason>,
}

impl Reply {
    pub(super) fn new(headers: HeaderMap, clock: Clock) -> Self {
        let usage = Usage { provenance: Provenance::Partial, ..Usage::default() };
        Self { headers, clock, blocks: BTreeMap::new(), parts: 0, usage, stop_reason: None }
    }

    fn count(&mut self, counts: &Counts) {
        let usage = &mut self.usage;
        usage.input_tokens = counts.input_tokens.or(usage.input_tokens);
        usage.cache_write_tokens = counts.cache_creation_input_tokens.or(usage.cache_write_tokens);
        usage.cache_read_tokens = counts.cache_read_input_tokens.or(usage.cache_read_tokens);
        usage.output_tokens = counts.output_tokens.or(usage.output_tokens);
        let thinking =
            counts.output_tokens_details.as_ref().and_then(|details| details.thinking_tokens);
        usage.reasoning_tokens = thinking.or(usage.reasoning_tokens);
    }

    fn open(&mut self, index: u64, mut block: Value, out: &mut VecDeque<Chunk>) {
        self.close(index, out);
        let part = self.parts;
        self.parts += 1;
        let mut text = |name: &str| match block.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let kind = text("type");
        let (kind, opening, first) = match kind.as_str() {
            "text" => (Kind::Text, Part::text(""), text("text")),
            "thinking" => {
                (Kind::Thinking { signature: text("signature") }, thinking(""), text("thinking"))
            }
            "tool_use" => {
                let opening =
                    Part::ToolCall { id: text("id"), name: text("name"), arguments: Bytes::new() };
                let input = block.get_mut("input").map(Value::take).unwrap_or_default();
                (Kind::ToolCall { input, has_arguments: false }, opening, String::new())
            }
            _ => {
                let opening = opaque(&kind, Bytes::new());
                block["type"] = json!(kind);
                (Kind::Opaque { block, input: String::new() }, opening, String::new())
            }
        };
        out.push_back(Chunk::PartStart { part, opening });
        if !first.is_empty() {
            out.push_back(Chunk::Delta { part, text: first });
        }
        self.blocks.insert(index, Block { part, kind });
    }

    fn delta(&mut self, index: u64, delta: Delta, out: &mut VecDeque<Chunk>) {
        // Some gateways leave out the start of a text block.
        if !self.blocks.contains_key(&index) && matches!(delta, Delta::Text { .. }) {
            self.open(index, json!({"type": "text"}), out);
        }
        let Some(block) = self.blocks.get_mut(&index) else { return };
        let part = block.part;
        let text = match (&mut block.kind, delta) {
            (Kind::Text, Delta::Text { text }) => text,
            (Kind::Thinking { .. }, Delta::Thinking { thinking }) => thinking,
            (Kind::Thinking { signature }, Delta::Signature { signature: more }) => {
                signature.push_str(&more);
                return;
            }
            (Kind::ToolCall { has_arguments, .. }, Delta::InputJson { partial_json }) => {
                *has_arguments |= !partial_json.is_empty();
                partial_json
            }
            (Kind::Opaque { input, .. }, Delta::InputJson { partial_json }) => {
                input.push_str(&partial_json);
                return;
            }
            _ => return,
        };
        if !text.is_empty() {
            out.push_back(Chunk::Delta { part, text });
        }
    }

    fn close(&mut self, index: u64, out: &mut VecDeque<Chunk>) {
        let Some(Block { part, kind }) = self.blocks.remove(&index) else { return };
        let closing = match kind {
            Kind::Text => None,
            Kind::Thinking { signature } => (!signature.is_empty()).then(|| thinking(&signature)),
            Kind::ToolCall { input, has_arguments } => {
                if !has_arguments {
                    // No piece of JSON at all means the empty object, or the one that came with the start.
                    let text = if input.is_object() { input.to_string() } else { "{}".to_owned() };
                    out.push_back(Chunk::Delta { part, text });
                }
                None
            }
            Kind::Opaque { mut block, input } => {
                if let Ok(input) = serde_json::from_str::<Value>(&input) {
                    block["input"] = input;
                }
                let kind = block["type"].as_str().unwrap_or_default().to_owned();
                Some(opaque(&kind, block.to_string().into()))
            }
        };
        out.push_back(Chunk::PartEnd { part, closing });
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) {
        let open: Vec<u64> = self.blocks.keys().copied().collect();
        for index in open {
            self.close(index, out);
        }
        self.usage.provenance = Provenance::Reported;
        out.push_back(Chunk::Done { usage: self.usage, stop_reason: self.stop_reason });
    }
}

impl Decoder for Reply {
    fn record(&mut self, text: &str, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        let event = serde_json::from_str(text)
            .map_err(|_| malformed(NAME, "an event that cannot be read"))?;
        match event {
            Event::MessageStart { message } => {
                let mut counts = message.usage.unwrap_or_default();
                // A placeholder: the true count comes at the end.
                counts.output_tokens = None;
                self.count(&counts);
                out.push_back(Chunk::Usage(self.usage));
            }
            Event::ContentBlockStart { index, content_block } => {
                self.open(index, content_block, out)
            }
            Event::ContentBlockDelta { index, delta } => self.delta(index, delta, out),
            Event::ContentBlockStop { index } => self.close(index, out),
            Event::MessageDelta { delta, usage } => {
                self.count(&usage.unwrap_or_default());
                match delta.stop_reason.as_deref() {
                    None => {}
                    Some("refusal") => {
                        let mut failure = Failure::new(
                            FailureClass::ContentRefused,
                            NAME,
                            "the model refused to answer",
                        );
                        failure.another_model_may_help = true;
                        return Err(failure);
                    }
                    Some(reason) => self.stop_reason = Some(stop_reason(reason)),
                }
            }
            Event::MessageStop => self.finish(out),
            Event::Error => {
                let body = serde_json::from_str(text).unwrap_or_default();
                return Err(errors::in_stream(body, &self.headers, self.clock.now()));
            }
            Event::Other => out.push_back(Chunk::Alive),
        }
        Ok(())
    }

    fn end(&mut self, _: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        Err(truncated(NAME))
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn provider(&self) -> &'static str {
        NAME
    }
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "max_tokens" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "tool_use" => StopReason::ToolCall,
        "pause_turn" => StopReason::Paused,
        "model_context_window_exceeded" => StopReason::WindowFull,
        _ => StopReason::End,
    }
}

fn thinking(signature: &str) -> Part {
    Part::Thinking {
        text: String::new(),
        signature: signature.to_owned(),
        provider: NAME.to_owned(),
    }
}

fn opaque(kind: &str, data: Bytes) -> Part {
    Part::Opaque { provider: NAME.to_owned(), kind: kind.to_owned(), data }
}
