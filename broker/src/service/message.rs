//! `MessageService`.

use futures::{
    StreamExt,
    stream::{BoxStream, unfold},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use broker_proto::{
    Message, MessageChange, MessageName, MessageState, Payload, Recipient,
    convert::{InvalidField, Stored as _},
    pb,
};

use super::{Caller, find, reason, status};
use crate::{
    core::{Command, Event, Refusal, Reply, queue::Seq},
    engine,
    intake::Intake,
    journal::{BatchNo, Cursor, Frame, Journal, ReadError, Until, record},
    projection::{Filter, Row},
};

/// Messages on a page when the caller names no size.
const PAGE: u32 = 100;

/// Sends, lists, cancels and watches messages.
#[derive(Debug)]
pub struct MessageService {
    pub intake: Intake,
    pub journal: std::sync::Arc<dyn Journal>,
    /// Fires when the broker stops; watches then end.
    pub stop: CancellationToken,
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

    fn start(&self, cursor: &str) -> Result<(BatchNo, u32), Status> {
        if cursor.is_empty() {
            return Ok((self.intake.engine.head().next(), 0));
        }
        let cursor: Cursor = cursor
            .parse()
            .map_err(|_| InvalidField::new("cursor", "is not a cursor of a watch"))?;
        let batch = self.journal.locate(cursor).map_err(|_| {
            reason::CURSOR_ELSEWHERE.status("the cursor belongs to another broker's journal")
        })?;
        Ok((batch, cursor.index))
    }
}

fn filter(request: &pb::ListMessagesRequest) -> Result<Filter, InvalidField> {
    let states = request.states.iter().map(|number| {
        MessageState::from_wire(*number)
            .ok_or_else(|| InvalidField::new("states", "holds a number that is no state"))
    });
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(Seq(token
            .parse()
            .map_err(|_| InvalidField::new("page_token", "is not one that a list gave"))?)),
    };
    let to = match request.to.split_once('/') {
        None if request.to.is_empty() => None,
        Some(("agent", name)) => Some(Recipient::Agent(
            broker_proto::AgentName::parse(name)
                .map_err(|invalid| InvalidField::new("to", invalid.to_string()))?,
        )),
        found => {
            let name = found.map_or(request.to.as_str(), |(_, name)| name);
            Some(Recipient::Model(
                broker_proto::ModelName::parse(name)
                    .map_err(|invalid| InvalidField::new("to", invalid.to_string()))?,
            ))
        }
    };
    let limit = if request.page_size == 0 { PAGE } else { request.page_size };
    Ok(Filter { states: states.collect::<Result<_, _>>()?, to, before, limit })
}

#[tonic::async_trait]
impl pb::message_service_server::MessageService for MessageService {
    type WatchMessagesStream = BoxStream<'static, Result<pb::WatchMessagesResponse, Status>>;

    async fn send_message(
        &self,
        request: Request<pb::SendMessageRequest>,
    ) -> Result<Response<pb::SendMessageResponse>, Status> {
        let sender = Caller::of(&request).sender()?;
        let request = request.into_inner();
        let message = request
            .message
            .ok_or_else(|| InvalidField::new("message", "is missing"))?
            .try_into()?;
        let sent = self.intake.send(&sender, message, request.allow_future_recipient).await;
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
        let (from, skip) = match (only, request.cursor.as_str()) {
            // One message's whole life, which may have begun long ago.
            (Some(_), "") => (BatchNo(1), 0),
            (_, cursor) => self.start(cursor)?,
        };
        let journal = self.journal.identity().journal;
        let frames = self.journal.read(from, Until::Forever);
        let changes = frames.flat_map(move |frame| {
            let skip = if frame.as_ref().is_ok_and(|f| f.number == from) { skip } else { 0 };
            futures::stream::iter(changes(frame, journal, skip, only))
        });
        // A watch that ends with the broker says so: its watcher goes on behind its cursor.
        let stopping = futures::stream::iter([Err(reason::stopping())]);
        let changes = changes.take_until(self.stop.clone().cancelled_owned()).chain(stopping);
        // A watch of one message ends with it, not with what might come behind it.
        let changes = unfold(Some(changes.boxed()), move |watch| async move {
            let mut watch = watch?;
            let change = watch.next().await?;
            let is_over = only.is_some() && is_last(&change);
            Some((change, (!is_over).then_some(watch)))
        });
        Ok(Response::new(changes.boxed()))
    }
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

/// The changes of one frame behind the first `skip` records, of one message only when it is given; a gap is a change
/// too (I-30).
fn changes(
    frame: Result<Frame, ReadError>,
    journal: crate::journal::JournalId,
    skip: u32,
    only: Option<Seq>,
) -> Vec<Change> {
    use pb::watch_messages_response::Change as Wire;
    let frame = match frame {
        Ok(frame) => frame,
        Err(ReadError::Gap { first }) => {
            let first_cursor = Cursor { journal, batch: first, index: 0 }.to_string();
            let change = Some(Wire::Gap(pb::WatchGap { first_cursor: first_cursor.clone() }));
            return vec![Ok(pb::WatchMessagesResponse { cursor: first_cursor, change })];
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a watch cannot read on");
            return vec![Err(reason::STORE_FAILED.status("the journal cannot be read"))];
        }
    };
    let mut changes = Vec::new();
    for (place, stored) in (0u32..).zip(&frame.records).skip(skip as usize) {
        let change = match record::decode(stored) {
            Ok(event) => event
                .filter(|event| only.is_none_or(|only| is_about(event, only)))
                .as_ref()
                .and_then(change),
            Err(error) => {
                changes.push(Err(reason::STORE_FAILED.status(error.to_string())));
                break;
            }
        };
        let Some(change) = change else { continue };
        let cursor = Cursor { journal, batch: frame.number, index: place + 1 }.to_string();
        changes.push(Ok(pb::WatchMessagesResponse {
            cursor,
            change: Some(Wire::Message(change.into())),
        }));
    }
    changes
}

fn is_about(event: &Event, only: Seq) -> bool {
    event.subject().is_some_and(|subject| subject.seq == only)
}

/// One step in a message's life, in words.
fn change(event: &Event) -> Option<MessageChange> {
    let subject = event.subject()?;
    let (at, change, detail, state) = match event {
        Event::Accepted(accepted) => {
            (accepted.at, "accepted", format!("to {}", accepted.to), MessageState::Queued)
        }
        Event::Routed { at, queue, wait_until, why, .. } => {
            let state =
                if wait_until.is_some() { MessageState::Waiting } else { MessageState::Queued };
            (*at, "routed", format!("to {queue}: {why}"), state)
        }
        Event::Leased { at, epoch, agent, .. } => {
            (*at, "leased", format!("attempt {epoch} by {agent}"), MessageState::Leased)
        }
        Event::AttemptFailed { at, attempt, .. } => {
            let class = attempt.failure.as_ref().map_or("", |failure| failure.class.as_str());
            (*at, "attempt_failed", format!("{}: {class}", attempt.model), MessageState::Queued)
        }
        Event::Held { at, why, .. } => (*at, "held", why.clone(), MessageState::Waiting),
        Event::LeaseLost { at, why, .. } => (*at, "lease_lost", why.clone(), MessageState::Queued),
        Event::Finished(finished) => {
            let detail = finished.failure.as_ref().map_or(String::new(), |failure| {
                format!("{}: {}", failure.class.as_str(), failure.detail)
            });
            (finished.at, "finished", detail, finished.state)
        }
        Event::RouteChanged { .. }
        | Event::UsageChanged { .. }
        | Event::TokenChanged { .. }
        | Event::ContentStored { .. } => return None,
    };
    Some(MessageChange { id: subject.id, at, change: change.into(), detail, state })
}
