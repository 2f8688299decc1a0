//! One part, as the wire takes it from its speaker.

use broker_proto::Part;

use super::{
    super::{
        Receiver,
        plain::{plain, plain_all},
    },
    Speaker,
};

/// What every wire that takes images takes.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
/// A name that every wire takes is of these, and no longer.
const LONGEST_NAME: usize = 64;

/// Whether this part may stay stored apart on its way to the receiver: it goes as it is, and nobody looks into it.
pub(super) fn stays_apart(part: &Part, receiver: &Receiver) -> bool {
    match part {
        Part::Text(_) => true,
        Part::Image { media_type, .. } => receiver.vision && IMAGES.contains(&media_type.as_str()),
        _ => false,
    }
}

/// Who takes a part, and from whom.
pub(super) struct Taker<'a> {
    pub(super) speaker: Speaker,
    /// Whether the receiver itself said it, or nobody knows.
    pub(super) is_own: bool,
    pub(super) receiver: &'a Receiver,
}

impl Taker<'_> {
    /// The part, or its plain words; `None` when it says nothing.
    pub(super) fn taken(&self, part: &Part) -> Option<Part> {
        match part {
            Part::Ref(_) => Some(part.clone()),
            part if self.is_taken(part) => Some(part.clone()),
            Part::ToolResult { call_id, parts, is_error } if self.takes_results() => {
                let mut parts: Vec<Part> =
                    parts.iter().filter_map(|part| self.within_result(part)).collect();
                if parts.is_empty() {
                    parts.push(Part::text("(no output)"));
                }
                Some(Part::ToolResult { call_id: call_id.clone(), parts, is_error: *is_error })
            }
            Part::ToolResult { parts, .. } => {
                in_words(&format!("Result of a tool call:\n{}", plain_all(parts)))
            }
            Part::Image { .. } => in_words(&mark(part)),
            part => in_words(&plain(part)),
        }
    }

    /// Whether the wire takes it as it is.
    fn is_taken(&self, part: &Part) -> bool {
        let is_assistant = self.speaker == Speaker::Assistant;
        let is_bound_to = |provider: &str| self.is_own && provider == self.receiver.provider;
        match part {
            Part::Text(text) => !text.trim().is_empty(),
            Part::Thinking { signature, provider, .. } => {
                is_assistant && is_bound_to(provider) && !signature.is_empty()
            }
            Part::Opaque { provider, .. } => is_assistant && is_bound_to(provider),
            Part::ToolCall { name, .. } => is_assistant && self.receiver.tools && is_name(name),
            Part::Image { media_type, .. } => {
                self.speaker == Speaker::User && self.takes_image(media_type)
            }
            Part::ToolResult { .. } | Part::Ref(_) => false,
        }
    }

    fn takes_results(&self) -> bool {
        self.speaker == Speaker::User && self.receiver.tools
    }

    fn takes_image(&self, media_type: &str) -> bool {
        self.receiver.vision && IMAGES.contains(&media_type)
    }

    /// Results hold texts and images and nothing else.
    fn within_result(&self, part: &Part) -> Option<Part> {
        match part {
            Part::Ref(_) => Some(part.clone()),
            Part::Image { media_type, .. } if self.takes_image(media_type) => Some(part.clone()),
            Part::Image { .. } => in_words(&mark(part)),
            part => in_words(&plain(part)),
        }
    }
}

fn mark(image: &Part) -> String {
    format!("{}, which this model is not shown", plain(image))
}

fn in_words(text: &str) -> Option<Part> {
    (!text.trim().is_empty()).then(|| Part::text(text))
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain)
}
