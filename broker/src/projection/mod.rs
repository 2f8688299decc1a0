//! The projection: rows folded from the journal, for lists, history and a restart.
//!
//! Invariant: the batch it has come to is stored in the same transaction as its rows, so it is never ahead of what
//! it shows. It can be thrown away and folded again as long as the whole journal is kept.
//! Absence: nobody writes here but the fold.

mod check;
mod fold;
mod handoff;
mod package;
mod read;
mod schema;
mod session;
mod sum;
mod trials;
mod usage;
mod waiting;
mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use check::check;
pub use read::{Filter, LetterFilter, Living, Page, Row, Step, Window};
pub use session::{StoredEntry, StoredVersion, Wanted as WantedEntries};

use crate::journal::{BatchNo, Frame, Journal, JournalId, ReadError, Until, record::RecordError};
pub use usage::{LedgerPage, LedgerPlace};
use worker::Worker;

/// A transaction takes no further frame from so many records on.
const RECORDS: usize = 16_384;
/// After a fold, frames gather this long before the next one, unless somebody waits for them or a transaction is full:
/// under load one for each frame would cost more than the journal itself, and most messages begin and end within one
/// gathering.
const GATHER: Duration = Duration::from_millis(250);
/// Batches that the rows may be behind before what is sent waits for them: memory knows what they do not know yet.
const BEHIND: u64 = 16_384;

/// How often a full disk is tried again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// Why rows cannot be read or folded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the projection")]
    Store(#[from] rusqlite::Error),
    #[error("cannot create `{}`", path.display())]
    Create { path: PathBuf, source: std::io::Error },
    #[error("cannot read the journal")]
    Journal(#[from] ReadError),
    #[error("cannot read batch {batch}")]
    Record { batch: BatchNo, source: RecordError },
    #[error("a row is damaged; delete `projection.db` and start again, it is folded anew")]
    Damaged,
    #[error(
        "the projection is at batch {applied}, but the journal ends at {head}: the journal has lost batches"
    )]
    Ahead { applied: BatchNo, head: BatchNo },
    #[error("the projection has stopped")]
    Stopped,
}

impl Error {
    /// The rows are not what was folded into them. They may be put aside, and are folded anew.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        match self {
            Self::Damaged => true,
            Self::Store(error) => !matches!(
                error.sqlite_error_code(),
                Some(
                    Code::DatabaseBusy
                        | Code::DatabaseLocked
                        | Code::DiskFull
                        | Code::SystemIoFailure
                        | Code::CannotOpen
                        | Code::PermissionDenied
                        | Code::ReadOnly
                        | Code::OutOfMemory
                )
            ),
            Self::Create { .. }
            | Self::Journal(_)
            | Self::Record { .. }
            | Self::Ahead { .. }
            | Self::Stopped => false,
        }
    }
}

/// Where the rows are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// `directory/projection.db`.
    Directory(PathBuf),
    /// Gone with the process.
    Memory,
    /// Outlives the projection that is opened on it, and is used without a thread.
    #[cfg(test)]
    Rows(Rows),
}

/// A store of rows in memory that is there before and after the projection, as a file would be. Clones share it.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct Rows(Arc<std::sync::Mutex<rusqlite::Connection>>);

#[cfg(test)]
impl Rows {
    pub(crate) fn new() -> Self {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        Self(Arc::new(std::sync::Mutex::new(connection)))
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, rusqlite::Connection> {
        self.0.lock().unwrap()
    }
}

/// How far somebody waits for. Written by readers, read by the fold.
#[derive(Debug, Default)]
struct Wanted {
    batch: AtomicU64,
    notify: Notify,
}

impl Place {
    /// Puts damaged rows aside, where a person may look at them. Nobody may have them open.
    ///
    /// # Errors
    /// [`Error::Create`] when they cannot be moved.
    pub fn put_aside(&self) -> Result<(), Error> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let path = directory.join(worker::FILE);
        let aside = directory.join(format!("{}.damaged", worker::FILE));
        let moved = std::fs::rename(&path, &aside);
        moved.map_err(|source| Error::Create { path, source })?;
        for side in ["-wal", "-shm"] {
            // What it says is about rows that are not there any more.
            let _ = std::fs::remove_file(directory.join(format!("{}{side}", worker::FILE)));
        }
        Ok(())
    }
}

/// Reads rows, and knows how far they go.
#[derive(Debug, Clone)]
pub struct Projection {
    reader: Worker,
    /// The fold's; here only to be closed.
    writer: Worker,
    applied: watch::Receiver<BatchNo>,
    wanted: Arc<Wanted>,
}

/// Folds the journal into the rows, for ever.
#[derive(Debug)]
pub struct FoldTask {
    journal: Arc<dyn Journal>,
    writer: Worker,
    applied: watch::Sender<BatchNo>,
    wanted: Arc<Wanted>,
}

/// Opens the rows of this journal, or begins them anew when they belong to another.
///
/// # Errors
/// [`Error::Store`] and [`Error::Create`] when the file cannot be used.
pub async fn open(
    journal: Arc<dyn Journal>,
    place: Place,
) -> Result<(Projection, FoldTask), Error> {
    let id: JournalId = journal.identity().journal;
    let (writer, reader) = worker::open(place, id)?;
    let applied = writer.call(|connection| schema::applied(connection)).await?;
    let (tx, rx) = watch::channel(applied);
    let wanted = Arc::<Wanted>::default();
    let projection =
        Projection { reader, writer: writer.clone(), applied: rx, wanted: Arc::clone(&wanted) };
    Ok((projection, FoldTask { journal, writer, applied: tx, wanted }))
}

impl FoldTask {
    /// Folds until `stop` fires.
    ///
    /// # Errors
    /// What could not be read or written; the rows are then as old as [`Projection::applied`] says.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let folds = async {
            loop {
                let from = self.applied.borrow().next();
                // Wakes when there is more, however much.
                let mut more = self.journal.read(from, Until::Forever);
                let first = more.next().await.ok_or(Error::Stopped)??;
                let (frames, is_all) = self.gather(first).await?;
                let last = frames.last().map_or(from, |frame| frame.number);
                self.fold(frames.into()).await?;
                self.applied.send_replace(last);
                if is_all && self.wanted.batch.load(Ordering::Acquire) <= last.0 {
                    tokio::select! {
                        biased;
                        () = self.wanted.notify.notified() => {}
                        () = tokio::time::sleep(GATHER) => {}
                    }
                }
            }
        };
        stop.run_until_cancelled(folds).await.unwrap_or(Ok(()))
    }

    /// This frame and those behind it that are stored now, as many as one transaction takes; and whether that is all.
    async fn gather(&self, first: Frame) -> Result<(Vec<Frame>, bool), Error> {
        let mut stored = self.journal.read(first.number.next(), Until::Head);
        let mut records = first.records.len();
        let mut frames = vec![first];
        while records < RECORDS {
            let Some(frame) = stored.next().await else { return Ok((frames, true)) };
            let frame = frame?;
            records += frame.records.len();
            frames.push(frame);
        }
        Ok((frames, false))
    }

    /// Folds these frames, once there is room for them: a full disk passes (I-31).
    async fn fold(&self, frames: Arc<[Frame]>) -> Result<(), Error> {
        let mut is_told = false;
        loop {
            let some = Arc::clone(&frames);
            match self.writer.call(move |connection| fold::frames(connection, &some)).await {
                Err(Error::Store(error)) if is_full(&error) => {
                    if !is_told {
                        warn!("the disk is full: the projection waits for room");
                    }
                    is_told = true;
                    tokio::time::sleep(LOOK_FOR_ROOM).await;
                }
                folded => return folded,
            }
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

impl Projection {
    /// The last batch whose rows are here.
    #[must_use]
    pub fn applied(&self) -> BatchNo {
        *self.applied.borrow()
    }

    /// Lets go of the file, whoever else still holds the projection. The fold must have ended.
    pub async fn close(&self) {
        for worker in [&self.reader, &self.writer] {
            worker.close().await;
        }
    }

    /// Waits until the rows are not far behind `head`.
    ///
    /// # Errors
    /// [`Error::Stopped`] when they come no further.
    pub async fn keeps_up_with(&self, head: BatchNo) -> Result<(), Error> {
        self.at_least(BatchNo(head.0.saturating_sub(BEHIND))).await
    }

    /// Waits until the rows of `batch` are here.
    async fn at_least(&self, batch: BatchNo) -> Result<(), Error> {
        let mut applied = self.applied.clone();
        if *applied.borrow() < batch {
            self.wanted.batch.fetch_max(batch.0, Ordering::Release);
            self.wanted.notify.notify_one();
        }
        applied.wait_for(|applied| *applied >= batch).await.map_err(|_| Error::Stopped)?;
        Ok(())
    }
}

#[cfg(test)]
mod lives;
#[cfg(test)]
mod start;
#[cfg(test)]
mod tests;
