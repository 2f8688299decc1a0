//! The lines of an answer, as a state machine.

use std::collections::VecDeque;

use broker_proto::{Failure, FailureClass, Part, Provenance, StopReason, Usage};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{NAME, errors};
use crate::provider::{
    Chunk, Clock,
    decode::{Decoder, malformed, truncated},
    http::Body,
};

/// One line: an error, or more of the answer. The server leaves out every field that is empty, false or zero.
#[derive(Deserialize)]
struct Line {
    error: Option<Value>,
    message: Option<Message>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    thinking: Option<String>,
    tool_calls: Option<Vec<Call>>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: Option<Value>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Thinking,
}

/// Reads one answer.
pub(super) struct Reply {
    /// Of the prompt: [`Prompt::least_tokens`](crate::provider::Prompt::least_tokens).
    least_tokens: u64,
    estimated_tokens: u64,
    clock: Clock,
    open: Option<(Kind, u32)>,
    parts: u32,
    has_calls: bool,
    usage: Usage,
}

impl Reply {
    pub(super) fn new(least_tokens: u64, estimated_tokens: u64, clock: Clock) -> Self {
        let usage = Usage { provenance: Provenance::Partial, ..Usage::default() };
        Self {
            least_tokens,
            estimated_tokens,
            clock,
            open: None,
            parts: 0,
            has_calls: false,
            usage,
        }
    }

    fn start(&mut self, opening: Part, out: &mut VecDeque<Chunk>) -> u32 {
        let part = self.parts;
        self.parts += 1;
        out.push_back(Chunk::PartStart { part, opening });
        part
    }

    fn close(&mut self, out: &mut VecDeque<Chunk>) {
        if let Some((_, part)) = self.open.take() {
            out.push_back(Chunk::PartEnd { part, closing: None });
        }
    }

    fn say(&mut self, kind: Kind, text: Option<String>, out: &mut VecDeque<Chunk>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        let part = match self.open {
            Some((open, part)) if open == kind => part,
            _ => {
                self.close(out);
                let (signature, provider) = (String::new(), NAME.to_owned());
                let opening = match kind {
                    Kind::Text => Part::text(""),
                    Kind::Thinking => Part::Thinking { text: String::new(), signature, provider },
                };
                let part = self.start(opening, out);
                self.open = Some((kind, part));
                part
            }
        };
        out.push_back(Chunk::Delta { part, text });
    }

    /// Calls come whole. Older servers give them no id, and a conversation needs one that no other call has.
    fn call(&mut self, call: Call, out: &mut VecDeque<Chunk>) {
        self.close(out);
        self.has_calls = true;
        let made = || format!("call_{}_{}", self.clock.now().0, self.parts);
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(made);
        let part = self
            .start(Part::ToolCall { id, name: call.function.name, arguments: Bytes::new() }, out);
        let arguments = match call.function.arguments {
            None | Some(Value::Null) => "{}".to_owned(),
            Some(Value::String(text)) => text,
            Some(arguments) => arguments.to_string(),
        };
        out.push_back(Chunk::Delta { part, text: arguments });
        out.push_back(Chunk::PartEnd { part, closing: None });
    }

    /// In the last line a count that is left out is zero: the server writes none of its zeros (`omitempty`).
    /// Before that line every count is unknown.
    fn done(&mut self, line: &Line, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        self.close(out);
        let prompt = line.prompt_eval_count.unwrap_or(0);
        self.usage = Usage {
            input_tokens: Some(prompt),
            output_tokens: Some(line.eval_count.unwrap_or(0)),
            provenance: Provenance::Reported,
            ..Usage::default()
        };
        // Servers that do not know `truncate` drop the oldest messages with a 200. Zero is no cut: the whole prompt
        // was still in the server's cache.
        if prompt > 0 && prompt < self.least_tokens {
            let mut failure = Failure::new(
                FailureClass::ContextTooLong,
                NAME,
                "the server cut the prompt to fit its window",
            );
            failure.limit_tokens = Some(prompt);
            failure.actual_tokens = Some(self.estimated_tokens);
            return Err(failure);
        }
        let stop_reason = match line.done_reason.as_deref() {
            Some("length") => Some(StopReason::MaxTokens),
            Some("load" | "unload") => {
                return Err(malformed(NAME, "no answer: the server only loaded the model"));
            }
            _ if self.has_calls => Some(StopReason::ToolCall),
            Some(_) => Some(StopReason::End),
            None => None,
        };
        out.push_back(Chunk::Done { usage: self.usage, stop_reason });
        Ok(())
    }
}

impl Decoder for Reply {
    fn record(&mut self, text: &str, out: &mut VecDeque<Chunk>) -> Result<(), Failure> {
        let line: Line = serde_json::from_str(text)
            .map_err(|_| malformed(NAME, "a line that cannot be read"))?;
        if line.error.is_some() {
            let body = Body::of(serde_json::from_str(text).unwrap_or_default());
            return Err(errors::in_stream(&body));
        }
        let before = out.len();
        if let Some(message) = line.message.as_ref() {
            self.say(Kind::Thinking, message.thinking.clone(), out);
            self.say(Kind::Text, message.content.clone(), out);
        }
        let is_done = line.done;
        let mut line = line;
        let calls = line.message.as_mut().and_then(|message| message.tool_calls.take());
        for call in calls.into_iter().flatten() {
            self.call(call, out);
        }
        if is_done {
            return self.done(&line, out);
        }
        if out.len() == before {
            out.push_back(Chunk::Alive);
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
