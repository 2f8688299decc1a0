//! `UsageService`.

use futures::{StreamExt, future::ready, stream::BoxStream};
use tonic::{Request, Response, Status};

use broker_proto::{
    Failure, LedgerFilter, LevelChange, ModelName, RateLimit, Usage, UsageLevel, UsageRecord,
    convert::InvalidField, pb,
};

use super::{
    Watches, status,
    watch::{Seen, Start},
};
use crate::{
    core::{
        Command, Event, Query, Reply,
        usage::{self, Record, Scope, Subject},
    },
    engine,
    intake::{Intake, bound},
    journal::Cursor,
    projection::LedgerPlace,
};

/// Lines of the ledger on one page, where nobody said how many.
const PAGE: u32 = 100;
const LONGEST_PAGE: u32 = 1000;
/// Bytes of a session's or a key's name.
const NAME: usize = 256;

/// What every model has left.
#[derive(Debug)]
pub struct UsageService {
    pub intake: Intake,
    pub watches: Watches,
}

fn report(request: pb::ReportUsageRequest) -> Result<(ModelName, Command), InvalidField> {
    let model = ModelName::parse(&request.model)
        .map_err(|invalid| InvalidField::new("model", invalid.to_string()))?;
    let limits = request.limits.into_iter().map(RateLimit::try_from);
    let command = Command::Report {
        model: model.clone(),
        usage: request.usage.map(Usage::from).unwrap_or_default().checked()?,
        limits: bound::limits(limits.collect::<Result<_, _>>()?),
        failure: request.failure.map(Failure::try_from).transpose()?.map(bound::failure),
    };
    Ok((model, command))
}

/// A name that people make, or none.
fn name(text: String, field: &'static str) -> Result<Option<String>, InvalidField> {
    if text.len() > NAME || text.chars().any(char::is_control) {
        return Err(InvalidField::new(
            field,
            "is longer than 256 bytes, or holds what no name has",
        ));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn model_name(text: &str) -> Result<Option<ModelName>, InvalidField> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |invalid: broker_proto::InvalidName| InvalidField::new("model", invalid.to_string());
    ModelName::parse(text).map(Some).map_err(bad)
}

fn record(request: pb::RecordUsageRequest) -> Result<Record, InvalidField> {
    let what = request.what.ok_or_else(|| InvalidField::new("what", "is missing"))?;
    let record = Record {
        model: model_name(&request.model)?,
        session: name(request.session, "session")?,
        what: UsageRecord::try_from(what)?,
    };
    if record.session.is_none() && matches!(record.what, UsageRecord::Session { .. }) {
        return Err(InvalidField::new("session", "is missing"));
    }
    Ok(record)
}

impl UsageService {
    async fn ask(&self, query: usage::Query) -> Result<usage::Reply, Status> {
        let reply = self.intake.engine.query(Query::OfUsage(query)).await;
        of_usage(reply.map_err(status::engine)?)
    }

    async fn tell(&self, command: usage::Command) -> Result<Reply, Status> {
        let command = Command::Usage(Box::new(command));
        self.intake.engine.command(command).await.map_err(status::engine)
    }

    /// The model as it is configured, found as people write it.
    fn known(&self, given: Option<ModelName>) -> Result<Option<ModelName>, Status> {
        given.map(|given| self.intake.model(&given).map_err(status::intake)).transpose()
    }

    async fn status(&self, session: Option<String>) -> Result<pb::GetUsageStatusResponse, Status> {
        match self.ask(usage::Query::Status { session }).await? {
            usage::Reply::Status(status) => Ok((*status).into()),
            _ => Err(status::engine(engine::Error::Unknown)),
        }
    }

    /// The status, and the cursor that everything it does not hold comes behind.
    async fn first(&self) -> Result<(Start, pb::WatchUsageResponse), Status> {
        use pb::watch_usage_response::Item;
        let start = self.watches.now();
        let journal = self.watches.journal.identity().journal;
        let head = self.intake.engine.head();
        let cursor = Cursor { journal, batch: head.next(), index: 0 }.to_string();
        let status = self.status(None).await?;
        Ok((start, pb::WatchUsageResponse { cursor, item: Some(Item::Status(status)) }))
    }

    async fn scope(&self, wire: pb::reset_usage_request::Scope) -> Result<Scope, Status> {
        use pb::reset_usage_request::Scope as Wire;
        let missing = |field| InvalidField::new(field, "is missing");
        Ok(match wire {
            Wire::Namespace(_) => Scope::Namespace,
            Wire::Key(key) => Scope::Key(name(key, "key")?.ok_or_else(|| missing("key"))?),
            Wire::Session(session) => {
                Scope::Session(name(session, "session")?.ok_or_else(|| missing("session"))?)
            }
            Wire::Model(model) => {
                let known = self.known(model_name(&model)?)?;
                Scope::Model(known.ok_or_else(|| missing("model"))?)
            }
        })
    }
}

fn of_usage(reply: Reply) -> Result<usage::Reply, Status> {
    match reply {
        Reply::OfUsage(reply) => Ok(reply),
        _ => Err(status::engine(engine::Error::Unknown)),
    }
}

/// What a watch tells of what it has seen.
fn told(seen: Result<Seen, Status>) -> Option<Result<pb::WatchUsageResponse, Status>> {
    use pb::watch_usage_response::Item;
    let (cursor, item) = match seen {
        Err(status) => return Some(Err(status)),
        Ok(Seen::Gap { first_cursor }) => (first_cursor.clone(), Item::Gap(first_cursor)),
        Ok(Seen::Event { cursor, event }) => match *event {
            Event::Usage(usage::Event::LevelChanged(change)) => {
                (cursor, Item::Change(level_change(*change).into()))
            }
            _ => return None,
        },
    };
    Some(Ok(pb::WatchUsageResponse { cursor, item: Some(item) }))
}

fn level_change(change: usage::Change) -> LevelChange {
    let (kind, name) = match change.subject {
        Subject::Model(model) => ("model", model.to_string()),
        Subject::Session(name) => ("session", name),
    };
    LevelChange {
        at: change.at,
        kind: kind.into(),
        name,
        model: change.model,
        from: change.from.as_str().into(),
        to: UsageLevel {
            level: change.to.as_str().into(),
            cause: change.cause,
            reason: change.reason,
            action: change.action.as_str().into(),
            pace: change.action.pace().into(),
            since: Some(change.at),
        },
        diagnosis: change.diagnosis,
    }
}

fn ledger_place(token: &str) -> Result<Option<LedgerPlace>, InvalidField> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.split_once('.').and_then(|(batch, place)| {
        Some(LedgerPlace { batch: batch.parse().ok()?, place: place.parse().ok()? })
    });
    let bad = || InvalidField::new("page_token", "is not one that a list gave");
    parsed.map(Some).ok_or_else(bad)
}

fn settings(reply: usage::Reply) -> Result<Vec<pb::UsageSetting>, Status> {
    match reply {
        usage::Reply::Policy(settings) => Ok(settings.into_iter().map(Into::into).collect()),
        _ => Err(status::engine(engine::Error::Unknown)),
    }
}

#[tonic::async_trait]
impl pb::usage_service_server::UsageService for UsageService {
    type WatchUsageStream = BoxStream<'static, Result<pb::WatchUsageResponse, Status>>;

    async fn report_usage(
        &self,
        request: Request<pb::ReportUsageRequest>,
    ) -> Result<Response<pb::ReportUsageResponse>, Status> {
        let (given, mut command) = report(request.into_inner())?;
        let known = self.intake.model(&given).map_err(status::intake)?;
        if let Command::Report { model, .. } = &mut command {
            *model = known;
        }
        self.intake.engine.command(command).await.map_err(status::engine)?;
        Ok(Response::new(pb::ReportUsageResponse {}))
    }

    async fn record_usage(
        &self,
        request: Request<pb::RecordUsageRequest>,
    ) -> Result<Response<pb::RecordUsageResponse>, Status> {
        let mut record = record(request.into_inner())?;
        record.model = self.known(record.model)?;
        match of_usage(self.tell(usage::Command::Record(record)).await?)? {
            usage::Reply::Recorded(model) => {
                Ok(Response::new(pb::RecordUsageResponse { model: model.to_string() }))
            }
            _ => Err(status::engine(engine::Error::Unknown)),
        }
    }

    async fn get_usage_status(
        &self,
        request: Request<pb::GetUsageStatusRequest>,
    ) -> Result<Response<pb::GetUsageStatusResponse>, Status> {
        let session = name(request.into_inner().session, "session")?;
        Ok(Response::new(self.status(session).await?))
    }

    async fn watch_usage(
        &self,
        request: Request<pb::WatchUsageRequest>,
    ) -> Result<Response<Self::WatchUsageStream>, Status> {
        let cursor = request.into_inner().cursor;
        if !cursor.is_empty() {
            let start = self.watches.behind(&cursor)?;
            let changes = self.watches.from(start).filter_map(|seen| ready(told(seen)));
            return Ok(Response::new(changes.boxed()));
        }
        let (start, first) = self.first().await?;
        let changes = self.watches.from(start).filter_map(|seen| ready(told(seen)));
        Ok(Response::new(futures::stream::iter([Ok(first)]).chain(changes).boxed()))
    }

    async fn forecast_usage(
        &self,
        _: Request<pb::ForecastUsageRequest>,
    ) -> Result<Response<pb::ForecastUsageResponse>, Status> {
        match self.ask(usage::Query::Forecast).await? {
            usage::Reply::Forecast(limits) => {
                let limits = limits.into_iter().map(Into::into).collect();
                Ok(Response::new(pb::ForecastUsageResponse { limits }))
            }
            _ => Err(status::engine(engine::Error::Unknown)),
        }
    }

    async fn get_usage_policy(
        &self,
        _: Request<pb::GetUsagePolicyRequest>,
    ) -> Result<Response<pb::GetUsagePolicyResponse>, Status> {
        let settings = settings(self.ask(usage::Query::Policy).await?)?;
        Ok(Response::new(pb::GetUsagePolicyResponse { settings }))
    }

    async fn set_usage_policy(
        &self,
        request: Request<pb::SetUsagePolicyRequest>,
    ) -> Result<Response<pb::SetUsagePolicyResponse>, Status> {
        let pb::SetUsagePolicyRequest { set, unset } = request.into_inner();
        let reply = self.tell(usage::Command::SetPolicy { set, unset }).await?;
        let settings = settings(of_usage(reply)?)?;
        Ok(Response::new(pb::SetUsagePolicyResponse { settings }))
    }

    async fn list_ledger(
        &self,
        request: Request<pb::ListLedgerRequest>,
    ) -> Result<Response<pb::ListLedgerResponse>, Status> {
        let request = request.into_inner();
        let mut filter: LedgerFilter = request.filter.unwrap_or_default().try_into()?;
        filter.model = self.known(filter.model)?;
        let before = ledger_place(&request.page_token)?;
        let limit = if request.page_size == 0 { PAGE } else { request.page_size };
        let head = self.intake.engine.head();
        let page = self.intake.projection.ledger(filter, before, limit.min(LONGEST_PAGE), head);
        let page = page.await.map_err(|error| status::projection(&error))?;
        let next = page.next.map(|next| format!("{}.{}", next.batch, next.place));
        Ok(Response::new(pb::ListLedgerResponse {
            lines: page.lines.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn reset_usage(
        &self,
        request: Request<pb::ResetUsageRequest>,
    ) -> Result<Response<pb::ResetUsageResponse>, Status> {
        let scope = request.into_inner().scope;
        let scope = scope.ok_or_else(|| InvalidField::new("scope", "is missing"))?;
        let scope = self.scope(scope).await?;
        self.tell(usage::Command::Reset(scope)).await?;
        Ok(Response::new(pb::ResetUsageResponse {}))
    }
}
