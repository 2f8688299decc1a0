//! The life of a message, as its row keeps it: what is written is read, and nothing else is.

use bytes::Bytes;
use proptest::prelude::*;

use broker_proto::MessageState;

use super::{
    Error,
    fold::{life_of, steps},
    tests::{accepted, finished, mailbox},
};
use crate::journal::{BatchNo, Record, record};

type Steps = Vec<(BatchNo, u32, Record)>;

fn ends() -> (Record, Record) {
    (record::encode(&accepted(1, mailbox())), record::encode(&finished(1, MessageState::Done)))
}

/// Reads a life whose row keeps these two records.
fn read(life: Vec<u8>) -> Result<Steps, Error> {
    let (first, last) = ends();
    steps(first.body.to_vec(), life, Some(last.body.to_vec()))
}

fn any_steps() -> impl Strategy<Value = Steps> {
    let body = prop::collection::vec(any::<u8>(), 1..40).prop_map(Bytes::from);
    // In the middle of a life nothing is accepted and nothing ends: those two are kept once, and not with the steps.
    let (first, last) = ends();
    let kind = any::<u16>()
        .prop_filter("a step between", move |kind| ![first.kind, last.kind].contains(kind));
    let record =
        (kind, any::<u16>(), body).prop_map(|(kind, version, body)| Record { kind, version, body });
    prop::collection::vec((any::<u64>().prop_map(BatchNo), any::<u32>(), record), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_life_is_read_as_it_was_written(middle in any_steps()) {
        let (first, last) = ends();
        let whole: Steps = [(BatchNo(1), 0, first)].into_iter()
            .chain(middle)
            .chain([(BatchNo(9), 2, last)])
            .collect();

        prop_assert_eq!(read(life_of(&whole)).unwrap(), whole);
    }

    #[test]
    fn a_life_that_was_cut_is_damage_or_ends_with_a_whole_step(
        all in any_steps(),
        cut in any::<prop::sample::Index>(),
    ) {
        let life = life_of(&all);
        let cut = cut.index(life.len() + 1);
        match read(life[..cut].to_vec()) {
            Err(error) => prop_assert!(error.is_damage()),
            Ok(some) => {
                prop_assert_eq!(life_of(&some).len(), cut);
                prop_assert_eq!(&all[..some.len()], &some[..]);
            }
        }
    }

    #[test]
    fn bytes_that_are_no_life_are_damage(life in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = read(life) {
            prop_assert!(error.is_damage());
        }
    }
}

#[test]
fn the_first_record_and_the_last_are_kept_once() {
    let (first, last) = ends();
    let steps = vec![(BatchNo(1), 0, first.clone()), (BatchNo(2), 0, last.clone())];
    let life = life_of(&steps);
    assert!(life.len() < first.body.len() + last.body.len());
    assert_eq!(read(life).unwrap(), steps);
}
