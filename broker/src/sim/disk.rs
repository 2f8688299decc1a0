//! The fake journal: a store in memory whose appends wait until the scheduler says what becomes of them.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::step::Fault;
use crate::journal::{
    Answer, AppendError, Batch, BatchNo, Cause, Claim, ClaimError, Content, ContentKey, Damage,
    Epoch, Frame, Identity, Journal, Manifest, PutError, ReadError, Room, Until, Why, Writer,
};

/// What becomes of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Stored,
    /// It is stored, and its writer does not live to hear of it.
    StoredUnheard,
    Fault(Fault),
}

/// The scheduler's hold on one broker's way to the disk. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Arm {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    is_waiting: bool,
    verdict: Option<Verdict>,
    room: u64,
}

impl Arm {
    pub(super) fn new() -> Self {
        let state = State { is_waiting: false, verdict: None, room: u64::MAX };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether an append waits for its verdict.
    pub(super) fn is_waiting(&self) -> bool {
        self.state().is_waiting
    }

    pub(super) fn decide(&self, verdict: Verdict) {
        self.state().verdict = Some(verdict);
    }

    pub(super) fn set_room(&self, room: u64) {
        self.state().room = room;
    }

    async fn verdict(&self) -> Verdict {
        self.state().is_waiting = true;
        let verdict = poll_fn(|_| match self.state().verdict.take() {
            Some(verdict) => Poll::Ready(verdict),
            None => Poll::Pending,
        });
        let verdict = verdict.await;
        self.state().is_waiting = false;
        verdict
    }
}

/// One broker's journal.
#[derive(Debug)]
pub(super) struct SimJournal {
    pub(super) inner: Arc<dyn Journal>,
    pub(super) arm: Arm,
}

impl Journal for SimJournal {
    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn claim(&self, me: Claim) -> Answer<'_, Box<dyn Writer>, ClaimError> {
        Box::pin(async move {
            let inner = self.inner.claim(me).await?;
            Ok(Box::new(SimWriter { inner, arm: self.arm.clone() }) as Box<dyn Writer>)
        })
    }

    fn read(&self, from: BatchNo, until: Until) -> BoxStream<'static, Result<Frame, ReadError>> {
        self.inner.read(from, until)
    }

    fn put(&self, content: Content) -> Answer<'_, ContentKey, PutError> {
        self.inner.put(content)
    }

    fn get(&self, key: ContentKey) -> Answer<'_, Bytes, ReadError> {
        self.inner.get(key)
    }

    fn keys(&self, grace: Duration) -> BoxStream<'static, Result<ContentKey, ReadError>> {
        self.inner.keys(grace)
    }

    fn snapshot(&self, formats: &[u16]) -> Answer<'_, Option<Manifest>, ReadError> {
        self.inner.snapshot(formats)
    }

    fn publish(&self, snapshot: Manifest) -> Answer<'_, (), PutError> {
        self.inner.publish(snapshot)
    }
}

#[derive(Debug)]
struct SimWriter {
    inner: Box<dyn Writer>,
    arm: Arm,
}

impl SimWriter {
    async fn suffer(&mut self, batch: Batch) -> Result<BatchNo, AppendError> {
        match self.arm.verdict().await {
            Verdict::Stored => self.inner.append(batch).await,
            Verdict::StoredUnheard => {
                self.inner.append(batch).await?;
                std::future::pending().await
            }
            Verdict::Fault(Fault::Full) => Err(AppendError::NotStored(Why::Full)),
            Verdict::Fault(Fault::Unavailable) => Err(AppendError::NotStored(Why::Unavailable)),
            Verdict::Fault(Fault::UnknownStored) => {
                self.inner.append(batch).await?;
                Err(AppendError::Unknown(Cause::Stopped))
            }
            Verdict::Fault(Fault::UnknownLost) => Err(AppendError::Unknown(Cause::Stopped)),
            Verdict::Fault(Fault::Broken) => {
                Err(AppendError::Broken(Damage::OtherBatch { at: self.inner.head().next() }))
            }
        }
    }
}

impl Writer for SimWriter {
    fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    fn head(&self) -> BatchNo {
        self.inner.head()
    }

    fn append(&mut self, batch: Batch) -> Answer<'_, BatchNo, AppendError> {
        Box::pin(self.suffer(batch))
    }

    fn forget(&mut self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError> {
        self.inner.forget(decided, keys)
    }

    fn truncate(&mut self, first: BatchNo) -> Answer<'_, (), PutError> {
        self.inner.truncate(first)
    }

    fn room(&self) -> Room {
        Room { bytes: self.arm.state().room, whole: 0 }
    }
}
