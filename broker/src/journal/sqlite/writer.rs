//! The writing thread: one job after the other, each answered after its commit.
//!
//! Invariant: an answer of success leaves only after `COMMIT`, which syncs, has returned.
//! Invariant: after a commit that failed in any way but for want of space, every answer is `Broken`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::Space;
use super::acked::Note;
use super::checkpoint::{Checkpoints, announce};
use super::readers::{absent, row};
use super::store::{self, unsigned};
use crate::journal::content::{Content, ContentKey};
use crate::journal::error::{AppendError, ClaimError, Damage, PutError, Why};
use crate::journal::frame::{Frame, Sealed, Tail};
use crate::journal::id::{BatchNo, Epoch, JournalId};
use crate::journal::{Claim, Manifest, claim};

/// Puts that share one commit, at most, and their bytes.
const GROUP: usize = 64;
const GROUP_BYTES: usize = 2 * 1024 * 1024;
/// Jobs between two measurements of a file that has plenty of room: far less than that room.
const MEASURED_EVERY: u32 = 64;
/// Bytes that a commit adds to the WAL beside its payload: some pages of the trees.
const PAGES: u64 = 16 * 1024;

type Done<T, E> = oneshot::Sender<Result<T, E>>;

/// What the thread is asked to do. An answer nobody waits for any more is dropped; the job is done all the same.
#[derive(Debug)]
pub(super) enum Job {
    Append { place: Tail, sealed: Sealed, contents: Vec<Content>, done: Done<(), AppendError> },
    Claim { me: Claim, done: Done<Tail, ClaimError> },
    Put { content: Content, done: Done<(), PutError> },
    Forget { decided: BatchNo, keys: Vec<ContentKey>, done: Done<(), PutError> },
    Truncate { first: BatchNo, done: Done<(), PutError> },
    Publish { snapshot: Manifest, done: Done<(), PutError> },
}

#[derive(Debug)]
pub(super) struct Thread {
    connection: Connection,
    journal: JournalId,
    head: watch::Sender<BatchNo>,
    space: Arc<Space>,
    checkpoints: Checkpoints,
    acked: Note,
    damage: Option<Damage>,
    /// Jobs since the room was measured last.
    unmeasured: u32,
}

/// Why a transaction did not commit. Only `Broken` leaves anything unclear.
enum Fail<E> {
    Refused(E),
    NotStored(Why),
    Broken(Damage),
}

impl<E> From<rusqlite::Error> for Fail<E> {
    /// Of a statement before the commit.
    fn from(err: rusqlite::Error) -> Self {
        match err.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NotStored(Why::Full),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::NotStored(Why::Unavailable)
            }
            _ => Self::Broken(Damage::store(err)),
        }
    }
}

impl From<Fail<Self>> for AppendError {
    fn from(fail: Fail<Self>) -> Self {
        match fail {
            Fail::Refused(err) => err,
            Fail::NotStored(why) => Self::NotStored(why),
            Fail::Broken(damage) => Self::Broken(damage),
        }
    }
}

impl From<Fail<Self>> for ClaimError {
    fn from(fail: Fail<Self>) -> Self {
        match fail {
            Fail::Refused(err) => err,
            Fail::NotStored(why) => Self::NotStored(why),
            Fail::Broken(damage) => Self::Broken(damage),
        }
    }
}

impl From<Fail<Self>> for PutError {
    fn from(fail: Fail<Self>) -> Self {
        match fail {
            Fail::Refused(err) => err,
            Fail::NotStored(why) => Self::NotStored(why),
            Fail::Broken(damage) => Self::Broken(damage),
        }
    }
}

impl Thread {
    pub(super) fn new(
        connection: Connection,
        journal: JournalId,
        head: watch::Sender<BatchNo>,
        space: Arc<Space>,
        checkpoints: Checkpoints,
        acked: Note,
    ) -> Self {
        let (damage, unmeasured) = (None, 0);
        let mut thread =
            Self { connection, journal, head, space, checkpoints, acked, damage, unmeasured };
        thread.measure();
        thread
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.blocking_recv();
        while let Some(job) = next {
            let over = match job {
                Job::Put { content, done } => self.put(content, done, &mut jobs),
                Job::Append { place, sealed, contents, done } => {
                    answer(done, self.append(place, &sealed, &contents));
                    None
                }
                Job::Claim { me, done } => {
                    answer(done, self.claim(me));
                    None
                }
                Job::Forget { decided, keys, done } => {
                    answer(done, self.forget(decided, &keys));
                    None
                }
                Job::Truncate { first, done } => {
                    answer(done, self.truncate(first));
                    None
                }
                Job::Publish { snapshot, done } => {
                    answer(done, self.publish(&snapshot));
                    None
                }
            };
            // Behind the answer: while there is room, nobody waits for its size, nor needs it often.
            self.unmeasured += 1;
            if self.unmeasured >= MEASURED_EVERY {
                self.measure();
            }
            next = over.or_else(|| jobs.blocking_recv());
        }
    }

    fn append(
        &mut self,
        place: Tail,
        sealed: &Sealed,
        contents: &[Content],
    ) -> Result<(), AppendError> {
        let payload = sealed.bytes.len() + total(contents);
        self.transact(payload, |connection| {
            let found = store::tail(connection)?;
            if found != place {
                let behind = epoch_of(connection, place.number.next())?;
                place.may_follow(found, || behind).map_err(Fail::Refused)?;
            }
            insert_contents(connection, contents)?;
            insert_frame(connection, sealed)?;
            Ok(())
        })?;
        self.acked.write(sealed.tail);
        announce(&self.head, sealed.tail.number);
        Ok(())
    }

    fn claim(&mut self, me: Claim) -> Result<Tail, ClaimError> {
        let journal = self.journal;
        let tail = self.transact(0, |connection| {
            let tail = sound_tail(connection, journal)?;
            let needs = connection.query_row("SELECT needs FROM meta", [], |row| row.get(0))?;
            let (sealed, claimed) = claim::seal(journal, tail, needs, me).map_err(Fail::Refused)?;
            insert_frame(connection, &sealed)?;
            connection.execute("UPDATE meta SET needs = ?1", [claimed.readable_by])?;
            Ok(sealed.tail)
        })?;
        self.acked.write(tail);
        announce(&self.head, tail.number);
        Ok(tail)
    }

    /// Stores `content` and the puts that wait right behind it in one commit. Returns the job that ended the group.
    fn put(
        &mut self,
        content: Content,
        done: Done<(), PutError>,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        let (mut contents, mut waiting, mut over) = (vec![content], vec![done], None);
        while contents.len() < GROUP && total(&contents) < GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Put { content, done }) => {
                    contents.push(content);
                    waiting.push(done);
                }
                Ok(job) => {
                    over = Some(job);
                    break;
                }
                Err(_) => break,
            }
        }
        let stored = self.transact::<_, PutError>(total(&contents), |connection| {
            insert_contents(connection, &contents)
        });
        for done in waiting {
            answer(done, stored.clone());
        }
        over
    }

    fn forget(&mut self, decided: BatchNo, keys: &[ContentKey]) -> Result<(), PutError> {
        self.transact(0, |connection| {
            check_durable(connection, decided)?;
            let mut delete =
                connection.prepare_cached("DELETE FROM contents WHERE copy = ?1 AND hash = ?2")?;
            for key in keys {
                delete.execute(params![row(*key), key.hash().0])?;
            }
            Ok(())
        })
    }

    fn truncate(&mut self, first: BatchNo) -> Result<(), PutError> {
        self.transact(0, |connection| {
            let kept = "SELECT DISTINCT batch FROM snapshots ORDER BY batch DESC LIMIT 1 OFFSET 1";
            let kept = connection.query_row(kept, [], |row| unsigned(row, 0)).optional()?;
            let limit = BatchNo(kept.unwrap_or(1));
            if first > limit {
                return Err(Fail::Refused(PutError::StillNeeded { first: limit }));
            }
            connection.execute("DELETE FROM frames WHERE number < ?1", [first.0.cast_signed()])?;
            connection
                .execute("DELETE FROM snapshots WHERE batch < ?1", [first.0.cast_signed()])?;
            Ok(())
        })
    }

    fn publish(&mut self, snapshot: &Manifest) -> Result<(), PutError> {
        self.transact(0, |connection| {
            check_durable(connection, snapshot.batch)?;
            if let Some(key) = absent(connection, &snapshot.parts)? {
                return Err(Fail::Refused(PutError::Missing { key }));
            }
            let batch = snapshot.batch.0.cast_signed();
            let parts: Vec<u8> = snapshot.parts.iter().flat_map(|key| key.to_bytes()).collect();
            connection.execute(
                "INSERT INTO snapshots (batch, format, parts, digest) SELECT ?1, ?2, ?3, ?4
                 WHERE NOT EXISTS (SELECT 1 FROM snapshots WHERE batch > ?1) ON CONFLICT DO NOTHING",
                params![batch, snapshot.format, parts, snapshot.digest.0],
            )?;
            Ok(())
        })
    }

    /// Runs `work` in a transaction that is committed and synced, or leaves nothing behind.
    fn transact<T, E: From<Fail<E>>>(
        &mut self,
        payload: usize,
        work: impl FnOnce(&Connection) -> Result<T, Fail<E>>,
    ) -> Result<T, E> {
        if let Some(damage) = self.damage.as_ref().or_else(|| self.checkpoints.damage()) {
            return Err(Fail::Broken(damage.clone()).into());
        }
        let done = transaction(&self.connection, work);
        match &done {
            Err(Fail::Broken(damage)) => self.damage = Some(damage.clone()),
            // What the WAL occupies may be all that is missing.
            Err(Fail::NotStored(Why::Full)) => {
                self.damage = self.checkpoints.empty(&self.connection).err()
            }
            Ok(_) | Err(_) => {}
        }
        let value = done?;
        // It is committed and answered as such; damage found here is told to the next one who asks.
        self.damage = self.checkpoints.committed(payload as u64 + PAGES, &self.connection).err();
        if self.space.is_tight() {
            self.measure();
        }
        Ok(value)
    }

    /// Notes what room the file has. A store that cannot say has none.
    fn measure(&mut self) {
        self.unmeasured = 0;
        let measured = (|| {
            let page = store::page_size(&self.connection)?;
            let free = store::pragma(&self.connection, "PRAGMA freelist_count")?;
            let most = store::pragma(&self.connection, "PRAGMA max_page_count")?;
            let pages = store::pragma(&self.connection, "PRAGMA page_count")?;
            Ok::<_, rusqlite::Error>((free * page, most.saturating_sub(pages).saturating_mul(page)))
        })();
        let (free, growth) = measured.unwrap_or_default();
        self.space.free.store(free, Ordering::Relaxed);
        self.space.growth.store(growth, Ordering::Relaxed);
    }
}

/// Nobody may be left who wants to know; then only the log knows.
fn answer<T, E>(done: Done<T, E>, result: Result<T, E>) {
    let _ = done.send(result);
}

fn transaction<T, E>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, Fail<E>>,
) -> Result<T, Fail<E>> {
    run(connection, "BEGIN IMMEDIATE")?;
    match work(connection) {
        Ok(value) => match run(connection, "COMMIT") {
            Ok(()) => Ok(value),
            Err(err) => Err(uncommitted(connection, err)),
        },
        Err(fail) => {
            roll_back(connection)?;
            Err(fail)
        }
    }
}

/// In WAL mode `SQLITE_FULL` at the commit means that a write found no space before the commit mark was written
/// whole, and the next commit writes over that place (`sqlite3WalFrames`, `unixWrite`): surely not stored. Any other
/// failure may have come after the mark was written, and a failed sync is never tried again.
fn uncommitted<E>(connection: &Connection, err: rusqlite::Error) -> Fail<E> {
    if err.sqlite_error_code() != Some(ErrorCode::DiskFull) {
        return Fail::Broken(Damage::store(err));
    }
    match roll_back(connection) {
        Ok(()) => Fail::NotStored(Why::Full),
        Err(fail) => fail,
    }
}

/// SQLite has rolled back some failures by itself already.
fn roll_back<E>(connection: &Connection) -> Result<(), Fail<E>> {
    if connection.is_autocommit() {
        return Ok(());
    }
    run(connection, "ROLLBACK").map_err(|err| Fail::Broken(Damage::store(err)))
}

fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// The tail, decoded: nothing is chained to a frame that is not what its row says.
fn sound_tail(connection: &Connection, journal: JournalId) -> Result<Tail, Fail<ClaimError>> {
    let tail = store::tail(connection)?;
    if tail == Tail::default() {
        return Ok(tail);
    }
    let frame = "SELECT frame FROM frames WHERE number = ?1";
    let bytes: Vec<u8> =
        connection.query_row(frame, [tail.number.0.cast_signed()], |row| row.get(0))?;
    match Frame::decode(&Bytes::from(bytes), journal, tail.number) {
        Ok(frame) if frame.tail() == tail => Ok(tail),
        Ok(_) | Err(_) => Err(Fail::Broken(Damage::OtherBatch { at: tail.number })),
    }
}

fn epoch_of(connection: &Connection, number: BatchNo) -> rusqlite::Result<Option<Epoch>> {
    let mut found = connection.prepare_cached("SELECT epoch FROM frames WHERE number = ?1")?;
    found.query_row([number.0.cast_signed()], |row| unsigned(row, 0).map(Epoch)).optional()
}

fn check_durable(connection: &Connection, batch: BatchNo) -> Result<(), Fail<PutError>> {
    let head = store::tail(connection)?.number;
    if batch > head { Err(Fail::Refused(PutError::Undecided { batch, head })) } else { Ok(()) }
}

fn insert_frame(connection: &Connection, sealed: &Sealed) -> rusqlite::Result<()> {
    let Tail { number, epoch, digest } = sealed.tail;
    let mut insert = connection.prepare_cached(
        "INSERT INTO frames (number, epoch, digest, frame) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![
        number.0.cast_signed(),
        epoch.0.cast_signed(),
        digest.0,
        &sealed.bytes[..]
    ])?;
    Ok(())
}

/// A content that is there already is the same one. Two of one copy number are not both stored: whoever brings the
/// second one makes it anew.
fn insert_contents<E>(connection: &Connection, contents: &[Content]) -> Result<(), Fail<E>> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO contents (copy, hash, stored_at, bytes) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    let now = store::now();
    for content in contents {
        let key = content.key();
        let added = insert.execute(params![row(key), key.hash().0, now, &content.bytes()[..]])?;
        if added == 0 && absent(connection, &[key])?.is_some() {
            return Err(Fail::NotStored(Why::Unavailable));
        }
    }
    Ok(())
}

fn total(contents: &[Content]) -> usize {
    contents.iter().map(|content| content.bytes().len()).sum()
}
