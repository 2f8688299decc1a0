//! The broker's client library and brokerctl, its command line.
//!
//! [`Client`] asks and looks; [`link`] is an agent's side, which takes deliveries and settles them.
//! `examples/agent.rs` is a complete agent.
//!
//! Invariant: no error, log or `Debug` output here holds a token, a prompt or an answer.

mod advice;
mod answer;
mod bridge;
mod content;
mod endpoint;
mod error;
mod follow;
mod handoff;
pub mod layer;
pub mod link;
pub mod orchestrator;
mod package;
mod queue;
mod session;
mod task;
mod thread;
pub mod transcript;
mod usage;
mod watch;
mod way;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::{pin::Pin, time::Duration};

use broker_proto::{
    AgentInfo, AgentName, AskOptions, ClockInfo, Delivery, Drain, Draining, EventFilter, EventInfo,
    EventStart, Extension, Failure, ForceRotation, Message, MessageChange, MessageInfo,
    MessageName, MessageState, ModelInfo, ModelName, Part, Payload, PeerPing, PingTrip, Pong, Pull,
    RateLimit, Receipt, RoleName, Rotation, RouteExplanation, SetRotation, SettleOutcome,
    SettledFrame, Settlement, TokenInfo, TraceStep, Usage, convert::InvalidField, pb,
};
use futures::{Stream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use tonic::{Request, Response, Status, metadata::AsciiMetadataValue, transport::Channel};

pub use answer::{Answer, AnswerStream, Assembly, Seen};
pub use endpoint::Endpoint;
pub use error::Error;
pub use follow::{Follow, Source, Step};
pub use package::Template;
pub use queue::LetterSelection;
pub use session::{ImportSession, NewSession, RestoreSession, SessionFilter};
pub use task::{TaskFilter, TaskItem, TaskStream};
pub use thread::{Append, Shortened};
pub use tonic::Code;
pub use usage::{UsageItem, UsageScope, UsageStream};
pub use watch::{Watch, Watched};
pub use way::RETURN_WINDOW;

/// The longest a unary call may take, waiting aside.
const UNARY: Duration = Duration::from_secs(30);
/// Encoded bytes of one frame that are still read; the broker writes at most 1 MiB.
const MAX_FRAME: usize = 4 * 1024 * 1024;
/// Entries of one page; the most the broker gives.
const PAGE: u32 = 1000;

/// What has become of a consultation.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    pub state: MessageState,
    pub summary: Option<broker_proto::AnswerSummary>,
    /// The answer, once it is done; what arrived, when it failed after text was shown.
    pub parts: Vec<Part>,
    pub failure: Option<Failure>,
}

/// Which messages a list shows, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListFilter {
    /// Empty: every state.
    pub states: Vec<MessageState>,
    /// The model that was asked, or the agent addressed.
    pub to: Option<String>,
    /// Zero: the broker's default.
    pub page_size: u32,
    /// Where the page before ended.
    pub page_token: Option<String>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// `None` on the last page.
    pub next_page_token: Option<String>,
}

/// One item of a watch. `cursor` continues behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    Change {
        cursor: String,
        change: MessageChange,
    },
    /// Changes before `first_cursor` are no longer kept.
    Gap {
        cursor: String,
        first_cursor: String,
    },
}

/// One item of a subscription. `cursor` continues behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventItem {
    Event {
        cursor: String,
        event: EventInfo,
    },
    /// Events before `cursor` are no longer kept.
    Gap {
        cursor: String,
    },
}

/// The events of a subscription.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<EventItem, Error>> + Send>>;

/// The changes of a watch.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, Error>> + Send>>;

/// A way to call the broker. Cheap to clone: all clones share one channel, which connects again after it was lost.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    endpoint: Endpoint,
    token: Option<SecretString>,
}

/// A client of each service, with the sizes of this house.
macro_rules! services {
    ($($name:ident: $module:ident::$service:ident),+ $(,)?) => {
        impl Client {
            $(pub(crate) fn $name(&self) -> pb::$module::$service<Channel> {
                pb::$module::$service::new(self.channel.clone())
                    .max_decoding_message_size(MAX_FRAME)
                    .max_encoding_message_size(MAX_FRAME)
            })+
        }
    };
}

services! {
    consultations: consult_service_client::ConsultServiceClient,
    mail: message_service_client::MessageServiceClient,
    content: content_service_client::ContentServiceClient,
    events: event_service_client::EventServiceClient,
    handoffs: handoff_service_client::HandoffServiceClient,
    registry: registry_service_client::RegistryServiceClient,
    sessions_of: session_service_client::SessionServiceClient,
    tasks_of: task_service_client::TaskServiceClient,
    usages: usage_service_client::UsageServiceClient,
    agent_link: agent_link_service_client::AgentLinkServiceClient,
}

impl Client {
    /// Connects to the broker.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when nothing listens there.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, Error> {
        let channel = endpoint.channel().await?;
        Ok(Self { channel, endpoint: endpoint.clone(), token: None })
    }

    /// A client that connects for its first call, and again for the first one after the connection was lost.
    #[must_use]
    pub fn lazy(endpoint: &Endpoint) -> Self {
        Self { channel: endpoint.lazy_channel(), endpoint: endpoint.clone(), token: None }
    }

    /// The same client with a token that proves who calls. People on the socket need none.
    #[must_use]
    pub fn with_token(self, token: SecretString) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Where this client calls.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks a model and streams its answer. The same message id again comes back to the same answer.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason, and what every call may meet.
    pub async fn ask(&self, message: Message, options: AskOptions) -> Result<AnswerStream, Error> {
        let message = Some(self.offload(message).await?);
        let request = pb::AskRequest { message, options: Some(options.into()) };
        let request = self.request(request, None)?;
        let frames = self.reply(self.consultations().ask(request).await)?;
        let frames = frames.map(|reply| reply.map(|reply| reply.frame));
        Ok(AnswerStream::new(self.clone(), frames))
    }

    /// Comes back to an answer behind what was `seen`, or reads a finished one.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn attach(
        &self,
        message: impl Into<MessageName>,
        seen: Seen,
        allow_restart: bool,
    ) -> Result<AnswerStream, Error> {
        let Seen { attempt, part, offset } = seen;
        let message_id = message.into().to_string();
        let request = pb::AttachRequest { message_id, attempt, part, offset, allow_restart };
        let request = self.request(request, None)?;
        let frames = self.reply(self.consultations().attach(request).await)?;
        let frames = frames.map(|reply| reply.map(|reply| reply.frame));
        Ok(AnswerStream::new(self.clone(), frames))
    }

    /// Asks a model and returns once the question is stored.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn submit(&self, message: Message, options: AskOptions) -> Result<Receipt, Error> {
        let message = Some(self.offload(message).await?);
        let request = pb::SubmitConsultationRequest { message, options: Some(options.into()) };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.consultations().submit_consultation(request).await)?;
        Ok(required(reply.receipt, "receipt")?.try_into()?)
    }

    /// What has become of a consultation, waiting up to `wait` (at most 30 s) for its end.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such consultation.
    pub async fn poll(
        &self,
        message: impl Into<MessageName>,
        wait: Duration,
    ) -> Result<Poll, Error> {
        let request = pb::PollConsultationRequest {
            message_id: message.into().to_string(),
            wait: prost_types::Duration::try_from(wait).ok(),
        };
        let request = self.request(request, Some(UNARY + wait))?;
        let reply = self.reply(self.consultations().poll_consultation(request).await)?;
        let parts = reply.parts.into_iter().map(TryInto::try_into);
        let parts = parts.collect::<Result<Vec<Part>, InvalidField>>()?;
        Ok(Poll {
            state: state(reply.state)?,
            summary: reply.summary.map(TryInto::try_into).transpose()?,
            parts: self.inline(parts).await?,
            failure: reply.failure.map(TryInto::try_into).transpose()?,
        })
    }

    /// Where a consultation would go; nothing is sent.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn explain(
        &self,
        message: Message,
        options: AskOptions,
    ) -> Result<RouteExplanation, Error> {
        let message = Some(self.offload(message).await?);
        let request = pb::ExplainRouteRequest { message, options: Some(options.into()) };
        let request = self.unary_request(request)?;
        Ok(self.reply(self.consultations().explain_route(request).await)?.try_into()?)
    }

    /// Sends a message; returns once it is stored.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason, and what every call may meet.
    pub async fn send(
        &self,
        message: Message,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        let numbered = message.numbered.clone();
        let message = Some(self.offload(message).await?);
        let (producer, number) =
            numbered.map(|of| (of.producer.to_string(), of.number)).unwrap_or_default();
        let request = pb::SendMessageRequest { message, allow_future_recipient, producer, number };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.mail().send_message(request).await)?;
        Ok(required(reply.receipt, "receipt")?.try_into()?)
    }

    /// A message, and its content where asked for.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message, or several are meant.
    pub async fn message(
        &self,
        message: impl Into<MessageName>,
        include_payload: bool,
    ) -> Result<(MessageInfo, Option<Payload>), Error> {
        let request =
            pb::GetMessageRequest { message_id: message.into().to_string(), include_payload };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.mail().get_message(request).await)?;
        let payload = match reply.payload {
            Some(payload) => Some(self.inline_payload(payload.try_into()?).await?),
            None => None,
        };
        Ok((required(reply.info, "info")?.try_into()?, payload))
    }

    /// A page of messages, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn messages(&self, filter: ListFilter) -> Result<Page<MessageInfo>, Error> {
        let request = self.unary_request(pb::ListMessagesRequest {
            page_size: filter.page_size,
            page_token: filter.page_token.unwrap_or_default(),
            states: filter.states.into_iter().map(MessageState::to_wire).collect(),
            to: filter.to.unwrap_or_default(),
        })?;
        let reply = self.reply(self.mail().list_messages(request).await)?;
        Ok(Page {
            items: each(reply.messages)?,
            next_page_token: Some(reply.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// Ends a message that is not finished. The answer is its state then, another one when it had ended before.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message.
    pub async fn cancel(&self, message: impl Into<MessageName>) -> Result<MessageState, Error> {
        let message_id = message.into().to_string();
        let request = self.unary_request(pb::CancelMessageRequest { message_id })?;
        let reply = self.reply(self.mail().cancel_message(request).await)?;
        state(reply.state)
    }

    /// Changes behind `cursor`, or from now on; of one message only, ending with it, when one is named.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cursor or the message is not one.
    pub async fn watch(
        &self,
        cursor: Option<String>,
        message: Option<MessageName>,
    ) -> Result<WatchStream, Error> {
        let request = pb::WatchMessagesRequest {
            cursor: cursor.unwrap_or_default(),
            message_id: message.map(|name| name.to_string()).unwrap_or_default(),
        };
        let request = self.request(request, None)?;
        let changes = self.reply(self.mail().watch_messages(request).await)?;
        let client = self.clone();
        Ok(Box::pin(changes.map(move |item| {
            let item = item.map_err(|status| client.error(status))?;
            watch_item(item)
        })))
    }

    /// What happens in the broker, from `start` on.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cursor is not one of this broker's, or the filter names what is not there.
    pub async fn subscribe(
        &self,
        start: EventStart,
        filter: EventFilter,
    ) -> Result<EventStream, Error> {
        let filter = Some(filter.into());
        let request = self.request(pb::SubscribeRequest { from: start.into(), filter }, None)?;
        let events = self.reply(self.events().subscribe(request).await)?;
        let client = self.clone();
        Ok(Box::pin(events.map(move |item| {
            let item = item.map_err(|status| client.error(status))?;
            event_item(item)
        })))
    }

    /// A message and its life, step by step.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such message.
    pub async fn trace(
        &self,
        message: impl Into<MessageName>,
    ) -> Result<(MessageInfo, Vec<TraceStep>), Error> {
        let message_id = message.into().to_string();
        let (mut steps, mut page_token) = (Vec::new(), String::new());
        loop {
            let (message_id, page_size) = (message_id.clone(), PAGE);
            let request = pb::TraceMessageRequest { message_id, page_size, page_token };
            let request = self.unary_request(request)?;
            let reply = self.reply(self.mail().trace_message(request).await)?;
            steps.extend(each(reply.steps)?);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                return Ok((required(reply.info, "info")?.try_into()?, steps));
            }
        }
    }

    /// Every model the broker knows.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn models(&self) -> Result<Vec<ModelInfo>, Error> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                self.unary_request(pb::ListModelsRequest { page_size: PAGE, page_token })?;
            let reply = self.reply(self.registry().list_models(request).await)?;
            all.extend(each(reply.models)?);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Every agent the broker knows, connected or not.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn agents(&self) -> Result<Vec<AgentInfo>, Error> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                self.unary_request(pb::ListAgentsRequest { page_size: PAGE, page_token })?;
            let reply = self.reply(self.registry().list_agents(request).await)?;
            all.extend(each(reply.agents)?);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Whether the broker answers, or an agent that serves `model`.
    ///
    /// # Errors
    /// [`Error::Refused`] when no agent serves the model.
    pub async fn ping(&self, model: Option<&str>) -> Result<Pong, Error> {
        let model = model.unwrap_or_default().to_owned();
        let request = self.unary_request(pb::PingRequest { model })?;
        Ok(self.reply(self.registry().ping(request).await)?.try_into()?)
    }

    /// From an agent of one model to an agent of another and back; no provider is called.
    ///
    /// # Errors
    /// [`Error::Refused`] when one side is missing or does not answer in time; the text says which.
    pub async fn ping_model(&self, ping: PeerPing) -> Result<PingTrip, Error> {
        let request = self.unary_request(pb::PingModelRequest::from(ping))?;
        Ok(self.reply(self.registry().ping_model(request).await)?.try_into()?)
    }

    /// Broker time, and whether the wall clock has jumped.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn clock(&self) -> Result<ClockInfo, Error> {
        let request = self.unary_request(pb::GetClockRequest {})?;
        Ok(self.reply(self.registry().get_clock(request).await)?.try_into()?)
    }

    /// Believes a wall clock that jumped ahead; false when it had not.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn confirm_clock(&self) -> Result<bool, Error> {
        let request = self.unary_request(pb::ConfirmClockRequest {})?;
        Ok(self.reply(self.registry().confirm_clock(request).await)?.confirmed)
    }

    /// A new token for this agent's name; one made before is no longer good.
    ///
    /// # Errors
    /// [`Error::Refused`] when the caller may not.
    pub async fn create_token(&self, name: &AgentName) -> Result<SecretString, Error> {
        let request = self.unary_request(pb::CreateTokenRequest { name: name.to_string() })?;
        Ok(self.reply(self.registry().create_token(request).await)?.token.into())
    }

    /// The names that have a token.
    ///
    /// # Errors
    /// [`Error::Refused`] when the caller may not.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request =
                self.unary_request(pb::ListTokensRequest { page_size: PAGE, page_token })?;
            let reply = self.reply(self.registry().list_tokens(request).await)?;
            all.extend(each(reply.tokens)?);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Makes the token of this name no longer good.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name has none, or the caller may not.
    pub async fn revoke_token(&self, name: &AgentName) -> Result<(), Error> {
        let request = self.unary_request(pb::RevokeTokenRequest { name: name.to_string() })?;
        self.reply(self.registry().revoke_token(request).await)?;
        Ok(())
    }

    /// Gives nothing new to an agent, or to nobody, or ends that. Repeat it until nothing runs any more.
    ///
    /// # Errors
    /// [`Error::Refused`] when the caller may not.
    pub async fn drain(&self, drain: Drain) -> Result<Draining, Error> {
        let request = self.unary_request(pb::DrainRequest::from(drain))?;
        Ok(self.reply(self.registry().drain(request).await)?.into())
    }

    /// A ring, or every one.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such ring.
    pub async fn rotations(&self, role: Option<&RoleName>) -> Result<Vec<Rotation>, Error> {
        let role = role.map(ToString::to_string).unwrap_or_default();
        let request = self.unary_request(pb::GetRotationRequest { role })?;
        each(self.reply(self.registry().get_rotation(request).await)?.rotations)
    }

    /// Says who is in a ring and how it goes round, or puts it off.
    ///
    /// # Errors
    /// [`Error::Refused`] when a ring cannot be like that.
    pub async fn set_rotation(&self, set: SetRotation) -> Result<Rotation, Error> {
        let request = self.unary_request(pb::SetRotationRequest::from(set))?;
        let reply = self.reply(self.registry().set_rotation(request).await)?;
        Ok(required(reply.rotation, "rotation")?.try_into()?)
    }

    /// The owner of a ring hands on now; the answer says how far that came at once.
    ///
    /// # Errors
    /// [`Error::Refused`] when nobody can take it, or it is being handed on.
    pub async fn force_rotation(&self, force: ForceRotation) -> Result<Rotation, Error> {
        let request = self.unary_request(pb::ForceRotationRequest::from(force))?;
        let reply = self.reply(self.registry().force_rotation(request).await)?;
        Ok(required(reply.rotation, "rotation")?.try_into()?)
    }

    /// Takes deliveries without a link; [`Client::with_token`] says for which agent. Parts that came by hash are inline.
    ///
    /// # Errors
    /// [`Error::Refused`] without an agent's token, and what every call may meet.
    pub async fn pull(&self, pull: Pull) -> Result<Vec<Delivery>, Error> {
        let request = self.unary_request(pb::PullMessagesRequest::from(pull))?;
        let reply = self.agent_link().pull_messages(request).await;
        let mut deliveries: Vec<Delivery> = each(self.reply(reply)?.deliveries)?;
        for delivery in &mut deliveries {
            let payload = std::mem::take(&mut delivery.message.payload);
            delivery.message.payload = self.inline_payload(payload).await?;
        }
        Ok(deliveries)
    }

    /// Settles deliveries that were pulled; each has its own answer, in this order. Saying it again is safe.
    ///
    /// # Errors
    /// What every call may meet; then nothing is known of any of them.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<Vec<SettledFrame>, Error> {
        let mut wire = Vec::new();
        for mut settlement in settlements {
            if let SettleOutcome::Done { parts, .. }
            | SettleOutcome::Failed { partial: parts, .. } = &mut settlement.outcome
            {
                *parts = self.offload_parts(std::mem::take(parts)).await?;
            }
            wire.push(settlement.into());
        }
        let request = self.unary_request(pb::SettleMessagesRequest { settlements: wire })?;
        let reply = self.reply(self.agent_link().settle_messages(request).await)?;
        Ok(reply.results.into_iter().map(Into::into).collect())
    }

    /// Lets a lease that was pulled run for `by` from now; gives how long it runs.
    ///
    /// # Errors
    /// [`Error::Refused`] with `LEASE_LOST` when it is another's by now.
    pub async fn extend(&self, lease: String, by: Duration) -> Result<Duration, Error> {
        let request = self.unary_request(pb::ExtendLeaseRequest::from(Extension { lease, by }))?;
        let reply = self.agent_link().extend_lease(request).await;
        let left = required(self.reply(reply)?.time_left, "time_left")?;
        Ok(left.try_into().unwrap_or_default())
    }

    /// Counts a call that was made outside the broker; `failure` when it failed.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such model.
    pub async fn report_usage(
        &self,
        model: &ModelName,
        usage: Usage,
        limits: Vec<RateLimit>,
        failure: Option<Failure>,
    ) -> Result<(), Error> {
        let request = self.unary_request(pb::ReportUsageRequest {
            model: model.to_string(),
            usage: Some(usage.into()),
            limits: limits.into_iter().map(Into::into).collect(),
            failure: failure.map(Into::into),
        })?;
        self.reply(self.usages().report_usage(request).await)?;
        Ok(())
    }

    fn unary_request<T>(&self, message: T) -> Result<Request<T>, Error> {
        self.request(message, Some(UNARY))
    }

    /// The message with this client's token, and a deadline where one is given.
    pub(crate) fn request<T>(
        &self,
        message: T,
        timeout: Option<Duration>,
    ) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        if let Some(token) = &self.token {
            let bearer = format!("Bearer {}", token.expose_secret());
            let mut bearer = AsciiMetadataValue::try_from(bearer).map_err(|_| Error::Token)?;
            bearer.set_sensitive(true);
            request.metadata_mut().insert("authorization", bearer);
        }
        Ok(request)
    }

    fn reply<T>(&self, reply: Result<Response<T>, Status>) -> Result<T, Error> {
        reply.map(Response::into_inner).map_err(|status| self.error(status))
    }

    pub(crate) fn error(&self, status: Status) -> Error {
        Error::from_status(status, &self.endpoint)
    }
}

fn required<T>(value: Option<T>, field: &'static str) -> Result<T, InvalidField> {
    value.ok_or_else(|| InvalidField::new(field, "is missing"))
}

fn each<W, D: TryFrom<W, Error = InvalidField>>(wire: Vec<W>) -> Result<Vec<D>, Error> {
    Ok(wire.into_iter().map(D::try_from).collect::<Result<_, _>>()?)
}

fn state(number: i32) -> Result<MessageState, Error> {
    Ok(required(MessageState::from_wire(number), "state")?)
}

fn event_item(wire: pb::SubscribeResponse) -> Result<EventItem, Error> {
    use pb::subscribe_response::Item;
    let cursor = wire.cursor;
    Ok(match required(wire.item, "item")? {
        Item::Event(event) => EventItem::Event { cursor, event: event.try_into()? },
        Item::Gap(gap) => EventItem::Gap { cursor: gap.first_cursor },
    })
}

fn watch_item(wire: pb::WatchMessagesResponse) -> Result<WatchItem, Error> {
    use pb::watch_messages_response::Change;
    let cursor = wire.cursor;
    Ok(match required(wire.change, "change")? {
        Change::Message(change) => WatchItem::Change { cursor, change: change.try_into()? },
        Change::Gap(gap) => WatchItem::Gap { cursor, first_cursor: gap.first_cursor },
    })
}
