//! What the judge says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::book::Book;
use crate::history::What;

/// Messages that one finding names at most.
const NAMED: usize = 8;
/// Findings of one rule that are told one by one.
const TOLD: usize = 20;

/// In what way a promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Acknowledged, and gone.
    Lost,
    /// Done, stored or delivered once too often.
    Duplicated,
    Reordered,
    /// Other bytes than were given.
    Altered,
    /// It should have happened by now, or should not have happened any more.
    Late,
    /// It happened before it may.
    Early,
    /// Nobody gave cause for it.
    Unknown,
    /// Answered otherwise than promised.
    Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub invariant: String,
    pub verdict: Verdict,
    /// The messages concerned; the first of many.
    pub messages: Vec<String>,
    pub detail: String,
}

/// What one rule had to judge, and how often it was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Judged {
    pub cases: u64,
    pub broken: u64,
}

/// One JSON object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The seeds of the recorders, each once.
    pub seeds: Vec<u64>,
    pub is_clean: bool,
    /// Whether every sender came to its end; if not, nothing is said about what it had still to learn.
    pub is_whole: bool,
    pub invariants: BTreeMap<String, Judged>,
    pub findings: Vec<Finding>,
    pub figures: BTreeMap<String, u64>,
}

/// What one rule has found so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    cases: u64,
    broken: u64,
    findings: Vec<(Verdict, Vec<String>, String)>,
}

impl Judge {
    /// One more thing was judged.
    pub(super) fn case(&mut self) {
        self.cases += 1;
    }

    pub(super) fn find(&mut self, verdict: Verdict, messages: &[&str], detail: impl Into<String>) {
        self.broken += 1;
        if self.findings.len() < TOLD {
            let messages = messages.iter().take(NAMED).map(|&id| id.to_owned()).collect();
            self.findings.push((verdict, messages, detail.into()));
        }
    }
}

impl Report {
    pub(super) fn new(
        book: &Book<'_>,
        judged: impl Iterator<Item = (&'static str, Judge)>,
    ) -> Self {
        let mut invariants: BTreeMap<String, Judged> = BTreeMap::new();
        let mut findings = Vec::new();
        for (invariant, judge) in judged {
            let sum = invariants.entry(invariant.to_owned()).or_default();
            sum.cases += judge.cases;
            sum.broken += judge.broken;
            findings.extend(judge.findings.into_iter().map(|(verdict, messages, detail)| {
                Finding { invariant: invariant.to_owned(), verdict, messages, detail }
            }));
        }
        let mut seeds: Vec<u64> = book
            .entries
            .iter()
            .filter_map(|entry| match &entry.what {
                What::Began { seed, .. } => Some(*seed),
                _ => None,
            })
            .collect();
        seeds.sort_unstable();
        seeds.dedup();
        let is_clean = invariants.values().all(|judged| judged.broken == 0);
        let is_whole = book.is_whole;
        Self { seeds, is_clean, is_whole, invariants, findings, figures: figures(book) }
    }

    /// The broken invariants, each with the ways in which it was.
    #[must_use]
    pub fn broken(&self) -> Vec<(String, Verdict)> {
        let mut broken: Vec<_> =
            self.findings.iter().map(|f| (f.invariant.clone(), f.verdict)).collect();
        broken.sort();
        broken.dedup();
        broken
    }
}

fn figures(book: &Book<'_>) -> BTreeMap<String, u64> {
    let mut figures = BTreeMap::new();
    let mut add = |name: &str, by: usize| {
        *figures.entry(name.to_owned()).or_default() += by as u64;
    };
    add("entries", book.entries.len());
    add("messages", book.stories.len());
    for entry in book.entries {
        match &entry.what {
            What::Fault { .. } => add("faults", 1),
            What::Linked { .. } => add("links", 1),
            _ => {}
        }
    }
    for story in book.stories.values() {
        add("sends", story.sends.len());
        add("accepted", usize::from(story.accepted().is_some()));
        let unknown = story.sends.iter().filter(|send| send.is_unknown()).count();
        add("unknown_outcomes", unknown);
        add("deliveries", story.deliveries.len());
        let again = story.deliveries.iter().filter(|seen| seen.it.attempt > 1).count();
        add("redeliveries", again);
        add("settlements", story.settles.len());
        add("cancels", story.cancels.len());
        add("streams", story.streams.len());
        if let Some(learned) = &story.learned {
            add(&format!("ended_{}", learned.state), 1);
        }
    }
    figures
}
