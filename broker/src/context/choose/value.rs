//! What each unit is worth to a query.

use std::collections::{BTreeMap, HashSet};

use super::{
    index::{Entry, Index},
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
/// A pause after which another sitting begins, in milliseconds: three hours.
const PAUSE_MS: u64 = 3 * 60 * 60 * 1000;

/// By unit; `words` are those of the query that the index knows.
pub(super) fn values(index: &Index, query: &str, words: &[u32], sittings: &[usize]) -> Vec<f64> {
    let own = index.own(words);
    let sitting = |unit: usize| sittings[index.units[unit].entry];
    let means = means(&own, sitting);
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
        if means.len() > 1 {
            value += SITTING * means[&sitting(unit)];
        }
        let entry = &index.entries[index.units[unit].entry];
        let is_named = named.is_some_and(|name| index.speaker(entry).0 == name);
        if is_named { value * NAMED } else { value }
    };
    (0..own.len()).map(value).collect()
}

/// The mean of the best of each sitting.
fn means(own: &[f64], sitting: impl Fn(usize) -> usize) -> BTreeMap<usize, f64> {
    let mut best: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (unit, own) in own.iter().enumerate() {
        let best = best.entry(sitting(unit)).or_default();
        best.push(*own);
        if best.len() > BEST {
            best.sort_by(|a, b| b.total_cmp(a));
            best.truncate(BEST);
        }
    }
    let mean = |best: Vec<f64>| best.iter().sum::<f64>() / best.len().max(1) as f64;
    best.into_iter().map(|(sitting, best)| (sitting, mean(best))).collect()
}

/// The one participant whom the query names; `None` when it names several.
fn named<'a>(index: &'a Index, query: &str) -> Option<&'a str> {
    let asked: HashSet<String> = terms(query).into_iter().collect();
    let is_asked = |name: &&str| terms(name).iter().any(|word| asked.contains(word));
    let mut named = index.names().filter(is_asked);
    named.next().filter(|_| named.next().is_none())
}

/// Which sitting each entry belongs to: as was said, by its stamp, or by the pauses between.
pub(super) fn sittings(index: &Index) -> Vec<usize> {
    let changes = |differs: &dyn Fn(&Entry, &Entry) -> bool| -> Vec<bool> {
        let pairs = index.entries.windows(2);
        pairs.map(|pair| differs(&pair[0], &pair[1])).collect()
    };
    fn stamp(entry: &Entry) -> Option<&str> {
        entry.stamped.as_ref().map(|(stamp, ..)| stamp.as_str())
    }
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
