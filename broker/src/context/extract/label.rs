//! Titles: `Goal: ...`, `Next steps:` with a list below, `## Decisions`.

use broker_proto::TaskList;

use super::Field;

/// A title, by what stands below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) field: Field,
    /// A list is expected below it, and a paragraph is not what it announces.
    pub(super) is_many: bool,
}

/// Who may say it: some words stand for something only where a person writes them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Anyone,
    Person,
}

use By::{Anyone, Person};
use Field::{Done, Goal, List};
use TaskList::{
    Constraints, CriticalFacts, Decisions, Files, NextSteps, OpenItems, Preferences, SubGoals,
};

/// In lower case; what ends with an `s` announces many.
const LABELS: &[(&str, Field, By)] = &[
    ("goal", Goal, Anyone),
    ("goals", Goal, Anyone),
    ("new goal", Goal, Anyone),
    ("our goal", Goal, Anyone),
    ("overall goal", Goal, Anyone),
    ("the goal", Goal, Anyone),
    ("objective", Goal, Anyone),
    ("sub-goal", List(SubGoals), Anyone),
    ("sub-goals", List(SubGoals), Anyone),
    ("subgoals", List(SubGoals), Anyone),
    ("constraint", List(Constraints), Anyone),
    ("constraints", List(Constraints), Anyone),
    ("decision", List(Decisions), Anyone),
    ("decisions", List(Decisions), Anyone),
    ("decided", List(Decisions), Anyone),
    ("agreed", List(Decisions), Anyone),
    ("decisions so far", List(Decisions), Anyone),
    ("next step", List(NextSteps), Anyone),
    ("next steps", List(NextSteps), Anyone),
    ("remaining steps", List(NextSteps), Anyone),
    ("todo", List(OpenItems), Anyone),
    ("todos", List(OpenItems), Anyone),
    ("to do", List(OpenItems), Anyone),
    ("open question", List(OpenItems), Anyone),
    ("open questions", List(OpenItems), Anyone),
    ("open item", List(OpenItems), Anyone),
    ("open items", List(OpenItems), Anyone),
    ("open point", List(OpenItems), Anyone),
    ("open points", List(OpenItems), Anyone),
    ("still open", List(OpenItems), Anyone),
    ("critical fact", List(CriticalFacts), Anyone),
    ("critical facts", List(CriticalFacts), Anyone),
    ("critical", List(CriticalFacts), Anyone),
    ("remember", List(CriticalFacts), Person),
    ("important", List(CriticalFacts), Person),
    ("preference", List(Preferences), Anyone),
    ("preferences", List(Preferences), Anyone),
    ("files changed", List(Files), Anyone),
    ("files touched", List(Files), Anyone),
    ("relevant files", List(Files), Anyone),
    ("done", Done, Anyone),
    ("completed", Done, Anyone),
];

/// The title that a line is or begins with, and what stands behind its colon.
pub(super) fn label(line: &str, by_person: bool) -> Option<(Label, &str)> {
    let line = line.trim();
    let inner = item(line).unwrap_or(line).trim_start_matches('#').trim_start();
    let is_heading = line.starts_with('#');
    let inner = inner.trim_start_matches('*');
    let (name, rest) = match inner.split_once(':') {
        Some((name, rest)) => (name, rest),
        // `## Next steps` needs no colon.
        None if is_heading => (inner, ""),
        None => return None,
    };
    let name = name.trim_end_matches('*').trim().to_lowercase();
    let (_, field, by) = LABELS.iter().find(|(known, ..)| *known == name)?;
    let rest = rest.trim_start_matches('*').trim();
    // `todo::item` and `goal://` are names.
    let is_text = !rest.starts_with([':', '/']);
    let is_said = *by == By::Anyone || by_person;
    let is_many = name.ends_with('s') && *field != Field::Goal;
    (is_text && is_said).then_some((Label { field: *field, is_many }, rest))
}

/// What stands behind the mark of a list's item.
pub(super) fn item(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let bullet = ["- ", "* ", "• ", "+ "].iter().find_map(|mark| line.strip_prefix(mark));
    let numbered = || {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let rest = line[digits..].strip_prefix(['.', ')'])?.strip_prefix(' ')?;
        (1..=3).contains(&digits).then_some(rest)
    };
    bullet.or_else(numbered).map(str::trim)
}

/// An item without its box, and whether that is ticked.
pub(super) fn ticked(text: &str) -> (&str, bool) {
    let text = text.trim();
    let boxed = |mark: &str| text.strip_prefix(mark).map(str::trim);
    match (boxed("[ ]"), boxed("[x]").or_else(|| boxed("[X]"))) {
        (Some(text), _) => (text, false),
        (None, Some(text)) => (text, true),
        (None, None) => (text, false),
    }
}

/// A file's name or path, and no more.
pub(super) fn is_path(text: &str) -> bool {
    let text = text.trim_matches('`');
    let is_word = !text.contains(char::is_whitespace);
    is_word && text.contains(['/', '.', '\\']) && !text.ends_with('.')
}

/// A list may say that there is nothing in it.
pub(super) fn is_none(text: &str) -> bool {
    let text = text.trim_end_matches('.').to_lowercase();
    matches!(text.as_str(), "none" | "nothing" | "n/a" | "none yet" | "tbd")
}
