//! What is stored is read back the same, and what was never stored is refused.

use std::{fmt::Debug, time::Duration};

use bytes::Bytes;

use super::sample;
use crate::{
    AnswerSummary, AskOptions, Attempt, Failure, Message, Part, Payload, RateLimit, Recipient,
    Usage, WallTime, convert::Stored,
};

#[track_caller]
fn check<T: Stored + Clone + Debug + PartialEq>(values: impl IntoIterator<Item = T>) {
    for value in values {
        assert_eq!(T::decode(value.clone().encode()).unwrap(), value);
    }
    for garbage in [&b"\xff"[..], b"\x0a\xff", b"not it", &[0; 9]] {
        assert!(T::decode(Bytes::copy_from_slice(garbage)).is_err(), "{garbage:?}");
    }
}

#[test]
fn what_is_stored_is_read_back() {
    check::<AnswerSummary>([sample::summary(), sample::bare_summary()]);
    check::<AskOptions>([sample::options(), AskOptions::default()]);
    check::<Attempt>([sample::attempt(), sample::bare_attempt()]);
    check::<Failure>([sample::failure()]);
    check::<Message>([sample::message(), sample::bare_message()]);
    check::<Part>(sample::parts());
    check::<Payload>([sample::payload(), Payload::default()]);
    check::<RateLimit>([sample::limit(), sample::bare_limit()]);
    check::<Recipient>([sample::message().to, sample::bare_message().to]);
    check::<Usage>([sample::usage(), Usage::default()]);
}

/// A clock that was set while a call was out must not make a record that no start can read.
#[test]
fn figures_beyond_the_wire_are_stored_as_its_bounds() {
    let far = Attempt { latency: Duration::MAX, wait: Duration::MAX, ..sample::attempt() };
    let longest = Duration::from_secs(10 * 366 * 86_400);
    let read = Attempt::decode(far.encode()).unwrap();
    assert_eq!((read.latency, read.wait), (longest, longest));

    let far = Failure { retry_at: Some(WallTime(u64::MAX)), ..sample::failure() };
    let read = Failure::decode(far.encode()).unwrap();
    assert_eq!(read.retry_at, Some(WallTime(253_402_300_799_999)));
}

#[test]
fn equal_values_have_equal_bytes() {
    assert_eq!(sample::message().encode(), sample::message().encode());
}
