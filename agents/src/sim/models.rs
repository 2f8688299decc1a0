//! What is known of a model by its id, unless the script says otherwise.
//!
//! Source: vendors' model pages and a public price table, November 2026. A simulator's defaults, nothing that a
//! bill is made from.

use std::time::Duration;

use super::script::{ModelSpec, Wire};

/// A model with everything filled in.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) id: String,
    pub(super) wire: Wire,
    pub(super) window: u64,
    pub(super) num_ctx: u64,
    pub(super) shift: bool,
    pub(super) max_output: u64,
    pub(super) snapshot: String,
    pub(super) reasoning: bool,
    pub(super) capabilities: Vec<String>,
    pub(super) price: Price,
    pub(super) load: Duration,
}

/// USD per million tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Price {
    pub(super) input: f64,
    pub(super) output: f64,
    pub(super) cache_read: f64,
}

/// Beginning of the id, window, most output, input, output, cache read. The first that matches counts.
const CATALOGUE: [(&str, u64, u64, f64, f64, f64); 18] = [
    ("claude-fable-5", 1_000_000, 128_000, 10.0, 50.0, 0.25),
    ("claude-opus-5-5", 1_000_000, 128_000, 4.0, 20.0, 0.20),
    ("claude-opus-4-5", 200_000, 64_000, 5.0, 25.0, 0.50),
    ("claude-opus-", 1_000_000, 128_000, 5.0, 25.0, 0.50),
    ("claude-sonnet-5", 1_000_000, 128_000, 2.0, 10.0, 0.10),
    ("claude-sonnet-4-6", 1_000_000, 128_000, 3.0, 15.0, 0.30),
    ("claude-sonnet-", 200_000, 64_000, 3.0, 15.0, 0.30),
    ("claude-haiku-5-5", 1_000_000, 128_000, 0.10, 0.50, 0.01),
    ("claude-haiku-", 200_000, 64_000, 1.0, 5.0, 0.10),
    ("claude-", 200_000, 64_000, 3.0, 15.0, 0.30),
    ("gpt-4o-mini", 128_000, 16_384, 0.15, 0.60, 0.075),
    ("gpt-4o", 128_000, 16_384, 2.5, 10.0, 1.25),
    ("gpt-4.1", 1_047_576, 32_768, 2.0, 8.0, 0.50),
    ("gpt-5.", 1_050_000, 128_000, 2.5, 15.0, 0.25),
    ("gpt-5", 400_000, 128_000, 1.25, 10.0, 0.125),
    ("gpt-6-luna", 922_000, 128_000, 0.10, 0.50, 0.01),
    ("gpt-6", 922_000, 128_000, 2.0, 10.0, 0.20),
    ("", 131_072, 65_536, 0.0, 0.0, 0.0),
];

/// What a simulator without declared models lists.
pub(super) const LISTED: [&str; 7] = [
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "gpt-4o",
    "gpt-4o-mini",
    "llama3.2",
    "qwen3:8b",
];
/// Ollama's own default under 24 GiB of video memory.
const OLLAMA_NUM_CTX: u64 = 4_096;

impl Model {
    pub(super) fn of(spec: &ModelSpec, wire: Wire) -> Self {
        let id = spec.id.as_str();
        let known = CATALOGUE.iter().find(|row| id.starts_with(row.0)).unwrap_or(&CATALOGUE[17]);
        let reasons = is_openai_reasoning(id);
        let all = || ["tools", "vision", "thinking"].map(str::to_owned).to_vec();
        let window = spec.window.unwrap_or(known.1);
        Self {
            id: id.to_owned(),
            wire,
            window,
            num_ctx: spec.num_ctx.unwrap_or(OLLAMA_NUM_CTX),
            shift: spec.shift.unwrap_or(true),
            max_output: spec.max_output.unwrap_or_else(|| known.2.min(window)),
            snapshot: spec.snapshot.clone().unwrap_or_else(|| snapshot(id)),
            reasoning: spec.reasoning.unwrap_or(wire == Wire::OpenAi && reasons),
            capabilities: spec.capabilities.clone().unwrap_or_else(all),
            price: Price {
                input: spec.input_usd.unwrap_or(known.3),
                output: spec.output_usd.unwrap_or(known.4),
                cache_read: spec.cache_read_usd.unwrap_or(known.5),
            },
            load: spec.load.map(|span| span.0).unwrap_or_default(),
        }
    }

    pub(super) fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Ollama names a model without tag as `:latest`.
    pub(super) fn is_named(&self, id: &str) -> bool {
        self.id == id
            || self.wire == Wire::Ollama
                && id.strip_suffix(":latest").unwrap_or(id)
                    == self.id.strip_suffix(":latest").unwrap_or(&self.id)
    }
}

/// The wire whose vendor gives out such ids.
pub(super) fn wire_of(id: &str) -> Wire {
    if id.starts_with("claude-") {
        Wire::Anthropic
    } else if id.starts_with("gpt-") || is_o_series(id) {
        // Open-weight `gpt-oss` is served by Ollama.
        if id.starts_with("gpt-oss") { Wire::Ollama } else { Wire::OpenAi }
    } else {
        Wire::Ollama
    }
}

/// o-series, gpt-5 and later: no `max_tokens`, no temperature, reasoning tokens.
pub(super) fn is_openai_reasoning(id: &str) -> bool {
    let generation = id
        .strip_prefix("gpt-")
        .and_then(|rest| rest.chars().next())
        .and_then(|digit| digit.to_digit(10));
    is_o_series(id) || generation.is_some_and(|generation| generation >= 5)
}

fn is_o_series(id: &str) -> bool {
    id.strip_prefix('o')
        .and_then(|rest| rest.chars().next())
        .is_some_and(|next| next.is_ascii_digit())
}

/// Major and minor of a Claude id: `claude-opus-4-5-20251101` is (4, 5).
pub(super) fn claude_version(id: &str) -> (u32, u32) {
    // A date is not a minor version.
    let mut numbers =
        id.split('-').filter_map(|part| part.parse::<u32>().ok()).filter(|number| *number < 100);
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn snapshot(id: &str) -> String {
    let is_dated =
        id.rsplit('-').next().is_some_and(|end| end.len() == 2 && end.parse::<u8>().is_ok());
    if is_dated { id.to_owned() } else { format!("{id}-2024-08-06") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_their_wire() {
        let wires =
            ["claude-opus-5-5", "gpt-4o", "o3-mini", "llama3.2", "gpt-oss:20b"].map(wire_of);

        assert_eq!(
            wires,
            [Wire::Anthropic, Wire::OpenAi, Wire::OpenAi, Wire::Ollama, Wire::Ollama]
        );
    }

    #[test]
    fn a_date_is_no_minor_version() {
        assert_eq!(claude_version("claude-opus-4-5-20251101"), (4, 5));
        assert_eq!(claude_version("claude-sonnet-4-20250514"), (4, 0));
        assert_eq!(claude_version("claude-opus-5"), (5, 0));
    }

    #[test]
    fn an_alias_is_answered_with_its_snapshot() {
        assert_eq!(snapshot("gpt-4o"), "gpt-4o-2024-08-06");
        assert_eq!(snapshot("gpt-4o-2024-11-20"), "gpt-4o-2024-11-20");
    }
}
