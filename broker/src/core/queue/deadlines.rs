//! When messages end by themselves, the first first.
//!
//! Most are given the same time to live and so end in the order of their numbers: of those the number is kept, and the
//! message says the rest. A million of them must fit.

use std::collections::BTreeSet;

use broker_proto::WallTime;

use super::{Seq, seqs::Seqs};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// None of them ends before one with a lower number.
    in_turn: Seqs,
    /// Nothing that ends before this may follow there.
    latest: WallTime,
    others: BTreeSet<(WallTime, Seq)>,
}

impl Deadlines {
    pub(super) fn insert(&mut self, at: WallTime, seq: Seq) {
        let follows = self.in_turn.last().is_none_or(|last| last < seq && self.latest <= at);
        if follows {
            self.in_turn.insert(seq);
            self.latest = at;
        } else {
            self.others.insert((at, seq));
        }
    }

    pub(super) fn remove(&mut self, at: WallTime, seq: Seq) {
        if !self.in_turn.remove(seq) {
            self.others.remove(&(at, seq));
        }
    }

    /// The earliest, and whose it is; `deadline` knows that of each message that is here.
    pub(super) fn first(
        &self,
        deadline: impl FnOnce(Seq) -> Option<WallTime>,
    ) -> Option<(WallTime, Seq)> {
        let in_turn = self.in_turn.first().and_then(|seq| Some((deadline(seq)?, seq)));
        in_turn.into_iter().chain(self.others.first().copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_is_the_earliest(steps in prop::collection::vec((0..30_u64, 0..8_u64), 0..200)) {
            let (mut deadlines, mut plain) = (Deadlines::default(), BTreeMap::new());
            for (number, at) in steps {
                let seq = Seq(number);
                match plain.remove(&seq) {
                    Some(at) => deadlines.remove(at, seq),
                    None => {
                        deadlines.insert(WallTime(at), seq);
                        plain.insert(seq, WallTime(at));
                    }
                }
                let first = plain.iter().map(|(seq, at)| (*at, *seq)).min();
                prop_assert_eq!(deadlines.first(|seq| plain.get(&seq).copied()), first);
            }
        }
    }
}
