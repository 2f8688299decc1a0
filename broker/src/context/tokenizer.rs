//! How many tokens a text is to the one who receives it.

use std::fmt;

use broker_config::{Model, Provider};
use tiktoken_rs::tokenizer::{Tokenizer as Table, get_tokenizer};

/// Counted in pieces of so many bytes: the pattern of the tables gives up on endless runs of blanks.
const PIECE: usize = 128 * 1024;

/// The receiver's own where it is known, else an estimate that says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tokenizer {
    /// `OpenAI`'s since GPT-4o. The first count loads its table, a tenth of a second and 20 MB: count where one may
    /// block, and not before it is needed.
    O200k,
    Estimated {
        bytes_per_token: f64,
    },
}

impl Tokenizer {
    /// What counts for this model.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        let table = (model.provider == Provider::OpenAi).then(|| get_tokenizer(&model.id));
        match table.flatten() {
            Some(Table::O200kBase | Table::O200kHarmony) => Self::O200k,
            _ => Self::estimated(model.bytes_per_token),
        }
    }

    /// So many bytes a token.
    #[must_use]
    pub fn estimated(bytes_per_token: f64) -> Self {
        Self::Estimated { bytes_per_token }
    }

    /// The tokens of a text.
    #[must_use]
    pub fn count(self, text: &str) -> u64 {
        match self {
            Self::Estimated { bytes_per_token } => {
                (text.len() as f64 / bytes_per_token).ceil() as u64
            }
            Self::O200k => {
                let table = tiktoken_rs::o200k_base_singleton();
                pieces(text).map(|piece| table.count_ordinary(piece) as u64).sum()
            }
        }
    }
}

/// Its name, as a rendering gives it.
impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::O200k => f.write_str("o200k_base"),
            Self::Estimated { bytes_per_token } => {
                write!(f, "estimated at {bytes_per_token:?} bytes per token")
            }
        }
    }
}

/// The text in pieces that end with a line where there is one.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let is_end = |at: &usize| rest.is_char_boundary(*at);
        let most = (0..=PIECE.min(rest.len())).rev().find(is_end).unwrap_or(rest.len());
        let end = match rest.len() > most {
            true => rest[..most].rfind('\n').map_or(most, |line| line + 1),
            false => rest.len(),
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(provider: Provider, id: &str) -> Tokenizer {
        Tokenizer::of(&Model::new("m", provider, id))
    }

    #[test]
    fn a_model_is_counted_by_its_own_table_or_the_estimate_says_so() {
        assert_eq!(of(Provider::OpenAi, "gpt-4o").to_string(), "o200k_base");
        assert_eq!(of(Provider::OpenAi, "o3-mini"), Tokenizer::O200k);
        let other = of(Provider::OpenAi, "llama-3.3-70b");
        assert_eq!(other.to_string(), "estimated at 4.0 bytes per token");
        let claude = of(Provider::Anthropic, "claude-opus-5-5");
        assert_eq!(claude.to_string(), "estimated at 3.0 bytes per token");
    }

    #[test]
    fn counts_are_the_tables() {
        // Known from the vendor's own tool.
        assert_eq!(Tokenizer::O200k.count("hello world"), 2);
        assert_eq!(Tokenizer::O200k.count(""), 0);
        assert_eq!(Tokenizer::estimated(3.0).count("hello world"), 4);
    }

    #[test]
    fn endless_runs_are_counted_too() {
        for run in [" ", "a", "\n", "€"] {
            let text = run.repeat(1_500_000);
            let count = Tokenizer::O200k.count(&text);
            assert!(count > 1_000 && count < text.len() as u64, "{run:?}: {count}");
        }
    }

    #[test]
    fn pieces_are_the_text() {
        let text = format!("{}\n{}", "é".repeat(PIECE), "line\n".repeat(PIECE));
        assert_eq!(pieces(&text).collect::<String>(), text);
        assert!(pieces(&text).all(|piece| piece.len() <= PIECE && !piece.is_empty()));
    }
}
