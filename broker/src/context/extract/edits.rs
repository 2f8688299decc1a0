//! Statements as changes of the task that is known: nothing twice, and what is newer in place of what it replaces.

use std::collections::BTreeSet;

use broker_proto::{SessionItem, SessionTask, TaskEdit, TaskList};

use super::{Field, Stated};

/// Of so many words, in hundredths, the same: two wordings of one thing.
const SAME: usize = 75;

/// What the statements of entry `number` change. Edits are meant for the task as it is here, all at once.
#[must_use]
pub fn edits(task: &SessionTask, number: u64, stated: &[Stated]) -> Vec<TaskEdit> {
    let mut edits = Edits { task, number, made: Vec::new(), added: Vec::new() };
    let listed = |list: TaskList| {
        let is_new = move |it: &&Stated| it.is_listed && it.field == Field::List(list);
        stated.iter().filter(is_new)
    };
    for list in [TaskList::NextSteps, TaskList::OpenItems] {
        if listed(list).next().is_some() {
            edits.replace(list, &listed(list).collect::<Vec<_>>());
        }
    }
    for it in stated {
        match it.field {
            Field::Goal => edits.goal(it),
            Field::Done => edits.done(&it.text),
            Field::List(list) => edits.item(list, it),
        }
    }
    edits.made
}

struct Edits<'a> {
    task: &'a SessionTask,
    number: u64,
    made: Vec<TaskEdit>,
    /// What this entry has added so far.
    added: Vec<(TaskList, String)>,
}

impl Edits<'_> {
    /// A person's goal counts; a model's only where there is none.
    fn goal(&mut self, it: &Stated) {
        let is_set = |edit: &TaskEdit| matches!(edit, TaskEdit::SetGoal(_));
        let is_known = plain(&self.task.goal) == plain(&it.text);
        let counts = it.by_person || self.task.goal.trim().is_empty();
        if counts && !is_known && !self.made.iter().any(is_set) {
            self.made.push(TaskEdit::SetGoal(it.text.clone()));
        }
    }

    /// A new list of what is to be done takes the place of what an earlier entry listed and nobody has done since.
    fn replace(&mut self, list: TaskList, new: &[&Stated]) {
        let is_listed = |item: &SessionItem| new.iter().any(|it| is_same(&it.text, &item.text));
        let old = self.task.list(list).iter();
        let old = old.filter(|item| item.entry.is_some() && !item.is_done && !is_listed(item));
        let gone: Vec<u32> = old.map(|item| item.id).collect();
        self.made.extend(gone.into_iter().map(|id| TaskEdit::Remove { list, id }));
    }

    fn done(&mut self, text: &str) {
        for list in [TaskList::NextSteps, TaskList::OpenItems, TaskList::SubGoals] {
            let open =
                self.task.list(list).iter().find(|it| !it.is_done && is_same(&it.text, text));
            if let Some(item) = open {
                self.made.push(TaskEdit::Done { list, id: item.id, is_done: true });
            }
        }
    }

    fn item(&mut self, list: TaskList, it: &Stated) {
        let is_known = |(of, text): &(TaskList, String)| *of == list && is_same(text, &it.text);
        if self.added.iter().any(is_known) {
            return;
        }
        let known = self.task.list(list).iter().find(|item| is_same(&item.text, &it.text));
        match known {
            Some(item) if it.is_done && !item.is_done => {
                self.made.push(TaskEdit::Done { list, id: item.id, is_done: true });
            }
            // Said before, in these words or by hand.
            Some(item) if plain(&item.text) == plain(&it.text) || item.entry.is_none() => {}
            // Of two wordings of one thing, the newer.
            Some(item) if !it.is_done => {
                self.made.push(TaskEdit::Remove { list, id: item.id });
                self.add(list, it);
            }
            Some(_) => {}
            None if it.is_done => {}
            None => self.add(list, it),
        }
    }

    fn add(&mut self, list: TaskList, it: &Stated) {
        self.added.push((list, it.text.clone()));
        let (text, entry) = (it.text.clone(), Some(self.number));
        self.made.push(TaskEdit::Add { list, text, entry });
    }
}

/// Whether two texts say one thing: the same words, nearly.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (plain(one), plain(other));
    if one == other {
        return true;
    }
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    let (one, other) = (words(&one), words(&other));
    // A number or a "not" that differs makes another thing of it.
    let weighs = |word: &String| {
        word.bytes().any(|byte| byte.is_ascii_digit())
            || matches!(word.as_str(), "not" | "no" | "never" | "without")
    };
    let differs = one.symmetric_difference(&other).any(weighs);
    let both = one.intersection(&other).count();
    let all = one.union(&other).count();
    !differs && both * 100 >= SAME * all
}

/// Lower-case words and nothing else.
fn plain(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
