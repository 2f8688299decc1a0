//! Looks at every page, frame and content of a store that nobody has open (`brokerd --check`).
//!
//! A start looks at the WAL, the last frames and what its projection has not folded yet; everything older is verified
//! whenever it is read, and here all at once.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::store::{self, FILE, Opening};
use super::{acked, wal};
use crate::journal::error::OpenError;
use crate::journal::id::Digest;

/// What a whole store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    pub batches: u64,
    pub contents: u64,
}

/// Reads all of `directory/journal.db`; nothing is written. Nothing if there is no such file.
///
/// # Errors
/// [`OpenError`] names the file and the first place in it that is not what was written.
pub fn check(directory: &Path) -> Result<Option<Checked>, OpenError> {
    let path = directory.join(FILE);
    let acked = acked::read(directory)?;
    if acked.is_none() && !path.exists() {
        return Ok(None);
    }
    store::check_exists(&path, acked)?;
    wal::check(&path)?;
    if store::inspect(&path, acked)? == Opening::Begun {
        return Ok(Some(Checked { batches: 0, contents: 0 }));
    }
    let failed =
        |err: rusqlite::Error| OpenError::Store { path: path.clone(), source: Arc::new(err) };
    let connection = store::reading(&path).map_err(failed)?;
    pages(&connection, &path)?;
    let batches = store::check_frames(&connection, &path, None)?;
    let contents = contents(&connection, &path)?;
    Ok(Some(Checked { batches, contents }))
}

fn pages(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let said = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let what = match said {
        Ok(said) if said == "ok" => return Ok(()),
        Ok(said) => said,
        Err(err) => err.to_string(),
    };
    Err(OpenError::CorruptPages { path: path.to_owned(), what })
}

fn contents(connection: &Connection, path: &Path) -> Result<u64, OpenError> {
    let failed =
        |err: rusqlite::Error| OpenError::Store { path: path.to_owned(), source: Arc::new(err) };
    let mut all = connection.prepare("SELECT copy, hash, bytes FROM contents").map_err(failed)?;
    let mut rows = all.query([]).map_err(failed)?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        let id: i64 = row.get(0).map_err(failed)?;
        let hash: Vec<u8> = row.get(1).map_err(failed)?;
        let bytes: Vec<u8> = row.get(2).map_err(failed)?;
        if hash != Digest::of(&bytes).0 {
            return Err(OpenError::CorruptContent { path: path.to_owned(), id });
        }
        count += 1;
    }
    Ok(count)
}
