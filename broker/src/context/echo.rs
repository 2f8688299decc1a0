//! What a receiver's first reply makes of what must be kept: it asks for it again, or says the opposite.
//!
//! Pure, and a guess by words: a question that is about an item and does not know it, a statement that is about an item
//! and has another number, or a "not" where the item has none. It errs towards saying nothing, so an item that is not
//! listed is not proved to be known. Code and quoted lines are not read.

use std::collections::BTreeSet;

use broker_proto::Echo;

use super::choose::terms;

/// Of an item's words, in hundredths, so many stand in a question about it, and in a statement about it.
const ASKED: usize = 50;
const STATED: usize = 70;
/// Words that a statement may have beside those of the item it is about.
const BESIDE: usize = 4;
/// Words that turn a statement round.
const TURNS: &[&str] =
    &["not", "no", "never", "none", "without", "cannot", "don't", "doesn't", "won't", "isn't"];
/// How a question begins that wants to be told.
const WANTS: &[&str] = &["what", "which", "where", "when", "who", "whom", "whose", "how"];
/// What stands in a sentence that wants to be told, with a question mark or without.
const REQUESTS: &[&str] = &[
    "remind me",
    "tell me",
    "let me know",
    "i need to know",
    "could you share",
    "can you share",
    "could you clarify",
    "can you clarify",
    "please provide",
    "could you provide",
    "can you provide",
    "please confirm",
];
/// Titles of items that state something; the others are work, of which a "not yet" is no contradiction.
const STATEMENTS: &[&str] = &["Constraints", "Decisions", "Critical facts"];

/// What a first reply shows of each item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Echoes {
    pub asked_again: Vec<Echo>,
    pub contradicted: Vec<Echo>,
}

/// Judges a reply against what must be kept, each item as [`must_keep`](super::render::must_keep) has it. An item is
/// listed at most once in each list, with the first sentence.
#[must_use]
pub fn echoes(must_keep: &[String], reply: &str) -> Echoes {
    let said: Vec<Said> = sentences(reply).into_iter().map(Said::of).collect();
    let mut found = Echoes::default();
    for item in must_keep {
        let (title, text) = item.split_once(": ").unwrap_or(("", item));
        let kept = Said::of(text.to_owned());
        let echo = |said: &Said| Echo { item: item.clone(), sentence: said.sentence.clone() };
        found.asked_again.extend(said.iter().find(|said| said.asks_for(&kept)).map(echo));
        if STATEMENTS.contains(&title) {
            found.contradicted.extend(said.iter().find(|said| said.is_against(&kept)).map(echo));
        }
    }
    found
}

/// What a sentence says, without the order of its words.
struct Said {
    sentence: String,
    words: BTreeSet<String>,
    /// Numbers, and what has one in it.
    exact: BTreeSet<String>,
    is_turned: bool,
    is_question: bool,
    wants: bool,
}

impl Said {
    fn of(sentence: String) -> Self {
        let has_digit = |word: &String| word.bytes().any(|byte| byte.is_ascii_digit());
        let (exact, words) = terms(&sentence).into_iter().partition(has_digit);
        let lower = sentence.to_lowercase().replace('’', "'");
        let mut spoken = lower.split(|c: char| !c.is_alphanumeric() && c != '\'');
        let is_turned = spoken.clone().any(|word| TURNS.contains(&word));
        let is_question = sentence.trim_end_matches(['"', '*', '_', ')']).ends_with('?');
        let wants = is_question && spoken.any(|word| WANTS.contains(&word))
            || REQUESTS.iter().any(|request| lower.contains(request));
        Self { sentence, words, exact, is_turned, is_question, wants }
    }

    /// Whether so many hundredths of the item's words stand here.
    fn is_about(&self, item: &Self, share: usize) -> bool {
        let shared = item.words.intersection(&self.words).count();
        shared > 0 && shared * 100 >= share * item.words.len()
    }

    /// It wants to be told what the item says: of its numbers it has not all.
    fn asks_for(&self, item: &Self) -> bool {
        let knows = !item.exact.is_empty() && item.exact.is_subset(&self.exact);
        self.wants && !knows && self.is_about(item, ASKED)
    }

    /// It states something else: other numbers in their place, or the same turned round.
    fn is_against(&self, item: &Self) -> bool {
        let beside = self.words.difference(&item.words).count();
        if self.is_question || self.wants || beside > BESIDE || !self.is_about(item, STATED) {
            return false;
        }
        let others =
            !item.exact.is_empty() && !self.exact.is_empty() && self.exact.is_disjoint(&item.exact);
        let is_same = item.exact.is_subset(&self.exact);
        others || is_same && self.is_turned != item.is_turned
    }
}

/// Lines, cut at the ends of sentences; without code and quotations.
fn sentences(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut is_code = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        if is_code || line.starts_with('>') {
            continue;
        }
        let mut from = 0;
        for (at, end) in line.match_indices(['.', '!', '?']) {
            let behind = at + end.len();
            // `a.b` and `15.5` go on.
            if line[behind..].starts_with(char::is_whitespace) {
                all.push(line[from..behind].trim().to_owned());
                from = behind;
            }
        }
        all.push(line[from..].trim().to_owned());
    }
    all.retain(|sentence| !sentence.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<String> {
        [
            "Goal: Move the invoice service to the new cluster",
            "Constraints: The database must not be restarted on weekdays",
            "Decisions: The copier may run at 15 MB/s between 22:00 and 04:00",
            "Critical facts: The port is 7411",
            "Next steps: Copy the table invoice_pdf",
        ]
        .map(str::to_owned)
        .into()
    }

    #[track_caller]
    fn finds(reply: &str, asked: &[&str], contradicted: &[&str]) {
        let found = echoes(&items(), reply);
        let titles = |all: &[Echo]| -> Vec<String> {
            all.iter().map(|echo| echo.item.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(titles(&found.asked_again), asked, "asked again: {reply}");
        assert_eq!(titles(&found.contradicted), contradicted, "contradicted: {reply}");
    }

    #[test]
    fn what_is_asked_again_is_found_with_its_sentence() {
        finds("Thanks. Which port should I use?", &["Critical facts"], &[]);
        finds("Please tell me the port.", &["Critical facts"], &[]);
        finds("When may the database be restarted?", &["Constraints"], &[]);
        let found = echoes(&items(), "I am ready. What port is it? Then I begin.");
        assert_eq!(found.asked_again[0].sentence, "What port is it?");
    }

    #[test]
    fn what_is_contradicted_is_found() {
        finds("The port is 8080.", &[], &["Critical facts"]);
        finds("The database can be restarted on weekdays.", &[], &["Constraints"]);
        finds("The copier may not run at 15 MB/s between 22:00 and 04:00.", &[], &["Decisions"]);
    }

    #[test]
    fn who_knows_it_or_speaks_of_something_else_is_left_alone() {
        finds("The port is 7411, and I keep it.", &[], &[]);
        finds("Shall I open port 7411 now?", &[], &[]);
        finds("Which port 7411 client shall I test first?", &[], &[]);
        finds("On weekdays I do not restart the database.", &[], &[]);
        finds("I have not moved the invoice service to the new cluster yet.", &[], &[]);
        finds("Which colour do you like? The sky is blue. It has 3 clouds.", &[], &[]);
        finds("Shall I copy the table invoice_pdf now?", &[], &[]);
        finds(
            "The old load balancer in front of the other cluster has its admin port at 9000.",
            &[],
            &[],
        );
        finds("", &[], &[]);
    }

    #[test]
    fn code_and_quotations_are_not_its_words() {
        finds("```\nThe port is 8080.\n```\n> Which port?\nDone.", &[], &[]);
    }

    #[test]
    fn a_point_within_a_word_ends_no_sentence() {
        let want = ["Open src/a.rs now.", "Then v1.2?", "Yes"];
        assert_eq!(sentences("Open src/a.rs now. Then v1.2? Yes"), want);
    }
}
