//! The journal's small values: its id, batch numbers, epochs, digests, and the cursor people and programs keep.

use std::fmt;
use std::str::FromStr;

use broker_proto::Hex;

/// A text that is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a {0}")]
pub struct BadText(pub(super) &'static str);

/// The number of a batch; the first one is 1, and 0 is the place before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

impl BatchNo {
    /// The place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for BatchNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How often the journal was claimed when something was written; 0 before the first claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the next claim.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Made once, when the journal is made. Every frame and every cursor carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JournalId(pub [u8; 16]);

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalId({self})")
    }
}

impl FromStr for JournalId {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        read_hex(text).map(Self).ok_or(BadText("journal id"))
    }
}

/// A BLAKE3 hash.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A place in the history: a record of a batch of one journal. It outlives owners, backends and restarts.
///
/// As text: `<journal id>-<batch>-<index>`, the id in hexadecimal, the rest in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    pub journal: JournalId,
    pub batch: BatchNo,
    /// Which record of the batch, from 0.
    pub index: u32,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.journal, self.batch, self.index)
    }
}

impl FromStr for Cursor {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = BadText("cursor");
        let mut fields = text.split('-');
        let mut field = || fields.next().ok_or(bad);
        let journal = field()?.parse().map_err(|_| bad)?;
        let batch = BatchNo(decimal(field()?).ok_or(bad)?);
        let index = decimal(field()?).and_then(|index| index.try_into().ok()).ok_or(bad)?;
        let cursor = Self { journal, batch, index };
        if fields.next().is_some() { Err(bad) } else { Ok(cursor) }
    }
}

/// `u64::from_str` also takes a plus sign and leading zeros; a cursor has one spelling only.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

pub(super) fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Lower case only: an id has one spelling.
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor { journal: JournalId([0xab; 16]), batch: BatchNo(12), index: 3 }
    }

    #[test]
    fn cursor_survives_its_text() {
        let text = cursor().to_string();

        assert_eq!(text, format!("{}-12-3", "ab".repeat(16)));
        assert_eq!(text.parse(), Ok(cursor()));
    }

    #[test]
    fn cursor_with_another_spelling_is_refused() {
        let id = "ab".repeat(16);
        for bad in [
            String::new(),
            id.clone(),
            format!("{id}-12"),
            format!("{id}-12-3-4"),
            format!("{id}-+12-3"),
            format!("{id}-012-3"),
            format!("{id}-12-4294967296"),
            format!("{id}--3"),
            format!("{}-12-3", id.to_uppercase()),
            format!("{}-12-3", &id[1..]),
            format!("{}é-12-3", &id[2..]),
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadText("cursor")), "{bad}");
        }
    }
}
