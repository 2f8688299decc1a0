//! Counting tokens, and remembering which beginnings of prompts were seen.
//!
//! The rule, used for input, output and quotas alike: a text is one token per 4 bytes, rounded up; a message is
//! its text plus 4; an image is 1,000; tools are the tokens of their JSON. Real tokenizers differ; what counts
//! here is that every figure of one run agrees with every other.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::prompt::Prompt;

pub(super) const BYTES_PER_TOKEN: usize = 4;
pub(super) const PER_MESSAGE: u64 = 4;
pub(super) const PER_IMAGE: u64 = 1_000;
/// Shorter beginnings are not cached (Anthropic: most models; `OpenAI`: all).
pub(super) const SMALLEST_CACHED: u64 = 1_024;
/// Beginnings remembered before all are forgotten at once: a bound on memory, far above any test.
const MOST_REMEMBERED: usize = 200_000;

/// Tokens of a text.
#[must_use]
pub fn count(text: &str) -> u64 {
    of_bytes(text.len())
}

pub(super) fn of_bytes(bytes: usize) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN) as u64
}

/// The longest beginning of `text` that is at most `tokens`.
pub(super) fn cut(text: &str, tokens: u64) -> &str {
    let most = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
    if text.len() <= most {
        return text;
    }
    &text[..boundary(text, most)]
}

/// The last character boundary at or before `at`.
pub(super) fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The beginnings of one prompt.
#[derive(Debug)]
pub(super) struct Beginnings {
    /// Tokens of the longest one seen before, 0 when that is shorter than [`SMALLEST_CACHED`]. The last message is
    /// never part of it.
    pub(super) hit: u64,
    hashes: Vec<u64>,
}

/// Beginnings of prompts seen so far, by hash.
#[derive(Debug, Default)]
pub(super) struct PrefixCache {
    seen: HashSet<u64>,
}

impl PrefixCache {
    /// What is known of `prompt`; remembers nothing yet, for it may still be refused.
    pub(super) fn look(&self, prompt: &Prompt) -> Beginnings {
        let mut hasher = DefaultHasher::new();
        prompt.model.hash(&mut hasher);
        prompt.tools_text.hash(&mut hasher);
        let mut tokens = prompt.tools_tokens();
        let mut found = Beginnings { hit: 0, hashes: Vec::with_capacity(prompt.turns.len()) };
        for (index, turn) in prompt.turns.iter().enumerate() {
            (turn.role, &turn.text, turn.images).hash(&mut hasher);
            tokens += turn.tokens();
            let hash = hasher.clone().finish();
            if tokens >= SMALLEST_CACHED
                && index + 1 < prompt.turns.len()
                && self.seen.contains(&hash)
            {
                found.hit = tokens;
            }
            found.hashes.push(hash);
        }
        found
    }

    pub(super) fn remember(&mut self, beginnings: Beginnings) {
        if self.seen.len() > MOST_REMEMBERED {
            self.seen.clear();
        }
        self.seen.extend(beginnings.hashes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::prompt::{Role, Turn};

    fn prompt(texts: &[&str]) -> Prompt {
        let turns = texts.iter().map(|text| Turn::new(Role::User, (*text).to_owned())).collect();
        Prompt { model: "m".into(), turns, ..Prompt::default() }
    }

    #[test]
    fn a_text_is_a_token_per_four_bytes_rounded_up() {
        assert_eq!((count(""), count("a"), count("abcd"), count("naïve")), (0, 1, 1, 2));
    }

    #[test]
    fn a_cut_keeps_whole_characters() {
        assert_eq!(cut("abc→def", 1), "abc");
        assert_eq!(cut("abc", 1), "abc");
    }

    fn hit_of_the_second(first: &[&str], second: &[&str]) -> u64 {
        let mut cache = PrefixCache::default();
        let beginnings = cache.look(&prompt(first));
        assert_eq!(beginnings.hit, 0);
        cache.remember(beginnings);
        cache.look(&prompt(second)).hit
    }

    #[test]
    fn a_beginning_seen_before_is_read_from_the_cache() {
        let long = "x".repeat(8_000);

        assert_eq!(hit_of_the_second(&[&long, "one"], &[&long, "two"]), 2_004);
    }

    #[test]
    fn a_short_beginning_is_not_cached() {
        assert_eq!(hit_of_the_second(&["short", "one"], &["short", "two"]), 0);
    }
}
