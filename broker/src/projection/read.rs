//! What is asked of the rows.

use rusqlite::{Connection, OptionalExtension, params};

use broker_proto::{
    AgentName, ContentHash, Counters, DeadLetter, MessageId, MessageInfo, MessageState, Numbered,
    ProducerName, Receipt, Recipient, Sender, TaskState, WallTime,
};

use super::{
    Error, Projection,
    fold::{ACCEPTED, content_subject, number, steps},
    sum,
    trials::trials,
};
use crate::{
    core::{
        Accepted, Earlier, Event, Finished,
        queue::{Body, Digest, Seq, WINDOW},
        tree::Parent,
    },
    journal::{BatchNo, Record, record},
};

/// One message as its rows know it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its deadline is that of its present life.
    pub accepted: Accepted,
    /// Which life that is, from 1 (I-27).
    pub generation: u32,
    pub state: MessageState,
    pub queue: String,
    pub finished: Option<Finished>,
    /// For a delegation.
    pub task: Option<TaskState>,
}

/// One step in a message's life: the event, and its place in the journal.
#[derive(Debug, Clone)]
pub struct Step {
    pub batch: BatchNo,
    pub place: u32,
    pub event: Event,
}

/// Which messages a list shows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// All when empty.
    pub states: Vec<MessageState>,
    /// Only tasks, in these states; all of them when empty.
    pub tasks: Option<Vec<TaskState>>,
    pub to: Option<Recipient>,
    pub sender: Option<Sender>,
    /// Only messages before this one.
    pub before: Option<Seq>,
    pub limit: u32,
}

/// Which dead letters a list shows.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    pub to: Option<Recipient>,
    /// Only letters before this one.
    pub before: Option<Seq>,
    pub limit: u32,
}

/// Newest first; `next` continues it.
#[derive(Debug, Clone)]
pub struct Page {
    pub rows: Vec<Row>,
    pub next: Option<Seq>,
}

/// How far back a message sent again is known (I-7). Every message is one key, and its number says how many came since:
/// so the keys are bounded without being counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub since: WallTime,
    /// From here on whatever the number of keys.
    pub surely: WallTime,
    /// Keys at most, before that.
    pub keys: u64,
}

/// What a restart loads beside the lives of what is alive.
#[derive(Debug, Default)]
pub struct Living {
    pub last_seq: Seq,
    /// What was accepted for each recipient, and what of it has ended.
    pub counters: Vec<(Recipient, Counters)>,
    /// How far each bulk sender has counted.
    pub producers: Vec<(Sender, ProducerName, u64)>,
}

/// Messages in one piece of what a restart loads.
const PIECE: usize = 1024;

/// Columns of a row, in the order in which [`row`] reads them.
pub(super) const COLUMNS: &str = "accepted, state, queue, finished, deadline, generation, task";

impl Projection {
    /// The highest broker time in the rows (I-23).
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn broker_time(&self) -> Result<WallTime, Error> {
        self.reader
            .call(|connection| {
                let time: i64 =
                    connection.query_row("SELECT broker_time FROM mark", [], |row| row.get(0))?;
                Ok(WallTime(u64::try_from(time).unwrap_or(0)))
            })
            .await
    }

    /// Gives everything alive as of `head` to `take`, as events in their order, and returns the rest. They come
    /// in pieces: all of them at once would be twice the state.
    ///
    /// # Errors
    /// [`Error::Ahead`] when these rows know more than the journal has kept, [`Error::Damaged`] when they do not add up:
    /// then what was given counts for nothing.
    pub async fn living(
        &self,
        head: BatchNo,
        mut take: impl FnMut(&Event),
    ) -> Result<Living, Error> {
        let applied = self.applied();
        if applied > head {
            return Err(Error::Ahead { applied, head });
        }
        self.at_least(head).await?;
        let mut piece = self.reader.call(|connection| facts(connection)).await?;
        let mut sum = piece.sum;
        while let Some(after) = piece.next {
            // The next piece is read while this one is taken.
            let reading = self.reader.call(move |connection| lives(connection, after));
            let taking = async { piece.events.iter().for_each(&mut take) };
            let (next, ()) = tokio::join!(reading, taking);
            piece = next?;
            sum = sum::plus(sum, piece.sum);
        }
        piece.events.iter().for_each(&mut take);
        self.reader.call(move |connection| rest(connection, sum)).await
    }

    /// Who sent a message of this id, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn senders(&self, id: MessageId, batch: BatchNo) -> Result<Vec<Sender>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT DISTINCT sender FROM messages WHERE id = ?1 ORDER BY sender",
                )?;
                let names = statement.query_map([key(id)], |row| row.get::<_, String>(0))?;
                let sender = |name: String| Sender::parse(&name).map_err(|_| Error::Damaged);
                names.map(|name| sender(name?)).collect()
            })
            .await
    }

    /// The newest message of this sender and id, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn find(
        &self,
        sender: Sender,
        id: MessageId,
        batch: BatchNo,
    ) -> Result<Option<Row>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let sql = format!(
                    "SELECT {COLUMNS} FROM messages WHERE id = ?1 AND sender = ?2
                     ORDER BY seq DESC LIMIT 1"
                );
                let mut statement = connection.prepare_cached(&sql)?;
                statement
                    .query_row(params![key(id), sender.as_str()], columns)
                    .optional()?
                    .map(row)
                    .transpose()
            })
            .await
    }

    /// The newest message of this id that this agent was given, as of `batch` (I-36).
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn given(
        &self,
        agent: AgentName,
        id: MessageId,
        batch: BatchNo,
    ) -> Result<Option<Parent>, Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| given(connection, &agent, id)).await
    }

    /// How far a bulk sender has counted.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn highest_number(
        &self,
        sender: Sender,
        producer: ProducerName,
    ) -> Result<u64, Error> {
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT max(number) FROM numbers WHERE sender = ?1 AND producer = ?2",
                )?;
                let named = params![sender.as_str(), producer.as_str()];
                let highest: Option<i64> = statement.query_row(named, |row| row.get(0))?;
                Ok(highest.and_then(|highest| u64::try_from(highest).ok()).unwrap_or(0))
            })
            .await
    }

    /// What a bulk sender sent before under this number (I-8).
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn counted(
        &self,
        sender: Sender,
        numbered: Numbered,
    ) -> Result<Option<Earlier>, Error> {
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT id, digest, accepted_at, deadline FROM numbers
                     WHERE sender = ?1 AND producer = ?2 AND slot = ?3 AND number = ?4",
                )?;
                let (slot, nr) = (number(numbered.number % WINDOW), number(numbered.number));
                let named = params![sender.as_str(), numbered.producer.as_str(), slot, nr];
                let found: Option<([u8; 16], [u8; 32], i64, i64)> = statement
                    .query_row(named, |row| {
                        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                    })
                    .optional()?;
                Ok(found.map(|(id, digest, accepted_at, deadline)| Earlier {
                    digest: Digest(digest),
                    receipt: Receipt {
                        message_id: MessageId::from_u128(u128::from_be_bytes(id)),
                        is_duplicate: true,
                        accepted_at: wall(accepted_at),
                        deadline: wall(deadline),
                    },
                }))
            })
            .await
    }

    /// A message that this sender sent before, in the window (I-7).
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn earlier(
        &self,
        sender: Sender,
        id: MessageId,
        window: Window,
    ) -> Result<Option<Earlier>, Error> {
        let accepted: Option<Vec<u8>> = self
            .reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT accepted FROM messages WHERE id = ?1 AND sender = ?2 AND accepted_at >= ?3
                     AND (accepted_at >= ?4 OR seq > (SELECT max(seq) FROM messages) - ?5)
                     ORDER BY seq DESC LIMIT 1",
                )?;
                let found = statement
                    .query_row(
                        params![
                            key(id),
                            sender.as_str(),
                            number(window.since.0),
                            number(window.surely.0),
                            number(window.keys)
                        ],
                        |row| row.get(0),
                    );
                Ok(found.optional()?)
            })
            .await?;
        let Some(accepted) = accepted.map(accepted_of).transpose()? else { return Ok(None) };
        Ok(Some(Earlier {
            digest: accepted.digest,
            receipt: Receipt {
                message_id: id,
                is_duplicate: true,
                accepted_at: accepted.at,
                deadline: accepted.deadline,
            },
        }))
    }

    /// The highest id this sender has used.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn newest(&self, sender: Sender) -> Result<Option<MessageId>, Error> {
        let found: Option<Vec<u8>> = self
            .reader
            .call(move |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT newest FROM senders WHERE sender = ?1")?;
                Ok(statement.query_row([sender.as_str()], |row| row.get(0)).optional()?)
            })
            .await?;
        match found {
            None => Ok(None),
            Some(id) => {
                let id = id.try_into().map_err(|_| Error::Damaged)?;
                Ok(Some(MessageId::from_u128(u128::from_be_bytes(id))))
            }
        }
    }

    /// The lease that ended a message (I-19), as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn ended(&self, seq: Seq, batch: BatchNo) -> Result<Option<u32>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT ended_epoch FROM messages WHERE seq = ?1")?;
                let found: Option<Option<u32>> =
                    statement.query_row([number(seq.0)], |row| row.get(0)).optional()?;
                Ok(found.flatten())
            })
            .await
    }

    /// Where an uploaded part is stored.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn content(&self, hash: ContentHash, batch: BatchNo) -> Result<Option<Body>, Error> {
        self.at_least(batch).await?;
        let stored = self
            .reader
            .call(move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT kind, version, body FROM facts WHERE subject = ?1")?;
                Ok(statement.query_row([content_subject(hash)], stored).optional()?)
            })
            .await?;
        match stored.map(|stored| event_of(&stored)).transpose()? {
            Some(Event::ContentStored { body, .. }) => Ok(Some(body)),
            _ => Ok(None),
        }
    }

    /// A message as it was accepted, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn accepted(&self, seq: Seq, batch: BatchNo) -> Result<Option<Accepted>, Error> {
        self.at_least(batch).await?;
        let accepted: Option<Vec<u8>> = self
            .reader
            .call(move |connection| {
                let mut statement =
                    connection.prepare_cached("SELECT accepted FROM messages WHERE seq = ?1")?;
                Ok(statement.query_row([number(seq.0)], |row| row.get(0)).optional()?)
            })
            .await?;
        accepted.map(accepted_of).transpose()
    }

    /// The life of a message so far, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn life(&self, seq: Seq, batch: BatchNo) -> Result<Vec<Step>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT accepted, life, finished FROM messages WHERE seq = ?1",
                )?;
                let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                let found = statement.query_row([number(seq.0)], columns).optional()?;
                let Some((accepted, life, finished)) = found else { return Ok(Vec::new()) };
                let steps = steps(accepted, life, finished)?.into_iter();
                let steps = steps.filter(|(at, ..)| *at <= batch);
                steps
                    .map(|(batch, place, record)| {
                        Ok(Step { batch, place, event: event_of(&record)? })
                    })
                    .collect()
            })
            .await
    }

    /// One page of messages, newest first, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn list(&self, filter: Filter, batch: BatchNo) -> Result<Page, Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| list(connection, &filter)).await
    }
}

impl Projection {
    /// These messages, in this order, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn rows(&self, seqs: Vec<Seq>, batch: BatchNo) -> Result<Vec<Row>, Error> {
        self.at_least(batch).await?;
        self.reader
            .call(move |connection| {
                let sql = format!("SELECT {COLUMNS} FROM messages WHERE seq = ?1");
                let mut statement = connection.prepare_cached(&sql)?;
                let mut rows = Vec::with_capacity(seqs.len());
                for seq in seqs {
                    let found = statement.query_row([number(seq.0)], columns).optional()?;
                    rows.extend(found.map(row).transpose()?);
                }
                Ok(rows)
            })
            .await
    }

    /// One page of dead letters and how often each was delivered, newest first, as of `batch`; and where the next page
    /// begins.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn letters(
        &self,
        filter: LetterFilter,
        batch: BatchNo,
    ) -> Result<(Vec<DeadLetter>, Option<Seq>), Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| letters(connection, &filter)).await
    }

    /// A dead letter with its whole chain of errors, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn letter(&self, row: Row, batch: BatchNo) -> Result<DeadLetter, Error> {
        let life = self.life(row.accepted.subject.seq, batch).await?;
        let (trials, deliveries) = trials(life.iter().map(|step| &step.event));
        Ok(DeadLetter { info: row.info(), deliveries, trials })
    }
}

fn letters(
    connection: &Connection,
    filter: &LetterFilter,
) -> Result<(Vec<DeadLetter>, Option<Seq>), Error> {
    let limit = filter.limit.clamp(1, 1000) as usize;
    let sql = format!(
        "SELECT {COLUMNS}, life FROM messages
         WHERE state = 8 AND seq < ?1 AND (?2 IS NULL OR recipient = ?2) ORDER BY seq DESC LIMIT ?3"
    );
    let before = filter.before.map_or(i64::MAX, |seq| number(seq.0));
    let to = filter.to.as_ref().map(ToString::to_string);
    let mut statement = connection.prepare_cached(&sql)?;
    let most = number(limit as u64 + 1);
    let found = statement.query_map(params![before, to, most], |row| {
        Ok((columns(row)?, row.get::<_, Vec<u8>>(7)?))
    })?;
    let mut letters = Vec::new();
    let mut seqs = Vec::new();
    for found in found {
        let (columns, life) = found?;
        let steps = steps(columns.0.clone(), life, columns.3.clone())?;
        let deliveries = steps.iter().filter(|(_, _, step)| step.kind == record::LEASED).count();
        let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
        let row = row(columns)?;
        seqs.push(row.accepted.subject.seq);
        letters.push(DeadLetter { info: row.info(), deliveries, trials: Vec::new() });
    }
    let has_more = letters.len() > limit;
    letters.truncate(limit);
    Ok((letters, has_more.then(|| seqs[limit - 1])))
}

impl Row {
    /// The row as lists show it.
    #[must_use]
    pub fn info(self) -> MessageInfo {
        let Self { accepted, generation, state, queue, finished, task: _ } = self;
        let queue = if finished.is_some() { None } else { Recipient::parse(&queue).ok() };
        let copies = finished.as_ref().map_or(0, |done| done.copies);
        let mut correlation = accepted.correlation;
        correlation.hops += generation.saturating_sub(1);
        let (finished_at, summary, failure) =
            finished.map_or((None, None, None), |done| (Some(done.at), done.summary, done.failure));
        MessageInfo {
            id: accepted.subject.id,
            from: accepted.sender,
            to: accepted.to,
            kind: accepted.kind,
            priority: accepted.priority,
            state,
            accepted_at: accepted.at,
            deadline: accepted.deadline,
            finished_at,
            queue,
            size_bytes: accepted.body.size_bytes,
            generation,
            summary,
            failure,
            session: accepted.session,
            labels: accepted.labels,
            copies,
            correlation,
        }
    }
}

/// Some of what a restart loads, and where to go on.
pub(super) struct Piece {
    events: Vec<Event>,
    /// Of the rows it was read from.
    sum: i64,
    next: Option<Seq>,
}

/// What is known of models, tokens and roles.
fn facts(connection: &Connection) -> Result<Piece, Error> {
    let mut facts = connection.prepare(
        // Around the contents, of which there may be as many as were ever stored (I-34): `0` follows `/`.
        "SELECT kind, version, body, subject FROM facts WHERE subject < 'content/'
         UNION ALL SELECT kind, version, body, subject FROM facts WHERE subject >= 'content0'",
    )?;
    let mut piece = Piece { events: Vec::new(), sum: 0, next: Some(Seq(0)) };
    let mut rows = facts.query([])?;
    while let Some(row) = rows.next()? {
        let (record, subject) = (stored(row)?, row.get::<_, String>(3)?);
        piece.sum = sum::plus(piece.sum, sum::of_fact(&subject, &record));
        piece.events.push(event_of(&record)?);
    }
    Ok(piece)
}

/// The lives of some messages behind `after`: of the living, and of the dead, who may live again.
fn lives(connection: &Connection, after: Seq) -> Result<Piece, Error> {
    let mut messages = connection.prepare_cached(
        "SELECT seq, accepted, life, finished FROM messages
         WHERE (finished IS NULL OR state = 8) AND seq > ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut rows = messages.query(params![number(after.0), PIECE as i64])?;
    let mut piece = Piece { events: Vec::with_capacity(2 * PIECE), sum: 0, next: None };
    let (mut many, mut seq) = (0, 0);
    while let Some(row) = rows.next()? {
        seq = u64::try_from(row.get::<_, i64>(0)?).map_err(|_| Error::Damaged)?;
        let (events, sum) = life(seq, row.get(1)?, row.get(2)?, row.get(3)?)?;
        piece.events.extend(events);
        piece.sum = sum::plus(piece.sum, sum);
        many += 1;
    }
    piece.next = (many == PIECE).then_some(Seq(seq));
    Ok(piece)
}

/// The events of a row, and their sum.
fn life(
    seq: u64,
    accepted: Vec<u8>,
    life: Vec<u8>,
    finished: Option<Vec<u8>>,
) -> Result<(Vec<Event>, i64), Error> {
    let (mut events, mut sum) = (Vec::new(), 0);
    for (batch, place, record) in steps(accepted, life, finished)? {
        sum = sum::plus(sum, sum::of_event(seq, batch.0, place.into(), &record));
        events.push(event_of(&record)?);
    }
    Ok((events, sum))
}

/// What a restart loads beside lives; refused unless the rows it has loaded add up to what the fold has written (I-32).
fn rest(connection: &Connection, loaded: i64) -> Result<Living, Error> {
    let (last, wanted): (i64, i64) =
        connection.query_row("SELECT last_seq, sum FROM mark", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let last_seq = Seq(u64::try_from(last).map_err(|_| Error::Damaged)?);
    let (counters, producers) = (counters(connection)?, producers(connection)?);
    if loaded != wanted {
        return Err(Error::Damaged);
    }
    Ok(Living { last_seq, counters, producers })
}

/// Looks at everything that a restart loads.
pub(super) fn check_living(connection: &Connection) -> Result<(), Error> {
    let mut piece = facts(connection)?;
    let mut sum = piece.sum;
    while let Some(after) = piece.next {
        piece = lives(connection, after)?;
        sum = sum::plus(sum, piece.sum);
    }
    rest(connection, sum).map(|_| ())
}

/// Compares each message with its own steps, and its columns with its records; gives how many steps there are.
pub(super) fn check_messages(connection: &Connection) -> Result<u64, Error> {
    let sql = format!(
        "SELECT {COLUMNS}, seq, id, sender, accepted_at, ended_epoch, life, sum FROM messages"
    );
    let mut messages = connection.prepare(&sql)?;
    let mut rows = messages.query([])?;
    let mut count = 0;
    while let Some(found) = rows.next()? {
        let said = columns(found)?;
        let (accepted, finished) = (said.0.clone(), said.3.clone());
        let seq: i64 = found.get(7)?;
        let (events, sum) = life(seq.cast_unsigned(), accepted, found.get(12)?, finished)?;
        count += events.len() as u64;
        let said = row(said)?;
        let first = matches!(events.first(), Some(Event::Accepted(_)));
        let accepted = &said.accepted;
        let is_same = first
            && sum == found.get::<_, i64>(13)?
            && seq == number(accepted.subject.seq.0)
            && found.get::<_, Vec<u8>>(8)? == key(accepted.subject.id)
            && found.get::<_, String>(9)? == accepted.sender.as_str()
            && found.get::<_, i64>(10)? == number(accepted.at.0)
            && said
                .finished
                .as_ref()
                .is_none_or(|done| done.state == said.state || said.state == MessageState::Purged)
            && found.get::<_, Option<u32>>(11)? == said.finished.as_ref().map(|done| done.epoch);
        if !is_same {
            return Err(Error::Damaged);
        }
    }
    Ok(count)
}

/// How far each bulk sender has counted.
fn producers(connection: &Connection) -> Result<Vec<(Sender, ProducerName, u64)>, Error> {
    let mut statement = connection
        .prepare("SELECT sender, producer, max(number) FROM numbers GROUP BY sender, producer")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    found
        .map(|row| {
            let (sender, producer, highest): (String, String, i64) = row?;
            let sender = Sender::parse(&sender).map_err(|_| Error::Damaged)?;
            let producer = ProducerName::parse(&producer).map_err(|_| Error::Damaged)?;
            Ok((sender, producer, u64::try_from(highest).unwrap_or(0)))
        })
        .collect()
}

fn counters(connection: &Connection) -> Result<Vec<(Recipient, Counters)>, Error> {
    let mut statement =
        connection.prepare("SELECT recipient, state, messages FROM counters ORDER BY recipient")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i32>(1)?, row.get::<_, i64>(2)?))
    })?;
    let mut all: Vec<(Recipient, Counters)> = Vec::new();
    for row in rows {
        let (recipient, state, messages) = row?;
        let recipient = Recipient::parse(&recipient).map_err(|_| Error::Damaged)?;
        if all.last().is_none_or(|(last, _)| *last != recipient) {
            all.push((recipient, Counters::default()));
        }
        let Some((_, counters)) = all.last_mut() else { continue };
        let counter = match MessageState::from_wire(state) {
            Some(state) => counters.of(state),
            None if state == ACCEPTED => &mut counters.accepted,
            None => return Err(Error::Damaged),
        };
        *counter = u64::try_from(messages).map_err(|_| Error::Damaged)?;
    }
    Ok(all)
}

fn given(
    connection: &Connection,
    agent: &AgentName,
    id: MessageId,
) -> Result<Option<Parent>, Error> {
    let mut named = connection.prepare_cached(
        "SELECT accepted, life, finished FROM messages WHERE id = ?1 ORDER BY seq DESC",
    )?;
    let found = named.query_map([key(id)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for found in found {
        let (accepted, life, finished): (Vec<u8>, Vec<u8>, Option<Vec<u8>>) = found?;
        for (_, _, record) in steps(accepted.clone(), life, finished)? {
            if matches!(event_of(&record)?, Event::Leased { agent: to, .. } if to == *agent) {
                return Ok(Some(accepted_of(accepted)?.as_parent()));
            }
        }
    }
    Ok(None)
}

fn list(connection: &Connection, filter: &Filter) -> Result<Page, Error> {
    let limit = filter.limit.clamp(1, 1000) as usize;
    let states = if filter.states.is_empty() { &MessageState::ALL[..] } else { &filter.states[..] };
    let states: Vec<String> = states.iter().map(|state| state.to_wire().to_string()).collect();
    let tasks = filter.tasks.as_ref().map_or_else(String::new, |tasks| {
        let states: Vec<String> = tasks.iter().map(|state| state.to_wire().to_string()).collect();
        let is_in = format!(" AND task IN ({})", states.join(","));
        format!("AND task IS NOT NULL{}", if tasks.is_empty() { "" } else { &is_in })
    });
    let sql = format!(
        "SELECT {COLUMNS} FROM messages WHERE seq < ?1 AND (?2 IS NULL OR recipient = ?2)
         AND (?4 IS NULL OR sender = ?4)
         AND state IN ({}) {} ORDER BY seq DESC LIMIT ?3",
        states.join(","),
        tasks
    );
    let before = filter.before.map_or(i64::MAX, |seq| number(seq.0));
    let to = filter.to.as_ref().map(ToString::to_string);
    let mut statement = connection.prepare_cached(&sql)?;
    let sender = filter.sender.as_ref().map(Sender::as_str);
    let limits = params![before, to, number(limit as u64 + 1), sender];
    let found = statement.query_map(limits, columns)?;
    let mut rows = Vec::new();
    for columns in found {
        rows.push(row(columns?)?);
    }
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|row| row.accepted.subject.seq);
    Ok(Page { rows, next })
}

pub(super) type Columns = (Vec<u8>, i32, String, Option<Vec<u8>>, i64, u32, Option<i32>);

pub(super) fn columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
}

pub(super) fn row(columns: Columns) -> Result<Row, Error> {
    let (accepted, state, queue, finished, deadline, generation, task) = columns;
    let finished = match finished.map(|body| event_of(&record::finished(body))).transpose()? {
        Some(Event::Finished(finished)) => Some(*finished),
        Some(_) => return Err(Error::Damaged),
        None => None,
    };
    let state = MessageState::from_wire(state).ok_or(Error::Damaged)?;
    let deadline = WallTime(u64::try_from(deadline).unwrap_or(0));
    let accepted = Accepted { deadline, ..accepted_of(accepted)? };
    Ok(Row {
        accepted,
        generation,
        state,
        queue,
        finished,
        task: task.and_then(TaskState::from_wire),
    })
}

fn accepted_of(body: Vec<u8>) -> Result<Accepted, Error> {
    match event_of(&record::accepted(body))? {
        Event::Accepted(accepted) => Ok(*accepted),
        _ => Err(Error::Damaged),
    }
}

pub(super) fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<Record> {
    let body: Vec<u8> = row.get(2)?;
    Ok(Record { kind: row.get(0)?, version: row.get(1)?, body: body.into() })
}

pub(super) fn event_of(record: &Record) -> Result<Event, Error> {
    record::decode(record).ok().flatten().ok_or(Error::Damaged)
}

fn wall(stored: i64) -> WallTime {
    WallTime(u64::try_from(stored).unwrap_or(0))
}

fn key(id: MessageId) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}
