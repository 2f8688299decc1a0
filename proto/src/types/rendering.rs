//! A session as text for one receiver, and what became of each entry.

use std::fmt;

use super::{Entry, ModelName, Preservation};

/// For whom a session is rendered, and how much of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RenderAsk {
    pub level: Preservation,
    /// Tokens, in place of the level's.
    pub budget: Option<u64>,
    /// Who reads it, and whose tokens these are; without one the session's owner.
    pub reader: Option<ModelName>,
    /// What the reader will be asked; empty: what the task says comes next.
    pub next: String,
    /// Lists what must be kept and does not fit, in place of refusing.
    pub allow_missing: bool,
    /// Has what is left out summed up by the configured model.
    pub summary: bool,
}

/// Content never reaches a log.
impl fmt::Debug for RenderAsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenderAsk")
            .field("level", &self.level)
            .field("budget", &self.budget)
            .field("reader", &self.reader)
            .field("next_bytes", &self.next.len())
            .finish_non_exhaustive()
    }
}

/// A session in words. Entries by their numbers; each is in one of the three lists.
#[derive(Clone, PartialEq, Default)]
pub struct Rendering {
    pub text: String,
    /// In the text with all they say.
    pub kept: Vec<u64>,
    /// In the text with some of it.
    pub partly: Vec<u64>,
    pub dropped: Vec<u64>,
    /// What had to be kept and did not fit; empty unless whoever asked allowed it.
    pub must_keep_missing: Vec<String>,
    /// Of `text`, by `tokenizer`.
    pub tokens: u64,
    /// What counted them, such as `o200k_base` or `estimated at 3.0 bytes per token`.
    pub tokenizer: String,
    /// The share of what the next step needs that was kept, from 0 to 1; of all bytes where nothing is known to be
    /// needed.
    pub score: f64,
    /// What became of the summary that was asked for, such as `used: ...` or `refused: ...`; empty when nobody asked.
    pub summary: String,
}

/// Content never reaches a log.
impl fmt::Debug for Rendering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendering")
            .field("bytes", &self.text.len())
            .field("kept", &self.kept.len())
            .field("partly", &self.partly.len())
            .field("dropped", &self.dropped.len())
            .field("must_keep_missing", &self.must_keep_missing.len())
            .field("tokens", &self.tokens)
            .field("tokenizer", &self.tokenizer)
            .field("score", &self.score)
            .field("summary", &self.summary)
            .finish()
    }
}

/// A conversation as the wire of one model takes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionHistory {
    pub entries: Vec<Entry>,
    /// Where not all goes along as it was said: what became of it, without the text, which stands in the first of the entries.
    pub rendering: Option<Rendering>,
    /// Whether that is the package with which the reader took the session over; what came since is whole.
    pub is_taken_over: bool,
}
