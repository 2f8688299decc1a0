//! What a receiver's first reply makes of what must be kept: it asks for it again, states another value, or restates it.
//!
//! Pure, and a guess. It goes by what is the same in every language: an item's values (numbers, names with a digit or a
//! joint, what stands in backticks) and its key words. A question that names the key words and has not the values asks
//! again; a statement about the item that has another value in the place of one of its own contradicts it. Two things are
//! seen in English alone: a "not" where the item has none, and a request without a question mark. Of everything else it
//! says that it cannot tell. Code and quoted lines are not read.

mod said;
#[cfg(test)]
mod tests;

use broker_proto::{Echo, Judged, Verdict};

use self::said::{Said, plain, sentences};

/// Bytes of a reply that are read, and the sentences of it.
pub const READ: usize = 256 * 1024;
pub const SENTENCES: usize = 2_000;
/// Letters of a sentence that are shown.
const SHOWN: usize = 300;
/// Titles of items that state something; the others are work, of which a "not yet" is no contradiction.
const STATEMENTS: &[&str] = &["Constraints", "Decisions", "Critical facts"];

/// What a first reply shows of each item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Echoes {
    /// One for each item, in their order.
    pub judged: Vec<Judged>,
    pub asked_again: Vec<Echo>,
    pub contradicted: Vec<Echo>,
    /// Whether not all of the reply was read.
    pub is_partial: bool,
}

/// Judges a reply against what must be kept, each item as [`must_keep`](super::render::must_keep) has it. An item is
/// listed at most once in each list, with the first sentence. Without a reply nothing can be told of any item.
#[must_use]
pub fn echoes(must_keep: &[String], reply: Option<&str>) -> Echoes {
    let (said, is_partial) = sentences(reply.unwrap_or_default());
    let said: Vec<Said> = said.iter().map(|sentence| Said::of(sentence)).collect();
    let mut found = Echoes { is_partial, ..Echoes::default() };
    for item in must_keep {
        let (title, text) = item.split_once(": ").unwrap_or(("", item));
        let kept = Said::of(text);
        let first = |is: &dyn Fn(&Said) -> bool| said.iter().find(|said| is(said)).map(shown);
        let against = first(&|said| STATEMENTS.contains(&title) && said.is_against(&kept));
        let asks = first(&|said| said.asks_for(&kept));
        let restates = first(&|said| said.restates(&kept));
        let echo = |sentence: &String| Echo { item: plain(item), sentence: sentence.clone() };
        found.contradicted.extend(against.as_ref().map(echo));
        found.asked_again.extend(asks.as_ref().map(echo));
        let (verdict, sentence) = match (against, asks, restates) {
            (Some(sentence), ..) => (Verdict::Contradicted, sentence),
            (None, Some(sentence), _) => (Verdict::AskedAgain, sentence),
            (None, None, Some(sentence)) => (Verdict::Restated, sentence),
            (None, None, None) => (Verdict::Unknown, String::new()),
        };
        found.judged.push(Judged { item: plain(item), verdict, sentence });
    }
    found
}

fn shown(said: &Said) -> String {
    let mut letters = said.sentence.chars();
    let mut shown: String = letters.by_ref().take(SHOWN).collect();
    if letters.next().is_some() {
        shown.push('…');
    }
    shown
}
