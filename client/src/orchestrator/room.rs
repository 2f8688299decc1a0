//! Fills a payload's budget: what must be there, then by turns from each queue what still fits; the rest is counted.

use std::collections::{BTreeMap, VecDeque};

use super::{
    record::{self, Active, CriticalContext, Failed, File, Next, Node, Record},
    text, tokens,
};

/// Characters of a title, an error or a note that are kept of a longer one.
const MOST_TEXT: usize = 120;
/// Characters of an id or a path.
const MOST_ID: usize = 80;
/// Tokens of the smallest item: a text of one word, its quotes and its line.
const LEAST: u64 = 7;
/// What a task waits for: more are counted.
const MOST_WAITS: usize = 6;

/// One entry of a payload's lists.
#[derive(Clone)]
pub(super) enum Item {
    Active(Active),
    Failed(Failed),
    Next(Next),
    Constraint(String),
    Fact(String),
    Decision(String),
    Open(String),
    Preference(String),
    Waiting(Node),
    File(File),
    Environment(String, String),
}

/// Items of one kind in their order, and how many of them are taken in a turn.
pub(super) struct Queue {
    pub(super) at_once: usize,
    pub(super) items: VecDeque<Item>,
}

impl Queue {
    pub(super) fn of(at_once: usize, items: impl Iterator<Item = Item>) -> Self {
        Self { at_once, items: items.collect() }
    }
}

/// What is to be filled, with what.
pub(super) struct Plan {
    pub(super) record: Record,
    /// Texts of the record that were cut.
    pub(super) shortened: usize,
    /// Each group is exhausted before the next begins.
    pub(super) queues: Vec<Vec<Queue>>,
    pub(super) no_key: Vec<(&'static str, usize)>,
}

pub(super) struct Filled {
    pub(super) record: Record,
    pub(super) text: String,
}

/// Cuts texts and counts how many it cut.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) shortened: usize,
}

impl Words {
    pub(super) fn short(&mut self, text: &str, most: usize) -> String {
        let (text, is_cut) = text::short(text, most);
        self.shortened += usize::from(is_cut);
        text
    }

    fn maybe(&mut self, text: &mut Option<String>, most: usize) {
        *text = text.take().map(|text| self.short(&text, most));
    }
}

impl Item {
    /// What it is counted as when it is left out.
    fn name(&self) -> &'static str {
        match self {
            Self::Active(_) => "active",
            Self::Failed(_) => "failed",
            Self::Next(_) => "next",
            Self::Constraint(_) => "constraints",
            Self::Fact(_) => "facts",
            Self::Decision(_) => "decisions",
            Self::Open(_) => "open_items",
            Self::Preference(_) => "preferences",
            Self::Waiting(_) => "waiting",
            Self::File(_) => "files",
            Self::Environment(..) => "environment",
        }
    }

    /// Cuts what nobody needs whole.
    pub(super) fn shorten(&mut self, words: &mut Words) {
        match self {
            Self::Active(task) => {
                task.id = words.short(&task.id, MOST_ID);
                task.title = words.short(&task.title, MOST_TEXT);
                words.maybe(&mut task.assignee, MOST_ID);
                words.maybe(&mut task.next_subtask, MOST_TEXT);
            }
            Self::Failed(task) => {
                task.id = words.short(&task.id, MOST_ID);
                task.title = words.short(&task.title, MOST_TEXT);
                words.maybe(&mut task.error, MOST_TEXT);
            }
            Self::Next(Next::Task { id, title, .. }) => {
                *id = words.short(id, MOST_ID);
                *title = words.short(title, MOST_TEXT);
            }
            Self::Waiting(node) => {
                node.id = words.short(&node.id, MOST_ID);
                let more = node.waits_for.len().saturating_sub(MOST_WAITS);
                node.waits_for.truncate(MOST_WAITS);
                for id in &mut node.waits_for {
                    *id = words.short(id, MOST_ID);
                }
                if more > 0 {
                    words.shortened += 1;
                    node.waits_for.push(format!("… {more} more"));
                }
            }
            Self::File(file) => {
                file.path = words.short(&file.path, MOST_ID);
                words.maybe(&mut file.status, MOST_ID);
                words.maybe(&mut file.note, MOST_TEXT);
            }
            // A name is whole: two that are cut could become one.
            Self::Environment(_, value) => *value = words.short(value, MOST_TEXT),
            Self::Next(Next::Step { step: text })
            | Self::Constraint(text)
            | Self::Fact(text)
            | Self::Decision(text)
            | Self::Open(text)
            | Self::Preference(text) => *text = words.short(text, MOST_TEXT),
        }
    }

    /// Puts it at the end of its list.
    pub(super) fn put(self, record: &mut Record) {
        let critical = |record: &mut Record, put: fn(&mut CriticalContext, String), text| {
            if let Some(context) = &mut record.critical_context {
                put(context, text);
            }
        };
        match self {
            Self::Active(task) => record.active.push(task),
            Self::Failed(task) => record.failed.push(task),
            Self::Next(next) => record.next.push(next),
            Self::Constraint(text) => critical(record, |of, text| of.constraints.push(text), text),
            Self::Fact(text) => critical(record, |of, text| of.facts.push(text), text),
            Self::Decision(text) => critical(record, |of, text| of.decisions.push(text), text),
            Self::Open(text) => critical(record, |of, text| of.open_items.push(text), text),
            Self::Preference(text) => critical(record, |of, text| of.preferences.push(text), text),
            Self::Waiting(node) => {
                record.dag_snapshot.get_or_insert_default().waiting.push(node);
            }
            Self::File(file) => record.file_state.get_or_insert_default().push(file),
            Self::Environment(name, value) => {
                record.environment.get_or_insert_default().insert(name, value);
            }
        }
    }

    /// Its line as it is written, and its characters when every field has a line of its own.
    fn line(&self) -> (String, usize) {
        fn both(value: &impl serde::Serialize) -> (String, usize) {
            let line = record::text(&[value]).unwrap_or_default();
            let indented = serde_json::to_string_pretty(&[[value]]).unwrap_or_default();
            (line, indented.chars().count())
        }
        match self {
            Self::Active(task) => both(task),
            Self::Failed(task) => both(task),
            Self::Next(next) => both(next),
            Self::Waiting(node) => both(node),
            Self::File(file) => both(file),
            Self::Environment(name, value) => both(&BTreeMap::from([(name, value)])),
            Self::Constraint(text)
            | Self::Fact(text)
            | Self::Decision(text)
            | Self::Open(text)
            | Self::Preference(text) => both(text),
        }
    }
}

/// What is left of the budget, in both measures of [`measure`].
struct Room {
    pieces: u64,
    characters: u64,
}

impl Room {
    fn of(budget: u64, record: &Record) -> Result<Self, u64> {
        let (pieces, characters) = measures(record);
        let most = pieces.max(characters.div_ceil(4));
        if most > budget {
            return Err(most);
        }
        Ok(Self { pieces: budget - pieces, characters: budget * 4 - characters })
    }

    fn take(&mut self, item: &Item) -> bool {
        let (line, characters) = item.line();
        let (pieces, characters) = (tokens::estimate(&line), characters as u64);
        let fits = pieces <= self.pieces && characters <= self.characters;
        if fits {
            self.pieces -= pieces;
            self.characters -= characters;
        }
        fits
    }
}

/// Fills `plan` to at most `budget` tokens.
///
/// # Errors
/// The tokens that are needed, when what must be there is over the budget already.
pub(super) fn fill(plan: Plan, budget: u64) -> Result<Filled, u64> {
    let Plan { mut record, mut shortened, queues, no_key } = plan;
    let mut left_out: BTreeMap<&'static str, usize> = no_key.into_iter().collect();
    for item in queues.iter().flatten().flat_map(|queue| &queue.items) {
        *left_out.entry(item.name()).or_default() += 1;
    }
    left_out.retain(|_, count| *count > 0);
    // As large as it can become, so that the room is not overestimated.
    record.summary.left_out.clone_from(&left_out);
    record.summary.shortened = 999_999;
    let mut room = Room::of(budget, &record)?;
    for group in queues {
        let mut group = group;
        while group.iter().any(|queue| !queue.items.is_empty()) {
            for queue in &mut group {
                let taken = turn(queue, &mut room);
                for (item, cut) in taken {
                    shortened += cut;
                    if let Some(count) = left_out.get_mut(item.name()) {
                        *count -= 1;
                    }
                    item.put(&mut record);
                }
            }
        }
    }
    left_out.retain(|_, count| *count > 0);
    record.summary.left_out = left_out;
    record.summary.shortened = shortened;
    record.summary.tokens.estimate = measure(&record);
    let text = record::text(&record).unwrap_or_default();
    Ok(Filled { record, text })
}

/// The next items of a queue that fit, each with how many of its texts were cut.
fn turn(queue: &mut Queue, room: &mut Room) -> Vec<(Item, usize)> {
    let mut taken = Vec::new();
    while taken.len() < queue.at_once {
        if room.pieces < LEAST {
            queue.items.clear();
        }
        let Some(mut item) = queue.items.pop_front() else { break };
        let mut words = Words::default();
        item.shorten(&mut words);
        if room.take(&item) {
            taken.push((item, words.shortened));
        }
    }
    taken
}

/// The tokens of a payload: by its pieces as it is written, and at least a quarter of its characters as most programs
/// would write it again, with a line for each field.
pub(super) fn measure(value: &impl serde::Serialize) -> u64 {
    let (pieces, characters) = measures(value);
    pieces.max(characters.div_ceil(4))
}

fn measures(value: &impl serde::Serialize) -> (u64, u64) {
    let written = record::text(value).unwrap_or_default();
    let indented = serde_json::to_string_pretty(value).unwrap_or_default();
    (tokens::estimate(&written), indented.chars().count() as u64)
}
