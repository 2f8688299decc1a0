//! Contents: lists of parts, never one string, so that a whole conversation of a coding agent passes unharmed.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;

use super::TaskSpec;

/// Who speaks in an entry of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
    /// The result of a tool, given back to the model.
    Tool,
}

/// BLAKE3 of a part's encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A part stored apart, by the hash of its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRef {
    pub hash: ContentHash,
    pub size_bytes: u64,
}

/// One piece of content.
#[derive(Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// A model's own reasoning; the signature binds it to the provider that made it.
    Thinking {
        text: String,
        signature: String,
        provider: String,
    },
    /// `arguments` is JSON as the model wrote it, not always valid.
    ToolCall {
        id: String,
        name: String,
        arguments: Bytes,
    },
    ToolResult {
        call_id: String,
        parts: Vec<Part>,
        is_error: bool,
    },
    Image {
        media_type: String,
        data: Bytes,
    },
    /// A block of one provider that others do not know, kept as it came.
    Opaque {
        provider: String,
        kind: String,
        data: Bytes,
    },
    Ref(PartRef),
}

impl Part {
    /// A text part.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Bytes of content, without framing; a referenced part counts whole.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let size = match self {
            Self::Text(text) => text.len(),
            Self::Thinking { text, signature, .. } => text.len() + signature.len(),
            Self::ToolCall { id, name, arguments } => id.len() + name.len() + arguments.len(),
            Self::ToolResult { call_id, parts, .. } => {
                return call_id.len() as u64 + parts.iter().map(Self::size_bytes).sum::<u64>();
            }
            Self::Image { data, .. } | Self::Opaque { data, .. } => data.len(),
            Self::Ref(part) => return part.size_bytes,
        };
        size as u64
    }

    /// Bytes of content that are here: what is named by hash lies elsewhere.
    #[must_use]
    pub fn inline_bytes(&self) -> u64 {
        match self {
            Self::Ref(_) => 0,
            Self::ToolResult { call_id, parts, .. } => {
                call_id.len() as u64 + parts.iter().map(Self::inline_bytes).sum::<u64>()
            }
            _ => self.size_bytes(),
        }
    }

    /// Whether this part is an image, or holds one.
    #[must_use]
    pub fn has_image(&self) -> bool {
        match self {
            Self::Image { .. } => true,
            Self::ToolResult { parts, .. } => parts.iter().any(Self::has_image),
            Self::Text(_)
            | Self::Thinking { .. }
            | Self::ToolCall { .. }
            | Self::Opaque { .. }
            | Self::Ref(_) => false,
        }
    }
}

/// Names the kind and the size; content never reaches a log.
impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Text(_) => "Text",
            Self::Thinking { .. } => "Thinking",
            Self::ToolCall { .. } => "ToolCall",
            Self::ToolResult { .. } => "ToolResult",
            Self::Image { .. } => "Image",
            Self::Opaque { .. } => "Opaque",
            Self::Ref(_) => "Ref",
        };
        write!(f, "{kind}({} bytes)", self.size_bytes())
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub role: Role,
    /// Who of several speakers of one role; empty when there is one.
    pub name: String,
    pub parts: Vec<Part>,
}

/// A tool that the asked model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments.
    pub input_schema: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
    Required,
}

/// How to answer; `None` is the provider's default.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Generation {
    pub max_output_tokens: Option<u32>,
    pub temperature: Option<f64>,
    pub stop_sequences: Vec<String>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
}

/// What a message carries.
#[derive(Clone, PartialEq, Default)]
pub struct Payload {
    /// The conversation so far, oldest first.
    pub context: Vec<Entry>,
    pub request: Vec<Part>,
    pub response: Vec<Part>,
    pub metadata: BTreeMap<String, String>,
    pub generation: Generation,
    /// Of a delegation.
    pub task: Option<Box<TaskSpec>>,
    /// The body of a status message; nothing else has one.
    pub status: Option<super::StatusNotice>,
}

impl Payload {
    /// Every part, in order, at the first level.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        let context = self.context.iter().flat_map(|entry| &entry.parts);
        let inputs = self.task.iter().flat_map(|task| &task.inputs).flat_map(|input| &input.parts);
        context.chain(inputs).chain(&self.request).chain(&self.response)
    }

    /// The same, to be changed in place.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        let context = self.context.iter_mut().flat_map(|entry| &mut entry.parts);
        let inputs = self.task.iter_mut().flat_map(|task| &mut task.inputs);
        let inputs = inputs.flat_map(|input| &mut input.parts);
        context.chain(inputs).chain(&mut self.request).chain(&mut self.response)
    }
}

/// Counts parts; content never reaches a log.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("context", &self.context.len())
            .field("request", &self.request)
            .field("response", &self.response)
            .field("task", &self.task)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_result_names_by_hash_is_not_inline() {
        let part = PartRef { hash: ContentHash::of(b"far"), size_bytes: 1 << 20 };
        let parts = vec![Part::Ref(part), Part::text("near")];
        let result = Part::ToolResult { call_id: "c1".into(), parts, is_error: false };
        assert_eq!((result.inline_bytes(), result.size_bytes()), (6, 6 + (1 << 20)));
    }
}
