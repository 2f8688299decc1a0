//! The chunks of a chat completion, as a state machine.
//!
//! Read leniently, by hand: gateways leave out, add and reorder fields that the vendor's types require.

use std::collections::{BTreeMap, VecDeque};

use broker_proto::{Failure, FailureClass, Part, Provenance, StopReason, Usage};
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use super::{NAME, errors};
use crate::provider::{
    Chunk, Clock,
    decode::{Decoder, malformed, truncated},
};

/// What is being said; another kind ends it.
#[derive(PartialEq)]
enum Open {
    Text(u32),
    Thinking(u32),
    Nothing,
}

/// Reads one completion.
pub(super) struct Reply {
    headers: HeaderMap,
    clock: Clock,
    open: Open,
    /// The part of each tool call, by the wire's index.
    calls: BTreeMap<u64, u32>,
    parts: u32,
    usage: Usage,
    finish: Option<String>,
    has_refusal: bool,
}

impl Reply {
    pub(super) fn new(headers: HeaderMap, clock: Clock) -> Self {
        Self {
            headers,
            clock,
            open: Open::Nothing,
            calls: BTreeMap::new(),
            parts: 0,
            usage: Usage { provenance: Provenance::Partial, ..Usage::default() },
            finish: None,
            has_refusal: false,
        }
    }

    fn start(&mut self, opening: Part, out: &mut VecDeque<Chunk>) -> u32 {
        let part = self.parts;
        self.parts += 1;
        out.push_back(Chunk::PartStart { part, opening });
        part
    }

    fn close(&mut self, out: &mut VecDeque<Chunk>) {
        if let Open::Text(part) | Open::Thinking(part) =
            std::mem::replace(&mut self.open, Open::Nothing)
        {
            out.push_back(Chunk::PartEnd { part, closing: None });
        }
    }

    fn text(&mut self, text: &str, out: &mut VecDeque<Chunk>) {
        let part = match self.open {
            Open::Text(part) => part,
            _ => {
                self.close(out);
                let part = self.start(Part::text(""), out);
                self.open = Open::Text(part);
                part
            }
        };
        out.push_back(Chunk::Delta { part, text: text.to_owned() });
    }

    /// `reasoning_content` of llama.cpp, vLLM and others; the vendor shows none on this wire.
    fn thinking(&mut self, text: &str, out: &mut VecDeque<Chunk>) {
        let part = match self.open {
            Open::Thinking(part) => part,
            _ => {
                self.close(out);
                let opening = Part::Thinking {
                    text: String::new(),
                    signature: String::new(),
                    provider: NAME.to_owned(),
                };
                let part = self.start(opening, out);
                self.open = Open::Thinking(part);
                part
            }
        };
        out.push_back(Chunk::Delta { part, text: text.to_owned() });
    }

    fn call(&mut self, call: &Value, out: &mut VecDeque<Chunk>) {
        // A server that sends one whole call per chunk may leave the index out.
        let index = call["index"].as_u64().unwrap_or(u64::MAX - self.calls.len() as u64);
        let function = &call["function"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let part = match self.calls.get(&index) {
            Some(part) => *part,
            None => {
                self.close(out);
                let (id, name) = (text(&call["id"]), text(&function["name"]));
                let id = if id.is_empty() {
                    format!("call_{}_{}", self.clock.now().0, self.parts)
                } else {
                    id
                };
                let part = self.start(Part::ToolCall { id, name, arguments: Bytes::new() }, out);
                self.calls.insert(index, part);
                part
            }
        };
        let arguments = match &function["arguments"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            // Some servers send the object itself.
            other => other.to_string(),
        };
        if !arguments.is_empty() {
            out.push_back(Chunk::Delta { part, text: arguments });
        }
    }

    /// The vendor's prompt count includes what was read from the cache, ours does not.
    fn count(&mut self, usage: &Value) {
        let count = |value: &Value| value.as_u64();
        let details = &usage["prompt_tokens_details"];
        let read = count(&details["cached_tokens"]);
        let written = count(&details["cache_write_tokens"]);
        let prompt = count(&usage["prompt_tokens"]);
        let cached = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
        let was = self.usage;
        self.usage = Usage {
            input_tokens: prompt.map(|prompt| prompt.saturating_sub(cached)).or(was.input_tokens),
            output_tokens: count(&usage["completion_tokens"]).or(was.output_tokens),
            cache_read_tokens: read.or(was.cache_read_tokens),
            cache_write_tokens: written.or(was.cache_write_tokens),
            reasoning_tokens: count(&usage["completion_tokens_details"]["reasoning_tokens"])
                .or(was.reasoning_tokens),
            provenance: Provenance::Reported,
        };
    }

    fn finish(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        self.close(out);
        for part in std::mem::take(&mut self.calls).into_values() {
            out.push_back(Chunk::PartEnd { part, closing: None });
        }
        if self.finish.as_deref() == Some("content_filter") || self.has_refusal {
            let mut failure =
                Failure::new(FailureClass::ContentRefused, NAME, "the model refused to answer");
            failure.another_model_may_help = true;
            return Err(failure);
        }
        let stop_reason = self.finish.as_deref().map(|reason| match reason {
            "length" => StopReason::MaxTokens,
            "tool_calls" | "function_call" => StopReason::ToolCall,
            _ => StopReason::End,
        });
        out.push_back(Chunk::Done { usage: self.usage, stop_reason });
        Ok(())
    }

    fn choice(&mut self, choice: &Value, out: &mut VecDeque<Chunk>) {
        let delta = &choice["delta"];
        let said = |name: &str| delta[name].as_str().filter(|text| !text.is_empty());
        if let Some(text) = said("reasoning_content").or_else(|| said("reasoning")) {
            self.thinking(text, out);
        }
        if let Some(text) = said("content") {
            self.text(text, out);
        }
        if let Some(text) = said("refusal") {
            self.has_refusal = true;
            self.text(text, out);
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, out);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.to_owned());
        }
    }
}

impl Decoder for Reply {
    fn record(&mut self, text: &str, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        if text.trim() == "[DONE]" {
            return self.finish(out);
        }
        let chunk: Value = serde_json::from_str(text)
            .map_err(|_| malformed(NAME, "an event that cannot be read"))?;
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(errors::in_stream(chunk, &self.headers, self.clock.now()));
        }
        let before = out.len();
        if chunk["usage"].is_object() {
            self.count(&chunk["usage"]);
            out.push_back(Chunk::Usage(self.usage));
        }
        // Only the first of several answers was asked for; the usage chunk has none, or one that says nothing.
        let choices = chunk["choices"].as_array();
        let first = choices.and_then(|choices| {
            choices.iter().find(|choice| choice["index"].as_u64().unwrap_or(0) == 0)
        });
        if let Some(choice) = first {
            self.choice(choice, out);
        }
        if out.len() == before {
            out.push_back(Chunk::Alive);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        // The text is whole once there is a reason for its end; only the usage may be missing.
        if self.finish.is_some() { self.finish(out) } else { Err(truncated(NAME)) }
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn provider(&self) -> &'static str {
        NAME
    }
}
