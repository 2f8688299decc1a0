//! One sentence as it is compared: its words, and its values with their places.

use std::collections::BTreeSet;

use super::{READ, SENTENCES};
use crate::context::choose::terms;

/// Of an item's words, in hundredths, so many stand in a question about it, and in a statement about it.
const ASKED: usize = 50;
const STATED: usize = 70;
/// Longer words that a statement may have beside those of the item it is about.
const BESIDE: usize = 4;
/// Words of so few letters join others in most languages.
const SHORT: usize = 3;
/// Letters of a sentence that are compared.
const COMPARED: usize = 2_000;
/// How a question ends, in the scripts that have a sign for it.
const ASKS: &[char] = &['?', '？', '؟', '⸮', '\u{37e}'];
/// How a sentence ends where no blank follows.
const ENDS: &[char] = &['。', '！', '？', '؟'];
/// Words that turn an English statement round.
const TURNS: &[&str] =
    &["not", "no", "never", "none", "without", "cannot", "don't", "doesn't", "won't", "isn't"];
/// What stands in an English sentence that wants to be told, without a question mark.
const REQUESTS: &[&str] = &[
    "remind me",
    "tell me",
    "let me know",
    "i need to know",
    "please provide",
    "please share",
    "please clarify",
    "please confirm",
];

/// What a sentence says, by its words and values.
pub(super) struct Said {
    pub(super) sentence: String,
    tokens: Vec<Token>,
    words: BTreeSet<String>,
    values: BTreeSet<String>,
    is_turned: bool,
    is_question: bool,
}

/// What stands between blanks.
struct Token {
    /// In small letters, without the punctuation around it.
    text: String,
    is_value: bool,
    /// Empty for an English word of the closed classes, and for a value.
    words: Vec<String>,
}

impl Token {
    fn of(raw: &str) -> Option<Self> {
        let is_edge = |c: char| !c.is_alphanumeric() && c != '_';
        let trimmed = raw.trim_matches(is_edge);
        if trimmed.is_empty() {
            return None;
        }
        let is_code = raw.contains('`');
        let is_value = is_code || is_value(trimmed);
        let words = if is_value { Vec::new() } else { terms(trimmed) };
        // `1,000` is `1000`, and `1'000` is.
        let is_number = trimmed.chars().all(|c| c.is_numeric() || ",'’_.".contains(c));
        let text = match is_number {
            true => trimmed.replace([',', '\'', '’', '_'], ""),
            false => trimmed.to_lowercase(),
        };
        Some(Self { text, is_value, words })
    }

    /// What it looks like, of a value: `99:99`, `aaa/9.9`.
    fn shape(&self) -> String {
        let sign = |c: char| match c {
            _ if c.is_numeric() => '9',
            _ if c.is_alphabetic() => 'a',
            other => other,
        };
        self.text.chars().map(sign).collect()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.text == other.text || !self.words.is_empty() && self.words == other.words
    }
}

/// A number, a name with a digit in it, a name with a joint: what has no translation.
fn is_value(text: &str) -> bool {
    let small_then_large = |pair: [char; 2]| pair[0].is_lowercase() && pair[1].is_uppercase();
    let letters: Vec<char> = text.chars().collect();
    let has_hump = letters.windows(2).any(|pair| small_then_large([pair[0], pair[1]]));
    let ending = text.rsplit_once('.').map(|(_, ending)| ending.chars().count());
    text.contains(char::is_numeric)
        || text.contains(['_', '\\', '@'])
        || text.contains("::")
        || text.matches('/').count() > 1
        || ending.is_some_and(|letters| letters > 1)
        || has_hump
}

impl Said {
    pub(super) fn of(sentence: &str) -> Self {
        let sentence = plain(sentence);
        let compared: String = sentence.chars().take(COMPARED).collect();
        let tokens: Vec<Token> = compared.split_whitespace().filter_map(Token::of).collect();
        let words = tokens.iter().flat_map(|token| token.words.iter().cloned()).collect();
        let values = tokens.iter().filter(|it| it.is_value).map(|it| it.text.clone()).collect();
        let lower = compared.to_lowercase().replace('’', "'");
        let mut spoken = lower.split(|c: char| !c.is_alphanumeric() && c != '\'');
        let is_turned = spoken.any(|word| TURNS.contains(&word));
        let end = compared.trim_end_matches(['"', '*', '_', ')', '»', '”', '“']);
        let is_question =
            end.ends_with(ASKS) || REQUESTS.iter().any(|request| lower.contains(request));
        Self { sentence, tokens, words, values, is_turned, is_question }
    }

    /// Whether so many hundredths of the item's words stand here.
    fn is_about(&self, item: &Self, share: usize) -> bool {
        let shared = item.words.intersection(&self.words).count();
        shared > 0 && shared * 100 >= share * item.words.len()
    }

    /// Whether nearly every word is the item's or one of the closed classes: what this says is understood so far.
    fn is_understood(&self, item: &Self) -> bool {
        let is_known = |token: &&Token| {
            let is_closed = !token.is_value && token.words.is_empty();
            is_closed || item.tokens.iter().any(|other| other.is_same(token))
        };
        self.tokens.iter().filter(is_known).count() * 3 > self.tokens.len() * 2
    }

    /// It wants to be told what the item says: it names what that is about, and has not all of it.
    pub(super) fn asks_for(&self, item: &Self) -> bool {
        let knows = match item.values.is_empty() {
            true => item.words.is_subset(&self.words),
            false => item.values.is_subset(&self.values),
        };
        self.is_question && !knows && self.is_about(item, ASKED)
    }

    /// It states something else: another value in the place of one of the item's, or the same turned round.
    pub(super) fn is_against(&self, item: &Self) -> bool {
        let is_long = |word: &&String| word.chars().count() > SHORT;
        let beside = self.words.difference(&item.words).filter(is_long).count();
        if self.is_question || beside > BESIDE || !self.is_about(item, STATED) {
            return false;
        }
        if !item.values.is_subset(&self.values) {
            return self.replaces_a_value_of(item);
        }
        self.is_turned != item.is_turned && self.is_understood(item)
    }

    fn replaces_a_value_of(&self, item: &Self) -> bool {
        let places = |of: &Self, others: &BTreeSet<String>| -> Vec<usize> {
            let is_other = |it: &Token| it.is_value && !others.contains(&it.text);
            let places = of.tokens.iter().enumerate().filter(|(_, it)| is_other(it));
            places.map(|(at, _)| at).collect()
        };
        let (missing, new) = (places(item, &self.values), places(self, &item.values));
        missing.iter().any(|of| new.iter().any(|at| self.has_in_place(*at, item, *of)))
    }

    /// Whether a value stands here as another does in the item: behind the same word, or before the same.
    fn has_in_place(&self, at: usize, item: &Self, of: usize) -> bool {
        let before = item.tokens[..of].iter().rev().find(|it| !it.words.is_empty() || it.is_value);
        let behind = |within: usize| {
            let near = &self.tokens[at.saturating_sub(within)..at];
            before.is_some_and(|before| near.iter().any(|it| it.is_same(before)))
        };
        let next = item.tokens.get(of + 1).zip(self.tokens.get(at + 1));
        let is_before = next.is_some_and(|(one, other)| one.is_same(other));
        let is_alike = self.tokens[at].shape() == item.tokens[of].shape();
        is_before || behind(2) || is_alike && behind(4)
    }

    /// It has all that the item says, and nothing that is not understood.
    pub(super) fn restates(&self, item: &Self) -> bool {
        let has_all = !item.values.is_empty() || item.words.is_subset(&self.words);
        !self.is_question
            && has_all
            && item.values.is_subset(&self.values)
            && self.is_about(item, ASKED)
            && self.is_turned == item.is_turned
            && self.is_understood(item)
    }
}

/// Without what a terminal or a page would obey.
pub(super) fn plain(text: &str) -> String {
    let is_hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let shown = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().filter(|c| !is_hidden(*c)).map(shown).collect()
}

/// Lines, cut at the ends of sentences; without code and quotations. And whether there were more.
pub(super) fn sentences(text: &str) -> (Vec<String>, bool) {
    let mut end = text.len().min(READ);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut all: Vec<String> = Vec::new();
    let mut is_code = false;
    for line in text[..end].lines().map(str::trim) {
        if line.starts_with("```") || line.starts_with("~~~") {
            is_code = !is_code;
            continue;
        }
        if is_code || line.starts_with('>') {
            continue;
        }
        let mut from = 0;
        for (at, sign) in line.char_indices() {
            let behind = at + sign.len_utf8();
            // `a.b` and `15.5` go on.
            let ends = matches!(sign, '.' | '!' | '?')
                && line[behind..].starts_with(char::is_whitespace)
                || ENDS.contains(&sign);
            if ends {
                all.push(line[from..behind].trim().to_owned());
                from = behind;
            }
        }
        all.push(line[from..].trim().to_owned());
        if all.len() > 2 * SENTENCES {
            break;
        }
    }
    all.retain(|sentence| !sentence.is_empty());
    let is_partial = end < text.len() || all.len() > SENTENCES;
    all.truncate(SENTENCES);
    (all, is_partial)
}
