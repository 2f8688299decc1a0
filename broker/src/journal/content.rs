//! Contents: the bytes that records refer to by key.
//!
//! Invariant: a key is made with its bytes, here, and never used for others. No copy number is drawn twice, so the same
//! bytes stored again are another content, and a deletion that arrives late hits nothing alive.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use broker_proto::Hex;
use bytes::Bytes;

use super::MAX_CONTENT_BYTES;
use super::id::{BadText, Digest, read_hex};

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness {
    source: getrandom::Error,
}

/// Why bytes cannot become a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    #[error("a content of {bytes} bytes is larger than {MAX_CONTENT_BYTES}")]
    TooLarge { bytes: usize },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Names one content: the hash of its bytes and a copy number. Later copies have higher numbers, as far as the clock
/// knows, so that a store may keep them in that order.
///
/// As text: `<hash>.<copy>`, both in hexadecimal. As bytes: 32 of the hash, 8 of the copy number, big endian.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey {
    hash: Digest,
    copy: u64,
}

impl ContentKey {
    /// Length of [`ContentKey::to_bytes`].
    pub const LEN: usize = 40;

    /// The hash of the bytes this key names.
    #[must_use]
    pub fn hash(&self) -> Digest {
        self.hash
    }

    pub(super) fn copy(&self) -> u64 {
        self.copy
    }

    /// The key of a content that a store found.
    pub(super) fn stored(hash: Digest, copy: u64) -> Self {
        Self { hash, copy }
    }

    /// For records that hold keys.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.hash.0);
        bytes[32..].copy_from_slice(&self.copy.to_be_bytes());
        bytes
    }

    /// The key that [`ContentKey::to_bytes`] wrote; nothing if the length is another.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, copy) = bytes.split_at_checked(32)?;
        let hash = Digest(hash.try_into().ok()?);
        Some(Self { hash, copy: u64::from_be_bytes(copy.try_into().ok()?) })
    }
}

impl fmt::Display for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.hash.0).fmt(f)?;
        f.write_str(".")?;
        Hex(&self.copy.to_be_bytes()).fmt(f)
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentKey({self})")
    }
}

impl FromStr for ContentKey {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = BadText("content key");
        let (hash, copy) = text.split_once('.').ok_or(bad)?;
        let hash = read_hex(hash).map(Digest).ok_or(bad)?;
        Ok(Self { hash, copy: read_hex(copy).map(u64::from_be_bytes).ok_or(bad)? })
    }
}

/// Bytes with their key. Its debug form shows no byte of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    key: ContentKey,
    bytes: Bytes,
}

impl Content {
    /// Hashes `bytes` and draws the copy number.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`] past [`MAX_CONTENT_BYTES`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ContentError> {
        let bytes = bytes.into();
        if bytes.len() > MAX_CONTENT_BYTES {
            return Err(ContentError::TooLarge { bytes: bytes.len() });
        }
        let copy = next_copy()?;
        Ok(Self { key: ContentKey { hash: Digest::of(&bytes), copy }, bytes })
    }

    /// What records refer to it by.
    #[must_use]
    pub fn key(&self) -> ContentKey {
        self.key
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({}, {} bytes)", self.key, self.bytes.len())
    }
}

/// Bits of a copy number below the milliseconds of its making.
const BELOW: u32 = 21;
/// The last copy number that this process drew; 0 before the first.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Above every number that this process drew before. A process begins at a random place of its first millisecond, so
/// that two of them, or one whose clock was set back, do not meet.
fn next_copy() -> Result<u64, NoRandomness> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // 63 bits last until 2109; a store may keep them signed.
    let now = (u64::try_from(since.as_millis()).unwrap_or(u64::MAX) << BELOW) & (u64::MAX >> 1);
    let begin = match LAST.load(Ordering::Relaxed) {
        0 => now | u64::from(u32::from_le_bytes(random()?) >> (u32::BITS - BELOW)),
        _ => now,
    };
    let next = |last: u64| Some(begin.max(last + 1));
    // The closure never refuses; what it replaced is the number before.
    let (Ok(last) | Err(last)) = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    Ok(begin.max(last + 1))
}

/// Random bytes from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|source| NoRandomness { source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_twice_are_two_contents_of_one_hash() {
        let first = Content::new("known").unwrap();
        let second = Content::new("known").unwrap();

        assert_ne!(first.key(), second.key());
        assert_eq!(first.key().hash(), second.key().hash());
    }

    #[test]
    fn a_content_is_at_most_256_kib() {
        assert!(Content::new(vec![0; MAX_CONTENT_BYTES]).is_ok());

        let refused = Content::new(vec![0; MAX_CONTENT_BYTES + 1]);

        assert_eq!(refused, Err(ContentError::TooLarge { bytes: MAX_CONTENT_BYTES + 1 }));
    }

    #[test]
    fn a_key_survives_its_text_and_its_bytes() {
        let key = Content::new("known").unwrap().key();

        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(ContentKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(ContentKey::from_bytes(&key.to_bytes()[1..]), None);
        assert!(key.to_string().to_uppercase().parse::<ContentKey>().is_err());
    }

    #[test]
    fn debug_shows_no_content() {
        let content = Content::new("a prompt").unwrap();

        assert!(!format!("{content:?}").contains("prompt"));
    }
}
