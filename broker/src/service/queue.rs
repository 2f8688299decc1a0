//! `MessageService`: queues and dead letters.

use tonic::{Request, Response, Status};

use broker_proto::{
    LettersHandled, MessageName, MessageState, Priority, QueueInfo, Recipient,
    convert::InvalidField, pb,
};

use super::{Caller, MessageService, find, message::PAGE, status};
use crate::{
    core::{Command, Handled, Letters, Query, Refusal, Reply, Which, queue::Seq},
    engine,
    projection::LetterFilter,
};

/// Messages and queues on a page at most, and letters that one call may name.
const MOST: usize = 1000;

impl MessageService {
    async fn command(&self, command: Command) -> Result<Reply, Status> {
        self.intake.engine.command(command).await.map_err(status::engine)
    }

    /// The one queue that a command answers with.
    async fn queue(&self, command: Command, queue: &Recipient) -> Result<QueueInfo, Status> {
        match self.command(command).await? {
            Reply::Queues(mut queues) => {
                queues.pop().ok_or_else(|| status::refusal(&Refusal::UnknownQueue(queue.clone())))
            }
            _ => Err(status::engine(engine::Error::Unknown)),
        }
    }

    async fn pause(&self, queue: &str, is_paused: bool) -> Result<pb::QueueInfo, Status> {
        let queue = find::queue(queue, "queue")?;
        let command = Command::Pause { queue: queue.clone(), is_paused };
        Ok(self.queue(command, &queue).await?.into())
    }

    async fn which(
        &self,
        caller: &Caller,
        selection: Option<pb::DeadLetterSelection>,
    ) -> Result<Which, Status> {
        let selection = selection.unwrap_or_default();
        match (selection.message_ids.as_slice(), selection.to.as_str(), selection.all) {
            ([], "", true) => Ok(Which::All),
            ([], to, false) if !to.is_empty() => {
                let to = find::queue(to, "to")?;
                find::known(&self.intake, &to).await?;
                Ok(Which::To(to))
            }
            (ids, "", false) if (1..=MOST).contains(&ids.len()) => {
                let mut named = Vec::with_capacity(ids.len());
                for id in ids {
                    let row = find::row(&self.intake, caller, find::message_name(id)?).await?;
                    named.push((row.accepted.sender, row.accepted.subject.id));
                }
                Ok(Which::Named(named))
            }
            _ => {
                let problem = "takes ids (at most 1,000), or a recipient, or all: exactly one";
                Err(InvalidField::new("selection", problem).into())
            }
        }
    }

    /// Hands the letters to the engine, a batch at a time. What dies meanwhile behind the first look is left alone.
    async fn handle(
        &self,
        caller: &Caller,
        selection: Option<pb::DeadLetterSelection>,
        is_dry_run: bool,
        act: fn(Letters) -> Command,
    ) -> Result<LettersHandled, Status> {
        let which = self.which(caller, selection).await?;
        let mut letters = Letters { which, after: Seq(0), is_dry_run };
        let mut all = LettersHandled::default();
        loop {
            let Reply::Handled(Handled { done, skipped, next }) =
                self.command(act(letters.clone())).await?
            else {
                return Err(status::engine(engine::Error::Unknown));
            };
            all.done += done;
            all.skipped.extend(skipped.into_iter().map(|skipped| {
                let name = MessageName { sender: Some(skipped.sender), id: skipped.id };
                (name, skipped.refusal.to_string())
            }));
            match next {
                Some(next) => letters.after = next,
                None => return Ok(all),
            }
        }
    }
}

fn limit(page_size: u32) -> usize {
    let size = if page_size == 0 { PAGE } else { page_size };
    (size as usize).min(MOST)
}

fn bad_token() -> InvalidField {
    InvalidField::new("page_token", "is not one that a list gave")
}

/// A place among the ready messages, as its page token.
fn place(token: &str) -> Result<Option<(Priority, Seq)>, InvalidField> {
    if token.is_empty() {
        return Ok(None);
    }
    let place = token.split_once('-').and_then(|(priority, seq)| {
        Some((Priority::from_wire(priority.parse().ok()?)?, Seq(seq.parse().ok()?)))
    });
    place.map(Some).ok_or_else(bad_token)
}

impl MessageService {
    pub(super) async fn queues(
        &self,
        request: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesResponse>, Status> {
        let request = request.into_inner();
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(Recipient::parse(token).map_err(|_| bad_token())?),
        };
        let limit = limit(request.page_size);
        let query = Query::Queues { after, limit };
        let Reply::Queues(queues) = self.command(Command::Query(query)).await? else {
            return Err(status::engine(engine::Error::Unknown));
        };
        let last = queues.last().filter(|_| queues.len() == limit);
        let next_page_token = last.map(|last| last.queue.to_string()).unwrap_or_default();
        let queues = queues.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListQueuesResponse { queues, next_page_token }))
    }

    pub(super) async fn queue_named(
        &self,
        request: Request<pb::GetQueueRequest>,
    ) -> Result<Response<pb::GetQueueResponse>, Status> {
        let queue = find::queue(&request.into_inner().queue, "queue")?;
        let query = Command::Query(Query::Queue(queue.clone()));
        let queue = Some(self.queue(query, &queue).await?.into());
        Ok(Response::new(pb::GetQueueResponse { queue }))
    }

    pub(super) async fn heads(
        &self,
        request: Request<pb::PeekQueueRequest>,
    ) -> Result<Response<pb::PeekQueueResponse>, Status> {
        let request = request.into_inner();
        let queue = find::queue(&request.queue, "queue")?;
        self.queue(Command::Query(Query::Queue(queue.clone())), &queue).await?;
        let limit = limit(request.page_size);
        let query = Query::Peek { queue, after: place(&request.page_token)?, limit };
        let Reply::Peeked(heads) = self.command(Command::Query(query)).await? else {
            return Err(status::engine(engine::Error::Unknown));
        };
        let last = heads.last().filter(|_| heads.len() == limit);
        let next_page_token =
            last.map(|(priority, seq)| format!("{}-{}", priority.to_wire(), seq.0));
        let seqs = heads.into_iter().map(|(_, seq)| seq).collect();
        let rows = self.intake.projection.rows(seqs, self.intake.engine.head()).await;
        let rows = rows.map_err(|error| status::projection(&error))?;
        Ok(Response::new(pb::PeekQueueResponse {
            messages: rows.into_iter().map(|row| row.info().into()).collect(),
            next_page_token: next_page_token.unwrap_or_default(),
        }))
    }

    pub(super) async fn paused(
        &self,
        request: Request<pb::PauseQueueRequest>,
    ) -> Result<Response<pb::PauseQueueResponse>, Status> {
        let queue = Some(self.pause(&request.into_inner().queue, true).await?);
        Ok(Response::new(pb::PauseQueueResponse { queue }))
    }

    pub(super) async fn resumed(
        &self,
        request: Request<pb::ResumeQueueRequest>,
    ) -> Result<Response<pb::ResumeQueueResponse>, Status> {
        let queue = Some(self.pause(&request.into_inner().queue, false).await?);
        Ok(Response::new(pb::ResumeQueueResponse { queue }))
    }

    pub(super) async fn counters(
        &self,
        request: Request<pb::GetCountersRequest>,
    ) -> Result<Response<pb::GetCountersResponse>, Status> {
        let of = match request.into_inner().queue.as_str() {
            "" => None,
            queue => Some(find::queue(queue, "queue")?),
        };
        let Reply::Counters(counters) = self.command(Command::Query(Query::Counters(of))).await?
        else {
            return Err(status::engine(engine::Error::Unknown));
        };
        Ok(Response::new(pb::GetCountersResponse { counters: Some(counters.into()) }))
    }

    pub(super) async fn letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let before = find::page(&request.page_token)?;
        let to = find::recipient(&request.to)?;
        if let Some(to) = &to {
            find::known(&self.intake, to).await?;
        }
        let limit = u32::try_from(limit(request.page_size)).unwrap_or(PAGE);
        let filter = LetterFilter { to, before, limit };
        let letters = self.intake.projection.letters(filter, self.intake.engine.head()).await;
        let (letters, next) = letters.map_err(|error| status::projection(&error))?;
        Ok(Response::new(pb::ListDeadLettersResponse {
            letters: letters.into_iter().map(Into::into).collect(),
            next_page_token: next.map(|seq| seq.0.to_string()).unwrap_or_default(),
        }))
    }

    pub(super) async fn letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::GetDeadLetterResponse>, Status> {
        let caller = Caller::of(&request);
        let name = find::message_name(&request.into_inner().message_id)?;
        let row = find::row(&self.intake, &caller, name).await?;
        if row.state != MessageState::Dead {
            return Err(status::refusal(&Refusal::NotDead(row.accepted.subject.id)));
        }
        let letter = self.intake.projection.letter(row, self.intake.engine.head()).await;
        let letter = letter.map_err(|error| status::projection(&error))?;
        Ok(Response::new(pb::GetDeadLetterResponse { letter: Some(letter.into()) }))
    }

    pub(super) async fn redriven(
        &self,
        request: Request<pb::RedriveDeadLettersRequest>,
    ) -> Result<Response<pb::RedriveDeadLettersResponse>, Status> {
        let caller = Caller::of(&request);
        let pb::RedriveDeadLettersRequest { selection, dry_run } = request.into_inner();
        let handled = self.handle(&caller, selection, dry_run, Command::Redrive).await?;
        Ok(Response::new(handled.into()))
    }

    pub(super) async fn purged(
        &self,
        request: Request<pb::PurgeDeadLettersRequest>,
    ) -> Result<Response<pb::PurgeDeadLettersResponse>, Status> {
        let caller = Caller::of(&request);
        let pb::PurgeDeadLettersRequest { selection, dry_run } = request.into_inner();
        let handled = self.handle(&caller, selection, dry_run, Command::Purge).await?;
        Ok(Response::new(pb::PurgeDeadLettersResponse { purged: handled.done }))
    }
}
