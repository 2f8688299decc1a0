//! What a conversation states about its own task: goals, decisions, next steps, said as such by people and models.
//!
//! Pure, and for precision rather than recall: what is wrongly held for a decision stands above every rendering from
//! then on, and what is missed still stands in its turn. Results of tools, quotes, code and long pasted texts state nothing.

mod edits;
mod label;
mod sentence;

use broker_proto::{Entry, Part, Role, TaskList};

pub use edits::edits;
use label::Label;

/// A longer text was pasted, not said.
const LONGEST_TEXT: usize = 12_000;
/// Who states more at once hands over a document: its first statements are taken, the others are counted.
const MOST: usize = 24;
/// Characters. A statement is a line or two; a longer one is cut where a sentence ends.
const SHORTEST: usize = 3;
const LONGEST: usize = 400;

/// What of a task is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Goal,
    List(TaskList),
    /// Something that was to be done is done.
    Done,
}

/// One statement.
#[derive(Clone, PartialEq, Eq)]
pub struct Stated {
    pub field: Field,
    pub text: String,
    pub is_done: bool,
    /// Of a list under a title, which takes the place of an earlier such list.
    pub is_listed: bool,
    /// By a person, whose word about the goal counts more.
    pub by_person: bool,
}

/// Content never reaches a log.
impl std::fmt::Debug for Stated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stated({:?}, {} bytes)", self.field, self.text.len())
    }
}

/// What was found in an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    pub stated: Vec<Stated>,
    /// Statements that were too many or too long.
    pub left_out: usize,
}

/// What `entry` states, in its order.
#[must_use]
pub fn stated(entry: &Entry) -> Vec<Stated> {
    found(entry).stated
}

/// The same, and how much of it was left out.
#[must_use]
pub fn found(entry: &Entry) -> Found {
    let by_person = match entry.role {
        Role::User => true,
        Role::Assistant => false,
        Role::System | Role::Tool => return Found::default(),
    };
    let texts = entry.parts.iter().filter_map(|part| match part {
        Part::Text(text) if text.len() <= LONGEST_TEXT => Some(text.as_str()),
        _ => None,
    });
    let mut all = Found::default();
    for text in texts {
        let found = Reader::new(by_person).read(text);
        all.stated.extend(found.stated);
        all.left_out += found.left_out;
    }
    all.left_out += all.stated.len().saturating_sub(MOST);
    all.stated.truncate(MOST);
    all
}

/// Reads a text line by line.
struct Reader {
    by_person: bool,
    found: Found,
    /// The title that the next lines belong to, and whether one of them has come.
    title: Option<(Label, bool)>,
}

impl Reader {
    fn new(by_person: bool) -> Self {
        Self { by_person, found: Found::default(), title: None }
    }

    fn read(mut self, text: &str) -> Found {
        for line in spoken(text) {
            self.line(line);
        }
        self.found
    }

    fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            // A blank line may stand below a title, and between what is below it.
            return;
        }
        let item = label::item(line);
        if let Some((label, rest)) = label::label(line, self.by_person) {
            self.title = None;
            match rest.is_empty() {
                true => self.title = Some((label, false)),
                false => self.state(label, rest, false),
            }
            return;
        }
        match (self.title, item) {
            (Some((label, _)), Some(item)) => {
                self.title = Some((label, true));
                self.state(label, item, true);
                return;
            }
            // An item goes on in the next line.
            (Some((_, true)), None) if line.starts_with(' ') => return,
            // One paragraph may stand below a title in place of a list.
            (Some((label, false)), None) if !label.is_many => {
                self.title = None;
                self.state(label, line, false);
                return;
            }
            _ => self.title = None,
        }
        self.sentences(item.unwrap_or(line));
    }

    fn sentences(&mut self, line: &str) {
        for sentence in sentence::sentences(line) {
            if let Some(field) = sentence::stated(sentence, self.by_person) {
                // The next step takes the place of the one before.
                let is_listed = field == Field::List(TaskList::NextSteps);
                self.push(field, sentence, false, is_listed);
            }
        }
    }

    fn state(&mut self, label: Label, text: &str, is_listed: bool) {
        let (text, is_done) = label::ticked(text);
        // A list below the goal is what the goal consists of.
        let field = match label.field {
            Field::Goal if is_listed => Field::List(TaskList::SubGoals),
            field => field,
        };
        if field == Field::List(TaskList::Files) && !label::is_path(text) {
            return;
        }
        self.push(field, text, is_done, is_listed);
    }

    fn push(&mut self, field: Field, text: &str, is_done: bool, is_listed: bool) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = text.trim_matches('*').trim();
        if text.chars().count() < SHORTEST || label::is_none(text) {
            return;
        }
        let Some(text) = within(text) else {
            self.found.left_out += 1;
            return;
        };
        let (text, by_person) = (text.to_owned(), self.by_person);
        self.found.stated.push(Stated { field, text, is_done, is_listed, by_person });
    }
}

/// The text, or as many of its sentences as are not too long; nothing where its first one is.
fn within(text: &str) -> Option<&str> {
    let Some((most, _)) = text.char_indices().nth(LONGEST) else { return Some(text) };
    let ends = [". ", "! ", "? "].iter().filter_map(|end| text[..most].rfind(end));
    ends.max().map(|end| &text[..=end])
}

/// The lines that are said: neither code nor quoted.
fn spoken(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") || trimmed.starts_with("~~~") {
            is_code = !is_code;
            return false;
        }
        let is_indented =
            (line.starts_with("    ") || line.starts_with('\t')) && label::item(line).is_none();
        !is_code && !trimmed.starts_with('>') && !trimmed.starts_with('|') && !is_indented
    })
}

#[cfg(test)]
mod tests;
