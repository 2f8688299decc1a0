//! Sentences that state something: "We decided to ...", "Never ...", "The goal is ...".

use broker_proto::TaskList;

use super::Field;

/// Words that lead into a sentence and change nothing of what it says.
const LEADS: &[&str] = &[
    "so",
    "ok",
    "okay",
    "yes",
    "then",
    "and",
    "but",
    "today",
    "yesterday",
    "well",
    "alright",
    "right",
    "finally",
    "also",
    "good",
    "great",
    "please",
    "fine",
];

/// Beginnings that state a decision, whoever says them.
const DECIDED: &[&str] = &[
    "we decided ",
    "we have decided ",
    "we've decided ",
    "i decided ",
    "i have decided ",
    "i've decided ",
    "it was decided ",
    "we agreed ",
    "we have agreed ",
    "we've agreed ",
    "we settled on ",
    "we have settled on ",
    "we've settled on ",
    "the decision is ",
];
/// Those that are a decision where a person says them; a model so proposes.
const CHOSEN: &[&str] = &["let's go with ", "let us go with ", "we go with ", "we'll go with "];
const GOALS: &[&str] =
    &["the goal is ", "our goal is ", "my goal is ", "the goal now is ", "the new goal is "];
const STEPS: &[&str] = &["the next step is ", "next step is ", "the next steps are "];
/// A person's word that something is never to be done.
const NEVER: &[&str] = &[
    "never ",
    "do not ever ",
    "don't ever ",
    "under no circumstances ",
    "you must never ",
    "you must not ",
    "it must never ",
    "we must never ",
    "we must not ",
    "it must not ",
];
/// Behind a subject, in a person's sentence: what holds whatever happens.
const MUST: &[&str] = &[
    " must never ",
    " must not ",
    " must always ",
    " must stay ",
    " must remain ",
    " must keep ",
    " must be in ",
    " must be at ",
    " must run ",
    " must use ",
    " may never ",
    " must only ",
];
const PREFERRED: &[&str] = &["i prefer ", "we prefer ", "i would prefer ", "i'd prefer "];

/// Where a question or a doubt begins, nothing is stated.
const DOUBTS: &[&str] = &[
    " if ",
    " whether ",
    " unless ",
    " maybe ",
    " perhaps ",
    " might ",
    " not sure",
    " or not",
    " i think ",
    " wonder",
];

/// What a sentence states.
pub(super) fn stated(sentence: &str, by_person: bool) -> Option<Field> {
    let said = plain(sentence);
    if sentence.trim_end().ends_with('?') {
        return None;
    }
    let begins = |beginnings: &[&str]| beginnings.iter().any(|it| said.starts_with(it));
    let is_doubtful = || DOUBTS.iter().any(|doubt| format!(" {said}").contains(doubt));
    let list = |list| Some(Field::List(list));
    if begins(DECIDED) || by_person && begins(CHOSEN) {
        // "We decided nothing yet" is none.
        let is_open =
            [" nothing", " later", " tomorrow whether"].iter().any(|it| said.contains(it));
        return if is_doubtful() || is_open { None } else { list(TaskList::Decisions) };
    }
    if begins(GOALS) && by_person && !is_doubtful() {
        return Some(Field::Goal);
    }
    if begins(STEPS) && !is_doubtful() {
        return list(TaskList::NextSteps);
    }
    if by_person && begins(PREFERRED) {
        return list(TaskList::Preferences);
    }
    let forbids = begins(NEVER) && (!said.starts_with("never ") || is_order(&said));
    let is_rule = forbids || MUST.iter().any(|must| said.contains(must));
    (by_person && is_rule && !is_doubtful()).then_some(Field::List(TaskList::CriticalFacts))
}

/// "Never deploy on Fridays" orders, "never mind" and "never seen that" do not.
fn is_order(said: &str) -> bool {
    let Some(rest) = said.strip_prefix("never ") else { return false };
    let mut words = rest.split_whitespace();
    let (Some(verb), Some(_)) = (words.next(), words.next()) else { return false };
    let is_told = verb.ends_with("ed") || verb.ends_with("ing");
    const NONE: &[&str] = &[
        "mind", "again", "seen", "been", "had", "was", "saw", "knew", "heard", "once", "a", "the",
        "gonna", "in", "got", "met", "felt", "thought", "said", "before", "fear", "ever", "too",
    ];
    !is_told && !NONE.contains(&verb)
}

/// In lower case, without what leads into it, one blank between words and one at the end.
fn plain(sentence: &str) -> String {
    let text = sentence.to_lowercase().replace('’', "'");
    let text = text.trim().trim_end_matches(['.', '!', ';']);
    let mut words: Vec<&str> = text.split_whitespace().collect();
    while let Some(first) = words.first() {
        if !LEADS.contains(&first.trim_end_matches([',', ':', '.', '!'])) {
            break;
        }
        words.remove(0);
    }
    let mut plain = words.join(" ");
    plain.push(' ');
    plain
}

/// The sentences of a line, each with the mark at its end.
pub(super) fn sentences(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line.trim();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (sentence, after) = rest.split_at(end(rest));
        rest = after.trim_start();
        Some(sentence.trim_end())
    })
}

/// Where the first sentence ends.
fn end(text: &str) -> usize {
    for (at, mark) in text.match_indices(['.', '!', '?']) {
        let behind = &text[at + mark.len()..];
        let word = text[..at].rsplit(char::is_whitespace).next().unwrap_or_default();
        let is_short = mark == "."
            && matches!(word, "e.g" | "i.e" | "etc" | "vs" | "no" | "nr" | "mr" | "mrs" | "dr");
        if behind.starts_with(char::is_whitespace) && !is_short {
            return at + mark.len();
        }
    }
    text.len()
}
