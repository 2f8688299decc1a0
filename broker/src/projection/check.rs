//! Looks at every row: what a start does not read is looked at when somebody asks for it (`brokerd --check`).

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Error, read, sum, worker::FILE};
/// Whether the rows in `directory` are all as they were folded; nothing if there are none. Returns how many events
/// they hold. Takes as long as reading all of it.
///
/// # Errors
/// [`Error::is_damage`] when they are not.
pub async fn check(directory: &Path) -> Result<Option<u64>, Error> {
    let path = directory.join(FILE);
    if !path.exists() {
        return Ok(None);
    }
    let checking = tokio::task::spawn_blocking(move || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        rows(&connection)
    });
    checking.await.unwrap_or(Err(Error::Stopped)).map(Some)
}

fn rows(connection: &Connection) -> Result<u64, Error> {
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if said != "ok" || !sum::is_sealed(connection)? {
        return Err(Error::Damaged);
    }
    read::check_living(connection)?;
    let mut facts = connection.prepare("SELECT kind, version, body, sum, subject FROM facts")?;
    let mut rows = facts.query([])?;
    while let Some(row) = rows.next()? {
        let subject: String = row.get(4)?;
        if sum::of_fact(&subject, &read::stored(row)?) != row.get::<_, i64>(3)? {
            return Err(Error::Damaged);
        }
    }
    read::check_messages(connection)
}
