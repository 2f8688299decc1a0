//! What stands above the turns: what must be kept, and of the rest of the task what fits into a fifth.

use std::collections::BTreeMap;

use broker_proto::{PendingSubagent, SessionItem, SessionTask};

use super::{Error, Missing, Tokenizer, View};

/// The part of the budget that the rest of the task and what is shared may take.
const REST: u64 = 5;

/// In the order of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    Goal,
    Constraints,
    Decisions,
    CriticalFacts,
    OpenItems,
    NextSteps,
    PendingSubagents,
    Progress,
    SubGoals,
    Files,
    Preferences,
    Shared,
}

/// What goes first where not all that must be kept fits: without these the receiver does the wrong thing.
const FIRST: [Section; 7] = [
    Section::Goal,
    Section::Constraints,
    Section::NextSteps,
    Section::CriticalFacts,
    Section::Decisions,
    Section::OpenItems,
    Section::PendingSubagents,
];

impl Section {
    fn title(self) -> &'static str {
        match self {
            Self::Goal => "Goal",
            Self::Constraints => "Constraints",
            Self::Decisions => "Decisions",
            Self::CriticalFacts => "Critical facts",
            Self::OpenItems => "Open items",
            Self::NextSteps => "Next steps",
            Self::PendingSubagents => "Pending subagents",
            Self::Progress => "Progress",
            Self::SubGoals => "Sub-goals",
            Self::Files => "Files",
            Self::Preferences => "Preferences",
            Self::Shared => "Shared context",
        }
    }

    fn must_be_kept(self) -> bool {
        self <= Self::PendingSubagents
    }

    /// One line under no title of its own.
    fn is_single(self) -> bool {
        matches!(self, Self::Goal | Self::Progress)
    }

    /// Its line over its items.
    fn opening(self) -> String {
        if self.is_single() { String::new() } else { format!("{}:\n", self.title()) }
    }

    fn line(self, text: &str) -> String {
        let text = text.trim();
        if self.is_single() {
            return format!("{}: {text}\n", self.title());
        }
        // What has several lines stays one item.
        format!("- {}\n", text.replace('\n', "\n  "))
    }
}

/// One item that must be kept, with the list it stands in.
#[derive(Clone, PartialEq, Eq)]
struct Item {
    section: Section,
    text: String,
}

/// What a section of what must be kept takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    section: Section,
    pub items: u64,
    pub tokens: u64,
}

impl Needed {
    /// The list's name in words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.section.title()
    }

    pub(super) fn list(all: &[Self]) -> String {
        let one = |needed: &Self| match (needed.section, needed.items) {
            (Section::Goal, _) => format!("goal {}", needed.tokens),
            (section, items) => {
                format!("{} ({items}) {}", section.title().to_lowercase(), needed.tokens)
            }
        };
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// The items that must be kept, each as `Decisions: the text`.
#[must_use]
pub fn must_keep(task: &SessionTask) -> Vec<String> {
    items(task).iter().map(described).collect()
}

fn described(item: &Item) -> String {
    format!("{}: {}", item.section.title(), item.text.trim())
}

fn items(task: &SessionTask) -> Vec<Item> {
    let goal = [(Section::Goal, task.goal.clone())];
    let all = |section: Section, list: &[SessionItem]| {
        list.iter().map(|item| (section, item.text.clone())).collect::<Vec<_>>()
    };
    let open = |section: Section, list: &[SessionItem]| {
        let open = list.iter().filter(|item| !item.is_done);
        open.map(|item| (section, item.text.clone())).collect::<Vec<_>>()
    };
    let subagents = task.pending_subagents.iter();
    let subagents = subagents.map(|subagent| (Section::PendingSubagents, in_words(subagent)));
    goal.into_iter()
        .chain(all(Section::Constraints, &task.constraints))
        .chain(all(Section::Decisions, &task.decisions))
        .chain(all(Section::CriticalFacts, &task.critical_facts))
        .chain(open(Section::OpenItems, &task.open_items))
        .chain(open(Section::NextSteps, &task.next_steps))
        .chain(subagents)
        .filter(|(_, text)| !text.trim().is_empty())
        .map(|(section, text)| Item { section, text })
        .collect()
}

fn in_words(subagent: &PendingSubagent) -> String {
    let about = [&subagent.kind, &subagent.model, &subagent.status];
    let about: Vec<&str> =
        about.into_iter().map(|word| word.trim()).filter(|word| !word.is_empty()).collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    format!("{}{about}: {}", subagent.id, subagent.description.trim())
}

/// What goes along if it fits.
fn others(view: &View<'_>) -> Vec<Item> {
    let task = view.task;
    let list = |section: Section, list: &[SessionItem]| {
        let text = |item: &SessionItem| match item.is_done {
            true => format!("{} (done)", item.text.trim()),
            false => item.text.clone(),
        };
        list.iter().map(|item| Item { section, text: text(item) }).collect::<Vec<_>>()
    };
    let progress = task.progress.map(|share| {
        let percent = (share.clamp(0.0, 1.0) * 100.0).round();
        Item { section: Section::Progress, text: format!("{percent} %") }
    });
    let shared = view.shared.iter().map(|value| {
        let source = match value.source.as_str() {
            "" => String::new(),
            source => format!(" (from {source})"),
        };
        let text = format!("{} = {}{source}", value.key, value.value);
        Item { section: Section::Shared, text }
    });
    let mut all: Vec<Item> = progress.into_iter().collect();
    all.extend(list(Section::SubGoals, &task.sub_goals));
    all.extend(shared);
    all.extend(list(Section::Files, &task.files));
    all.extend(list(Section::Preferences, &task.preferences));
    all.retain(|item| !item.text.trim().is_empty());
    all
}

/// The text above the turns, and what is missing in it.
pub(super) struct Head {
    pub(super) text: String,
    pub(super) missing: Vec<String>,
}

impl Head {
    /// `mark` is kept free for the mark in place of turns that are left out.
    pub(super) fn of(
        view: &View<'_>,
        missing: Missing,
        budget: u64,
        mark: u64,
        tokenizer: Tokenizer,
    ) -> Result<Self, Error> {
        let items = items(view.task);
        let needed = tokenizer.count(&text(items.iter())) + mark;
        let mut head = Taken { taken: Vec::new(), left: budget - mark, tokenizer };
        let mut lost = Vec::new();
        if needed > budget {
            if missing == Missing::Refused {
                return Err(Error::MustKeep { budget, needed, sections: sizes(&items, tokenizer) });
            }
            for section in FIRST {
                let of_section = items.iter().filter(|item| item.section == section);
                lost.extend(of_section.filter(|item| !head.take(item)).map(described));
            }
        } else {
            head.taken = items;
            head.left = budget - needed;
            head.left = head.left.min(budget / REST);
            let others = others(view);
            let out = others.iter().filter(|item| !head.take(item)).count();
            if out > 0 {
                return Ok(Self { text: head.with_mark(out, budget - mark), missing: lost });
            }
        }
        let out = head.shrink(budget - mark, &mut lost);
        if out > 0 {
            return Ok(Self { text: head.with_mark(out, budget - mark), missing: lost });
        }
        Ok(Self { text: text(head.taken.iter()), missing: lost })
    }
}

/// Items taken so far, and what is left.
struct Taken {
    taken: Vec<Item>,
    left: u64,
    tokenizer: Tokenizer,
}

impl Taken {
    fn take(&mut self, item: &Item) -> bool {
        let mut cost = self.tokenizer.count(&item.section.line(&item.text));
        if !self.taken.iter().any(|other| other.section == item.section) {
            cost += self.tokenizer.count(&item.section.opening());
        }
        let fits = cost <= self.left;
        if fits {
            self.left -= cost;
            self.taken.push(item.clone());
        }
        fits
    }

    /// Gives back what came last, should the whole be more than its parts. Returns how many of it need not be kept.
    fn shrink(&mut self, most: u64, lost: &mut Vec<String>) -> usize {
        let mut out = 0;
        while self.tokenizer.count(&text(self.taken.iter())) > most
            && let Some(item) = self.taken.pop()
        {
            match item.section.must_be_kept() {
                true => lost.push(described(&item)),
                false => out += 1,
            }
        }
        out
    }

    /// The text with a line for what is left out of what need not be kept, if the line fits.
    fn with_mark(&mut self, mut out: usize, most: u64) -> String {
        let must = self.taken.iter().filter(|item| item.section.must_be_kept()).count();
        loop {
            let whole = text(self.taken.iter());
            let marked = format!("{whole}… {out} more of the task and the shared context\n");
            if self.tokenizer.count(&marked) <= most {
                return marked;
            }
            if self.taken.len() <= must {
                // What must be kept leaves no room even for the mark.
                return whole;
            }
            self.taken.pop();
            out += 1;
        }
    }
}

fn sizes(items: &[Item], tokenizer: Tokenizer) -> Vec<Needed> {
    let mut sizes: BTreeMap<Section, Vec<&Item>> = BTreeMap::new();
    for item in items {
        sizes.entry(item.section).or_default().push(item);
    }
    let size = |(section, items): (Section, Vec<&Item>)| Needed {
        section,
        items: items.len() as u64,
        tokens: tokenizer.count(&text(items.into_iter())),
    };
    sizes.into_iter().map(size).collect()
}

/// Items below the titles of their sections, in the order of the sections.
fn text<'a>(items: impl Iterator<Item = &'a Item>) -> String {
    let mut sections: BTreeMap<Section, String> = BTreeMap::new();
    for Item { section, text } in items {
        let lines = sections.entry(*section).or_insert_with(|| section.opening());
        lines.push_str(&section.line(text));
    }
    sections.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_missing_only_where_it_must_be_kept() {
        let item = |section, text: &str| Item { section, text: text.into() };
        let goal = item(Section::Goal, "Move the invoice service to the new cluster");
        let file = item(Section::Files, "src/main.rs");
        let tokenizer = Tokenizer::estimated(4.0);
        let taken = || Taken { taken: vec![goal.clone(), file.clone()], left: 0, tokenizer };

        let (mut head, mut lost) = (taken(), Vec::new());
        let most = tokenizer.count(&text([&goal].into_iter()));
        assert_eq!((head.shrink(most, &mut lost), &lost), (1, &vec![]));
        assert_eq!(head.taken.len(), 1);

        let mut head = taken();
        assert_eq!(head.shrink(0, &mut lost), 1);
        assert_eq!(lost, [described(&goal)]);
    }
}
