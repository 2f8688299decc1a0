//! The choice itself, and the text of what was chosen.

use std::collections::{BTreeSet, HashSet};

use broker_proto::Unverified;
use time::OffsetDateTime;

use super::{
    super::Tokenizer,
    index::Index,
    unit::unnumbered,
    value::{sittings, values},
};

/// The newest turns get a tenth of the budget.
const NEWEST: u64 = 10;
/// Nothing fits into fewer tokens than these.
const LEAST: u64 = 3;
/// How often what is left over is filled, while it is more than one part in so many.
const FILLINGS: usize = 4;
const WORTH: u64 = 32;
/// Where something is left out.
pub(in crate::context) const GAP: &str = "…\n";

/// What was chosen. Entries by their place.
#[derive(Clone, PartialEq, Default)]
pub struct Choice {
    pub text: String,
    /// In the text with all they say.
    pub kept: Vec<usize>,
    /// In the text with some of it.
    pub partly: Vec<usize>,
    pub dropped: Vec<usize>,
    pub tokens: u64,
    /// The share of all scores that was kept, from 0 to 1; `None` when nothing scored.
    pub score: Option<f64>,
    /// The share of all bytes that was kept, from 0 to 1; 1 of nothing.
    pub share: f64,
}

/// Content never reaches a log.
impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice")
            .field("kept", &self.kept)
            .field("partly", &self.partly)
            .field("dropped", &self.dropped.len())
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

/// Chooses what fits into `budget` tokens and says most of what `query` needs.
#[must_use]
pub fn choose(index: &Index, query: &str, budget: u64, tokenizer: Tokenizer) -> Choice {
    choose_marked(index, query, budget, tokenizer, None)
}

/// The same; whoever speaks in what is unverified is marked with his name.
#[must_use]
pub fn choose_marked(
    index: &Index,
    query: &str,
    budget: u64,
    tokenizer: Tokenizer,
    unverified: Option<&Unverified>,
) -> Choice {
    let sittings = sittings(index);
    let words = index.query(query);
    let values = values(index, query, &words, &sittings);
    let scores = words.len() > 1 && values.iter().any(|value| *value > 0.0);
    let mut picked = Picked::new(index, &sittings, budget, tokenizer);
    picked.unverified = unverified;
    let text = match picked.whole() {
        Some(text) => text,
        None => {
            let wanted = picked.wanted(scores.then_some(values.as_slice()));
            picked.fill(&wanted)
        }
    };
    let is_taken = picked.is_taken();
    let share = |of: &dyn Fn(usize) -> f64| -> f64 {
        let kept: f64 = picked.units.iter().map(|unit| of(*unit)).sum();
        let all: f64 = (0..index.units.len()).map(of).sum();
        if all > 0.0 { (kept / all).min(1.0) } else { 1.0 }
    };
    let mut choice = Choice {
        tokens: tokenizer.count(&text),
        text,
        score: scores.then(|| share(&|unit| values[unit])),
        share: share(&|unit| index.text(unit).len() as f64),
        ..Choice::default()
    };
    for (place, entry) in index.entries.iter().enumerate() {
        let (from, to) = entry.units;
        match is_taken[from..to].iter().filter(|taken| **taken).count() {
            0 => choice.dropped.push(place),
            taken if taken == to - from => choice.kept.push(place),
            _ => choice.partly.push(place),
        }
    }
    choice
}

/// What has been taken so far, and what that costs.
struct Picked<'a> {
    index: &'a Index,
    sittings: &'a [usize],
    left: u64,
    units: BTreeSet<usize>,
    /// In the order in which they were taken.
    order: Vec<usize>,
    lines: HashSet<&'a str>,
    headed: HashSet<usize>,
    budget: u64,
    tokenizer: Tokenizer,
    /// The tokens of a gap's mark.
    gap: u64,
    unverified: Option<&'a Unverified>,
}

impl<'a> Picked<'a> {
    fn new(index: &'a Index, sittings: &'a [usize], budget: u64, tokenizer: Tokenizer) -> Self {
        let gap = tokenizer.count(GAP);
        Self {
            index,
            sittings,
            left: budget.saturating_sub(gap),
            units: BTreeSet::new(),
            order: Vec::new(),
            lines: HashSet::new(),
            headed: HashSet::new(),
            budget,
            tokenizer,
            gap,
            unverified: None,
        }
    }

    /// Everything, if that fits: without gaps it takes less than the sum of what is taken one by one.
    fn whole(&mut self) -> Option<String> {
        let mut left = self.budget;
        for unit in 0..self.index.units.len() {
            left = left.checked_sub(self.index.tokens(unit, self.tokenizer) - 1)?;
        }
        self.units = (0..self.index.units.len()).collect();
        let text = self.text();
        let fits = self.tokenizer.count(&text) <= self.budget;
        if !fits {
            self.units.clear();
        }
        fits.then_some(text)
    }

    /// In which order to take: the newest turns, then what is worth most; without values the newest alone.
    fn wanted(&self, values: Option<&[f64]>) -> Vec<usize> {
        let mut rest: Vec<usize> = (0..self.index.units.len()).rev().collect();
        let Some(values) = values else { return rest };
        let mut tenth = Self::new(self.index, self.sittings, self.budget / NEWEST, self.tokenizer);
        // What is newest is one stretch: it ends with the first that does not fit.
        let newest = rest.iter().take_while(|unit| tenth.take(**unit)).count();
        // A stable sort: of equals the newer comes first.
        rest[newest..].sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        rest
    }

    /// Takes what fits of what is wanted, and gives the text. What lies side by side needs none of the gaps that were
    /// set aside for it; what they leave is filled again.
    fn fill(&mut self, wanted: &[usize]) -> String {
        let mut text = String::new();
        for _ in 0..FILLINGS {
            let before = self.units.len();
            self.take_all(wanted.iter().copied());
            if self.units.len() == before {
                break;
            }
            text = self.shrunk();
            let slack = self.budget.saturating_sub(self.tokenizer.count(&text));
            self.left = slack.saturating_sub(self.gap);
            if slack * WORTH < self.budget {
                break;
            }
        }
        text
    }

    fn take_all(&mut self, units: impl Iterator<Item = usize>) {
        for unit in units {
            if self.left < LEAST {
                return;
            }
            self.take(unit);
        }
    }

    /// Takes a unit whole, if it fits and says anything new.
    fn take(&mut self, unit: usize) -> bool {
        if self.units.contains(&unit) {
            return true;
        }
        let mut cost = self.index.tokens(unit, self.tokenizer) + self.gap;
        if cost > self.left {
            return false;
        }
        let it = &self.index.units[unit];
        let entry = &self.index.entries[it.entry];
        let sitting = self.sittings[it.entry];
        let lines = || {
            let text = &entry.turn.text[it.from..it.to];
            text.lines().map(unnumbered).filter(|line| !line.is_empty())
        };
        let is_block = entry.units.1 - entry.units.0 > 1;
        if is_block {
            let (all, known) = lines().fold((0, 0), |(all, known), line| {
                (all + 1, known + usize::from(self.lines.contains(line)))
            });
            if known * 5 >= all * 4 && all > 0 {
                return false;
            }
        }
        cost += self.tokenizer.count(&self.speaks(it.entry));
        if !self.headed.contains(&sitting) {
            cost += self.header(it.entry).map_or(0, |header| self.tokenizer.count(&header));
        }
        if cost > self.left {
            return false;
        }
        self.left -= cost;
        self.headed.insert(sitting);
        self.lines.extend(lines());
        self.units.insert(unit);
        self.order.push(unit);
        true
    }

    /// By unit, whether it was taken.
    fn is_taken(&self) -> Vec<bool> {
        let mut is_taken = vec![false; self.index.units.len()];
        self.units.iter().for_each(|unit| is_taken[*unit] = true);
        is_taken
    }

    fn speaks(&self, place: usize) -> String {
        let entry = &self.index.entries[place];
        let (speaker, _) = self.index.speaker(entry);
        let author = entry.turn.author.as_deref();
        let writer = author.and_then(|author| self.unverified?.writer_of(place as u64, author));
        match writer {
            Some(writer) => format!("{speaker} ({writer}, unverified): "),
            None if speaker.is_empty() => String::new(),
            None => format!("{speaker}: "),
        }
    }

    /// The line over a sitting.
    fn header(&self, entry: usize) -> Option<String> {
        let entry = &self.index.entries[entry];
        let said = entry.turn.sitting.clone();
        let stamp = || {
            let (stamp, ..) = entry.stamped.as_ref().filter(|_| self.index.is_stamped())?;
            Some(stamp.clone())
        };
        let day = || {
            let seconds = i64::try_from(entry.turn.at?.0 / 1000).ok()?;
            Some(OffsetDateTime::from_unix_timestamp(seconds).ok()?.date().to_string())
        };
        said.or_else(stamp).or_else(day).map(|title: String| format!("[{title}]\n"))
    }

    /// The text; what was taken last is given back until it fits, should the parts have counted less than the whole.
    fn shrunk(&mut self) -> String {
        loop {
            if self.units.is_empty() {
                return String::new();
            }
            let text = self.text();
            let mut excess = self.tokenizer.count(&text).saturating_sub(self.budget);
            if excess == 0 {
                return text;
            }
            while excess > 0
                && let Some(last) = self.order.pop()
            {
                self.units.remove(&last);
                excess = excess.saturating_sub(self.index.tokens(last, self.tokenizer));
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut next = 0;
        let mut headed = HashSet::new();
        for unit in &self.units {
            let it = &self.index.units[*unit];
            let entry = &self.index.entries[it.entry];
            let is_begun = *unit > entry.units.0 && next > entry.units.0;
            // Left out before: the rest of an entry that was begun, or anything.
            if *unit > next {
                match is_begun {
                    true => text.push_str(&self.left_out(it.entry, next, *unit)),
                    false => text.push_str(GAP),
                }
            }
            let sitting = self.sittings[it.entry];
            if headed.insert(sitting)
                && let Some(header) = self.header(it.entry)
            {
                text.push_str(&header);
            }
            if !is_begun {
                text.push_str(&self.speaks(it.entry));
                if *unit > entry.units.0 {
                    text.push_str(&self.left_out(it.entry, entry.units.0, *unit));
                }
            }
            let begins = entry.stamped.as_ref().filter(|_| self.index.is_stamped());
            let from = begins.map_or(it.from, |(.., begins)| it.from.max(*begins));
            text.push_str(&entry.turn.text[from..it.to.max(from)]);
            if !text.ends_with('\n') {
                text.push('\n');
            }
            next = unit + 1;
            let is_last_of_entry = self.units.range(next..entry.units.1).next().is_none();
            if is_last_of_entry && next < entry.units.1 {
                text.push_str(&self.left_out(it.entry, next, entry.units.1));
                next = entry.units.1;
            }
        }
        if next < self.index.units.len() {
            text.push_str(GAP);
        }
        text
    }

    /// The mark in place of some blocks of an entry.
    fn left_out(&self, entry: usize, from: usize, to: usize) -> String {
        let text = &self.index.entries[entry].turn.text;
        let (from, to) = (self.index.units[from].from, self.index.units[to - 1].to);
        match text[from..to].lines().count() {
            1 => "1 line left out\n".to_owned(),
            lines => format!("{lines} lines left out\n"),
        }
    }
}
