//! The fold: one event, one change of rows.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use broker_proto::{MessageState, MessageType, Recipient, TaskState, WallTime};

use super::{Error, sum};
use crate::{
    core::{
        Accepted, Event, Subject,
        queue::{Hold, WINDOW},
        task,
    },
    journal::{BatchNo, Frame, Record, record},
};

/// More than the steps of any event, so that each has a place of its own in its batch.
pub(super) const STEPS: usize = 1024;
/// Stands for acceptance among the states of the counters.
pub(super) const ACCEPTED: i32 = 0;

/// Folds frames in one transaction, and stores how far it has come with them.
pub(super) fn frames(connection: &mut Connection, frames: &[Frame]) -> Result<(), Error> {
    let transaction = connection.transaction()?;
    let mut newest = WallTime(0);
    let mut counters = Counters::new();
    for frame in frames {
        for (place, stored) in frame.records.iter().enumerate() {
            let batch = frame.number;
            let event = record::decode(stored).map_err(|source| Error::Record { batch, source })?;
            if let Some(event) = event {
                newest = newest.max(time_of(&event));
                fold_steps(&transaction, batch, place, stored, &event, &mut counters)?;
            }
        }
    }
    for ((recipient, state), change) in counters {
        transaction
            .prepare_cached(
                "INSERT INTO counters VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET messages = messages + excluded.messages",
            )?
            .execute(params![recipient, state, change])?;
    }
    if let Some(last) = frames.last() {
        transaction
            .prepare_cached("UPDATE mark SET applied = ?1, broker_time = max(broker_time, ?2)")?
            .execute(params![number(last.number.0), number(newest.0)])?;
        sum::seal(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What a transaction changes of the counters: by recipient and state, and with 0 for what was accepted.
type Counters = BTreeMap<(String, i32), i64>;

/// Folds what an event stands for; each step of one over a set as if it had a record of its own.
fn fold_steps(
    transaction: &Transaction<'_>,
    batch: BatchNo,
    place: usize,
    record: &Record,
    event: &Event,
    counters: &mut Counters,
) -> Result<(), Error> {
    if !matches!(event, Event::FannedOut(_)) {
        return fold(transaction, batch, place * STEPS, record, event, counters);
    }
    let (mut step, mut folded) = (place * STEPS, Ok(()));
    event.each(|event| {
        if folded.is_ok() {
            folded = fold(transaction, batch, step, &record::encode(event), event, counters);
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
    counters: &mut Counters,
) -> Result<(), Error> {
    let mut count = |recipient: String, state: i32, change: i64| {
        *counters.entry((recipient, state)).or_default() += change;
    };
    if let Some(subject) = event.subject() {
        transaction
            .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                number(subject.seq.0),
                number(batch.0),
                number(place as u64),
                record.kind,
                record.version,
                &record.body[..],
                sum::of_event(subject.seq.0, batch.0, place as u64, record)
            ])?;
    }
    match event {
        Event::Accepted(accepted) => {
            accept(transaction, accepted, record)?;
            count(accepted.to.to_string(), ACCEPTED, 1);
        }
        Event::Routed { subject, queue, wait_until, .. } => {
            let state =
                if wait_until.is_some() { MessageState::Waiting } else { MessageState::Queued };
            moved(transaction, *subject, state, None, Some(queue))?;
        }
        Event::Held { subject, queue, hold, .. } => {
            moved(transaction, *subject, MessageState::Waiting, Some(*hold), Some(queue))?;
        }
        Event::Parked { subject, queue, .. } => {
            let hold = Some(Hold::Parked);
            moved(transaction, *subject, MessageState::Waiting, hold, Some(queue))?;
        }
        Event::Leased { subject, .. } => {
            moved(transaction, *subject, MessageState::Leased, None, None)?;
        }
        Event::AttemptFailed { subject, .. }
        | Event::DeliveryFailed { subject, .. }
        | Event::LeaseLost { subject, .. } => {
            moved(transaction, *subject, MessageState::Queued, None, None)?;
        }
        // The step that follows says where the message is; these are found in its life.
        Event::TaskAsked { .. } | Event::TaskAnswered { .. } | Event::TaskStopped { .. } => {}
        Event::Finished(finished) => {
            let state = finished.state.to_wire();
            let task = task::of_end(finished.state, finished.failure.as_ref()).to_wire();
            let seq = number(finished.subject.seq.0);
            let recipient = transaction
                .prepare_cached(
                    "UPDATE messages SET state = ?2, ended_epoch = ?3, finished = ?4,
                     task = task * 0 + ?5 WHERE seq = ?1 RETURNING recipient",
                )?
                .query_row(params![seq, state, finished.epoch, &record.body[..], task], recipient)
                .optional()?;
            if let Some(recipient) = recipient {
                count(recipient, state, 1);
            }
        }
        Event::Redriven { subject, deadline, generation, .. } => {
            let queued = MessageState::Queued.to_wire();
            let recipient = transaction
                .prepare_cached(
                    "UPDATE messages SET state = ?2, deadline = ?3, generation = ?4, queue = recipient,
                     ended_epoch = NULL, finished = NULL, task = task * 0 + ?5
                     WHERE seq = ?1 RETURNING recipient",
                )?
                .query_row(
                    params![
                        number(subject.seq.0),
                        queued,
                        number(deadline.0),
                        generation,
                        TaskState::Submitted.to_wire()
                    ],
                    recipient,
                )
                .optional()?;
            if let Some(recipient) = recipient {
                count(recipient, MessageState::Dead.to_wire(), -1);
            }
        }
        Event::Purged { subject, .. } => {
            let purged = MessageState::Purged.to_wire();
            let recipient = transaction
                .prepare_cached(
                    "UPDATE messages SET state = ?2 WHERE seq = ?1 RETURNING recipient",
                )?
                .query_row(params![number(subject.seq.0), purged], recipient)
                .optional()?;
            if let Some(recipient) = recipient {
                count(recipient.clone(), MessageState::Dead.to_wire(), -1);
                count(recipient, purged, 1);
            }
        }
        Event::QueuePaused { queue, .. } => fact(transaction, &format!("queue/{queue}"), record)?,
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

fn recipient(row: &rusqlite::Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}

fn accept(
    transaction: &Transaction<'_>,
    accepted: &Accepted,
    record: &Record,
) -> Result<(), Error> {
    let is_task = accepted.kind == MessageType::Delegation;
    transaction
        .prepare_cached(
            "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, ?8, 1, ?9, NULL, ?10)",
        )?
        .execute(params![
            number(accepted.subject.seq.0),
            &accepted.subject.id.as_u128().to_be_bytes()[..],
            accepted.sender.as_str(),
            accepted.to.to_string(),
            MessageState::Queued.to_wire(),
            accepted.to.to_string(),
            number(accepted.at.0),
            number(accepted.deadline.0),
            &record.body[..],
            is_task.then(|| TaskState::Submitted.to_wire())
        ])?;
    if let Some(numbered) = &accepted.numbered {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO numbers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                accepted.sender.as_str(),
                numbered.producer.as_str(),
                number(numbered.number % WINDOW),
                number(numbered.number),
                &accepted.subject.id.as_u128().to_be_bytes()[..],
                &accepted.digest.0[..],
                number(accepted.at.0),
                number(accepted.deadline.0),
            ])?;
    }
    Ok(())
}

fn moved(
    transaction: &Transaction<'_>,
    subject: Subject,
    state: MessageState,
    hold: Option<Hold>,
    queue: Option<&Recipient>,
) -> Result<(), Error> {
    transaction
        .prepare_cached(
            "UPDATE messages SET state = ?2, queue = coalesce(?3, queue), task = task * 0 + ?4
             WHERE seq = ?1",
        )?
        .execute(params![
            number(subject.seq.0),
            state.to_wire(),
            queue.map(ToString::to_string),
            task::of_message(state, hold).to_wire()
        ])?;
    Ok(())
}

fn fact(transaction: &Transaction<'_>, subject: &str, record: &Record) -> Result<(), Error> {
    transaction
        .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            subject,
            record.kind,
            record.version,
            &record.body[..],
            sum::of_fact(subject, record)
        ])?;
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
        | Event::DeliveryFailed { at, .. }
        | Event::Parked { at, .. }
        | Event::Redriven { at, .. }
        | Event::Purged { at, .. }
        | Event::QueuePaused { at, .. }
        | Event::TaskAsked { at, .. }
        | Event::TaskAnswered { at, .. }
        | Event::TaskStopped { at, .. }
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
