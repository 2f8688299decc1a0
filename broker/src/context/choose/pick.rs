//! The choice itself, and the text of what was chosen.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use time::OffsetDateTime;

use super::{
    index::{Entry, Index},
    unit::unnumbered,
    words::terms,
};

/// How far a unit lends its score to its neighbours, each place half as much.
const NEIGHBOURS: usize = 4;
/// What a unit gets of the mean of the best of its sitting.
const SITTING: f64 = 0.75;
/// How many are the best of a sitting.
const BEST: usize = 3;
/// What the one whom the query names counts.
const NAMED: f64 = 1.5;
/// The newest turns get a tenth of the budget.
const NEWEST: u64 = 10;
/// A pause after which another sitting begins, in milliseconds: three hours.
const PAUSE_MS: u64 = 3 * 60 * 60 * 1000;
/// Where something is left out.
const GAP: &str = "…\n";

/// What was chosen. Entries by their place.
#[derive(Debug, Clone, PartialEq, Default)]
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
}

/// Chooses what fits into `budget` tokens and says most of what `query` needs.
#[must_use]
pub fn choose(index: &Index, query: &str, budget: u64) -> Choice {
    let sittings = sittings(index);
    let words = index.query(query);
    let values = values(index, query, &words, &sittings);
    let scores = words.len() > 1 && values.iter().any(|value| *value > 0.0);
    let newest = || (0..index.units.len()).rev();
    let mut picked = Picked::new(index, &sittings, budget);
    if scores {
        let mut tenth = Picked::new(index, &sittings, budget / NEWEST);
        // What is newest is one stretch: it ends with the first that does not fit.
        let _ = newest().try_for_each(|unit| tenth.take(unit).then_some(()));
        for unit in tenth.units.iter().rev() {
            picked.take(*unit);
        }
        let mut rest: Vec<usize> = newest().collect();
        // A stable sort: of equals the newer comes first.
        rest.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        for unit in rest {
            picked.take(unit);
        }
    } else {
        for unit in newest() {
            picked.take(unit);
        }
    }
    let text = picked.shrunk();
    let of_all: f64 = values.iter().sum();
    let of_kept: f64 = picked.units.iter().map(|unit| values[*unit]).sum();
    let mut choice = Choice {
        tokens: index.count(&text),
        text,
        score: (scores && of_all > 0.0).then(|| of_kept / of_all),
        ..Choice::default()
    };
    for (place, entry) in index.entries.iter().enumerate() {
        let (from, to) = entry.units;
        match (from..to).filter(|unit| picked.units.contains(unit)).count() {
            0 => choice.dropped.push(place),
            taken if taken == to - from => choice.kept.push(place),
            _ => choice.partly.push(place),
        }
    }
    choice
}

/// What each unit is worth to the query.
fn values(index: &Index, query: &str, words: &[u32], sittings: &[usize]) -> Vec<f64> {
    let own = index.own(words);
    let sitting = |unit: usize| sittings[index.units[unit].entry];
    let mut best: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (unit, own) in own.iter().enumerate() {
        best.entry(sitting(unit)).or_default().push(*own);
    }
    let is_one = best.len() < 2;
    let means: BTreeMap<usize, f64> = best
        .into_iter()
        .map(|(sitting, mut own)| {
            own.sort_by(|a, b| b.total_cmp(a));
            own.truncate(BEST);
            (sitting, own.iter().sum::<f64>() / own.len().max(1) as f64)
        })
        .collect();
    let named = named(index, query);
    let value = |unit: usize| {
        let mut value = own[unit];
        let mut weight = 1.0;
        for distance in 1..=NEIGHBOURS {
            weight /= 2.0;
            let before = unit.checked_sub(distance);
            let after = Some(unit + distance).filter(|other| *other < own.len());
            let near = before.into_iter().chain(after);
            value += near
                .filter(|other| sitting(*other) == sitting(unit))
                .map(|other| weight * own[other])
                .sum::<f64>();
        }
        if !is_one {
            value += SITTING * means[&sitting(unit)];
        }
        let entry = &index.entries[index.units[unit].entry];
        let is_named = named.as_ref().is_some_and(|name| index.speaker(entry).0 == *name);
        if is_named { value * NAMED } else { value }
    };
    (0..own.len()).map(value).collect()
}

/// The one participant whom the query names; `None` when it names several.
fn named(index: &Index, query: &str) -> Option<String> {
    let asked: HashSet<String> = terms(query).into_iter().collect();
    let speakers: BTreeSet<String> = index
        .entries
        .iter()
        .filter_map(|entry| Some(index.speaker(entry)).filter(|(_, is_name)| *is_name))
        .map(|(name, _)| name)
        .collect();
    let mut named =
        speakers.into_iter().filter(|name| terms(name).iter().any(|word| asked.contains(word)));
    named.next().filter(|_| named.next().is_none())
}

/// Which sitting each entry belongs to: as was said, by its stamp, or by the pauses between.
fn sittings(index: &Index) -> Vec<usize> {
    let changes = |differs: &dyn Fn(&Entry, &Entry) -> bool| -> Vec<bool> {
        let pairs = index.entries.windows(2);
        pairs.map(|pair| differs(&pair[0], &pair[1])).collect()
    };
    let stamp = |entry: &Entry| entry.stamped.as_ref().map(|(stamp, ..)| stamp.clone());
    let by_stamp = changes(&|a, b| stamp(b).is_some() && stamp(a) != stamp(b));
    // Stamps that differ nearly everywhere say when, and not which sitting.
    let is_by_stamp = index.is_stamped()
        && by_stamp.iter().filter(|changes| **changes).count() * 2 < index.entries.len();
    let changes = if index.entries.iter().any(|entry| entry.turn.sitting.is_some()) {
        changes(&|a, b| a.turn.sitting != b.turn.sitting)
    } else if is_by_stamp {
        by_stamp
    } else {
        changes(&|a, b| match (a.turn.at, b.turn.at) {
            (Some(a), Some(b)) => b.0.saturating_sub(a.0) > PAUSE_MS,
            _ => false,
        })
    };
    let mut sitting = 0;
    let mut sittings = Vec::with_capacity(index.entries.len());
    for place in 0..index.entries.len() {
        if place > 0 && changes[place - 1] {
            sitting += 1;
        }
        sittings.push(sitting);
    }
    sittings
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
}

impl<'a> Picked<'a> {
    fn new(index: &'a Index, sittings: &'a [usize], budget: u64) -> Self {
        Self {
            index,
            sittings,
            left: budget.saturating_sub(index.count(GAP)),
            units: BTreeSet::new(),
            order: Vec::new(),
            lines: HashSet::new(),
            headed: HashSet::new(),
            budget,
        }
    }

    /// Takes a unit whole, if it fits and says anything new.
    fn take(&mut self, unit: usize) -> bool {
        if self.units.contains(&unit) {
            return true;
        }
        let it = &self.index.units[unit];
        let entry = &self.index.entries[it.entry];
        let sitting = self.sittings[it.entry];
        let lines = || {
            let text = &entry.turn.text[it.from..it.to];
            text.lines().map(unnumbered).filter(|line| !line.is_empty())
        };
        let is_block = entry.units.1 - entry.units.0 > 1;
        let (all, known) = lines().fold((0, 0), |(all, known), line| {
            (all + 1, known + usize::from(self.lines.contains(line)))
        });
        if is_block && known * 5 >= all * 4 && all > 0 {
            return false;
        }
        let mut cost = it.tokens + self.index.count(&self.speaks(entry)) + self.index.count(GAP);
        if !self.headed.contains(&sitting) {
            cost += self.header(it.entry).map_or(0, |header| self.index.count(&header));
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

    fn speaks(&self, entry: &Entry) -> String {
        let (speaker, _) = self.index.speaker(entry);
        if speaker.is_empty() { speaker } else { format!("{speaker}: ") }
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
            let text = self.text();
            if self.index.count(&text) <= self.budget || self.units.is_empty() {
                return if self.units.is_empty() { String::new() } else { text };
            }
            if let Some(last) = self.order.pop() {
                self.units.remove(&last);
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
                text.push_str(&self.speaks(entry));
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
