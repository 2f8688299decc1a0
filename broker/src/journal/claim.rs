//! Claims: the one record that the journal writes itself.
//!
//! A claim carries a random instance id, because two claimers that offered equal bytes would both find "their" frame
//! in the log. It also names the oldest format that can read on, so that an older program refuses to claim.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::content::{NoRandomness, random};
use super::error::ClaimError;
use super::frame::{Record, Sealed, Tail};
use super::id::{Epoch, JournalId};

/// The kind of the [`Claimed`] record; no batch of an engine may use it.
pub const CLAIMED: u16 = u16::MAX;
const VERSION: u16 = 1;
const LEN: usize = 8 + 16 + 2;

/// Who wants to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Random, one per claim.
    pub instance: [u8; 16],
    /// The newest record format this program reads.
    pub reads: u16,
    /// The oldest record format whose programs can read what this one is going to write.
    pub readable_by: u16,
}

impl Claim {
    /// Draws the instance id.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system gives none.
    pub fn new(reads: u16, readable_by: u16) -> Result<Self, NoRandomness> {
        Ok(Self { instance: random()?, reads, readable_by })
    }
}

/// What a claim leaves in the log: the only record of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    pub epoch: Epoch,
    pub instance: [u8; 16],
    /// The oldest record format that can read on from here.
    pub readable_by: u16,
}

impl Claimed {
    /// The claim in `record`; nothing if it is another record or one of a newer version.
    #[must_use]
    pub fn parse(record: &Record) -> Option<Self> {
        if record.kind != CLAIMED || record.version != VERSION || record.body.len() != LEN {
            return None;
        }
        let mut body = record.body.clone();
        let epoch = Epoch(body.get_u64_le());
        let mut instance = [0; 16];
        body.copy_to_slice(&mut instance);
        Some(Self { epoch, instance, readable_by: body.get_u16_le() })
    }

    fn record(&self) -> Record {
        let mut body = BytesMut::with_capacity(LEN);
        body.put_u64_le(self.epoch.0);
        body.put_slice(&self.instance);
        body.put_u16_le(self.readable_by);
        Record { kind: CLAIMED, version: VERSION, body: Bytes::from(body) }
    }
}

/// The frame with which `me` takes over a log that ends at `tail` and needs readers of format `needs`.
///
/// # Errors
/// [`ClaimError::TooNew`] if `me` is not such a reader.
pub(super) fn seal(
    journal: JournalId,
    tail: Tail,
    needs: u16,
    me: Claim,
) -> Result<(Sealed, Claimed), ClaimError> {
    if needs > me.reads {
        return Err(ClaimError::TooNew { version: needs });
    }
    // What newer owners wrote stays in the log, so the need never falls.
    let readable_by = needs.max(me.readable_by);
    let claimed = Claimed { epoch: tail.epoch.next(), instance: me.instance, readable_by };
    Ok((Sealed::new(journal, tail, claimed.epoch, &[claimed.record()]), claimed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_survives_its_record() {
        let claimed = Claimed { epoch: Epoch(7), instance: [3; 16], readable_by: 2 };

        assert_eq!(Claimed::parse(&claimed.record()), Some(claimed));
    }

    #[test]
    fn an_older_owner_does_not_lower_what_reading_needs() {
        let me = Claim::new(5, 1).unwrap();

        let (_, claimed) = seal(JournalId([1; 16]), Tail::default(), 3, me).unwrap();

        assert_eq!(claimed.readable_by, 3);
    }
}
