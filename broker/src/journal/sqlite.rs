//! The journal in one SQLite file, `journal.db`: one row per frame, one commit and one sync per batch.
//!
//! Invariant: one thread writes, fed through a bounded channel; it alone owns the writing connection. After a failed
//! commit it answers nothing but [`Damage`](super::Damage) and never syncs that file again (I-31).
//! Invariant: another process on the same file is fenced by the epoch, looked up in the transaction of every append.
//! Invariant: in WAL mode a commit is visible to readers only after its sync, so whatever is read is durable.
//! Measured: checkpoints on a second connection instead of the writer's cut the p99 of large groups to a sixth.

mod acked;
mod check;
mod checkpoint;
mod readers;
mod store;
mod wal;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};

pub use check::{Checked, check};

use super::content::{Content, ContentKey};
use super::error::{AppendError, Cause, ClaimError, OpenError, PutError, ReadError};
use super::frame::{Frame, Sealed, Tail};
use super::id::{BatchNo, JournalId};
use super::owner::{Log, Owner};
use super::{Answer, Claim, Durability, Identity, Journal, Manifest, Room, Until, Writer};
use readers::{Page, Readers};
use writer::Job;

/// Jobs that wait for the writing thread; more wait in their callers. The engine has one in flight, the rest are puts.
const JOBS: usize = 64;

/// A journal in a file.
#[derive(Debug, Clone)]
pub struct SqliteJournal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: JournalId,
    directory: PathBuf,
    readers: Arc<Readers>,
    head: watch::Sender<BatchNo>,
    space: Arc<Space>,
    /// Taken only when the journal is dropped.
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the file itself still holds. Written by the writing thread after each commit.
#[derive(Debug, Default)]
struct Space {
    /// Bytes in pages that are free inside the file.
    free: AtomicU64,
    /// Bytes by which the file may still grow, or `u64::MAX` if only the disk bounds it.
    growth: AtomicU64,
}

impl Space {
    /// So little that the next commit must know exactly.
    fn is_tight(&self) -> bool {
        const ENOUGH: u64 = 1 << 30;
        let growth = self.growth.load(Ordering::Relaxed);
        growth.saturating_add(self.free.load(Ordering::Relaxed)) < ENOUGH
    }
}

impl SqliteJournal {
    /// Opens `directory/journal.db`, or makes both.
    ///
    /// # Errors
    /// [`OpenError`]; a file of another program, of a newer one or with damage at its end is left as it is.
    pub async fn open(directory: PathBuf, capacity: Option<u64>) -> Result<Self, OpenError> {
        let place = directory.clone();
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(directory, capacity));
        opening
            .await
            .unwrap_or_else(|err| Err(OpenError::Store { path: place, source: Arc::new(err) }))
    }

    fn open_blocking(directory: PathBuf, capacity: Option<u64>) -> Result<Self, OpenError> {
        let opened = store::open(&directory, capacity)?;
        let (jobs, waiting) = mpsc::channel(JOBS);
        let head = watch::Sender::new(opened.head);
        let space = Arc::new(Space::default());
        let io = |source| OpenError::Io { path: directory.clone(), source };

        let (checkpoints, checkpointer) =
            checkpoint::start(&opened.path, head.clone()).map_err(io)?;
        let writing = writer::Thread::new(
            opened.connection,
            opened.journal,
            head.clone(),
            Arc::clone(&space),
            checkpoints,
            acked::Note::open(&directory, opened.journal),
        );
        let writer = std::thread::Builder::new()
            .name("journal-writer".into())
            .spawn(move || writing.run(waiting))
            .map_err(io)?;

        let readers = Arc::new(Readers::new(opened.path, opened.journal));
        let threads = vec![writer, checkpointer];
        let journal = opened.journal;
        Ok(Self {
            shared: Arc::new(Shared {
                journal,
                directory,
                readers,
                head,
                space,
                jobs: Some(jobs),
                threads,
            }),
        })
    }
}

impl Drop for Shared {
    /// Waits for the threads, so that nothing touches the file any more once the journal is gone; they finish the
    /// one transaction they are in.
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            // A thread that panicked has answered nobody since; its callers know.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Hands a job to the writing thread and waits for its answer; nothing if the thread is gone.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job + Send) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.jobs.as_ref()?.send(job(done)).await.ok()?;
        answer.await.ok()
    }

    /// The next frames of a reader that wants `at`; empty when there is an end and it is reached.
    async fn page(&self, at: BatchNo, last: Option<BatchNo>) -> Result<Page, ReadError> {
        let mut head = self.head.subscribe();
        loop {
            if last.is_some_and(|last| at > last) {
                return Ok(Page::new());
            }
            let page = self.readers.page(at, last).await?;
            if !page.is_empty() {
                return Ok(page);
            }
            // The sender lives in `self`, so the wait ends only with the frame.
            let _ = head.wait_for(|head| *head >= at).await;
        }
    }
}

impl Log for Shared {
    fn offer(
        &self,
        place: Tail,
        sealed: Sealed,
        contents: Vec<Content>,
    ) -> Answer<'_, (), AppendError> {
        Box::pin(async move {
            let answer = self.ask(|done| Job::Append { place, sealed, contents, done }).await;
            answer.unwrap_or(Err(AppendError::Unknown(Cause::Stopped)))
        })
    }

    fn forget(&self, decided: BatchNo, keys: Vec<ContentKey>) -> Answer<'_, (), PutError> {
        Box::pin(async move {
            let answer = self.ask(|done| Job::Forget { decided, keys, done }).await;
            answer.unwrap_or(Err(PutError::Unknown(Cause::Stopped)))
        })
    }

    fn truncate(&self, first: BatchNo) -> Answer<'_, (), PutError> {
        Box::pin(async move {
            let answer = self.ask(|done| Job::Truncate { first, done }).await;
            answer.unwrap_or(Err(PutError::Unknown(Cause::Stopped)))
        })
    }

    fn room(&self) -> Room {
        // A disk that cannot be asked has no room: refusing sends is the safe side.
        let (left, whole) = rustix::fs::statvfs(&self.directory).map_or((0, 0), |disk| {
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            (bytes(disk.f_bavail), bytes(disk.f_blocks))
        });
        // Every byte passes through the WAL, so pages that are free in the file are of no use without room for that.
        let Some(left) = left.checked_sub(store::WAL_LIMIT) else {
            return Room { bytes: 0, whole };
        };
        let growth = self.space.growth.load(Ordering::Relaxed).min(left);
        let bytes = growth.saturating_add(self.space.free.load(Ordering::Relaxed));
        Room { bytes, whole }
    }
}

impl Journal for SqliteJournal {
    fn identity(&self) -> Identity {
        Identity { journal: self.shared.journal, durability: Durability::Synced }
    }

    fn claim(&self, me: Claim) -> Answer<'_, Box<dyn Writer>, ClaimError> {
        Box::pin(async move {
            let answer = self.shared.ask(|done| Job::Claim { me, done }).await;
            let tail = answer.unwrap_or(Err(ClaimError::Unknown(Cause::Stopped)))?;
            let log: Arc<dyn Log> = Arc::<Shared>::clone(&self.shared);
            Ok(Box::new(Owner::new(log, self.shared.journal, tail)) as Box<dyn Writer>)
        })
    }

    fn read(&self, from: BatchNo, until: Until) -> BoxStream<'static, Result<Frame, ReadError>> {
        let reader = Reader {
            shared: Arc::clone(&self.shared),
            at: from.max(BatchNo(1)),
            before: None,
            page: Page::new(),
        };
        let frames = stream::once(async move {
            let last = match until {
                // Not the watched head: another process may have written since.
                Until::Head => reader.shared.readers.head().await.map(Some),
                Until::Batch(last) => Ok(Some(last)),
                Until::Forever => Ok(None),
            };
            match last {
                Ok(last) => reader.frames(last),
                Err(err) => stream::iter([Err(err)]).boxed(),
            }
        });
        frames.flatten().boxed()
    }

    fn put(&self, content: Content) -> Answer<'_, ContentKey, PutError> {
        Box::pin(async move {
            let key = content.key();
            let answer = self.shared.ask(|done| Job::Put { content, done }).await;
            answer.unwrap_or(Err(PutError::Unknown(Cause::Stopped))).map(|()| key)
        })
    }

    fn get(&self, key: ContentKey) -> Answer<'_, Bytes, ReadError> {
        Box::pin(self.shared.readers.get(key))
    }

    fn get_all(&self, keys: Vec<ContentKey>) -> BoxFuture<'_, Vec<Result<Bytes, ReadError>>> {
        Box::pin(self.shared.readers.get_all(keys))
    }

    fn keys(&self, grace: Duration) -> BoxStream<'static, Result<ContentKey, ReadError>> {
        let readers = Arc::clone(&self.shared.readers);
        let stored_before =
            store::now().saturating_sub(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let pages = stream::try_unfold(Some(None), move |after| {
            let readers = Arc::clone(&readers);
            async move {
                let Some(after) = after else { return Ok(None) };
                let (keys, next) = readers.keys(after, stored_before).await?;
                Ok(Some((stream::iter(keys.into_iter().map(Ok)), next.map(Some))))
            }
        });
        futures::TryStreamExt::try_flatten(pages).boxed()
    }

    fn snapshot(&self, formats: &[u16]) -> Answer<'_, Option<Manifest>, ReadError> {
        Box::pin(self.shared.readers.snapshot(formats.to_vec()))
    }

    fn publish(&self, snapshot: Manifest) -> Answer<'_, (), PutError> {
        Box::pin(async move {
            let answer = self.shared.ask(|done| Job::Publish { snapshot, done }).await;
            answer.unwrap_or(Err(PutError::Unknown(Cause::Stopped)))
        })
    }
}

/// One reader's way through the frames.
struct Reader {
    shared: Arc<Shared>,
    at: BatchNo,
    /// The tail that the next frame must follow, once one was read.
    before: Option<Tail>,
    page: Page,
}

impl Reader {
    fn frames(self, last: Option<BatchNo>) -> BoxStream<'static, Result<Frame, ReadError>> {
        stream::try_unfold(self, move |mut reader| async move {
            Ok(reader.next(last).await?.map(|it| (it, reader)))
        })
        .boxed()
    }

    async fn next(&mut self, last: Option<BatchNo>) -> Result<Option<Frame>, ReadError> {
        if self.page.is_empty() {
            self.page = self.shared.page(self.at, last).await?;
        }
        let Some(frame) = self.page.pop_front() else { return Ok(None) };
        if self.before.is_some_and(|before| before.digest != frame.before) {
            return Err(ReadError::Corrupt { at: frame.number });
        }
        self.before = Some(frame.tail());
        self.at = self.at.next();
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod start;
#[cfg(test)]
mod tests;
