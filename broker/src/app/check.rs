//! Looks at a whole store without starting on it.

use std::path::Path;

use super::{Error, secret};
use crate::{journal::sqlite, projection};

/// What a whole store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Nothing where there is no journal yet.
    pub journal: Option<sqlite::Checked>,
    /// Events in the projection; nothing where there is none.
    pub events: Option<u64>,
}

/// Reads everything in the data folder, which no broker may use meanwhile. Nothing is changed.
///
/// # Errors
/// [`Error`] names the file that is not what was written to it, and where.
pub async fn check(folder: &Path) -> Result<Checked, Error> {
    if !folder.is_dir() {
        return Ok(Checked { journal: None, events: None });
    }
    let _lock = secret::lock(folder)?;
    let place = folder.to_owned();
    let journal = tokio::task::spawn_blocking(move || sqlite::check(&place));
    let journal = journal.await.map_err(|_| projection::Error::Stopped)??;
    let events = projection::check(folder).await.map_err(|source| Error::Damaged {
        path: folder.join("projection.db").display().to_string(),
        source,
    })?;
    Ok(Checked { journal, events })
}
