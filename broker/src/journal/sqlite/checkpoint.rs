//! Checkpoints beside the writer: a thread that moves the WAL into the file whenever the writer has added enough.
//!
//! The same thread looks for batches that another process wrote, so that waiting readers hear of them too.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::store::{self, WAL_LIMIT};
use crate::journal::error::Damage;
use crate::journal::id::BatchNo;

/// Bytes the writer adds before it asks for a checkpoint. Each one syncs both files beside the writer, so they are rare.
const STEP: u64 = 8 * 1024 * 1024;
/// A WAL of this size is begun anew by the writer as soon as a checkpoint beside it has moved most of it.
const WAL_BEGUN_ANEW: u64 = 24 * 1024 * 1024;
/// How late another process's batch may be noticed. This process's own are announced by the writer.
const FOLLOW: Duration = Duration::from_millis(500);

/// The writer's end: asks, and learns what came of it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    ask: SyncSender<()>,
    seen: Arc<Seen>,
    /// Bytes committed since the last question.
    added: u64,
}

/// Written by the checkpointing thread, read by the writer.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes in the WAL when a checkpoint last looked, moved or not: the writer begins it anew only if everything is
    /// moved at that moment, which a steady load never grants.
    wal: AtomicU64,
    /// A checkpoint has just ended.
    has_moved: AtomicBool,
    /// A sync failed there, so it counts for the whole store.
    damage: OnceLock<Damage>,
}

impl Checkpoints {
    /// What a checkpoint found broken.
    pub(super) fn damage(&self) -> Option<&Damage> {
        self.seen.damage.get()
    }

    /// Counts what the writer committed. If the WAL outgrows its bound, because commits leave no gap in which a
    /// checkpoint beside them could finish, the writer's own `connection` empties it.
    pub(super) fn committed(&mut self, bytes: u64, connection: &Connection) -> Result<(), Damage> {
        self.added += bytes;
        // Right behind a checkpoint beside the writer there is little left to move, so beginning anew stalls nobody.
        let has_moved = self.seen.has_moved.swap(false, Ordering::Relaxed);
        if has_moved && self.seen.wal.load(Ordering::Relaxed) > WAL_BEGUN_ANEW {
            return self.begin_anew(connection);
        }
        if self.added < STEP {
            return Ok(());
        }
        self.added = 0;
        if self.seen.wal.load(Ordering::Relaxed) > WAL_LIMIT {
            return self.empty(connection);
        }
        // A full channel means that the question is already asked.
        let _ = self.ask.try_send(());
        Ok(())
    }

    /// Moves what is left, so that the next commit writes the WAL from its beginning: the file keeps its size, and a sync
    /// has no growth to record.
    fn begin_anew(&self, connection: &Connection) -> Result<(), Damage> {
        checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)")?;
        self.seen.wal.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Moves the whole WAL into the file and cuts it to nothing, on the writer's own `connection`.
    pub(super) fn empty(&self, connection: &Connection) -> Result<(), Damage> {
        let left = checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)")?;
        self.seen.wal.store(left, Ordering::Relaxed);
        Ok(())
    }
}

/// Starts the thread; it ends when the writer's end is dropped.
pub(super) fn start(
    path: &Path,
    head: watch::Sender<BatchNo>,
) -> std::io::Result<(Checkpoints, JoinHandle<()>)> {
    let (ask, asked) = sync_channel(1);
    let seen = Arc::new(Seen::default());
    let connection = store::writing(path, None).map_err(std::io::Error::other)?;
    let shared = Arc::clone(&seen);
    let thread = std::thread::Builder::new()
        .name("journal-checkpoint".into())
        .spawn(move || run(&connection, &asked, &shared, &head))?;
    Ok((Checkpoints { ask, seen, added: 0 }, thread))
}

fn run(connection: &Connection, asked: &Receiver<()>, seen: &Seen, head: &watch::Sender<BatchNo>) {
    loop {
        match asked.recv_timeout(FOLLOW) {
            Ok(()) => match checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)") {
                Ok(left) => {
                    seen.wal.store(left, Ordering::Relaxed);
                    seen.has_moved.store(true, Ordering::Relaxed);
                }
                Err(damage) => {
                    let _ = seen.damage.set(damage);
                    return;
                }
            },
            Err(RecvTimeoutError::Timeout) => {
                // A failed look is repeated; whoever reads will meet the failure itself.
                if let Ok(tail) = store::tail(connection) {
                    announce(head, tail.number);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Tells waiting readers how far the log goes. It never goes back, whoever tells last.
pub(super) fn announce(head: &watch::Sender<BatchNo>, number: BatchNo) {
    head.send_if_modified(|head| {
        let is_news = number > *head;
        *head = number.max(*head);
        is_news
    });
}

/// Moves what it can and returns the bytes in the WAL.
fn checkpoint(connection: &Connection, sql: &str) -> Result<u64, Damage> {
    // The first column says whether it had to stop early, the second counts the frames, the third those moved.
    let frames = connection
        .prepare_cached(sql)
        .and_then(|mut pragma| pragma.query_row([], |row| row.get::<_, i64>(1)));
    match frames {
        // Negative if there is no WAL.
        Ok(frames) => {
            Ok(frames.max(0).cast_unsigned()
                * store::page_size(connection).map_err(Damage::store)?)
        }
        // The WAL keeps what could not be moved: nothing is lost, and it is tried again.
        Err(err) => match err.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
                Ok(WAL_LIMIT)
            }
            _ => Err(Damage::store(err)),
        },
    }
}
