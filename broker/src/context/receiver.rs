//! Whoever a session is rendered for.

use broker_config::Model;
use broker_proto::Unverified;

use super::Tokenizer;

/// A model as one that reads: what it takes, how it counts, and for how much it has room.
#[derive(Debug, Clone, PartialEq)]
pub struct Receiver {
    /// As the configuration names it.
    pub model: String,
    /// As configurations and parts name it.
    pub provider: String,
    /// Whether it takes images.
    pub vision: bool,
    /// Whether it takes tool calls.
    pub tools: bool,
    pub tokenizer: Tokenizer,
    /// Tokens of its window, without those of its answer.
    pub room: u64,
    /// What others wrote in its place, where the session is its own: it is told so, turn by turn.
    pub unverified: Option<Unverified>,
}

impl Receiver {
    /// The reader that this model is. Where answers may take most of the window, half of it is left for reading.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let window = model.context_window;
        Self {
            model: model.name.clone(),
            provider: model.provider.as_str().to_owned(),
            vision: model.vision,
            tools: model.tools,
            tokenizer: Tokenizer::of(model),
            room: window.saturating_sub(model.max_output_tokens).max(window / 2),
            unverified: None,
        }
    }
}
