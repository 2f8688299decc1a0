//! The file: its layout, how it is made, and what must hold before it is opened for writing (I-32).

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::acked::{self, Acked};
use super::wal;
use crate::journal::content::random;
use crate::journal::error::{OpenError, ReadError};
use crate::journal::frame::{Frame, Tail};
use crate::journal::id::{BatchNo, Digest, Epoch, JournalId};

pub(super) const FILE: &str = "journal.db";
/// "BJRN": tells our files from those of other programs, also to `file`.
const APPLICATION: u32 = 0x424a_524e;
const VERSION: u32 = 2;
/// How long a statement waits for a lock: another process's transaction is over in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Frames checked at open. Older ones are checked whenever they are read.
const CHECKED: i64 = 64;
/// The WAL file is cut to this after a checkpoint that emptied it.
pub(super) const WAL_LIMIT: u64 = 64 * 1024 * 1024;

/// `number`, `epoch` and `digest` repeat what the frame says: an append compares them without reading the frame.
/// Copy numbers rise with time, so contents are appended to the end of their tree: a commit touches its last page and
/// no other.
const SCHEMA: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        journal BLOB NOT NULL,
        needs INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE frames (
        number INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        digest BLOB NOT NULL,
        frame BLOB NOT NULL
    ) STRICT;
    CREATE TABLE contents (
        copy INTEGER PRIMARY KEY,
        hash BLOB NOT NULL,
        stored_at INTEGER NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE snapshots (
        batch INTEGER NOT NULL,
        format INTEGER NOT NULL,
        parts BLOB NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (batch, format)
    ) STRICT;";

pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) journal: JournalId,
    pub(super) head: BatchNo,
}

/// Opens the journal in `directory` for writing, after checking it without.
pub(super) fn open(directory: &Path, capacity: Option<u64>) -> Result<Opened, OpenError> {
    let path = directory.join(FILE);
    let io = |source| OpenError::Io { path: path.clone(), source };
    make_directory(directory).map_err(io)?;
    let acked = acked::read(directory)?;
    check_exists(&path, acked)?;
    let is_new = make_file(&path).map_err(io)?;
    if !is_new {
        wal::check(&path)?;
        // What a killed process wrote but did not sync would be read as if it were durable.
        wal::sync(&path).map_err(io)?;
        inspect(&path, acked)?;
    }
    let mut connection = writing(&path, capacity).map_err(|err| broken(&path, err))?;
    let journal =
        make_tables(&mut connection, JournalId(random()?)).map_err(|err| broken(&path, err))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    let head = tail(&connection).map_err(|err| broken(&path, err))?.number;
    Ok(Opened { connection, path, journal, head })
}

/// A connection that only reads.
pub(super) fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

/// A connection that may write or checkpoint.
pub(super) fn writing(path: &Path, capacity: Option<u64>) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_LIMIT.cast_signed())?;
    if let Some(capacity) = capacity {
        let pages = capacity / page_size(&connection)?.max(1);
        connection.pragma_update(None, "max_page_count", pages.cast_signed())?;
    }
    Ok(connection)
}

/// The place the next frame goes to.
pub(super) fn tail(connection: &Connection) -> rusqlite::Result<Tail> {
    let mut newest = connection
        .prepare_cached("SELECT number, epoch, digest FROM frames ORDER BY number DESC LIMIT 1")?;
    let tail = newest.query_row([], |row| {
        Ok(Tail {
            number: BatchNo(unsigned(row, 0)?),
            epoch: Epoch(unsigned(row, 1)?),
            digest: Digest(row.get(2)?),
        })
    });
    Ok(tail.optional()?.unwrap_or_default())
}

/// Integers are stored as SQLite has them, signed; ours never reach the sign.
pub(super) fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(i64::cast_unsigned)
}

/// A number that a pragma answers.
pub(super) fn pragma(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.prepare_cached(sql)?.query_row([], |row| unsigned(row, 0))
}

pub(super) fn page_size(connection: &Connection) -> rusqlite::Result<u64> {
    pragma(connection, "PRAGMA page_size")
}

/// Milliseconds since 1970, for the age of contents.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Makes the directory, for its owner only, and makes its name durable.
fn make_directory(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// Makes an empty file for its owner only, or says that there is one. SQLite gives its side files the same mode.
///
/// An existing file is never opened here: closing it would drop the locks that SQLite holds on it in this process.
fn make_file(path: &Path) -> std::io::Result<bool> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(err) => Err(err),
    }
}

/// Refuses to begin a journal anew where one was.
pub(super) fn check_exists(path: &Path, acked: Option<Acked>) -> Result<(), OpenError> {
    match acked {
        Some(acked) if !path.exists() => Err(shorter(path, acked.number, BatchNo(0))),
        Some(_) | None => Ok(()),
    }
}

/// What was found in a file that is fit to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Made, but not further: the first open was killed.
    Begun,
    Ready,
}

/// Refuses what is not ours, what is newer, and what is damaged at its end, over a connection that cannot write.
pub(super) fn inspect(path: &Path, acked: Option<Acked>) -> Result<Opening, OpenError> {
    let connection = reading(path).map_err(|err| broken(path, err))?;
    let application =
        pragma(&connection, "PRAGMA application_id").map_err(|err| broken(path, err))?;
    let version = pragma(&connection, "PRAGMA user_version").map_err(|err| broken(path, err))?;
    let objects = pragma(&connection, "SELECT count(*) FROM sqlite_schema")
        .map_err(|err| broken(path, err))?;
    if (application, version, objects) == (0, 0, 0) {
        return match acked {
            None => Ok(Opening::Begun),
            Some(acked) => Err(shorter(path, acked.number, BatchNo(0))),
        };
    }
    if application != u64::from(APPLICATION) {
        return Err(OpenError::NotOurs { path: path.to_owned() });
    }
    if version > u64::from(VERSION) {
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(OpenError::TooNew { path: path.to_owned(), version });
    }
    if version < u64::from(VERSION) {
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        return Err(OpenError::TooOld { path: path.to_owned(), version });
    }
    let journal = journal_id(&connection).map_err(|err| broken(path, err))?;
    check_frames(&connection, path, Some(CHECKED))?;
    // When another journal was put here, what the note says is not about it.
    if let Some(acked) = acked.filter(|acked| acked.journal == journal) {
        check_acked(&connection, path, acked)?;
    }
    Ok(Opening::Ready)
}

/// Decodes the last frames, or all of them, and follows their chain. Returns how many there are.
pub(super) fn check_frames(
    connection: &Connection,
    path: &Path,
    last: Option<i64>,
) -> Result<u64, OpenError> {
    let checked = journal_id(connection).map_err(Unfit::from);
    checked.and_then(|journal| chain(connection, journal, last)).map_err(|err| match err {
        Unfit::Frame(ReadError::TooNew { version }) => {
            OpenError::TooNew { path: path.to_owned(), version: version.into() }
        }
        Unfit::Frame(_) | Unfit::At(_) => {
            OpenError::Corrupt { path: path.to_owned(), at: err.at() }
        }
        Unfit::Store(err) => broken(path, err),
    })
}

/// Refuses a journal that ends before the last acknowledged batch, or holds another one in its place.
fn check_acked(connection: &Connection, path: &Path, acked: Acked) -> Result<(), OpenError> {
    let found = tail(connection).map_err(|err| broken(path, err))?.number;
    if found < acked.number {
        return Err(shorter(path, acked.number, found));
    }
    let digest = "SELECT digest FROM frames WHERE number = ?1";
    let digest = connection
        .query_row(digest, [acked.number.0.cast_signed()], |row| row.get(0).map(Digest))
        .optional()
        .map_err(|err| broken(path, err))?;
    let first = || pragma(connection, "SELECT min(number) FROM frames");
    let is_it = match digest {
        Some(digest) => digest == acked.digest,
        // An old note, of a batch that was truncated away since.
        None => first().map_err(|err| broken(path, err))? > acked.number.0,
    };
    if is_it {
        return Ok(());
    }
    Err(OpenError::Corrupt { path: path.to_owned(), at: acked.number })
}

fn shorter(path: &Path, acked: BatchNo, found: BatchNo) -> OpenError {
    let note = acked::path(path.parent().unwrap_or(Path::new(".")));
    OpenError::Shorter { path: path.to_owned(), acked, found, note }
}

enum Unfit {
    Frame(ReadError),
    At(BatchNo),
    Store(rusqlite::Error),
}

impl Unfit {
    fn at(&self) -> BatchNo {
        match self {
            Self::At(at) | Self::Frame(ReadError::Corrupt { at }) => *at,
            Self::Frame(_) | Self::Store(_) => BatchNo(0),
        }
    }
}

impl From<rusqlite::Error> for Unfit {
    fn from(err: rusqlite::Error) -> Self {
        Self::Store(err)
    }
}

fn chain(connection: &Connection, journal: JournalId, last: Option<i64>) -> Result<u64, Unfit> {
    let head = tail(connection)?.number;
    let from = last.map_or(0, |last| head.0.cast_signed().saturating_sub(last));
    let mut rows = connection.prepare(
        "SELECT number, epoch, digest, frame FROM frames WHERE number > ?1 ORDER BY number",
    )?;
    let mut rows = rows.query([from])?;
    let (mut before, mut count): (Option<Tail>, _) = (None, 0);
    while let Some(row) = rows.next()? {
        let number = BatchNo(unsigned(row, 0)?);
        let said = Tail { number, epoch: Epoch(unsigned(row, 1)?), digest: Digest(row.get(2)?) };
        let bytes = Bytes::from(row.get::<_, Vec<u8>>(3)?);
        let frame = Frame::decode(&bytes, journal, number).map_err(Unfit::Frame)?;
        if let Some(before) = before.filter(|before| before.number.next() != number) {
            return Err(Unfit::At(before.number.next()));
        }
        if frame.tail() != said || before.is_some_and(|before| before.digest != frame.before) {
            return Err(Unfit::At(number));
        }
        (before, count) = (Some(said), count + 1);
    }
    Ok(count)
}

fn journal_id(connection: &Connection) -> rusqlite::Result<JournalId> {
    connection.query_row("SELECT journal FROM meta", [], |row| row.get(0).map(JournalId))
}

/// Makes what is missing, in one transaction; two processes that come at the same time agree on one id.
fn make_tables(connection: &mut Connection, fresh: JournalId) -> rusqlite::Result<JournalId> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if pragma(&transaction, "PRAGMA user_version")? == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction
            .execute("INSERT INTO meta (id, journal, needs) VALUES (0, ?1, 0)", [fresh.0])?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    let journal = journal_id(&transaction)?;
    transaction.commit()?;
    Ok(journal)
}

fn broken(path: &Path, err: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match err.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotOurs { path },
        _ => OpenError::Store { path, source: Arc::new(err) },
    }
}
