//! Frames: one batch as bytes, the same bytes in every backend.
//!
//! Layout, little endian: format u16, journal id 16 bytes, batch number u64, epoch u64, digest of the frame before
//! 32 bytes, number of records u16; per record kind u16, version u16, length u32 and its bytes; last the BLAKE3
//! digest of all that, 32 bytes. The digest stays at the end in every later format, so that damage is told from a
//! newer format before anything else is believed.
//!
//! Invariant: what decodes is what was sealed. Any other bit is [`ReadError::Corrupt`].

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::claim::CLAIMED;
use super::content::Content;
use super::error::{AppendError, Damage, ReadError, Why};
use super::id::{BatchNo, Digest, Epoch, JournalId};
use super::{MAX_BATCH_BYTES, MAX_EVENTS};

const FORMAT: u16 = 1;
const HEADER: usize = 2 + 16 + 8 + 8 + 32 + 2;
const RECORD_HEADER: usize = 2 + 2 + 4;
const DIGEST: usize = 32;

/// One event, opaque to the journal. Its debug form shows no byte of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is; [`CLAIMED`] is taken.
    pub kind: u16,
    /// Of the encoding of `body`.
    pub version: u16,
    pub body: Bytes,
}

impl Record {
    /// Bytes this record takes in a frame.
    #[must_use]
    pub fn framed_len(&self) -> usize {
        RECORD_HEADER + self.body.len()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record(kind {}, version {}, {} bytes)", self.kind, self.version, self.body.len())
    }
}

/// What is stored together or not at all: events, and the contents they are the first to refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub events: Vec<Record>,
    pub contents: Vec<Content>,
}

impl Batch {
    /// Bytes of a batch without anything in it; what is added costs [`Record::framed_len`] or a content's length.
    pub const OVERHEAD: usize = HEADER + DIGEST;

    /// Bytes that count against [`MAX_BATCH_BYTES`].
    #[must_use]
    pub fn framed_len(&self) -> usize {
        let contents: usize = self.contents.iter().map(|content| content.bytes().len()).sum();
        framed_len(&self.events) + contents
    }

    /// Whether a journal takes this batch at all.
    ///
    /// # Errors
    /// [`Why::TooLarge`] past a limit, [`Why::Reserved`] for a record of the journal's own kind.
    pub fn check(&self) -> Result<(), Why> {
        if self.events.iter().any(|event| event.kind == CLAIMED) {
            return Err(Why::Reserved);
        }
        if self.events.len() > MAX_EVENTS || self.framed_len() > MAX_BATCH_BYTES {
            return Err(Why::TooLarge);
        }
        Ok(())
    }
}

/// A stored batch, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub journal: JournalId,
    pub number: BatchNo,
    /// Of the owner that wrote it.
    pub epoch: Epoch,
    /// The digest of the frame before; zero in the first one.
    pub before: Digest,
    pub records: Vec<Record>,
    pub digest: Digest,
}

impl Frame {
    /// Reads what was sealed as batch `at` of `journal`. The bodies are slices of `bytes`.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] for anything but such a frame, [`ReadError::TooNew`] for a later format.
    pub fn decode(bytes: &Bytes, journal: JournalId, at: BatchNo) -> Result<Self, ReadError> {
        let frame = Self::parse(bytes)?.ok_or(ReadError::Corrupt { at })?;
        if frame.journal != journal || frame.number != at {
            return Err(ReadError::Corrupt { at });
        }
        Ok(frame)
    }

    /// Nothing if the bytes are not a frame; an error only for a later format.
    fn parse(bytes: &Bytes) -> Result<Option<Self>, ReadError> {
        let Some(body) = bytes.len().checked_sub(DIGEST).filter(|body| *body >= HEADER) else {
            return Ok(None);
        };
        let digest = Digest::of(&bytes[..body]);
        if digest.0 != bytes[body..] {
            return Ok(None);
        }
        let mut rest = bytes.slice(..body);
        let version = rest.get_u16_le();
        if version > FORMAT {
            return Err(ReadError::TooNew { version });
        }
        let mut journal = [0; 16];
        rest.copy_to_slice(&mut journal);
        let number = BatchNo(rest.get_u64_le());
        let epoch = Epoch(rest.get_u64_le());
        let mut before = [0; 32];
        rest.copy_to_slice(&mut before);
        let count = rest.get_u16_le();
        let Some(records) = (0..count).map(|_| record(&mut rest)).collect() else {
            return Ok(None);
        };
        if version != FORMAT || !rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            journal: JournalId(journal),
            number,
            epoch,
            before: Digest(before),
            records,
            digest,
        }))
    }

    pub(super) fn tail(&self) -> Tail {
        Tail { number: self.number, epoch: self.epoch, digest: self.digest }
    }
}

/// Takes one record off the front; nothing if there is none.
fn record(rest: &mut Bytes) -> Option<Record> {
    if rest.len() < RECORD_HEADER {
        return None;
    }
    let (kind, version) = (rest.get_u16_le(), rest.get_u16_le());
    let len = usize::try_from(rest.get_u32_le()).ok()?;
    (rest.len() >= len).then(|| Record { kind, version, body: rest.split_to(len) })
}

fn framed_len(records: &[Record]) -> usize {
    Batch::OVERHEAD + records.iter().map(Record::framed_len).sum::<usize>()
}

/// A frame as bytes, ready to be offered behind the tail it was sealed on.
#[derive(Clone)]
pub(super) struct Sealed {
    pub(super) tail: Tail,
    pub(super) bytes: Bytes,
}

impl Sealed {
    /// Seals `records`, which passed [`Batch::check`], right behind `tail`.
    pub(super) fn new(journal: JournalId, tail: Tail, epoch: Epoch, records: &[Record]) -> Self {
        let number = tail.number.next();
        let mut bytes = BytesMut::with_capacity(framed_len(records));
        bytes.put_u16_le(FORMAT);
        bytes.put_slice(&journal.0);
        bytes.put_u64_le(number.0);
        bytes.put_u64_le(epoch.0);
        bytes.put_slice(&tail.digest.0);
        bytes.put_u16_le(u16::try_from(records.len()).unwrap_or(u16::MAX));
        for record in records {
            bytes.put_u16_le(record.kind);
            bytes.put_u16_le(record.version);
            bytes.put_u32_le(u32::try_from(record.body.len()).unwrap_or(u32::MAX));
            bytes.put_slice(&record.body);
        }
        let digest = Digest::of(&bytes);
        bytes.put_slice(&digest.0);
        Self { tail: Tail { number, epoch, digest }, bytes: bytes.freeze() }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({:?}, {} bytes)", self.tail, self.bytes.len())
    }
}

/// What a log ends with; its default is the end of an empty one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) number: BatchNo,
    pub(super) epoch: Epoch,
    pub(super) digest: Digest,
}

impl Tail {
    /// Whether a writer whose last frame is `self` may append to a log that ends with `found`. `behind` is the
    /// epoch of the frame right behind `self`, asked only if there is one.
    ///
    /// # Errors
    /// [`AppendError::Fenced`] behind another owner's frame, [`AppendError::Broken`] if the log is not the one this
    /// writer wrote.
    pub(super) fn may_follow(
        self,
        found: Self,
        behind: impl FnOnce() -> Option<Epoch>,
    ) -> Result<(), AppendError> {
        if found == self {
            return Ok(());
        }
        let at = self.number.next();
        Err(if found.number < self.number {
            AppendError::Broken(Damage::Shorter { acked: self.number, found: found.number })
        } else if found.number == self.number {
            AppendError::Broken(Damage::OtherBatch { at: self.number })
        } else {
            match behind() {
                Some(by) if by > self.epoch => AppendError::Fenced { by, at },
                // A dead writer offers nothing more, so nobody else writes in this epoch.
                Some(_) => AppendError::Broken(Damage::OtherBatch { at }),
                // Truncated away meanwhile, which only a later owner does.
                None if found.epoch > self.epoch => AppendError::Fenced { by: found.epoch, at },
                None => AppendError::Broken(Damage::OtherBatch { at }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: JournalId = JournalId([9; 16]);
    const AT: BatchNo = BatchNo(5);

    fn records() -> Vec<Record> {
        vec![
            Record { kind: 1, version: 2, body: Bytes::from_static(b"one") },
            Record { kind: 3, version: 4, body: Bytes::new() },
        ]
    }

    fn sealed() -> Sealed {
        let before = Tail { number: BatchNo(4), epoch: Epoch(1), digest: Digest([7; 32]) };
        Sealed::new(JOURNAL, before, Epoch(2), &records())
    }

    #[track_caller]
    fn check_corrupt(bytes: Vec<u8>, what: &str) {
        let read = Frame::decode(&Bytes::from(bytes), JOURNAL, AT);
        assert!(matches!(read, Err(ReadError::Corrupt { at: AT })), "{what}: {read:?}");
    }

    #[test]
    fn a_frame_reads_as_it_was_sealed() {
        let sealed = sealed();

        let frame = Frame::decode(&sealed.bytes, JOURNAL, AT).unwrap();

        assert_eq!(frame.records, records());
        assert_eq!(frame.before, Digest([7; 32]));
        assert_eq!(frame.tail(), sealed.tail);
    }

    #[test]
    fn the_layout_of_format_1_does_not_change() {
        let digest = Digest::of(&sealed().bytes).to_string();

        assert_eq!(sealed().bytes.len(), 68 + 8 + 3 + 8 + 32);
        assert_eq!(digest, "1aa28cc60b9ad8f3a2f4112c8d9885ef53d5e9c52c06093e379a8bd8764fb867");
    }

    #[test]
    fn any_flipped_bit_is_corrupt() {
        for place in 0..sealed().bytes.len() * 8 {
            let mut bytes = sealed().bytes.to_vec();
            bytes[place / 8] ^= 1 << (place % 8);
            check_corrupt(bytes, &format!("bit {place}"));
        }
    }

    #[test]
    fn any_other_length_is_corrupt() {
        let whole = sealed().bytes.to_vec();
        for len in 0..whole.len() {
            check_corrupt(whole[..len].to_vec(), &format!("{len} bytes"));
        }
        check_corrupt([whole, vec![0]].concat(), "one byte more");
    }

    /// Whoever writes a wrong frame with a right digest is not believed either.
    #[test]
    fn a_record_longer_than_its_frame_is_corrupt() {
        let mut bytes = sealed().bytes.to_vec();
        bytes.truncate(bytes.len() - DIGEST);
        bytes[HEADER + 4] = 200;
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);

        check_corrupt(bytes, "record of 200 bytes");
    }

    #[test]
    fn a_frame_of_another_journal_or_place_is_corrupt() {
        let bytes = sealed().bytes;

        assert!(matches!(
            Frame::decode(&bytes, JournalId([8; 16]), AT),
            Err(ReadError::Corrupt { at: AT })
        ));
        assert!(matches!(
            Frame::decode(&bytes, JOURNAL, BatchNo(6)),
            Err(ReadError::Corrupt { at: BatchNo(6) })
        ));
    }

    #[test]
    fn a_later_format_is_too_new_and_not_corrupt() {
        let mut bytes = sealed().bytes.to_vec();
        bytes.truncate(bytes.len() - DIGEST);
        bytes[0] = 2;
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest.0);

        let read = Frame::decode(&Bytes::from(bytes), JOURNAL, AT);

        assert!(matches!(read, Err(ReadError::TooNew { version: 2 })), "{read:?}");
    }

    #[test]
    fn debug_shows_no_body() {
        assert!(
            !format!("{:?}", Batch { events: records(), contents: Vec::new() }).contains("one")
        );
    }
}
