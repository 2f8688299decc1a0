//! The cheap handle that hides the engine's channel.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::{mpsc, oneshot};

use super::Error;
use crate::{
    core::{BootTime, Command, Query, Reply},
    journal::{self, ContentKey, PutError},
};

/// A body that goes into the batch of the command that names it.
pub type Content = journal::Content;

/// When the store was asked what memory may have forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// How often the state had been loaded anew.
    pub load: u64,
    pub at: BootTime,
}

/// One command on its way to the engine.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) command: Command,
    pub(super) contents: Vec<Content>,
    /// The caller's span, so that what is decided is logged within it.
    pub(super) span: tracing::Span,
    /// For a send: what it rests on.
    pub(super) as_of: Option<AsOf>,
    /// `None` when nobody waits for the answer.
    pub(super) done: Option<oneshot::Sender<Result<Reply, Error>>>,
}

/// Contents to be removed, and who waits for that.
pub(super) type Forgotten = (Vec<ContentKey>, oneshot::Sender<Result<(), PutError>>);

/// Sends commands to the engine.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    pub(super) commands: mpsc::Sender<Envelope>,
    /// Contents that no record names any more.
    pub(super) forgotten: mpsc::Sender<Forgotten>,
    /// The last durable batch; written by the task.
    pub(super) head: Arc<AtomicU64>,
    /// Nothing new is accepted; written by the task.
    pub(super) is_full: Arc<AtomicBool>,
    /// How often the state was loaded anew; written by the task.
    pub(super) loads: Arc<AtomicU64>,
}

impl EngineHandle {
    /// Returns once what was decided is in the journal.
    ///
    /// # Errors
    /// The core's refusal, or what the journal said.
    pub async fn command(&self, command: Command) -> Result<Reply, Error> {
        self.with_contents(command, Vec::new()).await
    }

    /// The same, with bodies that become durable in the same commit.
    ///
    /// # Errors
    /// As [`EngineHandle::command`].
    pub async fn with_contents(
        &self,
        command: Command,
        contents: Vec<Content>,
    ) -> Result<Reply, Error> {
        self.ask(command, contents, None).await
    }

    /// A send whose id was looked up, or needed no look-up, `as_of` then.
    ///
    /// # Errors
    /// As [`EngineHandle::command`]; [`Error::StoreUnavailable`] when that is too long ago to be told a duplicate.
    pub async fn send(
        &self,
        command: Command,
        contents: Vec<Content>,
        as_of: AsOf,
    ) -> Result<Reply, Error> {
        self.ask(command, contents, Some(as_of)).await
    }

    /// Removes contents that no durable record names, and none ever will.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when they are not removed; to try it again does no harm.
    pub async fn forget(&self, keys: Vec<ContentKey>) -> Result<(), Error> {
        let (done, forgotten) = oneshot::channel();
        self.forgotten.send((keys, done)).await.map_err(|_| Error::Stopping)?;
        forgotten.await.map_err(|_| Error::Stopping)?.map_err(|_| Error::StoreUnavailable)
    }

    /// What a look-up that begins now rests on.
    #[must_use]
    pub fn as_of(&self, at: BootTime) -> AsOf {
        AsOf { load: self.loads.load(Ordering::Acquire), at }
    }

    async fn ask(
        &self,
        command: Command,
        contents: Vec<Content>,
        as_of: Option<AsOf>,
    ) -> Result<Reply, Error> {
        let (done, decided) = oneshot::channel();
        let span = tracing::Span::current();
        let envelope = Envelope { command, contents, span, as_of, done: Some(done) };
        self.commands.send(envelope).await.map_err(|_| Error::Stopping)?;
        decided.await.map_err(|_| Error::Unknown)?
    }

    /// Tells the engine something volatile; waits only for room in its channel.
    pub async fn tell(&self, command: Command) {
        let span = tracing::Span::current();
        let envelope = Envelope { command, contents: Vec::new(), span, as_of: None, done: None };
        // An engine that has stopped has no use for it.
        let _ = self.commands.send(envelope).await;
    }

    /// The last durable batch: rows as of this one hold everything that was answered.
    #[must_use]
    pub fn head(&self) -> journal::BatchNo {
        journal::BatchNo(self.head.load(Ordering::Acquire))
    }

    /// Whether the store is too full for anything new. Settling goes on.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Asks about the state as it is now.
    ///
    /// # Errors
    /// [`Error::Stopping`] and [`Error::Unknown`] when the engine is gone.
    pub async fn query(&self, query: Query) -> Result<Reply, Error> {
        self.command(Command::Query(query)).await
    }
}
