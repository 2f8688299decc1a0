//! A request, whatever wire it came on: what counting, answering and quotas need of it.

use serde_json::Value;

use super::tokens;

#[derive(Debug, Clone, Default)]
pub(super) struct Prompt {
    pub(super) model: String,
    pub(super) stream: bool,
    /// `OpenAI`: the stream ends with a usage chunk.
    pub(super) include_usage: bool,
    pub(super) max_output: Option<u64>,
    /// Oldest first; the system prompt is the first turn.
    pub(super) turns: Vec<Turn>,
    pub(super) tools: Vec<Tool>,
    pub(super) tools_text: String,
    pub(super) choice: Choice,
    pub(super) stop: Vec<String>,
    pub(super) thinks: bool,
    /// Anthropic: some cache mark asks for an hour.
    pub(super) caches_an_hour: bool,
    /// Ollama: the window in force; and what a silently cut prompt comes to.
    pub(super) num_ctx: u64,
    pub(super) cut_to: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Clone)]
pub(super) struct Turn {
    pub(super) role: Role,
    pub(super) text: String,
    pub(super) images: u64,
    /// Anthropic: a `cache_control` lies in this turn.
    pub(super) marked: bool,
    pub(super) is_tool_result: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) schema: Value,
}

/// What the request says of calling tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Choice {
    #[default]
    Auto,
    Never,
    Any,
    Named(String),
}

impl Turn {
    pub(super) fn new(role: Role, text: String) -> Self {
        Self { role, text, images: 0, marked: false, is_tool_result: role == Role::Tool }
    }

    pub(super) fn tokens(&self) -> u64 {
        tokens::count(&self.text) + tokens::PER_MESSAGE + self.images * tokens::PER_IMAGE
    }
}

impl Prompt {
    pub(super) fn tools_tokens(&self) -> u64 {
        tokens::count(&self.tools_text)
    }

    pub(super) fn tokens(&self) -> u64 {
        let whole = self.tools_tokens() + self.turns.iter().map(Turn::tokens).sum::<u64>();
        self.cut_to.map_or(whole, |cut| cut.min(whole))
    }

    /// Tokens up to and including the last turn with a cache mark.
    pub(super) fn marked_tokens(&self) -> u64 {
        match self.turns.iter().rposition(|turn| turn.marked) {
            Some(last) => {
                self.tools_tokens() + self.turns[..=last].iter().map(Turn::tokens).sum::<u64>()
            }
            None => 0,
        }
    }

    pub(super) fn images(&self) -> u64 {
        self.turns.iter().map(|turn| turn.images).sum()
    }

    pub(super) fn ends_with_tool_result(&self) -> bool {
        self.turns.last().is_some_and(|turn| turn.is_tool_result)
    }

    /// What the person said last.
    pub(super) fn question(&self) -> &str {
        self.turns
            .iter()
            .rev()
            .find(|turn| turn.role == Role::User && !turn.is_tool_result)
            .map_or("", |turn| turn.text.as_str())
    }
}
