//! Whether a summary that a model wrote still says what must be kept. One that does not is not used.
//!
//! Pure. An item is kept where some passage of the summary has nearly all its words, all its numbers and names, and a
//! "not" exactly where the item has one. It is strict: a good summary that is refused costs some tokens, a bad one that
//! is used costs the work.

use std::collections::BTreeSet;

use super::choose::terms;

/// Of an item's words, in hundredths, so many stand in one passage.
const SAID: usize = 80;
/// Lines or sentences that make a passage: an item may be told in two.
const PASSAGE: usize = 2;
/// Words that turn a statement round.
const TURNS: &[&str] =
    &["not", "no", "never", "none", "without", "cannot", "don't", "doesn't", "won't", "isn't"];

/// What a summary leaves out of what must be kept.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the summary leaves out {} of {of} items that must be kept", items.len())]
pub struct Lost {
    /// As [`must_keep`](super::render::must_keep) has them.
    pub items: Vec<String>,
    pub of: usize,
}

/// Content never reaches a log.
impl std::fmt::Debug for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lost({} of {})", self.items.len(), self.of)
    }
}

/// Whether `text` says every item of `must_keep`.
///
/// # Errors
/// [`Lost`] with the items it does not say.
pub fn summary_keeps(must_keep: &[String], text: &str) -> Result<(), Lost> {
    let sentences: Vec<&str> = sentences(text).collect();
    let passages: Vec<Said> = (0..sentences.len())
        .flat_map(|from| (1..=PASSAGE).map(move |many| (from, from + many)))
        .filter(|(_, to)| *to <= sentences.len())
        .map(|(from, to)| Said::of(&sentences[from..to].join(" ")))
        .collect();
    let is_lost = |item: &&String| {
        let said = Said::of(without_title(item));
        !passages.iter().any(|passage| said.is_in(passage))
    };
    let items: Vec<String> = must_keep.iter().filter(is_lost).cloned().collect();
    if items.is_empty() { Ok(()) } else { Err(Lost { items, of: must_keep.len() }) }
}

/// `Decisions: the text` is its text.
fn without_title(item: &str) -> &str {
    item.split_once(": ").map_or(item, |(_, text)| text)
}

/// What a passage says, without the order of its words.
struct Said {
    words: BTreeSet<String>,
    /// Numbers, and what has one in it.
    exact: BTreeSet<String>,
    is_turned: bool,
}

impl Said {
    fn of(text: &str) -> Self {
        let words: BTreeSet<String> = terms(text).into_iter().collect();
        let has_digit = |word: &&String| word.bytes().any(|byte| byte.is_ascii_digit());
        let exact = words.iter().filter(has_digit).cloned().collect();
        let lower = text.to_lowercase().replace('’', "'");
        let is_turned = lower
            .split(|c: char| !c.is_alphanumeric() && c != '\'')
            .any(|word| TURNS.contains(&word));
        Self { words, exact, is_turned }
    }

    fn is_in(&self, passage: &Self) -> bool {
        let said = self.words.intersection(&passage.words).count();
        self.is_turned == passage.is_turned
            && self.exact.is_subset(&passage.exact)
            && said * 100 >= SAID * self.words.len()
    }
}

/// Lines, cut at the ends of sentences.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().flat_map(|line| line.split_inclusive(". "));
    lines.map(str::trim).filter(|sentence| !sentence.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<String> {
        [
            "Goal: Move the invoice service to the new cluster",
            "Constraints: The database must not be restarted on weekdays",
            "Decisions: The copier may run at 15 MB/s between 22:00 and 04:00",
            "Next steps: Copy the table invoice_pdf",
        ]
        .map(str::to_owned)
        .into()
    }

    const GOOD: &str = "We are moving the invoice service to the new cluster. On weekdays the \
        database must not be restarted.\n- The copier runs between 22:00 and 04:00 and may take 15 MB/s.\n\
        Next the table invoice_pdf is copied.";

    #[track_caller]
    fn loses(text: &str, want: &[&str]) {
        let lost = summary_keeps(&items(), text).unwrap_err();
        let titles: Vec<&str> =
            lost.items.iter().map(|item| item.split(':').next().unwrap()).collect();
        assert_eq!(titles, want);
        assert_eq!(lost.of, 4);
    }

    #[test]
    fn other_words_in_another_order_keep_everything() {
        assert_eq!(summary_keeps(&items(), GOOD), Ok(()));
        assert_eq!(summary_keeps(&[], ""), Ok(()));
        assert_eq!(summary_keeps(&items(), &items().join("\n")), Ok(()));
    }

    #[test]
    fn what_is_left_out_is_named() {
        loses("", &["Goal", "Constraints", "Decisions", "Next steps"]);
        loses(&GOOD.replace("Next the table invoice_pdf is copied.", ""), &["Next steps"]);
    }

    #[test]
    fn another_number_another_name_or_a_turned_statement_is_not_what_was_said() {
        loses(&GOOD.replace("15 MB/s", "50 MB/s"), &["Decisions"]);
        loses(&GOOD.replace("04:00", "05:00"), &["Decisions"]);
        loses(&GOOD.replace("invoice_pdf", "customers"), &["Next steps"]);
        loses(&GOOD.replace("must not be", "must be"), &["Constraints"]);
    }

    #[test]
    fn words_scattered_over_the_summary_say_nothing() {
        let scattered = GOOD.replace("Next the table invoice_pdf is copied.", "")
            + "The table is large. Nobody looked. Later. invoice_pdf exists. Then. We copied others.";
        loses(&scattered, &["Next steps"]);
    }

    #[test]
    fn its_error_shows_no_content() {
        let lost = summary_keeps(&items(), "").unwrap_err();
        assert_eq!(lost.to_string(), "the summary leaves out 4 of 4 items that must be kept");
        assert!(!format!("{lost:?}").contains("invoice"));
    }
}
