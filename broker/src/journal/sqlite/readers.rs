//! Reads: a few connections that cannot write, used off the async threads.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};
use tokio::sync::Semaphore;

use super::store::{self, unsigned};
use crate::journal::Manifest;
use crate::journal::content::ContentKey;
use crate::journal::error::{Damage, ReadError};
use crate::journal::frame::{Frame, Tail};
use crate::journal::id::{BatchNo, Digest, Epoch, JournalId};

/// Reads at the same time; more wait. Also the most connections that are kept.
const CONNECTIONS: usize = 4;
/// A page of frames ends after so many bytes.
const PAGE_BYTES: usize = 1024 * 1024;
const PAGE_FRAMES: usize = 256;
const PAGE_KEYS: usize = 1024;

/// Some frames in order, already checked one by one.
pub(super) type Page = VecDeque<Frame>;

#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    journal: JournalId,
    permits: Arc<Semaphore>,
    /// Guards nothing but the list.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, journal: JournalId) -> Self {
        Self {
            path,
            journal,
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            idle: Mutex::default(),
        }
    }

    /// Runs `work` on a connection of its own, on a thread that may block.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|_| ReadError::Unavailable)?;
        let readers = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => store::reading(&readers.path).map_err(failed)?,
            };
            let answer = work(&connection);
            // After a failure of the store the connection may be in any state; a new one is cheap.
            if !matches!(answer, Err(ReadError::Broken(_) | ReadError::Unavailable)) {
                readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            answer
        });
        working.await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// The last durable batch, whoever wrote it.
    pub(super) async fn head(self: &Arc<Self>) -> Result<BatchNo, ReadError> {
        self.run(|connection| Ok(store::tail(connection).map_err(failed)?.number)).await
    }

    /// Frames from `at` on, empty if `at` is not there yet.
    pub(super) async fn page(
        self: &Arc<Self>,
        at: BatchNo,
        last: Option<BatchNo>,
    ) -> Result<Page, ReadError> {
        let journal = self.journal;
        self.run(move |connection| {
            page(connection, journal, at, last.unwrap_or(BatchNo(u64::MAX >> 1)))
        })
        .await
    }

    pub(super) async fn get(self: &Arc<Self>, key: ContentKey) -> Result<Bytes, ReadError> {
        self.run(move |connection| content(connection, key)).await
    }

    /// Several contents in one turn on a connection: going there and back costs more than reading one.
    pub(super) async fn get_all(
        self: &Arc<Self>,
        keys: Vec<ContentKey>,
    ) -> Vec<Result<Bytes, ReadError>> {
        let many = keys.len();
        let read = move |connection: &Connection| {
            Ok(keys.into_iter().map(|key| content(connection, key)).collect())
        };
        self.run(read).await.unwrap_or_else(|err| vec![Err(err); many])
    }

    /// Some keys of contents behind copy `after` that were stored at `stored_before` or earlier, and where to go on.
    pub(super) async fn keys(
        self: &Arc<Self>,
        after: Option<u64>,
        stored_before: i64,
    ) -> Result<(Vec<ContentKey>, Option<u64>), ReadError> {
        self.run(move |connection| keys(connection, after, stored_before).map_err(failed)).await
    }

    pub(super) async fn snapshot(
        self: &Arc<Self>,
        formats: Vec<u16>,
    ) -> Result<Option<Manifest>, ReadError> {
        self.run(move |connection| snapshot(connection, &formats)).await
    }
}

fn page(
    connection: &Connection,
    journal: JournalId,
    at: BatchNo,
    last: BatchNo,
) -> Result<Page, ReadError> {
    let corrupt = |err: rusqlite::Error| damaged(err, ReadError::Corrupt { at });
    // One view for all statements: what is not there and what the head is must be said of the same moment.
    let connection = &connection.unchecked_transaction().map_err(corrupt)?;
    let mut frames = connection
        .prepare_cached("SELECT number, epoch, digest, frame FROM frames WHERE number BETWEEN ?1 AND ?2 ORDER BY number")
        .map_err(corrupt)?;
    let mut rows = frames.query([at.0.cast_signed(), last.0.cast_signed()]).map_err(corrupt)?;
    let mut page = Page::new();
    let (mut next, mut bytes) = (at, 0);
    while page.len() < PAGE_FRAMES && bytes < PAGE_BYTES {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(err) if page.is_empty() => return Err(corrupt(err)),
            Err(_) => return Ok(page),
        };
        match frame(row, journal, next) {
            Ok((frame, len)) => {
                page.push_back(frame);
                bytes += len;
                next = next.next();
            }
            Err(Unread::Absent) if page.is_empty() => return Err(missing(connection, next)),
            Err(Unread::Failed(err)) if page.is_empty() => return Err(err),
            // What is whole is given out first; whoever goes on meets the rest at the head of a page.
            Err(_) => return Ok(page),
        }
    }
    drop(rows);
    if page.is_empty() && store::tail(connection).map_err(corrupt)?.number >= at && at <= last {
        return Err(missing(connection, at));
    }
    Ok(page)
}

enum Unread {
    /// The row is of a later batch.
    Absent,
    Failed(ReadError),
}

/// Frame `at` and its length, if `row` holds it and says the same beside it.
fn frame(row: &Row<'_>, journal: JournalId, at: BatchNo) -> Result<(Frame, usize), Unread> {
    let corrupt = |err: rusqlite::Error| Unread::Failed(damaged(err, ReadError::Corrupt { at }));
    let number = BatchNo(unsigned(row, 0).map_err(corrupt)?);
    if number != at {
        return Err(Unread::Absent);
    }
    let epoch = Epoch(unsigned(row, 1).map_err(corrupt)?);
    let digest = Digest(row.get(2).map_err(corrupt)?);
    let bytes = blob(row, 3).map_err(corrupt)?;
    let frame = Frame::decode(&bytes, journal, number).map_err(Unread::Failed)?;
    if frame.tail() != (Tail { number, epoch, digest }) {
        return Err(Unread::Failed(ReadError::Corrupt { at }));
    }
    Ok((frame, bytes.len()))
}

/// Why a batch below the head is not there: truncated away, or lost.
fn missing(connection: &Connection, at: BatchNo) -> ReadError {
    let first = store::pragma(connection, "SELECT min(number) FROM frames").map(BatchNo);
    match first {
        Ok(first) if at < first => ReadError::Gap { first },
        Ok(_) => ReadError::Corrupt { at },
        Err(err) => failed(err),
    }
}

fn content(connection: &Connection, key: ContentKey) -> Result<Bytes, ReadError> {
    let corrupt = ReadError::CorruptContent { key };
    let mut found = connection
        .prepare_cached("SELECT bytes FROM contents WHERE copy = ?1 AND hash = ?2")
        .map_err(failed)?;
    let bytes = found.query_row(params![row(key), key.hash().0], |row| blob(row, 0)).optional();
    let bytes = bytes.map_err(|err| damaged(err, corrupt.clone()))?.ok_or(ReadError::Missing)?;
    if Digest::of(&bytes) == key.hash() { Ok(bytes) } else { Err(corrupt) }
}

fn keys(
    connection: &Connection,
    after: Option<u64>,
    stored_before: i64,
) -> rusqlite::Result<(Vec<ContentKey>, Option<u64>)> {
    let mut some = connection.prepare_cached(
        "SELECT copy, hash, stored_at FROM contents WHERE ?1 IS NULL OR copy > ?1 ORDER BY copy LIMIT ?2",
    )?;
    let mut rows = some.query(params![after.map(u64::cast_signed), PAGE_KEYS as i64])?;
    let (mut keys, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let copy = unsigned(row, 0)?;
        last = Some(copy);
        if row.get::<_, i64>(2)? <= stored_before {
            keys.push(ContentKey::stored(Digest(row.get(1)?), copy));
        }
    }
    Ok((keys, last))
}

fn snapshot(connection: &Connection, formats: &[u16]) -> Result<Option<Manifest>, ReadError> {
    let mut newest = connection
        .prepare_cached(
            "SELECT batch, format, parts, digest FROM snapshots ORDER BY batch DESC, format DESC",
        )
        .map_err(failed)?;
    let mut rows = newest.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let manifest = manifest(row).map_err(failed)?;
        if formats.contains(&manifest.format)
            && absent(connection, &manifest.parts).map_err(failed)?.is_none()
        {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

fn manifest(row: &Row<'_>) -> rusqlite::Result<Manifest> {
    let parts = row
        .get_ref(2)?
        .as_blob()?
        .chunks(ContentKey::LEN)
        .filter_map(ContentKey::from_bytes)
        .collect();
    Ok(Manifest {
        batch: BatchNo(unsigned(row, 0)?),
        format: row.get(1)?,
        parts,
        digest: Digest(row.get(3)?),
    })
}

/// The first of `keys` that is not stored.
pub(super) fn absent(
    connection: &Connection,
    keys: &[ContentKey],
) -> rusqlite::Result<Option<ContentKey>> {
    let mut found =
        connection.prepare_cached("SELECT 1 FROM contents WHERE copy = ?1 AND hash = ?2")?;
    for key in keys {
        if !found.exists(params![row(*key), key.hash().0])? {
            return Ok(Some(*key));
        }
    }
    Ok(None)
}

/// The row of a content.
pub(super) fn row(key: ContentKey) -> i64 {
    key.copy().cast_signed()
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        other => Err(rusqlite::Error::InvalidColumnType(column, "blob".into(), other.data_type())),
    }
}

/// The store's word for damage becomes `what` is damaged; anything else says nothing about it.
fn damaged(err: rusqlite::Error, what: ReadError) -> ReadError {
    match (&err, err.sqlite_error_code()) {
        (_, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) => what,
        (
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..),
            _,
        ) => what,
        _ => failed(err),
    }
}

fn failed(err: rusqlite::Error) -> ReadError {
    match err.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ReadError::Unavailable,
        _ => ReadError::Broken(Damage::store(err)),
    }
}
