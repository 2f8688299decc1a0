//! What a fault's effects mean for one reply on one wire.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    anthropic, ollama, openai,
    reply::{Chunk, Moment, Payload, Reply},
    script::{Effect, ScriptedAnswer, Wire},
    stream::Damage,
};

/// Pieces that a damaged body without events is cut into.
const PIECES: usize = 10;
const COUNTS: [&str; 7] = [
    "usage",
    "total_duration",
    "load_duration",
    "prompt_eval_count",
    "prompt_eval_duration",
    "eval_count",
    "eval_duration",
];

/// The parts of a fault that leave the reply a normal one, but for its bytes and its time.
#[derive(Debug, Default)]
pub(super) struct Bent {
    pub(super) damage: Damage,
    pub(super) pace: Option<f64>,
    /// More silence before the first byte; `None` inside is for ever.
    pub(super) stall_first: Option<Option<Duration>>,
    pub(super) load: Option<Duration>,
    pub(super) truncate: Option<u64>,
    pub(super) answer: ScriptedAnswer,
    pub(super) omits_usage: bool,
}

impl Bent {
    pub(super) fn of(effects: &[Effect], wire: Wire, at: &Moment) -> Self {
        let mut bent = Self::default();
        for effect in effects {
            bent.add(effect, wire, at);
        }
        bent
    }

    fn add(&mut self, effect: &Effect, wire: Wire, at: &Moment) {
        let damage = &mut self.damage;
        match effect {
            Effect::ErrorEvent { after, kind, message } => {
                damage.error =
                    Some((*after, error_event(wire, kind.as_deref(), message.as_deref(), at)));
            }
            Effect::Cut { after } => damage.cut = Some(*after),
            Effect::End { after } => damage.end = Some(*after),
            Effect::StallFirst { lasts } => self.stall_first = Some(lasts.map(|span| span.0)),
            Effect::StallBetween { after, lasts } => {
                damage.stall = Some((*after, lasts.map(|span| span.0)))
            }
            Effect::Garbage { after } => damage.garbage = Some((*after, garbage(wire))),
            Effect::Split(size) => damage.split = Some(*size),
            Effect::Noise { every } => damage.noise = Some((*every, noise(wire))),
            Effect::Pace(pace) => self.pace = Some(*pace),
            Effect::TruncatePrompt(tokens) => self.truncate = Some(*tokens),
            Effect::LoadDelay(span) => self.load = Some(span.0),
            Effect::Answer(answer) => self.answer = answer.clone(),
            Effect::OmitUsage => self.omits_usage = true,
            // Immediate replies and the closed port are seen to elsewhere; headers are put on at the end.
            Effect::Preset(_)
            | Effect::Status { .. }
            | Effect::Html(_)
            | Effect::Refuse(_)
            | Effect::Headers(_) => {}
        }
    }

    /// Fits the damage to a reply that is no stream: what replaces one event there replaces the whole body here.
    pub(super) fn fit(&mut self, reply: &mut Reply) {
        if self.omits_usage {
            omit_usage(&mut reply.payload);
        }
        let Payload::Whole(body) = &mut reply.payload else { return };
        if let Some((_, event)) = self.damage.error.take() {
            *body = json_of(&event).map_or(event.clone(), |json| Bytes::from(json.to_string()));
        }
        if self.damage.garbage.take().is_some() {
            *body = Bytes::from_static(b"<!doctype html><p>upstream says {\"content\": [{\"typ");
        }
        self.damage.noise = None;
        // Without a final event, a clean early end is half a body.
        if let Some(end) = &mut self.damage.end {
            end.get_or_insert(PIECES / 2);
        }
    }
}

/// A body in pieces, for damage to count.
pub(super) fn pieces(body: &Bytes, tokens: u64) -> Vec<Chunk> {
    let size = body.len().div_ceil(PIECES).max(1);
    let count = body.len().div_ceil(size);
    let piece = |(index, piece): (usize, &[u8])| {
        let bytes = body.slice_ref(piece);
        if index + 1 == count { Chunk::last(bytes, tokens) } else { Chunk::new(bytes, 0) }
    };
    body.chunks(size).enumerate().map(piece).collect()
}

fn error_event(wire: Wire, kind: Option<&str>, message: Option<&str>, at: &Moment) -> Bytes {
    let text = match wire {
        Wire::Anthropic => {
            let error = json!({"type": kind.unwrap_or("overloaded_error"), "message": message.unwrap_or("Overloaded")});
            let id = anthropic::request_id(at.number);
            anthropic::reply::event(&json!({"type": "error", "error": error, "request_id": id}))
        }
        Wire::OpenAi => {
            let message =
                message.unwrap_or("The server had an error while processing your request");
            let error = json!({"message": message, "type": kind.unwrap_or("server_error"), "param": null, "code": null});
            openai::reply::event(&json!({"error": error}))
        }
        Wire::Ollama => {
            let message = message
                .unwrap_or("an error was encountered while running the model: unexpected EOF");
            ollama::reply::line(&json!({"error": message}))
        }
    };
    text.into()
}

fn garbage(wire: Wire) -> Bytes {
    Bytes::from_static(match wire {
        Wire::Anthropic => b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"del\n\n",
        Wire::OpenAi => b"data: {\"id\":\"chatcmpl-\",\"choices\":[{\"ind\n\n",
        Wire::Ollama => b"{\"model\":\"llama3.2\",\"mess\n",
    })
}

fn noise(wire: Wire) -> Vec<Bytes> {
    let texts: &[&'static str] = match wire {
        Wire::Anthropic => &[
            ": keep-alive\n\n",
            "event: ping\ndata: {\"type\":\"ping\"}\n\n",
            "event: weather_report\ndata: {\"type\":\"weather_report\",\"index\":0,\"delta\":{\"type\":\"fog\"}}\n\n",
        ],
        Wire::OpenAi => &[
            ": keep-alive\n\n",
            "data: {\"object\":\"chat.weather\",\"choices\":[],\"forecast\":\"fog\"}\n\n",
        ],
        Wire::Ollama => &[
            "{\"model\":\"llama3.2\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false,\"forecast\":\"fog\"}\n",
        ],
    };
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

/// The JSON within an event or a line.
fn json_of(bytes: &[u8]) -> Option<Value> {
    let begin = bytes.iter().position(|byte| *byte == b'{')?;
    serde_json::from_slice(&bytes[begin..]).ok()
}

fn omit_usage(payload: &mut Payload) {
    match payload {
        Payload::Whole(body) => *body = without_usage(body),
        Payload::Stream(chunks) => {
            // `OpenAI`'s usage chunk is nothing without its usage.
            chunks.retain(|chunk| {
                !chunk.bytes.windows(13).any(|window| window == b"\"choices\":[],")
            });
            for chunk in chunks {
                chunk.bytes = without_usage(&chunk.bytes);
            }
        }
    }
}

fn without_usage(bytes: &Bytes) -> Bytes {
    let Some(begin) = bytes.iter().position(|byte| *byte == b'{') else { return bytes.clone() };
    let Ok(mut json) = serde_json::from_slice::<Value>(&bytes[begin..]) else {
        return bytes.clone();
    };
    if let Some(message) = json.get_mut("message").and_then(Value::as_object_mut) {
        message.remove("usage");
    }
    if let Some(object) = json.as_object_mut() {
        object.retain(|name, _| !COUNTS.contains(&name.as_str()));
    }
    let end = bytes.iter().rposition(|byte| *byte == b'}').map_or(bytes.len(), |end| end + 1);
    [&bytes[..begin], json.to_string().as_bytes(), &bytes[end..]].concat().into()
}
