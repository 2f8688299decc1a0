//! What has been said, by its words. It grows turn by turn.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::OnceLock,
};

use broker_proto::WallTime;

use super::{
    super::Tokenizer,
    unit::{blocks, stamped},
    words::{Vocabulary, terms},
};

/// A line that stands in so many entries is a prompt or a banner, and finds nothing.
const COMMON_FROM: u32 = 4;

/// One turn, as the choice sees it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// Its role.
    pub role: String,
    /// Who said it, where that is more than a role.
    pub name: Option<String>,
    /// The model whose turn it is, or an empty name where nobody said which; `None`: not a model's.
    pub author: Option<String>,
    pub at: Option<WallTime>,
    /// Which of several sittings it belongs to, where that was said.
    pub sitting: Option<String>,
    pub text: String,
}

/// Content never reaches a log.
impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({}, {} bytes)", self.role, self.text.len())
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) turn: Turn,
    /// A leading `[stamp] Name: ` of its text: the stamp, the name, and where the rest begins.
    pub(super) stamped: Option<(String, String, usize)>,
    /// Its units: the first, and the one behind the last.
    pub(super) units: (usize, usize),
}

/// What is chosen whole: an entry, or a block of a long one.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) entry: usize,
    /// Of the entry's text.
    pub(super) from: usize,
    pub(super) to: usize,
    /// By the one exact table there is; counted when first asked for.
    exact: OnceLock<u32>,
    words: Vec<(u32, u32)>,
    len: u32,
}

/// In which entries a line stands.
#[derive(Debug)]
enum Line {
    Rare { entries: u32, last: usize, units: Vec<usize> },
    Common,
}

/// A conversation by its words, without regard to who will count them.
#[derive(Default)]
pub struct Index {
    pub(super) entries: Vec<Entry>,
    pub(super) units: Vec<Unit>,
    words: Vocabulary,
    /// By word: the units it stands in, in their order, and how often.
    found: Vec<Vec<(usize, u32)>>,
    lines: HashMap<u64, Line>,
    total_len: u64,
    stamped: usize,
    /// The names of speakers, as fields and in stamps.
    names: BTreeSet<String>,
    stamped_names: BTreeSet<String>,
    bytes: usize,
}

/// Content never reaches a log.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} turns, {} bytes)", self.entries.len(), self.bytes)
    }
}

impl Index {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many turns it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all texts. What is held in memory is about six times as much.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        self.bytes
    }

    /// What the newest turn of a person says.
    #[must_use]
    pub fn last_of_user(&self) -> Option<&str> {
        let last = self.entries.iter().rev().find(|entry| entry.turn.role == "user")?;
        Some(&last.turn.text)
    }

    /// A unit's text.
    pub(super) fn text(&self, unit: usize) -> &str {
        let Unit { entry, from, to, .. } = self.units[unit];
        &self.entries[entry].turn.text[from..to]
    }

    /// The tokens of a unit's text and the end of its line.
    pub(super) fn tokens(&self, unit: usize, tokenizer: Tokenizer) -> u64 {
        let count = || tokenizer.count(self.text(unit));
        1 + match tokenizer {
            Tokenizer::Estimated { .. } => count(),
            Tokenizer::O200k => {
                let exact = self.units[unit].exact.get_or_init(|| {
                    // A text of four thousand million tokens fits no budget, however many there are.
                    u32::try_from(count()).unwrap_or(u32::MAX)
                });
                u64::from(*exact)
            }
        }
    }

    /// The names that speakers have.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let stamped = self.is_stamped().then_some(&self.stamped_names);
        let in_stamps = stamped.into_iter().flatten().filter(|name| !self.names.contains(*name));
        self.names.iter().chain(in_stamps).map(String::as_str)
    }

    /// Adds the next turn.
    pub fn push(&mut self, turn: Turn) {
        let stamped = stamped(&turn.text)
            .map(|(stamp, name, begins)| (stamp.to_owned(), name.to_owned(), begins));
        self.stamped += usize::from(stamped.is_some());
        self.bytes += turn.text.len();
        match (&turn.name, &stamped) {
            (Some(name), _) if !self.names.contains(name) => _ = self.names.insert(name.clone()),
            (None, Some((_, name, _))) if !self.stamped_names.contains(name) => {
                self.stamped_names.insert(name.clone());
            }
            _ => {}
        }
        let (entry, first) = (self.entries.len(), self.units.len());
        let mut from = 0;
        for to in blocks(&turn.text) {
            let exact = OnceLock::new();
            self.units.push(Unit { entry, from, to, exact, words: Vec::new(), len: 0 });
            from = to;
        }
        let units = (first, self.units.len());
        self.entries.push(Entry { turn, stamped, units });
        let mut again = BTreeSet::new();
        for unit in units.0..units.1 {
            again.extend(self.note_lines(unit));
        }
        for unit in again.into_iter().filter(|unit| *unit < first) {
            self.forget(unit);
            self.learn(unit);
        }
        for unit in units.0..units.1 {
            self.learn(unit);
        }
    }

    /// Notes in which entries the lines of a unit stand; gives the units with a line that has become common.
    fn note_lines(&mut self, unit: usize) -> Vec<usize> {
        let Unit { entry, from, to, .. } = self.units[unit];
        let mut again = Vec::new();
        for line in lines(&self.entries[entry].turn.text[from..to]) {
            let rare = Line::Rare { entries: 0, last: usize::MAX, units: Vec::new() };
            let line = self.lines.entry(hash(line)).or_insert(rare);
            let Line::Rare { entries, last, units } = line else { continue };
            *entries += u32::from(*last != entry);
            *last = entry;
            units.push(unit);
            if *entries >= COMMON_FROM {
                again.append(units);
                *line = Line::Common;
            }
        }
        again
    }

    /// Makes a unit found by its words, and by who said it when.
    fn learn(&mut self, unit: usize) {
        let Unit { entry, from, to, .. } = self.units[unit];
        let Entry { turn, .. } = &self.entries[entry];
        let mut all = Vec::new();
        self.words.learn(turn.name.as_deref().unwrap_or_default(), &mut all);
        for line in lines(&turn.text[from..to]) {
            if !matches!(self.lines.get(&hash(line)), Some(Line::Common)) {
                self.words.learn(line, &mut all);
            }
        }
        let len = u32::try_from(all.len()).unwrap_or(u32::MAX);
        all.sort_unstable();
        let times = all.chunk_by(|a, b| a == b);
        let times = times.map(|same| (same[0], u32::try_from(same.len()).unwrap_or(u32::MAX)));
        let words: Vec<(u32, u32)> = times.collect();
        self.found.resize_with(self.words.len(), Vec::new);
        for (word, times) in &words {
            let found = &mut self.found[*word as usize];
            // New units come behind the others; only one that is learnt again stands between them.
            let place = found.partition_point(|(before, _)| *before < unit);
            found.insert(place, (unit, *times));
        }
        self.total_len += u64::from(len);
        self.units[unit].words = words;
        self.units[unit].len = len;
    }

    fn forget(&mut self, unit: usize) {
        let words = std::mem::take(&mut self.units[unit].words);
        for (word, _) in words {
            self.found[word as usize].retain(|(found, _)| *found != unit);
        }
        self.total_len -= u64::from(self.units[unit].len);
    }

    /// The words of a query, each once, as far as anything is found by them.
    pub(super) fn query(&self, text: &str) -> Vec<u32> {
        let known = |word: String| self.words.get(&word);
        let used = |word: &u32| !self.found[*word as usize].is_empty();
        let mut seen = BTreeSet::new();
        terms(text).into_iter().filter_map(known).filter(used).filter(|w| seen.insert(*w)).collect()
    }

    /// How well each unit answers the query by itself: BM25, times how much of the query stands in it.
    pub(super) fn own(&self, query: &[u32]) -> Vec<f64> {
        let mut own = vec![0.0; self.units.len()];
        let mut present = own.clone();
        let all = self.units.len() as f64;
        let mean = (self.total_len as f64 / all.max(1.0)).max(1.0);
        let mut sum = 0.0;
        for word in query {
            let found = &self.found[*word as usize];
            let df = found.len() as f64;
            let idf = (1.0 + (all - df + 0.5) / (df + 0.5)).ln();
            sum += idf;
            for (unit, times) in found {
                let (tf, len) = (f64::from(*times), f64::from(self.units[*unit].len));
                own[*unit] += idf * tf * 2.2 / (tf + 1.2 * (0.5 + 0.5 * len / mean));
                present[*unit] += idf;
            }
        }
        for (own, present) in own.iter_mut().zip(present) {
            *own *= 1.0 + present / f64::max(sum, f64::MIN_POSITIVE);
        }
        own
    }

    /// Whether stamps and names stand in front of most texts, and are to be read there.
    pub(super) fn is_stamped(&self) -> bool {
        self.stamped * 2 > self.entries.len()
    }

    /// Who says an entry, and whether that is a name.
    pub(super) fn speaker<'a>(&self, entry: &'a Entry) -> (&'a str, bool) {
        match (&entry.turn.name, &entry.stamped) {
            (Some(name), _) => (name, true),
            (None, Some((_, name, _))) if self.is_stamped() => (name, true),
            _ => (&entry.turn.role, false),
        }
    }
}

/// The lines of a text that say something.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn hash(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> Index {
        let mut index = Index::new();
        for text in texts {
            index.push(Turn { role: "user".into(), text: (*text).to_owned(), ..Turn::default() });
        }
        index
    }

    fn best(index: &Index, query: &str) -> Vec<usize> {
        let own = index.own(&index.query(query));
        let mut units: Vec<usize> = (0..own.len()).filter(|unit| own[*unit] > 0.0).collect();
        units.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
        units
    }

    #[test]
    fn what_answers_more_of_the_query_comes_first() {
        let index = index(&[
            "the store lives in a temporary folder",
            "the password of the staging store is rotated weekly",
            "lunch was good",
        ]);
        assert_eq!(best(&index, "Where is the staging password stored?"), [1, 0]);
        assert_eq!(best(&index, "unknown words"), [0_usize; 0]);
    }

    #[test]
    fn a_line_that_stands_in_four_entries_finds_nothing_from_then_on() {
        let banner = |text: &str| format!("(Open file: setup.py)\n{text}");
        let texts: Vec<String> = ["one", "two", "three"].map(banner).into();
        let mut index = index(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(best(&index, "open file").len(), 3);
        index.push(Turn { text: banner("four"), ..Turn::default() });
        assert_eq!(best(&index, "open file").len(), 0);
        assert_eq!(best(&index, "two"), [1]);
        index.push(Turn { text: banner("five"), ..Turn::default() });
        assert_eq!(best(&index, "open file").len(), 0);
    }

    #[test]
    fn a_line_repeated_in_one_entry_is_not_common() {
        let index = index(&["again\nagain\nagain\nagain\nagain"]);
        assert_eq!(best(&index, "again"), [0_usize; 0], "a closed word");
        let index = self::index(&["retry\nretry\nretry\nretry\nretry"]);
        assert_eq!(best(&index, "retry"), [0]);
    }

    #[test]
    fn grown_turn_by_turn_it_is_the_same_as_grown_at_once() {
        let texts: Vec<String> =
            (0..40).map(|n| format!("banner {}\nturn {n} about topic {}", n % 3, n % 7)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let whole = index(&texts);
        let mut grown = index(&texts[..10]);
        for text in &texts[10..] {
            let before = grown.own(&grown.query("topic 3"));
            assert!(before.iter().all(|score| score.is_finite()));
            grown.push(Turn { role: "user".into(), text: (*text).to_owned(), ..Turn::default() });
        }
        assert_eq!(whole.own(&whole.query("topic 3")), grown.own(&grown.query("topic 3")));
        assert_eq!(whole.total_len, grown.total_len);
    }
}
