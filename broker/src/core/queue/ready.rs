//! The ready messages of one queue: four priorities, each in the order of its numbers.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    num::NonZeroU64,
};

use broker_proto::{Priority, Recipient, Sender};

use super::{Seq, seqs::Seqs};

/// Shares of low, normal, high and urgent in a backlogged queue (I-12).
const SHARES: [i64; 4] = [1, 2, 4, 8];
/// Deliveries of a whole round. No lane is owed more, however long nothing of it could be delivered, and the head of
/// `low` lets no more pass: rounds alone do not bound that where lanes run empty and fill again.
const ROUND: i64 = 15;

/// The messages to one recipient with one ordering key, by a number of eight bytes: a million of them must fit.
///
/// Two keys with the same number would wait for each other, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(NonZeroU64);

impl Line {
    #[must_use]
    pub fn of(to: &Recipient, key: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (to, key).hash(&mut hasher);
        Self(NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN))
    }
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    pub messages: u64,
    pub size_bytes: u64,
}

impl Load {
    fn add(&mut self, size_bytes: u64) {
        self.messages += 1;
        self.size_bytes += size_bytes;
    }

    fn take(&mut self, size_bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.size_bytes = self.size_bytes.saturating_sub(size_bytes);
    }
}

/// Ready messages of one priority.
#[derive(Debug, Default)]
struct Lane {
    /// Those whose turn may be now: without a key, or the first of their line, unless it is held back.
    next: Seqs,
    /// All with a key, line by line, so that a line costs a look at its first however long it is.
    lined: BTreeSet<(Line, Seq)>,
    len: u64,
}

impl Lane {
    /// Makes the first of a line, and no other of it, one whose turn may be now. Says whether that is news.
    fn settle(&mut self, line: Line, is_held_back: impl Fn(Seq) -> bool) -> bool {
        let mut of_line = self.lined.range((line, Seq(0))..=(line, Seq(u64::MAX)));
        let (first, second) = (of_line.next(), of_line.next());
        if let Some((_, second)) = second {
            self.next.remove(*second);
        }
        match first {
            Some((_, first)) if is_held_back(*first) => {
                self.next.remove(*first);
                false
            }
            Some((_, first)) => self.next.insert(*first),
            None => false,
        }
    }
}

#[derive(Debug, Default)]
pub struct Ready {
    lanes: [Lane; 4],
    /// Smooth weighted round robin: what each lane is owed.
    owed: [i64; 4],
    /// Deliveries since one of `low` could have been.
    passed_low: i64,
    leased: u64,
    size_bytes: u64,
    /// Everything alive in this queue, wherever it is: what its caps count (I-28).
    alive: Load,
    /// Of that what is urgent, by sender (I-12).
    urgent: BTreeMap<Sender, Load>,
}

impl Ready {
    /// Ready messages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.len).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages of this queue that are out.
    #[must_use]
    pub fn leased(&self) -> u64 {
        self.leased
    }

    /// Bytes of the ready messages.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Everything alive in this queue: ready, waiting, held, leased or between two attempts.
    #[must_use]
    pub fn alive(&self) -> Load {
        self.alive
    }

    /// What this sender has alive in this queue as urgent.
    #[must_use]
    pub fn urgent_of(&self, sender: &Sender) -> Load {
        self.urgent.get(sender).copied().unwrap_or_default()
    }

    /// Messages whose turn may be now, in the order in which they are to be considered: the lane that is owed most
    /// first, and of each lane the first `most`.
    pub fn in_turn(&self, most: usize) -> impl Iterator<Item = Seq> {
        self.lanes_in_turn().flat_map(move |lane| lane.next.iter().take(most))
    }

    /// Every ready message, the lane that is owed most first.
    #[must_use]
    pub fn all(&self) -> Vec<Seq> {
        let of_lane = |lane: &Lane| {
            let mut all: Vec<Seq> = lane.lined.iter().map(|(_, seq)| *seq).collect();
            all.extend(lane.next.iter());
            all.sort_unstable();
            all.dedup();
            all
        };
        self.lanes_in_turn().flat_map(of_lane).collect()
    }

    fn lanes_in_turn(&self) -> impl Iterator<Item = &Lane> {
        let mut lanes: Vec<usize> = (0..4).filter(|lane| self.lanes[*lane].len > 0).collect();
        let is_low_due = |lane: usize| lane == Priority::Low as usize && self.passed_low >= ROUND;
        lanes.sort_by_key(|lane| {
            std::cmp::Reverse((is_low_due(*lane), self.owed[*lane] + SHARES[*lane], *lane))
        });
        lanes.into_iter().map(|lane| &self.lanes[lane])
    }

    pub(super) fn push(&mut self, message: &super::Message, is_held_back: impl Fn(Seq) -> bool) {
        let lane = &mut self.lanes[message.priority as usize];
        lane.len += 1;
        self.size_bytes += message.body.size_bytes;
        match message.line {
            None => {
                lane.next.insert(message.seq);
            }
            Some(line) => {
                lane.lined.insert((line, message.seq));
                lane.settle(line, is_held_back);
            }
        }
    }

    /// Takes out what was pushed before.
    pub(super) fn remove(&mut self, message: &super::Message, is_held_back: impl Fn(Seq) -> bool) {
        let lane = &mut self.lanes[message.priority as usize];
        lane.len = lane.len.saturating_sub(1);
        self.size_bytes = self.size_bytes.saturating_sub(message.body.size_bytes);
        lane.next.remove(message.seq);
        if let Some(line) = message.line {
            lane.lined.remove(&(line, message.seq));
            lane.settle(line, is_held_back);
        }
    }

    /// Judges the first messages of a line anew; says whether one of them may now be delivered that might not before.
    pub(super) fn settle(&mut self, line: Line, is_held_back: impl Fn(Seq) -> bool) -> bool {
        let mut is_news = false;
        for lane in &mut self.lanes {
            is_news |= lane.settle(line, &is_held_back);
        }
        is_news
    }

    /// Whether anything of this line is ready.
    pub(super) fn has(&self, line: Line) -> bool {
        let of_line = (line, Seq(0))..=(line, Seq(u64::MAX));
        self.lanes.iter().any(|lane| lane.lined.range(of_line.clone()).next().is_some())
    }

    /// Counts a delivery from `priority` against the shares. Called before the message leaves its lane.
    pub(super) fn charge(&mut self, priority: Priority) {
        let mut total = 0;
        for (lane, share) in SHARES.iter().enumerate() {
            if self.lanes[lane].next.is_empty() {
                self.owed[lane] = 0;
            } else {
                self.owed[lane] = (self.owed[lane] + share).min(ROUND);
                total += share;
            }
        }
        self.owed[priority as usize] -= total;
        let is_passed =
            priority != Priority::Low && !self.lanes[Priority::Low as usize].next.is_empty();
        self.passed_low = if is_passed { self.passed_low + 1 } else { 0 };
    }

    /// Turns begin anew: they are not journalled, so that after a start nobody is owed anything.
    pub(super) fn forget_turns(&mut self) {
        self.owed = [0; 4];
        self.passed_low = 0;
    }

    pub(super) fn count(&mut self, message: &super::Message) {
        self.alive.add(message.body.size_bytes);
        if message.priority == Priority::Urgent {
            let urgent = self.urgent.entry(Sender::clone(&message.sender)).or_default();
            urgent.add(message.body.size_bytes);
        }
    }

    pub(super) fn discount(&mut self, message: &super::Message) {
        self.alive.take(message.body.size_bytes);
        if let Some(urgent) = self.urgent.get_mut(&*message.sender)
            && message.priority == Priority::Urgent
        {
            urgent.take(message.body.size_bytes);
            if urgent.messages == 0 {
                self.urgent.remove(&*message.sender);
            }
        }
    }

    pub(super) fn lease(&mut self) {
        self.leased += 1;
    }

    pub(super) fn unlease(&mut self) {
        self.leased = self.leased.saturating_sub(1);
    }
}
