//! The fold: one event, one change of rows.

use rusqlite::{Connection, Transaction, params};

use broker_proto::{MessageState, Recipient, WallTime};

use super::Error;
use crate::{
    core::{Accepted, Event, Subject},
    journal::{BatchNo, Frame, Record, record},
};

/// More than the steps of any event, so that each has a place of its own in its batch.
const STEPS: usize = 1024;

/// Folds frames in one transaction, and stores how far it has come with them.
pub(super) fn frames(connection: &mut Connection, frames: &[Frame]) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    let mut newest = WallTime(0);
    for frame in frames {
        for (place, stored) in frame.records.iter().enumerate() {
            let batch = frame.number;
            let event = record::decode(stored).map_err(|source| Error::Record { batch, source })?;
            if let Some(event) = event {
                newest = newest.max(time_of(&event));
                fold_steps(&transaction, batch, place, stored, &event)?;
            }
        }
    }
    if let Some(last) = frames.last() {
        transaction
            .prepare_cached("UPDATE mark SET applied = ?1, broker_time = max(broker_time, ?2)")?
            .execute(params![number(last.number.0), number(newest.0)])?;
    }
    transaction.commit()?;
    Ok(())
}

/// Folds what an event stands for; each step of one over a set as if it had a record of its own.
fn fold_steps(
    transaction: &Transaction<'_>,
    batch: BatchNo,
    place: usize,
    record: &Record,
    event: &Event,
) -> Result<(), Error> {
    if !matches!(event, Event::FannedOut(_)) {
        return fold(transaction, batch, place * STEPS, record, event);
    }
    let (mut step, mut folded) = (place * STEPS, Ok(()));
    event.each(|event| {
        if folded.is_ok() {
            folded = fold(transaction, batch, step, &record::encode(event), event);
            step += 1;
        }
    });
    folded
}

fn fold(
    transaction: &Transaction<'_>,
    batch: BatchNo,
    place: usize,
    record: &Record,
    event: &Event,
) -> Result<(), Error> {
    if let Some(subject) = event.subject() {
        transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(
            params![
                number(subject.seq.0),
                number(batch.0),
                number(place as u64),
                record.kind,
                record.version,
                &record.body[..]
            ],
        )?;
    }
    match event {
        Event::Accepted(accepted) => accept(transaction, accepted, record)?,
        Event::Routed { subject, queue, wait_until, .. } => {
            let state =
                if wait_until.is_some() { MessageState::Waiting } else { MessageState::Queued };
            moved(transaction, *subject, state, Some(queue))?;
        }
        Event::Held { subject, queue, .. } => {
            moved(transaction, *subject, MessageState::Waiting, Some(queue))?;
        }
        Event::Leased { subject, .. } => moved(transaction, *subject, MessageState::Leased, None)?,
        Event::AttemptFailed { subject, .. } | Event::LeaseLost { subject, .. } => {
            moved(transaction, *subject, MessageState::Queued, None)?;
        }
        Event::Finished(finished) => {
            transaction
                .prepare_cached(
                    "UPDATE messages SET state = ?2, ended_epoch = ?3, finished = ?4 WHERE seq = ?1",
                )?
                .execute(params![
                    number(finished.subject.seq.0),
                    finished.state.to_wire(),
                    finished.epoch,
                    &record.body[..]
                ])?;
        }
        Event::RouteChanged { model, .. } => fact(transaction, &format!("route/{model}"), record)?,
        Event::UsageChanged { model, .. } => fact(transaction, &format!("usage/{model}"), record)?,
        Event::TokenChanged { agent, .. } => fact(transaction, &format!("token/{agent}"), record)?,
        Event::RoleKnown { role, .. } => fact(transaction, &format!("role/{role}"), record)?,
        // Folded step by step.
        Event::FannedOut(_) => {}
        Event::ContentStored { hash, .. } => fact(transaction, &content_subject(*hash), record)?,
    }
    Ok(())
}

pub(super) fn content_subject(hash: broker_proto::ContentHash) -> String {
    format!("content/{hash}")
}

fn accept(
    transaction: &Transaction<'_>,
    accepted: &Accepted,
    record: &Record,
) -> Result<(), Error> {
    transaction
        .prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, NULL)")?
        .execute(params![
            number(accepted.subject.seq.0),
            &accepted.subject.id.as_u128().to_be_bytes()[..],
            accepted.sender.as_str(),
            accepted.to.to_string(),
            MessageState::Queued.to_wire(),
            accepted.to.to_string(),
            number(accepted.at.0),
            &record.body[..]
        ])?;
    Ok(())
}

fn moved(
    transaction: &Transaction<'_>,
    subject: Subject,
    state: MessageState,
    queue: Option<&Recipient>,
) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "UPDATE messages SET state = ?2, queue = coalesce(?3, queue) WHERE seq = ?1",
        )?
        .execute(params![number(subject.seq.0), state.to_wire(), queue.map(ToString::to_string)])?;
    Ok(())
}

fn fact(transaction: &Transaction<'_>, subject: &str, record: &Record) -> Result<(), Error> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![subject, record.kind, record.version, &record.body[..]])?;
    Ok(())
}

fn time_of(event: &Event) -> WallTime {
    match event {
        Event::Accepted(accepted) => accepted.at,
        Event::Finished(finished) => finished.at,
        Event::FannedOut(fanned) => fanned.original.at,
        Event::Routed { at, .. }
        | Event::Held { at, .. }
        | Event::Leased { at, .. }
        | Event::AttemptFailed { at, .. }
        | Event::LeaseLost { at, .. }
        | Event::RouteChanged { at, .. }
        | Event::UsageChanged { at, .. }
        | Event::TokenChanged { at, .. }
        | Event::RoleKnown { at, .. }
        | Event::ContentStored { at, .. } => *at,
    }
}

/// SQLite counts in signed 64 bits; ours stay far below.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
