//! Which frames what was decided is stored in.
//!
//! Invariant: what one decision led to is in one frame, unless it is larger than a frame: a broker that dies between two
//! frames has stored all of a decision or nothing of it (I-38).

use crate::journal::{MAX_BATCH_BYTES, MAX_EVENTS, Record};

/// What a frame holds beside its records and contents, generously.
const FRAME_BYTES: usize = 1024;
const BYTES: usize = MAX_BATCH_BYTES - FRAME_BYTES;

/// Cuts records into frames, of which the first also holds `contents` bytes of contents. `ends` are the places at which
/// decisions end, rising; the last of them is where the records end.
pub(super) fn frames(records: Vec<Record>, ends: &[usize], contents: usize) -> Vec<Vec<Record>> {
    let mut records = records.into_iter();
    let (mut frames, mut frame, mut bytes, mut begin) = (Vec::new(), Vec::new(), contents, 0);
    for end in ends {
        let decision: Vec<Record> = records.by_ref().take(end - begin).collect();
        begin = *end;
        let size: usize = decision.iter().map(Record::framed_len).sum();
        let fits = frame.len() + decision.len() <= MAX_EVENTS && bytes + size <= BYTES;
        if !fits && !frame.is_empty() {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        for record in decision {
            let is_full = frame.len() >= MAX_EVENTS || bytes + record.framed_len() > BYTES;
            if is_full && !frame.is_empty() {
                frames.push(std::mem::take(&mut frame));
                bytes = 0;
            }
            bytes += record.framed_len();
            frame.push(record);
        }
    }
    if !frame.is_empty() {
        frames.push(frame);
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(decisions: &[usize], bytes: usize, want: &[usize]) {
        let record = || Record { kind: 1, version: 1, body: vec![0; bytes].into() };
        let mut ends = Vec::new();
        for length in decisions {
            ends.push(ends.last().unwrap_or(&0) + length);
        }
        let records = (0..decisions.iter().sum()).map(|_| record()).collect();
        let cut: Vec<usize> = frames(records, &ends, 0).iter().map(Vec::len).collect();
        assert_eq!(cut, want, "{decisions:?} of {bytes} bytes");
    }

    #[test]
    fn a_decision_is_in_one_frame_and_as_many_as_fit_are_in_the_same() {
        check(&[1, 2, 3], 10, &[6]);
        check(&[127, 200], 10, &[127, 200]);
        check(&[127, 129], 10, &[256]);
        check(&[256, 1], 10, &[256, 1]);
        check(&[1, 2], 300 * 1024, &[1, 2]);
        check(&[0, 0], 10, &[]);
    }

    #[test]
    fn only_a_decision_larger_than_a_frame_is_split() {
        check(&[1, 300, 1], 10, &[1, 256, 45]);
    }
}
