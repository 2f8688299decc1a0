//! Rows of sessions: entries by their hash, versions, and the list of what there is.
//!
//! Entries are a tree, each row naming the one before it; a session's entries are the way from its head to the root.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use broker_proto::{EntryHash, ModelName, SessionHead, SessionId, SessionInfo};

use super::{Error, Projection, fold::number, read::event_of};
use crate::{
    core::{
        self,
        queue::{Body, BodyKey},
        session::{Change, Entries, Event, Session},
    },
    journal::{BatchNo, Record, record},
};

/// What some batches change of sessions, in order.
#[derive(Debug, Default)]
pub(super) struct Changes {
    events: Vec<(Event, Record)>,
}

impl Changes {
    pub(super) fn add(&mut self, event: Event, record: &Record) {
        self.events.push((event, record.clone()));
    }

    pub(super) fn write(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        for (event, record) in &self.events {
            match event {
                Event::Entries(entries) => write_entries(transaction, entries)?,
                Event::Changed { id, after: Some(session), .. } => {
                    write_version(transaction, id, session, record)?;
                }
                Event::Changed { id, after: None, .. } => {
                    for table in ["versions WHERE session", "sessions WHERE id"] {
                        let sql = format!("DELETE FROM {table} = ?1");
                        transaction.prepare_cached(&sql)?.execute([id.as_str()])?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whose fact this is.
pub(super) fn subject(id: &SessionId) -> String {
    format!("session/{id}")
}

fn write_entries(transaction: &Transaction<'_>, entries: &Entries) -> Result<(), Error> {
    // The newest place counts: where the same was stored before, the sweep may have been.
    let mut statement = transaction.prepare_cached(
        "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let keys: Vec<u8> = entries.body.keys.iter().flat_map(|key| key.0).collect();
    let (mut previous, mut offset) = (entries.previous, entries.offset);
    let (mut tokens, mut size) = (entries.tokens, entries.size_bytes);
    for (nr, row) in (entries.first..).zip(&entries.rows) {
        tokens += row.tokens;
        size += row.size_bytes;
        statement.execute(params![
            &row.hash.0[..],
            &previous.0[..],
            number(nr),
            number(row.tokens),
            number(tokens),
            number(size),
            keys,
            number(entries.body.size_bytes),
            number(offset),
            row.length,
        ])?;
        previous = row.hash;
        offset += u64::from(row.length);
    }
    Ok(())
}

fn write_version(
    transaction: &Transaction<'_>,
    id: &SessionId,
    session: &Session,
    record: &Record,
) -> Result<(), Error> {
    let info = &session.info;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO versions VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            id.as_str(),
            number(info.version),
            number(info.head.entries),
            &info.head.hash.0[..],
            &record.body[..]
        ])?;
    transaction
        .prepare_cached("INSERT OR REPLACE INTO sessions VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            id.as_str(),
            number(info.changed_at.0),
            info.owner.model.as_str(),
            &record.body[..]
        ])?;
    Ok(())
}

/// Where an entry is stored, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry {
    pub number: u64,
    pub hash: EntryHash,
    pub previous: EntryHash,
    pub tokens: u64,
    /// Of all entries up to this one.
    pub total_tokens: u64,
    pub total_bytes: u64,
    pub body: Body,
    pub offset: u64,
    pub length: u64,
}

impl StoredEntry {
    /// A session that ends with this entry.
    #[must_use]
    pub fn head(&self) -> SessionHead {
        SessionHead { entries: self.number + 1, hash: self.hash }
    }
}

/// One version of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    pub change: Change,
    pub detail: String,
    pub session: Session,
}

/// Which entries of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// From this number on, so many.
    From(u64, u32),
    Number(u64),
    /// Those whose hash begins so, in hexadecimal.
    Prefix(String),
}

/// The way from a head to the root, in SQL; `?1` is the head, `?2` the lowest number that is wanted.
const CHAIN: &str = "WITH RECURSIVE chain(hash, previous, number) AS (
    SELECT hash, previous, number FROM entries WHERE hash = ?1 AND number >= ?2
    UNION ALL SELECT e.hash, e.previous, e.number FROM chain JOIN entries e ON e.hash = chain.previous
    WHERE e.number >= ?2)";

impl Projection {
    /// Entries on the way to `head`, in their order, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn session_entries(
        &self,
        head: EntryHash,
        wanted: Wanted,
        batch: BatchNo,
    ) -> Result<Vec<StoredEntry>, Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| entries(connection, head, &wanted)).await
    }

    /// The hashes of all entries on the way to `head`, in their order, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn session_chain(
        &self,
        head: EntryHash,
        batch: BatchNo,
    ) -> Result<Vec<EntryHash>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let sql = format!("{CHAIN} SELECT hash FROM chain ORDER BY number");
                let mut statement = connection.prepare_cached(&sql)?;
                let hashes = statement.query_map(params![&head.0[..], 0], |row| row.get(0))?;
                Ok(hashes.map(|hash| hash.map(EntryHash)).collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Versions of a session before this one, newest first, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn session_versions(
        &self,
        id: SessionId,
        before: u64,
        limit: u32,
        batch: BatchNo,
    ) -> Result<Vec<StoredVersion>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT record FROM versions WHERE session = ?1 AND version < ?2
                     ORDER BY version DESC LIMIT ?3",
                )?;
                let asked = params![id.as_str(), number(before), limit];
                let found = statement.query_map(asked, |row| row.get(0))?;
                found.map(|record| version(record?)).collect()
            })
            .await
    }

    /// One version of a session, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn session_version(
        &self,
        id: SessionId,
        wanted: u64,
        batch: BatchNo,
    ) -> Result<Option<StoredVersion>, Error> {
        let found = self.session_versions(id, wanted.saturating_add(1), 1, batch).await?;
        Ok(found.into_iter().find(|found| found.session.info.version == wanted))
    }

    /// What a session was about when it ended with `head`: the newest version that did, else, where several entries came
    /// at once, the newest that ended with them.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn session_at(
        &self,
        id: SessionId,
        head: SessionHead,
        batch: BatchNo,
    ) -> Result<Option<StoredVersion>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut exact = connection.prepare_cached(
                    "SELECT record FROM versions WHERE session = ?1 AND head = ?2
                     ORDER BY version DESC LIMIT 1",
                )?;
                let mut further = connection.prepare_cached(
                    "SELECT record FROM versions WHERE session = ?1 AND head =
                     (SELECT head FROM versions WHERE session = ?1 AND entries > ?2
                      ORDER BY version LIMIT 1) ORDER BY version DESC LIMIT 1",
                )?;
                let asked = params![id.as_str(), &head.hash.0[..]];
                let record = match exact.query_row(asked, |row| row.get(0)).optional()? {
                    Some(record) => Some(record),
                    None => {
                        let asked = params![id.as_str(), number(head.entries)];
                        further.query_row(asked, |row| row.get(0)).optional()?
                    }
                };
                record.map(version).transpose()
            })
            .await
    }

    /// Sessions, the one that changed last first, behind this one, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn sessions(
        &self,
        owner: Option<ModelName>,
        behind: Option<(u64, SessionId)>,
        limit: u32,
        batch: BatchNo,
    ) -> Result<Vec<SessionInfo>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT record FROM sessions WHERE (?1 IS NULL OR owner = ?1)
                     AND (changed_at, id) < (?2, ?3) ORDER BY changed_at DESC, id DESC LIMIT ?4",
                )?;
                let owner = owner.as_ref().map(ModelName::as_str);
                let (at, id) =
                    behind.as_ref().map_or((i64::MAX, ""), |(at, id)| (number(*at), id.as_str()));
                let found = statement.query_map(params![owner, at, id, limit], |row| row.get(0))?;
                found.map(|record| Ok(version(record?)?.session.info)).collect()
            })
            .await
    }
}

fn entries(
    connection: &Connection,
    head: EntryHash,
    wanted: &Wanted,
) -> Result<Vec<StoredEntry>, Error> {
    let (lowest, filter, limit, text) = match wanted {
        Wanted::From(from, limit) => (*from, "1", *limit, ""),
        Wanted::Number(nr) => (*nr, "chain.number = ?2", 1, ""),
        Wanted::Prefix(prefix) => (0, "lower(hex(chain.hash)) LIKE ?4 || '%'", 2, prefix.as_str()),
    };
    let sql = format!(
        "{CHAIN} SELECT e.number, e.hash, e.previous, e.tokens, e.total_tokens, e.total_bytes, e.keys, e.body_bytes,
         e.offset, e.length FROM chain JOIN entries e ON e.hash = chain.hash
         WHERE {filter} AND ?4 = ?4 ORDER BY chain.number LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let found = statement.query_map(params![&head.0[..], number(lowest), limit, text], entry)?;
    found.map(|row| row?.ok_or(Error::Damaged)).collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Option<StoredEntry>> {
    let count = |column: usize| -> rusqlite::Result<u64> {
        Ok(row.get::<_, i64>(column)?.max(0).cast_unsigned())
    };
    let keys: Vec<u8> = row.get(6)?;
    let (keys, rest) = keys.as_chunks::<40>();
    if !rest.is_empty() {
        return Ok(None);
    }
    let keys = keys.iter().map(|key| BodyKey(*key)).collect();
    Ok(Some(StoredEntry {
        number: count(0)?,
        hash: EntryHash(row.get(1)?),
        previous: EntryHash(row.get(2)?),
        tokens: count(3)?,
        total_tokens: count(4)?,
        total_bytes: count(5)?,
        body: Body { keys, size_bytes: count(7)? },
        offset: count(8)?,
        length: count(9)?,
    }))
}

fn version(record: Vec<u8>) -> Result<StoredVersion, Error> {
    let core::Event::Session(event) = event_of(&record::session_changed(record))? else {
        return Err(Error::Damaged);
    };
    match *event {
        Event::Changed { change, detail, after: Some(session), .. } => {
            Ok(StoredVersion { change, detail, session: *session })
        }
        Event::Changed { .. } | Event::Entries(_) => Err(Error::Damaged),
    }
}
