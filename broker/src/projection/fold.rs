//! The fold: what some batches change, gathered first and written once.
//!
//! A message that was accepted, leased and settled within one fold is one row written once, and a fact that changed a
//! hundred times is one row too: writing is what a fold costs.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use broker_proto::{MessageId, MessageState, MessageType, Recipient, TaskState, WallTime};

use super::{
    Error, handoff, package, session, sum,
    usage::{Counted, Facts},
};
use crate::{
    core::{
        self, Accepted, Event, Subject,
        queue::{Hold, WINDOW},
        task,
    },
    journal::{BatchNo, Frame, Record, record},
};

/// Stands for acceptance among the states of the counters.
pub(super) const ACCEPTED: i32 = 0;

/// Rows as they will be, by what they are about.
#[derive(Debug, Default)]
struct Changes {
    messages: BTreeMap<u64, Change>,
    sessions: session::Changes,
    facts: Facts,
    counted: Counted,
    newest: WallTime,
}

/// What becomes of one message. What is `None` stays as it is.
#[derive(Debug, Default)]
struct Change {
    seq: u64,
    accepted: Option<(Box<Accepted>, Bytes)>,
    state: Option<MessageState>,
    queue: Option<String>,
    /// The state of the task it carries, if it carries one.
    task: Option<TaskState>,
    /// Another life: its deadline and generation. What is stored of its end, and its queue, no longer count.
    redriven: Option<(WallTime, u32)>,
    ended_epoch: Option<u32>,
    finished: Option<Bytes>,
    /// What it adds to its recipient's counters.
    counts: Vec<(i32, i64)>,
    /// Its steps, in order: see [`steps`]; and their sums, added.
    life: Vec<u8>,
    sum: i64,
}

/// A record and where the journal has it.
struct Place<'a> {
    batch: BatchNo,
    place: u32,
    record: &'a Record,
}

/// Folds frames in one transaction, and stores how far it has come with them.
pub(super) fn frames(connection: &mut Connection, frames: &[Frame]) -> Result<(), Error> {
    let mut changes = Changes::default();
    for frame in frames {
        for (place, stored) in (0u32..).zip(&frame.records) {
            let batch = frame.number;
            let event = record::decode(stored).map_err(|source| Error::Record { batch, source })?;
            match event {
                // Each step of one over a set as if it had a record of its own.
                Some(event @ (Event::FannedOut(_) | Event::SliceMoved(_))) => {
                    event.each(|step| {
                        let record = &record::encode(step);
                        fold(&mut changes, &Place { batch, place, record }, step.clone());
                    });
                }
                Some(event) => fold(&mut changes, &Place { batch, place, record: stored }, event),
                None => {}
            }
        }
    }
    let transaction = connection.transaction()?;
    let Changes { messages, mut facts, sessions, counted, newest } = changes;
    counted.write(&transaction, &mut facts)?;
    let accepted = messages.iter().filter(|(_, change)| change.accepted.is_some());
    let last_seq = accepted.map(|(seq, _)| *seq).max().unwrap_or(0);
    let mut counters = BTreeMap::<(String, i32), i64>::new();
    for change in messages.values() {
        let Some(recipient) = write(&transaction, change)? else { continue };
        for (state, count) in &change.counts {
            *counters.entry((recipient.clone(), *state)).or_default() += count;
        }
    }
    for (sender, newest) in newest_ids(&messages) {
        transaction
            .prepare_cached(
                "INSERT INTO senders VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET newest = max(newest, excluded.newest)",
            )?
            .execute(params![sender, &newest.as_u128().to_be_bytes()[..]])?;
    }
    for ((recipient, state), change) in counters {
        transaction
            .prepare_cached(
                "INSERT INTO counters VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET messages = messages + excluded.messages",
            )?
            .execute(params![recipient, state, change])?;
    }
    for (subject, record) in &facts {
        let Some(record) = record else {
            transaction
                .prepare_cached("DELETE FROM facts WHERE subject = ?1")?
                .execute([subject])?;
            continue;
        };
        transaction
            .prepare_cached("INSERT OR REPLACE INTO facts VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![
                subject,
                record.kind,
                record.version,
                &record.body[..],
                sum::of_fact(subject, record)
            ])?;
    }
    sessions.write(&transaction)?;
    if let Some(last) = frames.last() {
        transaction
            .prepare_cached(
                "UPDATE mark SET applied = ?1, broker_time = max(broker_time, ?2),
                 last_seq = max(last_seq, ?3), sum = (sum + ?4) % 1099511627776",
            )?
            .execute(params![
                number(last.number.0),
                number(newest.0),
                number(last_seq),
                sum_of_came(&messages)
            ])?;
        sum::seal(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The sum of the rows that come and that a restart would load: of what lives, and of the dead.
fn sum_of_came(messages: &BTreeMap<u64, Change>) -> i64 {
    let came = messages.values().filter(|change| change.accepted.is_some());
    let loaded = came.filter(|it| it.finished.is_none() || it.state == Some(MessageState::Dead));
    loaded.fold(0, |sum, change| sum::plus(sum, change.sum))
}

/// The highest id of each sender among those accepted.
fn newest_ids(messages: &BTreeMap<u64, Change>) -> BTreeMap<&str, MessageId> {
    let mut newest = BTreeMap::new();
    for (accepted, _) in messages.values().filter_map(|change| change.accepted.as_ref()) {
        let id = accepted.subject.id;
        newest.entry(accepted.sender.as_str()).and_modify(|it| *it = id.max(*it)).or_insert(id);
    }
    newest
}

fn fold(changes: &mut Changes, step: &Place<'_>, event: Event) {
    changes.newest = changes.newest.max(time_of(&event));
    match event {
        Event::Accepted(accepted) => {
            let change = changes.message(accepted.subject);
            change.state = Some(MessageState::Queued);
            change.queue = Some(accepted.to.to_string());
            change.counts.push((ACCEPTED, 1));
            change.task = Some(TaskState::Submitted);
            change.accepted = Some((accepted, step.record.body.clone()));
            change.add_kept(step);
        }
        Event::Routed { subject, queue, wait_until, .. } => {
            let state =
                if wait_until.is_some() { MessageState::Waiting } else { MessageState::Queued };
            moved(changes, step, subject, state, None, Some(&queue));
        }
        Event::Held { subject, queue, hold, .. } => {
            moved(changes, step, subject, MessageState::Waiting, Some(hold), Some(&queue));
        }
        Event::Parked { subject, queue, .. } => {
            let hold = Some(Hold::Parked);
            moved(changes, step, subject, MessageState::Waiting, hold, Some(&queue));
        }
        Event::Leased { subject, .. } => {
            moved(changes, step, subject, MessageState::Leased, None, None);
        }
        Event::AttemptFailed { subject, .. }
        | Event::DeliveryFailed { subject, .. }
        | Event::LeaseLost { subject, .. } => {
            moved(changes, step, subject, MessageState::Queued, None, None);
        }
        // The step that follows says where the message is; these are found in its life.
        Event::TaskAsked { subject, .. }
        | Event::TaskAnswered { subject, .. }
        | Event::TaskStopped { subject, .. } => changes.message(subject).add(step),
        Event::Finished(finished) => {
            let change = changes.message(finished.subject);
            change.state = Some(finished.state);
            change.task = Some(task::of_end(finished.state, finished.failure.as_ref()));
            change.ended_epoch = Some(finished.epoch);
            change.finished = Some(step.record.body.clone());
            change.counts.push((finished.state.to_wire(), 1));
            if finished.state == MessageState::Dead {
                // It may live again: then this end is not its last.
                change.add(step);
            } else {
                change.add_kept(step);
            }
        }
        Event::Redriven { subject, deadline, generation, .. } => {
            let change = changes.message(subject);
            change.state = Some(MessageState::Queued);
            change.task = Some(TaskState::Submitted);
            change.queue = change.accepted.as_ref().map(|(accepted, _)| accepted.to.to_string());
            change.redriven = Some((deadline, generation));
            (change.ended_epoch, change.finished) = (None, None);
            change.counts.push((MessageState::Dead.to_wire(), -1));
            change.add(step);
        }
        Event::Purged { subject, .. } => {
            let change = changes.message(subject);
            change.state = Some(MessageState::Purged);
            let purged = MessageState::Purged.to_wire();
            change.counts.extend([(MessageState::Dead.to_wire(), -1), (purged, 1)]);
            change.add(step);
        }
        Event::QueuePaused { ref queue, .. } => {
            fact(changes, format!("queue/{queue}"), step.record)
        }
        Event::ClockJumped { .. } => {}
        // Folded step by step.
        Event::FannedOut(_) | Event::SliceMoved(_) => {}
        Event::TreeChanged { root, tree, .. } => {
            let record = tree.is_some().then(|| step.record.clone());
            changes.facts.insert(format!("tree/{}", root.0), record);
        }
        Event::Session(event) => {
            if let core::session::Event::Changed { id, after, .. } = event.as_ref() {
                let record = after.is_some().then(|| step.record.clone());
                changes.facts.insert(session::subject(id), record);
            }
            changes.sessions.add(*event, step.record);
        }
        Event::RoleKnown { role, .. } => fact(changes, format!("role/{role}"), step.record),
        Event::RouteChanged { model, .. } => fact(changes, format!("route/{model}"), step.record),
        event @ Event::UsageChanged { .. } => changes.counted.totals(event),
        Event::Usage(event) => {
            let place = (step.batch, step.place);
            changes.counted.fold(&mut changes.facts, place, step.record, event);
        }
        Event::TokenChanged { agent, .. } => fact(changes, format!("token/{agent}"), step.record),
        Event::ContentStored { hash, .. } => fact(changes, content_subject(hash), step.record),
        Event::ContentForgotten { hash, .. } => {
            changes.facts.insert(content_subject(hash), None);
        }
        Event::Package(event) => package::fold(&mut changes.facts, &event, step.record),
        // Where it is, if it may be delivered: what is in hand or held for something else says so with its next step.
        Event::Redirected(redirected) => {
            let queue = Recipient::Model(redirected.to.clone());
            moved(changes, step, redirected.subject, MessageState::Queued, None, Some(&queue));
        }
        Event::Bridge(changed) => {
            let (bridge, is_open) = (&changed.bridge, changed.is_open);
            let record = is_open.then(|| step.record.clone());
            changes.facts.insert(format!("bridge/{}/{}", bridge.session, bridge.to), record);
        }
        Event::Handoff(event) => handoff::fold(&mut changes.facts, &event, step.record),
        Event::Ring(event) => fact(changes, format!("ring/{}", event.ring.role), step.record),
    }
}

impl Change {
    /// A step of its life.
    fn add(&mut self, step: &Place<'_>) {
        self.write_step(step, &step.record.body);
    }

    /// A step whose bytes its row keeps anyway.
    fn add_kept(&mut self, step: &Place<'_>) {
        self.write_step(step, &[]);
    }

    fn write_step(&mut self, step: &Place<'_>, body: &[u8]) {
        let sum = sum::of_event(self.seq, step.batch.0, step.place.into(), step.record);
        self.sum = sum::plus(self.sum, sum);
        self.life.extend_from_slice(&step.batch.0.to_le_bytes());
        self.life.extend_from_slice(&step.place.to_le_bytes());
        self.life.extend_from_slice(&step.record.kind.to_le_bytes());
        self.life.extend_from_slice(&step.record.version.to_le_bytes());
        self.life.extend_from_slice(&(body.len() as u32).to_le_bytes());
        self.life.extend_from_slice(body);
    }
}

impl Changes {
    fn message(&mut self, subject: Subject) -> &mut Change {
        let seq = subject.seq.0;
        self.messages.entry(seq).or_insert_with(|| Change { seq, ..Change::default() })
    }
}

pub(super) fn content_subject(hash: broker_proto::ContentHash) -> String {
    format!("content/{hash}")
}

fn moved(
    changes: &mut Changes,
    step: &Place<'_>,
    subject: Subject,
    state: MessageState,
    hold: Option<Hold>,
    queue: Option<&Recipient>,
) {
    let change = changes.message(subject);
    change.state = Some(state);
    change.task = Some(task::of_message(state, hold));
    if let Some(queue) = queue {
        change.queue = Some(queue.to_string());
    }
    change.add(step);
}

fn fact(changes: &mut Changes, subject: String, record: &Record) {
    changes.facts.insert(subject, Some(record.clone()));
}

/// Writes a message's row; says whose counters its counts go to, unless there is no such message.
fn write(transaction: &Transaction<'_>, change: &Change) -> Result<Option<String>, Error> {
    let Change { accepted, state, queue, task, redriven, ended_epoch, finished, life, sum, .. } =
        change;
    let seq = change.seq;
    let task = task.map(TaskState::to_wire);
    let state = state.map(MessageState::to_wire);
    let finished = finished.as_deref();
    let (deadline, generation) = redriven.unzip();
    if let Some((accepted, record)) = accepted {
        let recipient = accepted.to.to_string();
        transaction
            .prepare_cached(
                "INSERT INTO messages
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                number(seq),
                &accepted.subject.id.as_u128().to_be_bytes()[..],
                accepted.sender.as_str(),
                recipient,
                state,
                queue,
                number(accepted.at.0),
                ended_epoch,
                number(deadline.unwrap_or(accepted.deadline).0),
                generation.unwrap_or(1),
                &record[..],
                life,
                finished,
                task.filter(|_| accepted.kind == MessageType::Delegation),
                sum
            ])?;
        write_number(transaction, accepted)?;
        return Ok(Some(recipient));
    }
    let deadline = deadline.map(|deadline| number(deadline.0));
    // Rolled back whole on a failure, as the fold ends with it: so no copy of the pages is kept for this statement alone.
    let recipient = transaction
        .prepare_cached(
            "UPDATE OR ROLLBACK messages SET state = coalesce(?2, state),
             queue = coalesce(?3, iif(?7 IS NULL, queue, recipient)),
             ended_epoch = coalesce(?4, iif(?7 IS NULL, ended_epoch, NULL)),
             life = CAST(life || ?5 AS BLOB),
             finished = coalesce(?6, iif(?7 IS NULL, finished, NULL)),
             deadline = coalesce(?7, deadline), generation = coalesce(?8, generation),
             task = coalesce(task * 0 + ?9, task), sum = (sum + ?10) % 1099511627776 WHERE seq = ?1 RETURNING recipient",
        )?
        .query_row(
            params![
                number(seq),
                state,
                queue,
                ended_epoch,
                life,
                finished,
                deadline,
                generation,
                task,
                sum
            ],
            |row| row.get(0),
        )
        .optional()?;
    Ok(recipient)
}

/// The number of a bulk sender's message (I-8).
fn write_number(transaction: &Transaction<'_>, accepted: &Accepted) -> Result<(), Error> {
    let Some(numbered) = &accepted.numbered else { return Ok(()) };
    transaction
        .prepare_cached("INSERT OR REPLACE INTO numbers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
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
    Ok(())
}

/// The steps of a life, in order: batch u64, place u32, kind u16, version u16, length u32, all little endian, and the
/// record's bytes. Those of `accepted` and of `finished` are not repeated.
///
/// # Errors
/// [`Error::Damaged`] when they are not what a fold wrote.
pub(super) fn steps(
    accepted: Vec<u8>,
    life: Vec<u8>,
    finished: Option<Vec<u8>>,
) -> Result<Vec<(BatchNo, u32, Record)>, Error> {
    const HEADER: usize = 20;
    let (mut rest, mut steps) = (Bytes::from(life), Vec::new());
    let (accepted, finished) = (record::accepted(accepted), finished.map(record::finished));
    while !rest.is_empty() {
        if rest.len() < HEADER {
            return Err(Error::Damaged);
        }
        let (batch, place) = (BatchNo(rest.get_u64_le()), rest.get_u32_le());
        let (kind, version, length) = (rest.get_u16_le(), rest.get_u16_le(), rest.get_u32_le());
        let length = usize::try_from(length).map_err(|_| Error::Damaged)?;
        if rest.len() < length {
            return Err(Error::Damaged);
        }
        let body = rest.split_to(length);
        let kept = [Some(&accepted), finished.as_ref()].into_iter().flatten();
        let record = match kept.filter(|_| body.is_empty()).find(|kept| kept.kind == kind) {
            Some(kept) => kept.clone(),
            None => Record { kind, version, body },
        };
        steps.push((batch, place, record));
    }
    Ok(steps)
}

/// As a fold writes them whose row keeps the bytes of the first step and of the end.
#[cfg(test)]
pub(super) fn life_of(steps: &[(BatchNo, u32, Record)]) -> Vec<u8> {
    let mut change = Change::default();
    let kept = [record::accepted(Vec::new()).kind, record::finished(Vec::new()).kind];
    for (batch, place, record) in steps {
        let step = Place { batch: *batch, place: *place, record };
        if kept.contains(&record.kind) { change.add_kept(&step) } else { change.add(&step) }
    }
    change.life
}

fn time_of(event: &Event) -> WallTime {
    match event {
        Event::Accepted(accepted) => accepted.at,
        Event::Finished(finished) => finished.at,
        Event::Session(event) => event.at(),
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
        | Event::ClockJumped { at, .. }
        | Event::QueuePaused { at, .. }
        | Event::TaskAsked { at, .. }
        | Event::TaskAnswered { at, .. }
        | Event::TaskStopped { at, .. }
        | Event::RouteChanged { at, .. }
        | Event::UsageChanged { at, .. }
        | Event::TokenChanged { at, .. }
        | Event::RoleKnown { at, .. }
        | Event::TreeChanged { at, .. }
        | Event::ContentStored { at, .. }
        | Event::ContentForgotten { at, .. } => *at,
        Event::Package(event) => event.at(),
        Event::Handoff(event) => event.at(),
        Event::Bridge(changed) => changed.at,
        Event::Ring(event) => event.at,
        Event::SliceMoved(moved) => moved.at,
        Event::Redirected(redirected) => redirected.at,
        Event::Usage(event) => event.at(),
    }
}

/// SQLite counts in signed 64 bits; ours stay far below.
pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
