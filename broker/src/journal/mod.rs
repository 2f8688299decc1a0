//! The journal: the one place where the broker touches a disk or a replicated log.
//!
//! One namespace's batches, numbered 1, 2, 3 … without a gap, each stored whole or not at all with one sync, and
//! the contents they refer to. Whoever may write holds a [`Writer`]; whoever wants to know reads.
//!
//! Invariant: the unit is the batch; what a batch carries is opaque here, kind and version beside the bytes.
//! Invariant: fencing is an append. A claim is a frame at the tail, and an older owner's next append finds it.
//! Invariant: only appends are fenced, so a content key is never used twice and a deletion may come late.
//! Absence: no lists, filters or history. They are read from a projection, which is folded from [`Journal::read`].

mod claim;
#[cfg(test)]
mod conformance;
mod content;
mod error;
pub mod faulty;
pub mod frame;
mod id;
pub mod memory;
mod owner;
pub mod record;
pub mod sqlite;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub use claim::{CLAIMED, Claim, Claimed};
pub use content::{Content, ContentError, ContentKey, NoRandomness};
pub use error::{AppendError, Cause, ClaimError, Damage, OpenError, PutError, ReadError, Why};
pub use frame::{Batch, Frame, Record};
pub use id::{BadText, BatchNo, Cursor, Digest, Epoch, JournalId};

/// Most events in one frame. A constant of the contract, so that every backend takes the same batches.
pub const MAX_EVENTS: usize = 256;
/// Most bytes of one batch, framed and with its contents. Below the default `max_payload` of NATS (1 MiB).
pub const MAX_BATCH_BYTES: usize = 768 * 1024;
/// Most bytes of one content.
pub const MAX_CONTENT_BYTES: usize = 256 * 1024;

/// What a method of the journal answers; boxed, because the engine holds the journal as a trait object.
pub type Answer<'a, T, E> = BoxFuture<'a, Result<T, E>>;

/// One namespace's batches and contents. Anybody may read; [`Journal::claim`] makes the one who may write.
pub trait Journal: std::fmt::Debug + Send + Sync {
    /// The id made at creation, and what `Ok` to an append means.
    fn identity(&self) -> Identity;

    /// Becomes the owner: appends [`Claimed`] with the next epoch at the tail. Every earlier writer is fenced for ever.
    fn claim(&self, me: Claim) -> Answer<'_, Box<dyn Writer>, ClaimError>;

    /// Frames from `from` on: whole, in order, once each, only durable ones. May lag, never lies.
    ///
    /// Ends with the first error; [`ReadError::Gap`] if `from` was truncated away. Does not borrow the journal, so
    /// that a watch can be handed out as a response stream.
    fn read(&self, from: BatchNo, until: Until) -> BoxStream<'static, Result<Frame, ReadError>>;

    /// Stores one content; it is durable when this returns. The same `Content` again is harmless.
    fn put(&self, content: Content) -> Answer<'_, ContentKey, PutError>;

    /// The bytes of one content, compared with their hash (I-5).
    fn get(&self, key: ContentKey) -> Answer<'_, Bytes, ReadError>;

    /// Several contents at once, each answered as by [`Journal::get`].
    fn get_all(&self, keys: Vec<ContentKey>) -> BoxFuture<'_, Vec<Result<Bytes, ReadError>>> {
        Box::pin(async move {
            let mut all = Vec::with_capacity(keys.len());
            for key in keys {
                all.push(self.get(key).await);
            }
            all
        })
    }

    /// The keys of all contents stored at least `grace` ago, for the sweep that finds those no batch refers to.
    fn keys(&self, grace: Duration) -> BoxStream<'static, Result<ContentKey, ReadError>>;

    /// The newest snapshot in one of `formats` whose parts are all there.
    fn snapshot(&self, formats: &[u16]) -> Answer<'_, Option<Manifest>, ReadError>;

    /// Publishes a snapshot whose parts are all put. One that is not newer than the newest changes nothing.
    fn publish(&self, snapshot: Manifest) -> Answer<'_, (), PutError>;

    /// The batch a cursor points into.
    ///
    /// # Errors
    /// [`ReadError::Broken`] if the cursor belongs to another journal.
    fn locate(&self, cursor: Cursor) -> Result<BatchNo, ReadError> {
        let found = self.identity().journal;
        if cursor.journal != found {
            return Err(ReadError::Broken(Damage::OtherJournal {
                expected: cursor.journal,
                found,
            }));
        }
        Ok(cursor.batch)
    }
}

/// The right to write, held by one engine task. Fenced for ever by the next claim.
pub trait Writer: std::fmt::Debug + Send {
    /// The epoch of this writer's claim.
    fn epoch(&self) -> Epoch;

    /// The last batch this writer knows to be stored; right after a claim, the claim's own batch.
    fn head(&self) -> BatchNo;

    /// Stores all of the batch or nothing, with one sync, right behind [`Writer::head`].
    ///
    /// A future dropped before it answered counts as [`AppendError::Unknown`] and kills the writer; a dead writer
    /// repeats the answer that killed it and offers nothing more.
    fn append(&mut self, batch: Batch) -> Answer<'_, BatchNo, AppendError>;

    /// Removes contents that batch `decided`, already durable, gave up. Late or twice does no harm.
    fn forget(&mut self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError>;

    /// Removes the batches below `first`; refused above the newest snapshot but one. Numbers go on rising.
    fn truncate(&mut self, first: BatchNo) -> Answer<'_, (), PutError>;

    /// What is left before [`Why::Full`]; the engine's reserve (I-28) is judged by it.
    fn room(&self) -> Room;
}

/// Which journal this is, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub journal: JournalId,
    pub durability: Durability,
}

/// What `Ok` to an append means (I-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On this machine's disk, synced.
    Synced,
    /// On a majority of replicas.
    Replicated,
    /// In memory only.
    Relaxed,
}

/// How far a reader wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the end as it is when the stream is first polled.
    Head,
    /// Up to and with this batch, waiting for it if need be.
    Batch(BatchNo),
    /// On and on, waking at every append.
    Forever,
}

/// What is left before the store is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// The whole disk, or whatever holds the store.
    pub whole: u64,
}

/// One snapshot: what the state was after `batch`, in `format`, as contents in order, with the digest of the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub batch: BatchNo,
    pub format: u16,
    pub parts: Vec<ContentKey>,
    pub digest: Digest,
}

/// Which backend, and where.
#[derive(Debug, Clone)]
pub enum Options {
    /// In memory, gone with the process.
    Memory,
    /// `directory/journal.db`; `capacity` bounds the file in bytes, otherwise the disk does.
    Sqlite { directory: PathBuf, capacity: Option<u64> },
}

/// Opens the journal, or makes it where there is none.
///
/// # Errors
/// [`OpenError`], with the store left as it was.
pub async fn open(options: Options) -> Result<Arc<dyn Journal>, OpenError> {
    Ok(match options {
        Options::Memory => Arc::new(memory::MemoryJournal::open(&memory::Store::new()?)),
        Options::Sqlite { directory, capacity } => {
            Arc::new(sqlite::SqliteJournal::open(directory, capacity).await?)
        }
    })
}
