//! The rows of usage: the ledger, and what has been counted so far, folded by the rules' own code (`core::usage`).

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Transaction, params, types::Value};

use broker_proto::{LedgerFilter, LedgerLine, WallTime};

use super::{Error, Projection, fold::number};
use crate::{
    core::{
        Event,
        usage::{self, Call, Level, Meter, Scope, Subject},
    },
    journal::{BatchNo, Record, record},
};

/// What some batches count, gathered first and written once.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// In order; what each scope needs of them is below.
    events: Vec<Event>,
    /// By scope, the places of its events; `None`: what it had is forgotten.
    by_scope: BTreeMap<Scope, Vec<Option<usize>>>,
    lines: Vec<Line>,
}

/// A call's place in the journal, and its record.
#[derive(Debug)]
struct Line {
    batch: u64,
    place: u32,
    call: Box<Call>,
    record: Record,
}

/// Facts by what they are about; `None`: it is no more.
pub(super) type Facts = BTreeMap<String, Option<Record>>;

fn meter_subject(scope: &Scope) -> String {
    format!("meter/{scope}")
}

fn level_subject(subject: &Subject) -> String {
    format!("level/{}", subject.scope())
}

impl Counted {
    /// What was counted as totals, before every call was.
    pub(super) fn totals(&mut self, event: Event) {
        if let Event::UsageChanged { model, .. } = &event {
            let scope = Scope::Model(model.clone());
            self.keep(vec![scope], event);
        }
    }

    pub(super) fn fold(
        &mut self,
        facts: &mut Facts,
        (batch, place): (BatchNo, u32),
        stored: &Record,
        event: usage::Event,
    ) {
        let record = || Some(stored.clone());
        match &event {
            usage::Event::Counted(call) => self.lines.push(Line {
                batch: batch.0,
                place,
                call: call.clone(),
                record: stored.clone(),
            }),
            usage::Event::Forgotten { session, .. } => self.forget(facts, session),
            usage::Event::Reset { scope: Scope::Session(session), .. } => {
                self.forget(facts, session);
                return;
            }
            usage::Event::Reset { scope: Scope::Model(model), .. } => {
                facts.insert(level_subject(&Subject::Model(model.clone())), None);
            }
            usage::Event::LevelChanged(change) => {
                let is_news = change.to > Level::Healthy;
                facts.insert(level_subject(&change.subject), record().filter(|_| is_news));
            }
            usage::Event::Reserved(reservation) => {
                facts.insert(format!("reserved/{}", reservation.seq.0), record());
            }
            usage::Event::Released { seq, .. } => {
                facts.insert(format!("reserved/{}", seq.0), None);
            }
            usage::Event::PolicySet { .. } => {
                facts.insert("usage-policy".into(), record());
            }
            usage::Event::Reset { .. }
            | usage::Event::Holds { .. }
            | usage::Event::Said(_)
            | usage::Event::Metered { .. } => {}
        }
        self.keep(event.scopes(), Event::Usage(event));
    }

    fn keep(&mut self, scopes: Vec<Scope>, event: Event) {
        if scopes.is_empty() {
            return;
        }
        for scope in scopes {
            self.by_scope.entry(scope).or_default().push(Some(self.events.len()));
        }
        self.events.push(event);
    }

    fn forget(&mut self, facts: &mut Facts, session: &str) {
        self.by_scope.entry(Scope::Session(session.to_owned())).or_default().push(None);
        facts.insert(level_subject(&Subject::Session(session.to_owned())), None);
    }

    /// Writes the ledger, and gives the meters to the facts as they are from now on.
    pub(super) fn write(
        &self,
        transaction: &Transaction<'_>,
        facts: &mut Facts,
    ) -> Result<(), Error> {
        for (scope, places) in &self.by_scope {
            let subject = meter_subject(scope);
            let mut meter = Some(read_meter(transaction, &subject)?);
            for place in places {
                let event = place.and_then(|place| self.events.get(place));
                meter = event.map(|event| counted(meter.take().unwrap_or_default(), scope, event));
            }
            let record = meter.map(|meter| {
                let (scope, meter) = (scope.clone(), Box::new(meter));
                record::encode(&Event::Usage(usage::Event::Metered { scope, meter }))
            });
            facts.insert(subject, record);
        }
        for line in &self.lines {
            write_line(transaction, line)?;
        }
        Ok(())
    }
}

/// A meter after one event more.
fn counted(mut meter: Meter, scope: &Scope, event: &Event) -> Meter {
    match event {
        Event::UsageChanged { totals, .. } => meter.totals = (**totals).clone(),
        Event::Usage(event) => meter.apply(scope, event),
        _ => {}
    }
    meter
}

fn read_meter(connection: &Connection, subject: &str) -> Result<Meter, Error> {
    let found: Option<(u16, u16, Vec<u8>)> = connection
        .prepare_cached("SELECT kind, version, body FROM facts WHERE subject = ?1")?
        .query_row([subject], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((kind, version, body)) = found else { return Ok(Meter::default()) };
    let stored = Record { kind, version, body: body.into() };
    match record::decode(&stored) {
        Ok(Some(Event::Usage(usage::Event::Metered { meter, .. }))) => Ok(*meter),
        _ => Err(Error::Damaged),
    }
}

fn write_line(transaction: &Transaction<'_>, line: &Line) -> Result<(), Error> {
    let call = &line.call;
    transaction
        .prepare_cached(
            "INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            number(line.batch),
            line.place,
            number(call.at.0),
            call.model.as_str(),
            call.key,
            call.session,
            call.agent.as_ref().map(|agent| agent.as_str()),
            call.message.map(|id| id.as_u128().to_be_bytes().to_vec()),
            outcome(call),
            line.record.kind,
            line.record.version,
            &line.record.body[..]
        ])?;
    Ok(())
}

/// `done`, the class of its failure, or nothing where nobody said.
fn outcome(call: &Call) -> &'static str {
    match call.ended {
        usage::Ended::Unknown => "",
        usage::Ended::Done => "done",
        usage::Ended::Failed(class) => class.as_str(),
    }
}

/// Where a page of the ledger begins: before this record of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerPlace {
    pub batch: u64,
    pub place: u32,
}

/// Newest first; `next` continues it.
#[derive(Debug, Clone)]
pub struct LedgerPage {
    pub lines: Vec<LedgerLine>,
    pub next: Option<LedgerPlace>,
}

impl Projection {
    /// One page of the ledger, as of `batch`.
    ///
    /// # Errors
    /// [`Error`] when the rows cannot be read.
    pub async fn ledger(
        &self,
        filter: LedgerFilter,
        before: Option<LedgerPlace>,
        limit: u32,
        batch: BatchNo,
    ) -> Result<LedgerPage, Error> {
        self.at_least(batch).await?;
        self.reader.call(move |connection| ledger(connection, &filter, before, limit)).await
    }
}

fn ledger(
    connection: &Connection,
    filter: &LedgerFilter,
    before: Option<LedgerPlace>,
    limit: u32,
) -> Result<LedgerPage, Error> {
    let (mut sql, mut values) = (
        String::from("SELECT batch, place, kind, version, record FROM ledger WHERE 1"),
        Vec::new(),
    );
    let mut only = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            values.push(value);
        }
    };
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let time = |at: Option<WallTime>| at.map(|at| Value::Integer(number(at.0)));
    let id = filter.message.map(|id| Value::Blob(id.as_u128().to_be_bytes().to_vec()));
    only("model = ?", filter.model.as_ref().map(|model| Value::Text(model.to_string())));
    only("key = ?", text(&filter.key));
    only("session = ?", text(&filter.session));
    only("agent = ?", filter.agent.as_ref().map(|agent| Value::Text(agent.to_string())));
    only("message = ?", id);
    only("outcome = ?", text(&filter.outcome));
    only("at >= ?", time(filter.since));
    only("at < ?", time(filter.until));
    let place = before.map(|before| (number(before.batch), i64::from(before.place)));
    only("(batch, place) < (?", place.map(|(batch, _)| Value::Integer(batch)));
    if let Some((_, place)) = place {
        sql.push_str(", ?)");
        values.push(Value::Integer(place));
    }
    sql.push_str(" ORDER BY batch DESC, place DESC LIMIT ?");
    values.push(Value::Integer(i64::from(limit) + 1));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut page = LedgerPage { lines: Vec::new(), next: None };
    let mut last = LedgerPlace { batch: 0, place: 0 };
    while let Some(row) = rows.next()? {
        if page.lines.len() >= limit as usize {
            page.next = Some(last);
            break;
        }
        last = LedgerPlace { batch: row.get::<_, i64>(0)?.cast_unsigned(), place: row.get(1)? };
        let body: Vec<u8> = row.get(4)?;
        let stored = Record { kind: row.get(2)?, version: row.get(3)?, body: body.into() };
        match record::decode(&stored) {
            Ok(Some(Event::Usage(usage::Event::Counted(call)))) => page.lines.push(line(*call)),
            _ => return Err(Error::Damaged),
        }
    }
    Ok(page)
}

fn line(call: Call) -> LedgerLine {
    LedgerLine {
        outcome: outcome(&call).into(),
        at: call.at,
        source: call.source.as_str().into(),
        model: call.model,
        key: call.key,
        session: call.session,
        message: call.message,
        attempt: call.number,
        agent: call.agent,
        usage: call.usage,
        cost_usd: call.cost.map(usage::Nanos::usd),
        latency: call.latency,
        first_token: call.first_token,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use broker_proto::{LedgerFilter, ModelName, Usage, WallTime};

    use super::{
        super::tests::{AT, Log},
        LedgerPlace,
    };
    use crate::{
        app::rehearsal::{policy, soon},
        core::{
            self, Event, State,
            queue::Seq,
            usage::{
                self, Action, Amount, Call, Change, Ended, Level, ModelTotals, Nanos, Reservation,
                Scope, Source, Subject,
            },
        },
    };

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    fn counted(session: &str, tokens: u64) -> Event {
        let usage = Usage { input_tokens: Some(tokens), ..Usage::default() };
        let session = Some(session.to_owned());
        let ended = Ended::Done;
        let new = Call::new(WallTime(AT.0 + tokens), Source::Attempt, opus(), "KEY");
        Event::Usage(usage::Event::Counted(Box::new(Call { usage, session, ended, ..new })))
    }

    fn reserved(seq: u64) -> Event {
        let amount = Amount { requests: 1, tokens: 5, cost: Nanos(7) };
        let (model, key) = (opus(), "KEY".to_owned());
        Event::Usage(usage::Event::Reserved(Box::new(Reservation {
            seq: Seq(seq),
            at: AT,
            model,
            key,
            session: None,
            amount,
        })))
    }

    fn changed(to: Level) -> Event {
        Event::Usage(usage::Event::LevelChanged(Box::new(Change {
            at: AT,
            subject: Subject::Model(opus()),
            model: Some(opus()),
            from: Level::Healthy,
            to,
            cause: "5h".into(),
            reason: "1 of 2 5h".into(),
            action: Action::Log,
            diagnosis: Vec::new(),
        })))
    }

    /// Some of everything that a restart must know of usage, and some that it must not.
    fn history() -> Vec<Event> {
        let usage = |event| Event::Usage(event);
        let session = || "gone".to_owned();
        let totals = Box::new(ModelTotals { calls: 7, ..ModelTotals::default() });
        let overrides = BTreeMap::from([("warning".to_owned(), "60".to_owned())]);
        vec![
            // As calls were counted once.
            Event::UsageChanged { model: opus(), at: AT, totals },
            counted("kept", 10),
            counted("gone", 20),
            reserved(1),
            reserved(2),
            changed(Level::Warning),
            usage(usage::Event::Forgotten { session: session(), at: AT }),
            usage(usage::Event::Released { seq: Seq(1), at: AT }),
            usage(usage::Event::PolicySet { at: AT, overrides }),
            usage(usage::Event::Holds {
                session: session(),
                model: opus(),
                at: AT,
                tokens: 3,
                is_fresh: false,
            }),
            usage(usage::Event::Reset { scope: Scope::Key("KEY".into()), at: AT }),
            counted("kept", 30),
            usage(usage::Event::Reset { scope: Scope::Session(session()), at: AT }),
            changed(Level::Critical),
        ]
    }

    async fn loaded(log: &Log) -> State {
        let projection = log.folded().await;
        let mut state = State::new(policy());
        let head = log.writer.head();
        soon(projection.living(head, |event| core::apply(&mut state, event))).await.unwrap();
        state
    }

    #[tokio::test]
    async fn a_restart_knows_of_usage_what_was_counted_however_it_was_folded() {
        let mut whole = State::new(policy());
        history().iter().for_each(|event| core::apply(&mut whole, event));
        let want = format!("{:?}", whole.usage);

        let mut at_once = Log::new().await;
        at_once.append(&history()).await;
        assert_eq!(format!("{:?}", loaded(&at_once).await.usage), want);
        let mut piecewise = Log::new().await;
        for event in history() {
            piecewise.append(&[event]).await;
            piecewise.folded().await.close().await;
        }
        assert_eq!(format!("{:?}", loaded(&piecewise).await.usage), want);
        assert_eq!(whole.usage.get(&opus()).calls, 10, "old totals count too");
        assert_eq!(whole.usage.meter(&Scope::Session("gone".into())), None);
    }

    #[tokio::test]
    async fn the_ledger_is_paged_newest_first() {
        let mut log = Log::new().await;
        log.append(&[counted("a", 1), counted("b", 2)]).await;
        log.append(&[counted("a", 3)]).await;
        let projection = log.folded().await;
        let head = log.writer.head();
        let page = async |filter: &LedgerFilter, before: Option<LedgerPlace>, limit| {
            soon(projection.ledger(filter.clone(), before, limit, head)).await.unwrap()
        };
        let tokens = |page: &super::LedgerPage| -> Vec<u64> {
            page.lines.iter().filter_map(|line| line.usage.input_tokens).collect()
        };
        let all = LedgerFilter::default();
        let first = page(&all, None, 2).await;
        assert_eq!(tokens(&first), [3, 2]);
        let second = page(&all, first.next, 2).await;
        assert_eq!((tokens(&second), second.next), (vec![1], None));
        let of_a = LedgerFilter { session: Some("a".into()), ..LedgerFilter::default() };
        assert_eq!(tokens(&page(&of_a, None, 10).await), [3, 1]);
        let late = LedgerFilter { since: Some(WallTime(AT.0 + 2)), ..LedgerFilter::default() };
        assert_eq!(tokens(&page(&late, None, 10).await), [3, 2]);
    }
}
