//! Rows about handoffs: each as it stands, by its id.

use rusqlite::{Connection, OptionalExtension, params};

use broker_proto::{Handoff, HandoffFilter, HandoffId};

use super::{
    Error, Projection,
    read::{event_of, stored},
    usage::Facts,
};
use crate::{
    core::{Event, handoff},
    journal::{BatchNo, Record},
};

/// The fact that a handoff is.
pub(super) fn subject(id: HandoffId) -> String {
    format!("handoff/{id}")
}

/// The facts that an event leaves, and those that it ends.
pub(super) fn fold(facts: &mut Facts, event: &handoff::Event, record: &Record) {
    let record = || Some(record.clone());
    match event {
        handoff::Event::Changed { handoff, .. } => {
            facts.insert(subject(handoff.id), record());
        }
        handoff::Event::PolicySet { .. } => {
            facts.insert("policy/handoff".to_owned(), record());
        }
        handoff::Event::Advised { session, advised, .. } => {
            facts.insert(format!("advice/{session}"), advised.as_ref().and_then(|_| record()));
        }
        handoff::Event::Forgotten { ids, .. } => {
            facts.extend(ids.iter().map(|id| (subject(*id), None)));
        }
    }
}

impl Projection {
    /// A handoff, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn handoff(&self, id: HandoffId, batch: BatchNo) -> Result<Option<Handoff>, Error> {
        self.at_least(batch).await?;
        let record = self
            .reader
            .call(move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT kind, version, body FROM facts WHERE subject = ?1")?;
                Ok(statement.query_row([subject(id)], stored).optional()?)
            })
            .await?;
        record.map(|record| read(&record)).transpose()
    }

    /// One page of handoffs, newest first, those before `before`. The id is where the next page begins.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn handoffs(
        &self,
        filter: HandoffFilter,
        before: Option<HandoffId>,
        limit: usize,
        batch: BatchNo,
    ) -> Result<(Vec<Handoff>, Option<HandoffId>), Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| page(connection, &filter, before, limit)).await
    }
}

fn page(
    connection: &Connection,
    filter: &HandoffFilter,
    before: Option<HandoffId>,
    limit: usize,
) -> Result<(Vec<Handoff>, Option<HandoffId>), Error> {
    // `0` follows `/`; ids sort by their time.
    let before = before.map_or_else(|| "handoff0".to_owned(), subject);
    let mut statement = connection.prepare_cached(
        "SELECT kind, version, body FROM facts WHERE subject > 'handoff/' AND subject < ?1
         ORDER BY subject DESC",
    )?;
    let mut rows = statement.query(params![before])?;
    let mut found: Vec<Handoff> = Vec::new();
    while let Some(row) = rows.next()? {
        let handoff = read(&stored(row)?)?;
        if !is_shown(&handoff, filter) {
            continue;
        }
        if found.len() == limit {
            let last = found.last().map(|handoff| handoff.id);
            return Ok((found, last));
        }
        found.push(handoff);
    }
    Ok((found, None))
}

fn is_shown(handoff: &Handoff, filter: &HandoffFilter) -> bool {
    let is_of = |model: &_| handoff.from.model == *model || handoff.to == *model;
    filter.session.as_ref().is_none_or(|session| handoff.session == *session)
        && filter.model.as_ref().is_none_or(is_of)
        && filter.state.is_none_or(|state| handoff.state == state)
}

fn read(record: &Record) -> Result<Handoff, Error> {
    match event_of(record)? {
        Event::Handoff(event) => match *event {
            handoff::Event::Changed { handoff, .. } => Ok(*handoff),
            handoff::Event::PolicySet { .. }
            | handoff::Event::Advised { .. }
            | handoff::Event::Forgotten { .. } => Err(Error::Damaged),
        },
        _ => Err(Error::Damaged),
    }
}
