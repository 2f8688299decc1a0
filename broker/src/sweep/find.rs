//! Which parts some bytes refer to.

use std::collections::BTreeSet;

use broker_proto::ContentHash;

/// Parts that are looked for. A body names a part by the bytes of its hash, whatever else it is, so that it need not be
/// understood: what looks like a reference and is none only keeps a part.
#[derive(Debug)]
pub(super) struct Wanted {
    parts: BTreeSet<ContentHash>,
    /// Whether some part's hash begins with these two bytes; most places of a body are passed over by this alone.
    beginnings: Vec<bool>,
}

impl Wanted {
    pub(super) fn new(parts: BTreeSet<ContentHash>) -> Self {
        let mut beginnings = vec![false; 1 << 16];
        for part in &parts {
            beginnings[beginning(&part.0)] = true;
        }
        Self { parts, beginnings }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Looks no longer for the parts that stand in `bytes`.
    pub(super) fn strike(&mut self, bytes: &[u8]) {
        for window in bytes.windows(32) {
            if self.beginnings[beginning(window)]
                && let Ok(hash) = window.try_into()
            {
                self.parts.remove(&ContentHash(hash));
            }
        }
    }

    /// What was found nowhere.
    pub(super) fn into_rest(self) -> BTreeSet<ContentHash> {
        self.parts
    }
}

fn beginning(hash: &[u8]) -> usize {
    usize::from(hash[0]) << 8 | usize::from(hash[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_found_at_any_place_and_nothing_else_is() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|part| ContentHash::of(part));
        let mut wanted = Wanted::new([a, b, c].into());
        wanted.strike(&a.0[..31]);
        wanted.strike(&[b"before".as_slice(), &b.0, b"after"].concat());
        wanted.strike(&[&c.0[..], &c.0[1..]].concat());
        assert_eq!(wanted.into_rest(), [a].into());
    }
}
