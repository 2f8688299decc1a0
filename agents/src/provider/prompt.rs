//! A prompt: what a delivery asks, in the one shape that all three wires can be written from.
//!
//! Two speakers in turn, the user first; results of tools stand at the head of the user's turn that follows their
//! calls; nothing empty. What one provider signed for itself stays out of the others' prompts.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use broker_config::Model;
use broker_proto::{Delivery, Entry, Failure, FailureClass, FailureScope, Part, Role, ToolChoice};
use bytes::Bytes;
use serde_json::{Value, json};

/// What an image costs at most where nobody counts it: Anthropic's 1,568 pixels a side, about 1,600 tokens.
const IMAGE_TOKENS: u64 = 1_600;
/// Prose of any language is under 5 bytes per token (o200k); only runs of one character are far above it, and those
/// have few words.
const MOST_BYTES_PER_TOKEN: u64 = 7;
/// Roles, separators and marks around a turn.
const TURN_TOKENS: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    User,
    Assistant,
}

/// Everything one speaker says before the other does.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub speaker: Speaker,
    /// Never empty; no [`Part::Ref`], and thinking and opaque parts only of the provider that is asked.
    pub parts: Vec<Part>,
}

/// A tool with its schema read.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    pub schema: Value,
}

/// One call's worth of words and settings.
#[derive(Clone, PartialEq)]
pub struct Prompt {
    /// The provider's id of the model.
    pub model: String,
    /// Empty when there is none.
    pub system: String,
    /// The user's turn is the last.
    pub turns: Vec<Turn>,
    /// What was asked for, within what the budget and the model allow; `None` leaves it to the adapter.
    pub max_output_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub stop_sequences: Vec<String>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    /// Tokens, from bytes per token of the model.
    pub estimated_tokens: u64,
    /// Fewer tokens than this no tokeniser makes of the system text and the turns.
    pub least_tokens: u64,
}

/// Content never reaches a log.
impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("model", &self.model)
            .field("turns", &self.turns.len())
            .field("tools", &self.tools.len())
            .field("estimated_tokens", &self.estimated_tokens)
            .finish_non_exhaustive()
    }
}

impl Prompt {
    /// The prompt of `delivery` for `model`: the context, then the request as the user's last turn.
    ///
    /// # Errors
    /// [`FailureClass::InvalidRequest`] when nothing is asked, a tool's schema is no JSON object, or the model takes no
    /// images and there is one.
    pub fn of(delivery: &Delivery, model: &Model) -> Result<Self, Failure> {
        let payload = &delivery.message.payload;
        let asks = Entry { role: Role::User, name: String::new(), parts: payload.request.clone() };
        let entries = || payload.context.iter().chain([&asks]);
        if !model.vision && entries().any(|entry| entry.parts.iter().any(Part::has_image)) {
            let mut failure = refused("the model takes no images");
            failure.scope = FailureScope::Model;
            failure.another_model_may_help = true;
            return Err(failure);
        }
        let mut turns = Vec::new();
        for entry in entries().filter(|entry| entry.role != Role::System) {
            add(&mut turns, entry, model)?;
        }
        if !turns.last().is_some_and(|turn: &Turn| turn.speaker == Speaker::User) {
            return Err(refused("nothing is asked"));
        }
        close_calls(&mut turns);
        let generation = &payload.generation;
        let caps = [generation.max_output_tokens, delivery.max_output_tokens];
        let most = u32::try_from(model.max_output_tokens).unwrap_or(u32::MAX);
        let mut prompt = Self {
            model: model.id.clone(),
            system: system(entries()),
            turns,
            max_output_tokens: caps.into_iter().flatten().min().map(|cap| cap.clamp(1, most)),
            temperature: generation.temperature,
            stop_sequences: generation
                .stop_sequences
                .iter()
                .filter(|stop| !is_blank(stop))
                .cloned()
                .collect(),
            tools: generation.tools.iter().map(tool).collect::<Result<_, _>>()?,
            tool_choice: generation.tool_choice,
            estimated_tokens: 0,
            least_tokens: 0,
        };
        prompt.measure(model.bytes_per_token);
        Ok(prompt)
    }

    fn measure(&mut self, bytes_per_token: f64) {
        let mut size = Size::default();
        size.text(&self.system);
        for tool in &self.tools {
            // A wire may leave tools out, so their words prove nothing.
            let schema = tool.schema.to_string();
            size.bytes += (tool.name.len() + tool.description.len() + schema.len()) as u64;
        }
        for part in self.turns.iter().flat_map(|turn| &turn.parts) {
            size.part(part);
        }
        // Prompts are far below 2^52 bytes, where the conversions are exact.
        let text = (size.bytes as f64 / bytes_per_token).ceil() as u64;
        self.estimated_tokens =
            text + size.images * IMAGE_TOKENS + self.turns.len() as u64 * TURN_TOKENS;
        self.least_tokens = size.words.min(size.said / MOST_BYTES_PER_TOKEN);
    }

    /// Whether any turn calls a tool.
    #[must_use]
    pub fn has_calls(&self) -> bool {
        self.turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .any(|part| matches!(part, Part::ToolCall { .. }))
    }
}

#[derive(Default)]
struct Size {
    bytes: u64,
    /// Bytes and words of text that the model certainly reads.
    said: u64,
    words: u64,
    images: u64,
}

impl Size {
    fn text(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        self.said += text.len() as u64;
        self.words += text.split_whitespace().count() as u64;
    }

    fn part(&mut self, part: &Part) {
        match part {
            Part::Text(text) => self.text(text),
            Part::Image { .. } => self.images += 1,
            Part::ToolResult { parts, .. } => parts.iter().for_each(|part| self.part(part)),
            Part::Thinking { .. } | Part::ToolCall { .. } | Part::Opaque { .. } | Part::Ref(_) => {
                self.bytes += part.size_bytes();
            }
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::new(FailureClass::InvalidRequest, "agent", why)
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}

/// System entries are one text on every wire.
fn system<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let texts: Vec<&str> = entries
        .filter(|entry| entry.role == Role::System)
        .flat_map(|entry| &entry.parts)
        .filter_map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None })
        .filter(|text| !is_blank(text))
        .collect();
    texts.join("\n\n")
}

fn tool(tool: &broker_proto::Tool) -> Result<Tool, Failure> {
    let schema = if tool.input_schema.is_empty() {
        json!({"type": "object", "properties": {}})
    } else {
        serde_json::from_slice(&tool.input_schema)
            .map_err(|_| refused("a tool's schema is no JSON"))?
    };
    if !schema.is_object() {
        return Err(refused("a tool's schema is no JSON object"));
    }
    Ok(Tool { name: tool.name.clone(), description: tool.description.clone(), schema })
}

/// Adds what `entry` says to the last turn, or to a new one when the speaker changes.
fn add(turns: &mut Vec<Turn>, entry: &Entry, model: &Model) -> Result<(), Failure> {
    let speaker = match entry.role {
        Role::Assistant => Speaker::Assistant,
        Role::User | Role::Tool | Role::System => Speaker::User,
    };
    let mut parts = Vec::new();
    for part in &entry.parts {
        parts.extend(kept(part, speaker, model.provider.as_str())?);
    }
    if speaker == Speaker::User && !entry.name.is_empty() {
        // Only one wire has a field for a speaker's name; in the text all models see it.
        if let Some(Part::Text(text)) = parts.iter_mut().find(|part| matches!(part, Part::Text(_)))
        {
            *text = format!("{}: {text}", entry.name);
        }
    }
    if parts.is_empty() {
        return Ok(());
    }
    match turns.last_mut() {
        Some(last) if last.speaker == speaker => last.parts.extend(parts),
        _ => turns.push(Turn { speaker, parts }),
    }
    Ok(())
}

/// What the provider gets of `part`: nothing of what another one signed, of what is empty, or of what the
/// speaker cannot say.
fn kept(part: &Part, speaker: Speaker, provider: &str) -> Result<Option<Part>, Failure> {
    Ok(match part {
        Part::Text(text) => (!is_blank(text)).then(|| part.clone()),
        Part::Thinking { signature, provider: by, .. } => {
            let is_own = by == provider && !signature.is_empty() && speaker == Speaker::Assistant;
            is_own.then(|| part.clone())
        }
        Part::Opaque { provider: by, .. } => (by == provider).then(|| part.clone()),
        Part::ToolCall { .. } => (speaker == Speaker::Assistant).then(|| part.clone()),
        Part::ToolResult { .. } => (speaker == Speaker::User).then(|| part.clone()),
        Part::Image { .. } => (speaker == Speaker::User).then(|| part.clone()),
        Part::Ref(_) => {
            let missing = "a part that was stored apart did not come with the delivery";
            return Err(Failure::new(FailureClass::Internal, "agent", missing));
        }
    })
}

/// Gives every call its result in the turn that follows, and turns results without a call into text: each provider
/// refuses a conversation where they do not pair up, and a conversation cut to fit a window often does not.
fn close_calls(turns: &mut [Turn]) {
    let mut calls = Vec::new();
    for turn in turns {
        match turn.speaker {
            Speaker::Assistant => calls = call_ids(turn),
            Speaker::User => pair(&std::mem::take(&mut calls), turn),
        }
    }
}

fn call_ids(turn: &Turn) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let ids = turn.parts.iter().filter_map(|part| match part {
        Part::ToolCall { id, .. } => Some(id.clone()),
        _ => None,
    });
    ids.filter(|id| seen.insert(id.clone())).collect()
}

/// Puts the results of `calls` at the head of `turn`, in the order of the calls.
fn pair(calls: &[String], turn: &mut Turn) {
    let (mut results, others): (Vec<Part>, Vec<Part>) = std::mem::take(&mut turn.parts)
        .into_iter()
        .partition(|part| matches!(part, Part::ToolResult { .. }));
    for id in calls {
        let of_call =
            |part: &Part| matches!(part, Part::ToolResult { call_id, .. } if call_id == id);
        let result = match results.iter().position(of_call) {
            Some(found) => results.remove(found),
            None => Part::ToolResult {
                call_id: id.clone(),
                parts: vec![Part::text("No result: the call was not carried out.")],
                is_error: true,
            },
        };
        turn.parts.push(result);
    }
    for orphan in results {
        let Part::ToolResult { parts, .. } = orphan else { continue };
        let text = plain(&parts);
        turn.parts.push(Part::Text(format!("Result of an earlier tool call:\n{text}")));
    }
    turn.parts.extend(others);
}

/// The text of `parts`, and nothing else of them.
pub(super) fn plain(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.clone()),
        Part::ToolResult { parts, .. } => Some(plain(parts)),
        _ => None,
    });
    texts.filter(|text| !is_blank(text)).collect::<Vec<_>>().join("\n")
}

/// The images of `parts`, at any depth.
pub(super) fn images(parts: &[Part]) -> Vec<(&str, &Bytes)> {
    let mut found = Vec::new();
    for part in parts {
        match part {
            Part::Image { media_type, data } => found.push((media_type.as_str(), data)),
            Part::ToolResult { parts, .. } => found.extend(images(parts)),
            _ => {}
        }
    }
    found
}

/// A call's arguments as the object that two of the wires want; what a model wrote need not be one.
pub(super) fn arguments(text: &Bytes) -> Value {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Value::Object(object),
        Ok(Value::Null) | Err(_) if text.iter().all(u8::is_ascii_whitespace) => json!({}),
        _ => json!({"arguments": String::from_utf8_lossy(text)}),
    }
}
