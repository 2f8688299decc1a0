//! Sums over the rows that a restart loads, so that rows that changed, went or came without the fold are noticed.
//!
//! Each row carries the sum of its own bytes; the mark carries the sum of all rows about what lives, kept by triggers
//! (`schema.rs`), and a seal over itself. They find damage, not forgery: who can write the file can write the sums.

use rusqlite::{Connection, Row, params};

use super::{Error, fold::number};
use crate::journal::Record;

/// Sums are less than this, so that a million of them added together still fit SQLite's integers.
pub(super) const MODULUS: i64 = 1 << 40;

/// The sum of one row: its numbers, its subject and its record.
pub(super) fn of_row(numbers: &[i64], subject: &str, record: &Record) -> i64 {
    let mut sum =
        numbers.iter().fold(0x51_7c_c1_b7_27_22_0a_95, |sum, n| step(sum, n.cast_unsigned()));
    sum = step(sum, u64::from(record.kind) << 16 | u64::from(record.version));
    sum = of_bytes(of_bytes(sum, subject.as_bytes()), &record.body);
    let mixed = sum ^ (sum >> 32);
    (mixed % MODULUS.cast_unsigned()).cast_signed()
}

/// Two sums, added.
pub(super) fn plus(one: i64, other: i64) -> i64 {
    (one + other) % MODULUS
}

/// Each step is one to one in both, so a single changed word always changes the sum before it is cut to size.
fn step(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

fn of_bytes(sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let sum = words.by_ref().fold(sum, |sum, word| {
        step(sum, word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    });
    let rest = words.remainder().iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    step(step(sum, rest), bytes.len() as u64)
}

/// Seals the mark as it is now.
pub(super) fn seal(connection: &Connection) -> Result<(), Error> {
    let seal = connection.prepare_cached(MARK)?.query_row([], seal_of)?;
    connection.prepare_cached("UPDATE mark SET seal = ?1")?.execute(params![seal])?;
    Ok(())
}

/// Whether the mark is as it was sealed.
pub(super) fn is_sealed(connection: &Connection) -> Result<bool, Error> {
    let found = connection.query_row(MARK, [], |row| Ok((seal_of(row)?, row.get::<_, i64>(5)?)))?;
    Ok(found.0 == found.1)
}

const MARK: &str = "SELECT journal, applied, broker_time, last_seq, sum, seal FROM mark";

fn seal_of(row: &Row<'_>) -> rusqlite::Result<i64> {
    let journal: String = row.get(0)?;
    let numbers = [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
    let nothing = Record { kind: 0, version: 0, body: bytes::Bytes::new() };
    Ok(of_row(&numbers, &journal, &nothing))
}

/// The sum of an event's row.
pub(super) fn of_event(seq: u64, batch: u64, place: u64, record: &Record) -> i64 {
    of_row(&[number(seq), number(batch), number(place)], "", record)
}

/// The sum of a fact's row.
pub(super) fn of_fact(subject: &str, record: &Record) -> i64 {
    of_row(&[], subject, record)
}
