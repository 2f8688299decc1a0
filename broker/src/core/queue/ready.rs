//! The ready messages of one queue: four priorities, each in the order of its numbers.

use std::collections::BTreeSet;

use broker_proto::Priority;

use super::Seq;

/// Shares of low, normal, high and urgent in a backlogged queue (I-12).
const SHARES: [i64; 4] = [1, 2, 4, 8];

#[derive(Debug, Default)]
pub struct Ready {
    lanes: [BTreeSet<Seq>; 4],
    /// Smooth weighted round robin: what each lane is owed.
    owed: [i64; 4],
    leased: u64,
    size_bytes: u64,
}

impl Ready {
    /// Ready messages.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.len() as u64).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(BTreeSet::is_empty)
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

    /// Ready messages in the order in which they are to be considered: the lane that is owed most first.
    pub fn in_turn(&self) -> impl Iterator<Item = Seq> {
        let mut lanes: Vec<usize> = (0..4).filter(|lane| !self.lanes[*lane].is_empty()).collect();
        lanes.sort_by_key(|lane| std::cmp::Reverse((self.owed[*lane] + SHARES[*lane], *lane)));
        lanes.into_iter().flat_map(|lane| self.lanes[lane].iter().copied())
    }

    pub(super) fn push(&mut self, priority: Priority, seq: Seq, size_bytes: u64) {
        self.lanes[priority as usize].insert(seq);
        self.size_bytes += size_bytes;
    }

    pub(super) fn remove(&mut self, priority: Priority, seq: Seq, size_bytes: u64) {
        if self.lanes[priority as usize].remove(&seq) {
            self.size_bytes = self.size_bytes.saturating_sub(size_bytes);
        }
    }

    /// Counts a delivery from `priority` against the shares. Called before the message leaves its lane.
    pub(super) fn charge(&mut self, priority: Priority) {
        let mut total = 0;
        for (lane, share) in SHARES.iter().enumerate() {
            if self.lanes[lane].is_empty() {
                self.owed[lane] = 0;
            } else {
                self.owed[lane] += share;
                total += share;
            }
        }
        self.owed[priority as usize] -= total;
    }

    /// Turns begin anew: they are not journalled, so that after a start nobody is owed anything.
    pub(super) fn forget_turns(&mut self) {
        self.owed = [0; 4];
    }

    pub(super) fn lease(&mut self) {
        self.leased += 1;
    }

    pub(super) fn unlease(&mut self) {
        self.leased = self.leased.saturating_sub(1);
    }
}
