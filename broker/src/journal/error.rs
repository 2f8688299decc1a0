//! What can go wrong with a journal, told apart by what the caller does next.

use std::path::PathBuf;
use std::sync::Arc;

use super::content::{ContentKey, NoRandomness};
use super::id::{BatchNo, Epoch, JournalId};

/// Why something is surely not stored, and never will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("the store is full")]
    Full,
    /// The engine must seal its batches earlier.
    #[error("the batch is larger than a frame may be")]
    TooLarge,
    #[error("the store does not answer")]
    Unavailable,
    /// A record of the batch has a kind that only the journal may write.
    #[error("the record kind belongs to the journal")]
    Reserved,
}

/// Why nobody knows whether something is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("the append was given up before it was answered")]
    Abandoned,
    #[error("the store stopped before it answered")]
    Stopped,
}

/// The store is not what it was. Nobody repairs this alone: stop, and tell a person.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Damage {
    #[error("the journal ends at batch {found}, but batch {acked} was acknowledged")]
    Shorter { acked: BatchNo, found: BatchNo },
    #[error("the journal is {found}, not {expected}")]
    OtherJournal { expected: JournalId, found: JournalId },
    #[error("batch {at} is not the one that was written")]
    OtherBatch { at: BatchNo },
    /// Also a failed sync: what the disk holds is not known, and a second sync would prove nothing.
    #[error("the store failed")]
    Store { source: Arc<dyn std::error::Error + Send + Sync> },
}

impl Damage {
    pub(super) fn store(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Store { source: Arc::new(source) }
    }
}

/// What became of a batch that was not answered with its number.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Surely not stored, and never later. The writer stays good.
    #[error("the batch is not stored")]
    NotStored(#[source] Why),
    /// Surely not stored: `at`, right behind this writer's head, belongs to another owner. The writer is dead.
    #[error("batch {at} belongs to the owner of epoch {by}")]
    Fenced { by: Epoch, at: BatchNo },
    /// Stored, or not, or later. The writer is dead; only a claim settles it.
    #[error("nobody knows whether the batch is stored")]
    Unknown(#[source] Cause),
    #[error("the journal is damaged")]
    Broken(#[source] Damage),
}

/// Why there is no writer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError {
    /// The journal holds records that only a program which reads format `version` understands.
    #[error("the journal needs a program that reads format {version}")]
    TooNew { version: u16 },
    #[error("the claim is not stored")]
    NotStored(#[source] Why),
    /// Claiming again settles it.
    #[error("nobody knows whether the claim is stored")]
    Unknown(#[source] Cause),
    #[error("the journal is damaged")]
    Broken(#[source] Damage),
}

/// Why a content, a snapshot, a deletion or a truncation did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PutError {
    #[error("nothing is stored")]
    NotStored(#[source] Why),
    /// A snapshot names a part that is not put.
    #[error("content {key} is not there")]
    Missing { key: ContentKey },
    /// A deletion or a snapshot rests on a batch that is not durable.
    #[error("batch {batch} is not durable, the journal ends at {head}")]
    Undecided { batch: BatchNo, head: BatchNo },
    /// A truncation would remove what the newest snapshot but one is folded on with.
    #[error("batches from {first} on are still needed")]
    StillNeeded { first: BatchNo },
    /// Doing it again is safe.
    #[error("nobody knows whether it is done")]
    Unknown(#[source] Cause),
    #[error("the journal is damaged")]
    Broken(#[source] Damage),
}

/// Why something cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Truncated away; `first` is the first batch that is kept.
    #[error("the journal begins at batch {first}")]
    Gap { first: BatchNo },
    #[error("batch {at} is damaged")]
    Corrupt { at: BatchNo },
    #[error("content {key} is damaged")]
    CorruptContent { key: ContentKey },
    #[error("format {version} is newer than this program")]
    TooNew { version: u16 },
    #[error("there is no such content")]
    Missing,
    #[error("the store does not answer")]
    Unavailable,
    #[error("the journal is damaged")]
    Broken(#[source] Damage),
}

/// Why the journal is not open. The store is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("`{}` has format {version}, which is newer than this program", path.display())]
    TooNew { path: PathBuf, version: u32 },
    /// No release ever wrote it.
    #[error(
        "`{}` has layout {version}, from before the first release: move the data folder away, or use another",
        path.display()
    )]
    TooOld { path: PathBuf, version: u32 },
    #[error("`{}` is not a journal", path.display())]
    NotOurs { path: PathBuf },
    #[error("batch {at} in `{}` is damaged", path.display())]
    Corrupt { path: PathBuf, at: BatchNo },
    #[error("`{}` is damaged at byte {offset}, before a later commit", path.display())]
    CorruptWal { path: PathBuf, offset: u64 },
    #[error("`{}` is damaged: {what}", path.display())]
    CorruptPages { path: PathBuf, what: String },
    /// Only the message that names it is hurt: it is quarantined when it is read (I-5).
    #[error("content {id} in `{}` is damaged", path.display())]
    CorruptContent { path: PathBuf, id: i64 },
    #[error(
        "`{}` ends at batch {found}, but batch {acked} was acknowledged: restore what is missing, or delete `{}` to go on without it",
        path.display(), note.display()
    )]
    Shorter { path: PathBuf, acked: BatchNo, found: BatchNo, note: PathBuf },
    #[error("cannot open `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("cannot open `{}`", path.display())]
    Store { path: PathBuf, source: Arc<dyn std::error::Error + Send + Sync> },
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}
