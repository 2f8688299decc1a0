//! Where a message's bytes are stored, and how many there are.

use std::{ops::Deref, slice};

/// The key of one stored content: its hash and a copy number, as the journal writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyKey(pub [u8; 40]);

/// Stored bytes, in pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Body {
    pub keys: Keys,
    pub size_bytes: u64,
}

/// The keys of the pieces, in order. A million bodies of one piece must fit: its key is kept in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Pieces);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pieces {
    One(BodyKey),
    /// None, or more than one.
    Several(Box<[BodyKey]>),
}

impl Default for Keys {
    fn default() -> Self {
        Self(Pieces::Several(Box::default()))
    }
}

impl From<BodyKey> for Keys {
    fn from(key: BodyKey) -> Self {
        Self(Pieces::One(key))
    }
}

impl FromIterator<BodyKey> for Keys {
    fn from_iter<T: IntoIterator<Item = BodyKey>>(keys: T) -> Self {
        let mut keys = keys.into_iter();
        match (keys.next(), keys.next()) {
            (Some(one), None) => one.into(),
            (first, second) => {
                Self(Pieces::Several(first.into_iter().chain(second).chain(keys).collect()))
            }
        }
    }
}

impl Deref for Keys {
    type Target = [BodyKey];

    fn deref(&self) -> &[BodyKey] {
        match &self.0 {
            Pieces::One(key) => slice::from_ref(key),
            Pieces::Several(keys) => keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_what_they_were_made_of() {
        for many in 0..4 {
            let given: Vec<_> = (0..many).map(|number| BodyKey([number; 40])).collect();
            let keys: Keys = given.iter().copied().collect();
            assert_eq!(*keys, *given);
        }
        assert_eq!(Keys::from(BodyKey([1; 40])), [BodyKey([1; 40])].into_iter().collect());
        assert_eq!(Keys::default(), [].into_iter().collect());
    }
}
