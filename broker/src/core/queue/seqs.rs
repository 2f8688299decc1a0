//! A set of numbers, in order.
//!
//! Numbers of messages lie close together, so that up to 64 of them share one word: a long row of neighbours takes next
//! to nothing.

use std::collections::BTreeMap;

use super::Seq;

const WORD: u64 = 64;

/// One bit for each number, in the word of its neighbours. No word is empty.
#[derive(Debug, Default)]
pub(super) struct Seqs(BTreeMap<u64, u64>);

impl Seqs {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether it is new.
    pub(super) fn insert(&mut self, seq: Seq) -> bool {
        let (at, bit) = place(seq);
        let word = self.0.entry(at).or_default();
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, seq: Seq) -> bool {
        let (at, bit) = place(seq);
        let Some(word) = self.0.get_mut(&at) else { return false };
        let was_there = *word & bit != 0;
        *word &= !bit;
        if *word == 0 {
            self.0.remove(&at);
        }
        was_there
    }

    pub(super) fn first(&self) -> Option<Seq> {
        self.iter().next()
    }

    pub(super) fn last(&self) -> Option<Seq> {
        let (at, word) = self.0.last_key_value()?;
        Some(Seq(at * WORD + u64::from(word.ilog2())))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Seq> {
        self.0.iter().flat_map(|(at, word)| {
            let rest = std::iter::successors(Some(*word), |rest| {
                Some(rest & (rest - 1)).filter(|rest| *rest != 0)
            });
            rest.map(move |rest| Seq(at * WORD + u64::from(rest.trailing_zeros())))
        })
    }
}

fn place(seq: Seq) -> (u64, u64) {
    (seq.0 / WORD, 1 << (seq.0 % WORD))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_an_ordered_set(steps in prop::collection::vec((0..300_u64, any::<bool>()), 0..400)) {
            let (mut seqs, mut plain) = (Seqs::default(), BTreeSet::new());
            for (number, comes) in steps {
                let seq = Seq(number);
                if comes {
                    prop_assert_eq!(seqs.insert(seq), plain.insert(seq));
                } else {
                    prop_assert_eq!(seqs.remove(seq), plain.remove(&seq));
                }
                prop_assert_eq!(seqs.is_empty(), plain.is_empty());
                prop_assert_eq!(seqs.first(), plain.first().copied());
                prop_assert_eq!(seqs.last(), plain.last().copied());
            }
            prop_assert!(seqs.iter().eq(plain));
        }
    }
}
