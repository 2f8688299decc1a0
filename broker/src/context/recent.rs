//! Bodies stored a moment ago, which are delivered a moment later.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;

use crate::{core::queue::BodyKey, journal::Digest};

/// Bytes kept at most; the oldest go first.
const KEPT: usize = 4 * 1024 * 1024;

/// A few bodies by their key. Written by whoever stores one, read by links.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bodies: HashMap<BodyKey, Bytes>,
    order: VecDeque<BodyKey>,
    bytes: usize,
}

/// Counts; content never reaches a log.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bodies, {} bytes", self.bodies.len(), self.bytes)
    }
}

impl Recent {
    pub(super) fn keep(&self, key: BodyKey, bytes: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes.len();
        kept.bodies.insert(key, bytes);
        kept.order.push_back(key);
        while kept.bytes > KEPT {
            let Some(oldest) = kept.order.pop_front() else { return };
            let gone = kept.bodies.remove(&oldest).map_or(0, |bytes| bytes.len());
            kept.bytes -= gone;
        }
    }

    /// The bytes of a key, if they are kept and still what they were (I-5).
    pub(super) fn get(&self, key: &BodyKey) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bodies.get(key)?.clone();
        drop(kept);
        (Digest::of(&bytes).0 == key.0[..32]).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Content;

    fn body(byte: u8, size: usize) -> (BodyKey, Bytes) {
        let content = Content::new(vec![byte; size]).unwrap();
        (BodyKey(content.key().to_bytes()), content.bytes().clone())
    }

    #[test]
    fn the_oldest_bodies_make_room() {
        let recent = Recent::default();
        let (first, bytes) = body(0, 64 * 1024);
        recent.keep(first, bytes.clone());
        assert_eq!(recent.get(&first), Some(bytes));

        for byte in 1..=64 {
            let (key, bytes) = body(byte, 64 * 1024);
            recent.keep(key, bytes);
        }

        assert_eq!(recent.get(&first), None);
        let (last, bytes) = body(64, 64 * 1024);
        recent.keep(last, bytes.clone());
        assert_eq!(recent.get(&last), Some(bytes));
    }

    #[test]
    fn bytes_that_are_not_the_keys_are_not_given() {
        let recent = Recent::default();
        let (key, _) = body(1, 10);
        recent.keep(key, Bytes::from_static(b"another"));
        assert_eq!(recent.get(&key), None);
    }
}
