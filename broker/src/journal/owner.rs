//! The writer of every backend: seals, keeps its place, and dies as it must.
//!
//! Invariant: a writer that does not know its place offers nothing. What killed it is what it goes on to answer.

use std::sync::Arc;

use super::content::{Content, ContentKey};
use super::error::{AppendError, Cause, PutError};
use super::frame::{Batch, Sealed, Tail};
use super::id::{BatchNo, Epoch, JournalId};
use super::{Answer, Room, Writer};

/// What a backend does for its writer.
pub(super) trait Log: std::fmt::Debug + Send + Sync {
    /// Stores `sealed` and `contents` together, if the log still ends with `place`.
    fn offer(
        &self,
        place: Tail,
        sealed: Sealed,
        contents: Vec<Content>,
    ) -> Answer<'_, (), AppendError>;
    fn forget(&self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError>;
    fn truncate(&self, first: BatchNo) -> Answer<'_, (), PutError>;
    fn room(&self) -> Room;
}

#[derive(Debug)]
pub(super) struct Owner {
    log: Arc<dyn Log>,
    journal: JournalId,
    epoch: Epoch,
    tail: Tail,
    /// Set before an append is offered, so that a future dropped in between leaves it behind.
    dead: Option<AppendError>,
}

impl Owner {
    /// The owner whose claim is `tail`.
    pub(super) fn new(log: Arc<dyn Log>, journal: JournalId, tail: Tail) -> Self {
        Self { log, journal, epoch: tail.epoch, tail, dead: None }
    }

    async fn append(&mut self, batch: Batch) -> Result<BatchNo, AppendError> {
        if let Some(err) = &self.dead {
            return Err(err.clone());
        }
        batch.check().map_err(AppendError::NotStored)?;
        let sealed = Sealed::new(self.journal, self.tail, self.epoch, &batch.events);
        let tail = sealed.tail;

        self.dead = Some(AppendError::Unknown(Cause::Abandoned));
        let answer = self.log.offer(self.tail, sealed, batch.contents).await;
        self.dead = match &answer {
            Ok(()) | Err(AppendError::NotStored(_)) => None,
            Err(err) => Some(err.clone()),
        };
        answer?;
        self.tail = tail;
        Ok(tail.number)
    }
}

impl Writer for Owner {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn head(&self) -> BatchNo {
        self.tail.number
    }

    fn append(&mut self, batch: Batch) -> Answer<'_, BatchNo, AppendError> {
        Box::pin(self.append(batch))
    }

    fn forget(&mut self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError> {
        self.log.forget(decided, keys)
    }

    fn truncate(&mut self, first: BatchNo) -> Answer<'_, (), PutError> {
        self.log.truncate(first)
    }

    fn room(&self) -> Room {
        self.log.room()
    }
}
