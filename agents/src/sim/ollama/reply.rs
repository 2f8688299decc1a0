//! Writes an answer as Ollama's objects: one, or one per line.

use std::time::Duration;

use serde_json::{Value, json};

use crate::sim::{
    answer::{Answer, Stop},
    prompt::Prompt,
    reply::{Chunk, Moment},
    script::ScriptedCall,
    text, tokens,
};

/// How the figures of one reply come about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) load: Duration,
    pub(crate) first_token: Duration,
    /// Tokens per second; 0 for no waiting.
    pub(crate) pace: f64,
    /// `/api/generate` says `response` where chat says `message`.
    pub(crate) generates: bool,
}

pub(crate) fn whole(answer: &Answer, prompt: &Prompt, timing: &Timing, at: &Moment) -> Value {
    last(answer, prompt, timing, at, &answer.text, true)
}

/// The lines of a stream, the one with `done:true` last.
pub(crate) fn chunks(answer: &Answer, prompt: &Prompt, timing: &Timing, at: &Moment) -> Vec<Chunk> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    let mut base = 0;
    let mut push = |said: Said<'_>, tokens: u64| {
        let later = Duration::from_millis(lines.len() as u64);
        let mut object = shell(prompt, at, later);
        said.put(&mut object, timing.generates);
        object["done"] = json!(false);
        lines.push(Chunk::new(line(&object), tokens));
    };
    for piece in answer.thinking.iter().flat_map(|thinking| text::pieces(thinking)) {
        bytes += piece.len();
        push(Said { thinking: Some(piece), ..Said::default() }, tokens::of_bytes(bytes));
    }
    if let Some(thinking) = &answer.thinking {
        base = tokens::count(thinking);
        bytes = 0;
    }
    for piece in text::pieces(&answer.text) {
        bytes += piece.len();
        push(Said { text: piece, ..Said::default() }, base + tokens::of_bytes(bytes));
    }
    if let Some(call) = &answer.call {
        push(Said { call: Some(call), ..Said::default() }, answer.usage.output);
    }
    lines
        .push(Chunk::last(line(&last(answer, prompt, timing, at, "", false)), answer.usage.output));
    lines
}

/// The reply to a request without messages: the model is loaded (or unloaded), nothing more.
pub(crate) fn loaded(prompt: &Prompt, timing: &Timing, at: &Moment, reason: &str) -> Value {
    let mut object = shell(prompt, at, Duration::ZERO);
    Said::default().put(&mut object, timing.generates);
    object["done"] = json!(true);
    object["done_reason"] = json!(reason);
    object
}

pub(crate) fn line(object: &Value) -> String {
    format!("{object}\n")
}

#[derive(Debug, Default, Clone, Copy)]
struct Said<'a> {
    text: &'a str,
    thinking: Option<&'a str>,
    call: Option<&'a ScriptedCall>,
}

impl Said<'_> {
    fn put(self, object: &mut Value, generates: bool) {
        if generates {
            object["response"] = json!(self.text);
            if let Some(thinking) = self.thinking {
                object["thinking"] = json!(thinking);
            }
            return;
        }
        let mut message = json!({"role": "assistant", "content": self.text});
        if let Some(thinking) = self.thinking {
            message["thinking"] = json!(thinking);
        }
        if let Some(call) = self.call {
            message["tool_calls"] =
                json!([{"function": {"name": call.name, "arguments": call.arguments}}]);
        }
        object["message"] = message;
    }
}

fn shell(prompt: &Prompt, at: &Moment, later: Duration) -> Value {
    json!({"model": prompt.model, "created_at": at.rfc3339_exact(later)})
}

fn last(
    answer: &Answer,
    prompt: &Prompt,
    timing: &Timing,
    at: &Moment,
    text: &str,
    is_whole: bool,
) -> Value {
    let mut object = shell(prompt, at, timing.first_token);
    let thinking = answer.thinking.as_deref().filter(|_| is_whole);
    let call = answer.call.as_ref().filter(|_| is_whole);
    Said { text, thinking, call }.put(&mut object, timing.generates);
    object["done"] = json!(true);
    object["done_reason"] = json!(match &answer.stop {
        Stop::End | Stop::Sequence(_) | Stop::ToolUse => "stop",
        Stop::MaxTokens => "length",
        Stop::Scripted(word) => word.as_str(),
    });
    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
    let eval = if timing.pace > 0.0 { answer.usage.output as f64 / timing.pace } else { 0.0 };
    let eval = Duration::try_from_secs_f64(eval).unwrap_or_default();
    let metrics = [
        ("total_duration", nanos(timing.load + timing.first_token + eval)),
        ("load_duration", nanos(timing.load)),
        ("prompt_eval_count", answer.usage.prompt),
        ("prompt_eval_duration", nanos(timing.first_token)),
        ("eval_count", answer.usage.output),
        ("eval_duration", nanos(eval)),
    ];
    // The server leaves a zero out.
    for (name, value) in metrics.into_iter().filter(|(_, value)| *value > 0) {
        object[name] = json!(value);
    }
    object
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
