//! What waits or runs for one session.

use rusqlite::Connection;

use broker_proto::MessageState;

use super::{
    Error, Projection,
    read::{COLUMNS, Row, columns, row},
};
use crate::journal::BatchNo;

impl Projection {
    /// Messages that carry this session's name and are not finished, as of `batch`: the most urgent first, then the
    /// oldest; `limit` at most, and how many there are beyond.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn waiting(
        &self,
        session: String,
        limit: usize,
        batch: BatchNo,
    ) -> Result<(Vec<Row>, u64), Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| waiting(connection, &session, limit)).await
    }
}

fn waiting(connection: &Connection, session: &str, limit: usize) -> Result<(Vec<Row>, u64), Error> {
    // As the index of what lives has them, which is as short as the queues are.
    let sql = format!(
        "SELECT {COLUMNS} FROM messages WHERE (finished IS NULL OR state = 8) AND state != 8"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let (mut kept, mut all) = (Vec::new(), 0_u64);
    for found in statement.query_map([], columns)? {
        let found = row(found?)?;
        let is_its = found.accepted.session.as_deref() == Some(session);
        if !is_its || !is_unfinished(found.state) {
            continue;
        }
        all += 1;
        kept.push(found);
        // Sorted now and then, so that no more is held than is shown.
        if kept.len() > 2 * limit {
            most_urgent(&mut kept, limit);
        }
    }
    most_urgent(&mut kept, limit);
    let left_out = all - kept.len() as u64;
    Ok((kept, left_out))
}

fn is_unfinished(state: MessageState) -> bool {
    matches!(state, MessageState::Queued | MessageState::Waiting | MessageState::Leased)
}

fn most_urgent(rows: &mut Vec<Row>, limit: usize) {
    rows.sort_by_key(|row| (std::cmp::Reverse(row.accepted.priority), row.accepted.subject.seq));
    rows.truncate(limit);
}
