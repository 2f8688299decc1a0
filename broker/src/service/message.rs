//! `MessageService`.

use futures::{
    StreamExt,
    stream::{BoxStream, unfold},
};
use tonic::{Request, Response, Status};

use broker_proto::{
    Message, MessageChange, MessageName, MessageState, Payload, TraceStep,
    convert::{InvalidField, Stored as _},
    pb,
};

use super::{
    Caller, Watches, find, status,
    told::told,
    watch::{Seen, Start},
};
use crate::{
    core::{Command, Event, Refusal, Reply, queue::Seq},
    engine,
    intake::Intake,
    projection::{Filter, Row},
};

/// Messages on a page when the caller names no size.
pub(super) const PAGE: u32 = 100;

/// Sends, lists, cancels and watches messages.
#[derive(Debug)]
pub struct MessageService {
    pub intake: Intake,
    pub watches: Watches,
}

impl MessageService {
    /// What was sent, and what was answered.
    async fn payload(&self, row: &Row) -> Result<Payload, Status> {
        let bodies = &self.intake.bodies;
        let bytes =
            bodies.load(&row.accepted.body).await.map_err(|error| status::context(&error))?;
        let mut payload = Message::decode(bytes)?.payload;
        if let Some(reply) = row.finished.as_ref().and_then(|finished| finished.reply.as_ref()) {
            let bytes = bodies.load(reply).await.map_err(|error| status::context(&error))?;
            payload.response = Payload::decode(bytes)?.response;
        }
        Ok(payload)
    }
}

fn filter(request: &pb::ListMessagesRequest) -> Result<Filter, InvalidField> {
    let states = request.states.iter().map(|number| {
        MessageState::from_wire(*number)
            .ok_or_else(|| InvalidField::new("states", "holds a number that is no state"))
    });
    let limit = if request.page_size == 0 { PAGE } else { request.page_size };
    Ok(Filter {
        states: states.collect::<Result<_, _>>()?,
        to: find::recipient(&request.to)?,
        before: find::page(&request.page_token)?,
        limit,
        ..Filter::default()
    })
}

#[tonic::async_trait]
impl pb::message_service_server::MessageService for MessageService {
    type WatchMessagesStream = BoxStream<'static, Result<pb::WatchMessagesResponse, Status>>;

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        let sender = Caller::of(&request).sender()?;
        let (message, allow_future_recipient) = request.into_inner().try_into()?;
        let sent = self.intake.send(&sender, message, allow_future_recipient).await;
        let receipt = sent.map_err(status::intake)?;
        Ok(Response::new(pb::SendMessageResponse { receipt: Some(receipt.into()) }))
    }

    async fn get_message(
        &self,
        request: Request<pb::GetMessageRequest>,
    ) -> Result<Response<pb::GetMessageResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let name = find::message_name(&request.message_id)?;
        let row = find::row(&self.intake, &caller, name).await?;
        let payload = match request.include_payload {
            true => Some(self.payload(&row).await?.into()),
            false => None,
        };
        let info = Some(row.info().into());
        Ok(Response::new(pb::GetMessageResponse { info, payload }))
    }

    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        let filter = filter(&request.into_inner())?;
        if let Some(to) = &filter.to {
            find::known(&self.intake, to).await?;
        }
        let head = self.intake.engine.head();
        let page = self
            .intake
            .projection
            .list(filter, head)
            .await
            .map_err(|error| status::projection(&error))?;
        Ok(Response::new(pb::ListMessagesResponse {
            messages: page.rows.into_iter().map(|row| row.info().into()).collect(),
            next_page_token: page.next.map(|seq| seq.0.to_string()).unwrap_or_default(),
        }))
    }

    async fn trace_message(
        &self,
        request: Request<pb::TraceMessageRequest>,
    ) -> Result<Response<pb::TraceMessageResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let row =
            find::row(&self.intake, &caller, find::message_name(&request.message_id)?).await?;
        let (from, limit) = trace_page(&request)?;
        let head = self.intake.engine.head();
        let life = self.intake.projection.life(row.accepted.subject.seq, head).await;
        let life = life.map_err(|error| status::projection(&error))?;
        let steps = trace(life.iter().map(|step| &step.event));
        let has_more = steps.len() > from + limit;
        let steps = steps.into_iter().skip(from).take(limit);
        Ok(Response::new(pb::TraceMessageResponse {
            info: Some(row.info().into()),
            steps: steps.map(Into::into).collect(),
            next_page_token: if has_more { (from + limit).to_string() } else { String::new() },
        }))
    }

    async fn cancel_message(
        &self,
        request: Request<pb::CancelMessageRequest>,
    ) -> Result<Response<pb::CancelMessageResponse>, Status> {
        let caller = Caller::of(&request);
        let name = find::message_name(&request.into_inner().message_id)?;
        let row = find::row(&self.intake, &caller, name.clone()).await?;
        let (sender, id) = (row.accepted.sender, name.id);
        let named = MessageName { sender: Some(sender.clone()), id };
        let command = Command::Cancel { sender, id };
        let state = match self.intake.engine.command(command).await {
            Ok(Reply::State(state)) => state,
            Ok(_) | Err(engine::Error::Refused(Refusal::UnknownMessage(_))) => {
                find::row(&self.intake, &caller, named).await?.state
            }
            Err(error) => return Err(status::engine(error)),
        };
        Ok(Response::new(pb::CancelMessageResponse { state: state.to_wire() }))
    }

    async fn watch_messages(
        &self,
        request: Request<pb::WatchMessagesRequest>,
    ) -> Result<Response<Self::WatchMessagesStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let only = match request.message_id.as_str() {
            "" => None,
            text => {
                let row = find::row(&self.intake, &caller, find::message_name(text)?).await?;
                Some(row.accepted.subject.seq)
            }
        };
        let start = match (only, request.cursor.as_str()) {
            // One message's whole life, which may have begun long ago.
            (Some(_), "") => Start::FIRST,
            (None, "") => self.watches.now(),
            (_, cursor) => self.watches.behind(cursor)?,
        };
        let changes = self
            .watches
            .from(start)
            .filter_map(move |seen| futures::future::ready(change(seen, only)));
        // A watch of one message ends with it, not with what might come behind it.
        let changes = unfold(Some(changes.boxed()), move |watch| async move {
            let mut watch = watch?;
            let change = watch.next().await?;
            let is_over = only.is_some() && is_last(&change);
            Some((change, (!is_over).then_some(watch)))
        });
        Ok(Response::new(changes.boxed()))
    }

    async fn list_queues(
        &self,
        request: Request<pb::ListQueuesRequest>,
    ) -> Result<Response<pb::ListQueuesResponse>, Status> {
        self.queues(request).await
    }

    async fn get_queue(
        &self,
        request: Request<pb::GetQueueRequest>,
    ) -> Result<Response<pb::GetQueueResponse>, Status> {
        self.queue_named(request).await
    }

    async fn peek_queue(
        &self,
        request: Request<pb::PeekQueueRequest>,
    ) -> Result<Response<pb::PeekQueueResponse>, Status> {
        self.heads(request).await
    }

    async fn pause_queue(
        &self,
        request: Request<pb::PauseQueueRequest>,
    ) -> Result<Response<pb::PauseQueueResponse>, Status> {
        self.paused(request).await
    }

    async fn resume_queue(
        &self,
        request: Request<pb::ResumeQueueRequest>,
    ) -> Result<Response<pb::ResumeQueueResponse>, Status> {
        self.resumed(request).await
    }

    async fn get_counters(
        &self,
        request: Request<pb::GetCountersRequest>,
    ) -> Result<Response<pb::GetCountersResponse>, Status> {
        self.counters(request).await
    }

    async fn list_dead_letters(
        &self,
        request: Request<pb::ListDeadLettersRequest>,
    ) -> Result<Response<pb::ListDeadLettersResponse>, Status> {
        self.letters(request).await
    }

    async fn get_dead_letter(
        &self,
        request: Request<pb::GetDeadLetterRequest>,
    ) -> Result<Response<pb::GetDeadLetterResponse>, Status> {
        self.letter(request).await
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<pb::RedriveDeadLettersRequest>,
    ) -> Result<Response<pb::RedriveDeadLettersResponse>, Status> {
        self.redriven(request).await
    }

    async fn purge_dead_letters(
        &self,
        request: Request<pb::PurgeDeadLettersRequest>,
    ) -> Result<Response<pb::PurgeDeadLettersResponse>, Status> {
        self.purged(request).await
    }
}

/// Which steps are asked for: the first, and how many.
fn trace_page(request: &pb::TraceMessageRequest) -> Result<(usize, usize), InvalidField> {
    let from = match request.page_token.as_str() {
        "" => 0,
        token => token
            .parse()
            .map_err(|_| InvalidField::new("page_token", "is not one that a trace gave"))?,
    };
    let limit = if request.page_size == 0 { PAGE } else { request.page_size.min(1000) };
    Ok((from, limit as usize))
}

/// The steps in words, each with the time since the one before.
fn trace<'a>(life: impl Iterator<Item = &'a Event>) -> Vec<TraceStep> {
    let mut steps = Vec::new();
    let mut before = None;
    for told in life.filter_map(told) {
        let Some((subject, state)) = told.message else { continue };
        let (at, detail) = (told.at, told.detail);
        let change = MessageChange { id: subject.id, at, change: told.kind.into(), detail, state };
        steps.push(TraceStep {
            change,
            since_previous: before.map(|before| at.since(before)).unwrap_or_default(),
            model: told.model,
            agent: told.agent,
        });
        before = Some(at);
    }
    steps
}

type Change = Result<pb::WatchMessagesResponse, Status>;

fn is_last(change: &Change) -> bool {
    match change.as_ref().ok().and_then(|response| response.change.as_ref()) {
        Some(pb::watch_messages_response::Change::Message(change)) => {
            MessageState::from_wire(change.state).is_some_and(MessageState::is_terminal)
        }
        _ => false,
    }
}

/// One step in the life of a message, of this one only when it is given.
fn change(seen: Result<Seen, Status>, only: Option<Seq>) -> Option<Change> {
    use pb::watch_messages_response::Change as Wire;
    let (cursor, change) = match seen {
        Ok(Seen::Gap { first_cursor }) => {
            (first_cursor.clone(), Wire::Gap(pb::WatchGap { first_cursor }))
        }
        Ok(Seen::Event { cursor, event }) => {
            let told = told(&event)?;
            let (subject, state) =
                told.message.filter(|(subject, _)| only.is_none_or(|only| only == subject.seq))?;
            let (at, change, detail) = (told.at, told.kind.into(), told.detail);
            let change = MessageChange { id: subject.id, at, change, detail, state };
            (cursor, Wire::Message(change.into()))
        }
        Err(status) => return Some(Err(status)),
    };
    Some(Ok(pb::WatchMessagesResponse { cursor, change: Some(change) }))
}
