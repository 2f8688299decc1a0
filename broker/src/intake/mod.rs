//! Intake: everything that is decided about a message before its first byte is stored (I-4).
//!
//! Sizes, names, references and expiry are checked here; then the body is prepared and the engine asked.

pub mod bound;
pub(crate) mod check;
pub mod exchange;
pub mod expected;
mod seen;

use std::{sync::Arc, time::Duration};

use dashmap::DashMap;
use futures::future::try_join_all;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tracing::{Instrument, debug_span};

use broker_config::Models;
use broker_proto::{
    AgentName, AskOptions, ContentHash, Correlation, HistoryRange, Message, MessageId, MessageType,
    ModelName, Numbered, Part, PartRef, ProducerName, Receipt, Recipient, RouteExplanation, Sender,
    WallTime,
    convert::{InvalidField, Stored as _},
};

use crate::{
    context::{self, Bodies},
    core::{
        Command, Earlier, NewConsultation, NewMessage, Now, Query, Refusal, Reply,
        queue::{Body, Digest},
        tree::Parent,
    },
    engine::{self, AsOf, Clock, EngineHandle},
    planted::{self, Bug},
    projection::{self, Projection},
};

pub use seen::Seen;

/// Why a message was not accepted. All but [`Error::Engine`] are decided before anything is stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("the {what} has {size} bytes; the limit is {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    #[error("the question is empty")]
    Empty,
    #[error("part {0} was never uploaded")]
    UnknownContent(ContentHash),
    #[error("cannot store the message")]
    Content(#[from] context::Error),
    #[error("cannot look the message up")]
    Lookup(#[from] projection::Error),
}

/// How long a message is surely known, however many came since (I-7).
/// Whoever is on this machine, and may read sessions.
const LOCAL: &str = "local";
const SURELY: Duration = Duration::from_secs(600);
/// Bytes of labels, session, ordering key and trace: they are in every record of the message's acceptance.
const HEADER: u64 = 16 * 1024;

/// Bounds of what is taken in, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub message: u64,
    pub inline_part: u64,
    pub dedup_window: Duration,
    /// Keys that the window holds at most, beyond its last ten minutes.
    pub dedup_keys: u64,
}

/// Takes messages in.
#[derive(Debug, Clone)]
pub struct Intake {
    pub engine: EngineHandle,
    pub projection: Projection,
    pub bodies: Bodies,
    pub models: Arc<Models>,
    pub limits: Limits,
    pub clock: Arc<dyn Clock>,
    /// The highest ids of each sender. Written by whoever sends; senders are the names of tokens.
    pub seen: Arc<DashMap<Sender, Seen>>,
    /// The highest number of each producer that was offered. Written by whoever sends.
    pub highest: Arc<DashMap<(Sender, ProducerName), u64>>,
    /// Held from the look at a part until what refers to it is durable; the sweep waits for those who hold it, and then
    /// keeps them out.
    pub parts: Arc<RwLock<()>>,
}

/// As long as this is held, no part is forgotten.
pub type PartsStay = OwnedRwLockReadGuard<()>;

impl Intake {
    /// The configured name of a model that was spelt in one of its usual ways.
    ///
    /// # Errors
    /// [`Refusal::UnknownModel`] with the nearest names.
    pub fn model(&self, given: &ModelName) -> Result<ModelName, Error> {
        match self.models.resolve(given.as_str()) {
            Ok(model) => Ok(ModelName::parse(&model.name)
                .map_err(|invalid| InvalidField::new("model", invalid.to_string()))?),
            Err(unknown) => Err(Error::Engine(engine::Error::Refused(Refusal::UnknownModel {
                // Ready to be shown there; the refusal quotes it itself.
                given: unknown.given.trim_matches('`').to_owned(),
                nearest: unknown.nearest,
            }))),
        }
    }

    /// Accepts a message of any kind.
    ///
    /// # Errors
    /// [`Error`] says whether anything may have been stored.
    pub async fn send(
        &self,
        from: &Sender,
        message: Message,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        if message.kind == MessageType::Delegation {
            return self.delegate(from, message, allow_future_recipient).await;
        }
        let options = AskOptions { keep: true, ..AskOptions::default() };
        // In an agent's mailbox it is a message like any other: its agent asks the model it has.
        let is_routed =
            message.kind == MessageType::Consultation && matches!(message.to, Recipient::Model(_));
        let options = is_routed.then_some(options);
        self.accept(from, message, options, allow_future_recipient).await
    }

    /// Accepts a message that an agent sends on its link.
    ///
    /// # Errors
    /// As [`Intake::send`].
    pub async fn send_as_agent(
        &self,
        agent: &AgentName,
        message: Message,
    ) -> Result<Receipt, Error> {
        let from = Sender::parse(agent.as_str())
            .map_err(|invalid| InvalidField::new("from", invalid.to_string()))?;
        self.send(&from, message, false).await
    }

    /// Accepts a task. One that is given to a model goes along the model's chain as a question does, but nobody needs
    /// to listen.
    ///
    /// # Errors
    /// As [`Intake::send`].
    pub async fn delegate(
        &self,
        from: &Sender,
        mut message: Message,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        let options = check::task(&message)?;
        let deadline = options.deadline.map(|span| self.clock.now().wall.after(span));
        message.expires_at = [message.expires_at, deadline].into_iter().flatten().min();
        let options = AskOptions { deadline: None, ..options };
        let is_routed = matches!(message.to, Recipient::Model(_));
        self.accept(from, message, is_routed.then_some(options), allow_future_recipient).await
    }

    /// Accepts a consultation.
    ///
    /// # Errors
    /// As [`Intake::send`].
    pub async fn consult(
        &self,
        from: &Sender,
        message: Message,
        options: AskOptions,
    ) -> Result<Receipt, Error> {
        check::is_consultation(&message)?;
        self.accept(from, message, Some(options), false).await
    }

    /// Shows where a consultation would go.
    ///
    /// # Errors
    /// As [`Intake::send`]; nothing is ever stored.
    pub async fn explain(
        &self,
        mut message: Message,
        options: AskOptions,
    ) -> Result<RouteExplanation, Error> {
        check::is_consultation(&message)?;
        self.resolve(&mut message)?;
        let new = Box::new(self.consultation(&message, options, true).await?);
        match self.engine.query(Query::Explain { new, session: message.session }).await? {
            Reply::Explained(explanation) => Ok(explanation),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    async fn accept(
        &self,
        from: &Sender,
        message: Message,
        options: Option<AskOptions>,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        let span = debug_span!("message", id = %message.id);
        self.take_in(from, message, options, allow_future_recipient).instrument(span).await
    }

    async fn take_in(
        &self,
        from: &Sender,
        mut message: Message,
        options: Option<AskOptions>,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        message.from = None;
        message.timestamp = None;
        // Only the broker knows the root and counts hops (I-36); what a sender says of them is no part of the message.
        message.correlation.root = None;
        message.correlation.hops = 0;
        self.resolve(&mut message)?;
        self.check_size(&message)?;
        let _stay = self.stay(message.payload.parts()).await;
        check::names(&message)?;
        check::status(&message)?;
        let consultation = match (options, message.kind) {
            (Some(options), _) => {
                let may_read = from.as_str() == LOCAL;
                Some(self.consultation(&message, options, may_read).await?)
            }
            (None, _) => {
                let parts: Vec<&Part> = message.payload.parts().collect();
                self.check_refs(parts).await?;
                None
            }
        };
        let now = self.clock.now();
        let as_of = self.engine.as_of(now.boot);
        let earlier = self.earlier(from, message.id, now, as_of).await?;
        let numbered = message.numbered.take();
        let earlier_number = self.counted(from, numbered.as_ref()).await?;
        // Its number says which message it is, whatever id it got when it was sent again.
        let unnamed = numbered
            .as_ref()
            .map(|_| Message { id: MessageId::from_u128(0), ..message.clone() }.encode());

        if self.engine.is_full() {
            // Refused before large bodies eat what is kept for settling (I-28).
            return Err(Error::Engine(engine::Error::StoreFull));
        }
        self.projection.keeps_up_with(self.engine.head()).await?;
        let parent = self.parent(from, message.correlation.parent).await?;
        let place = Correlation {
            root: parent.as_ref().map(|parent| parent.root),
            parent: None,
            hops: parent.as_ref().map_or(0, |parent| parent.hops + 1),
        };
        let mut new = NewMessage {
            id: message.id,
            sender: from.clone(),
            to: message.to.clone(),
            kind: message.kind,
            priority: message.priority,
            digest: Digest([0; 32]),
            body: Body::default(),
            expires_at: message.expires_at,
            session: message.session.clone(),
            ordering_key: message.ordering_key.clone(),
            correlation: Correlation { parent: message.correlation.parent, ..place.clone() },
            labels: message.labels.clone(),
            allow_future_recipient,
            consultation,
            earlier,
            numbered,
            earlier_number,
            parent,
            budget: message.budget,
        };
        let stamped = message.encode_stamped(from, now.wall, place);
        let said = unnamed.as_deref().unwrap_or(stamped.said());
        new.digest = digest(said, new.consultation.as_ref().map(|new| &new.options));
        let stored = self.bodies.store(stamped.bytes).await?;
        new.body = stored.body;
        let send = Command::Send(Box::new(new));
        match self.engine.send(send, stored.contents, as_of).await? {
            Reply::Receipt(receipt) => Ok(receipt),
            _ => Err(Error::Engine(engine::Error::Unknown)),
        }
    }

    /// What this sender sent before under this id, where memory may have forgotten it (I-7).
    async fn earlier(
        &self,
        from: &Sender,
        id: MessageId,
        now: Now,
        as_of: AsOf,
    ) -> Result<Option<Earlier>, Error> {
        if planted::is(Bug::DedupForgotten) {
            return Ok(None);
        }
        if !self.seen.contains_key(from) {
            let newest = self.projection.newest(from.clone()).await?;
            let seen = Seen::new(newest, now.boot, as_of.load);
            self.seen.entry(from.clone()).or_insert(seen);
        }
        let is_forgotten =
            self.seen.get_mut(from).is_none_or(|mut seen| seen.note(id, now.boot, as_of.load));
        if !is_forgotten {
            return Ok(None);
        }
        let before = |span: Duration| {
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            WallTime(now.wall.0.saturating_sub(span))
        };
        let window = projection::Window {
            since: before(self.limits.dedup_window),
            surely: before(SURELY),
            keys: self.limits.dedup_keys,
        };
        Ok(self.projection.earlier(from.clone(), id, window).await?)
    }

    /// What this sender sent before under this number of one of its producers (I-8).
    async fn counted(
        &self,
        from: &Sender,
        numbered: Option<&Numbered>,
    ) -> Result<Option<Earlier>, Error> {
        let Some(numbered) = numbered else { return Ok(None) };
        let named = (from.clone(), numbered.producer.clone());
        if !self.highest.contains_key(&named) {
            let (from, producer) = named.clone();
            let highest = self.projection.highest_number(from, producer).await?;
            self.highest.entry(named.clone()).or_insert(highest);
        }
        // Numbers rise, so one above every other of its producer is looked up nowhere.
        if let Some(mut highest) = self.highest.get_mut(&named)
            && numbered.number > *highest
        {
            *highest = numbered.number;
            return Ok(None);
        }
        Ok(self.projection.counted(from.clone(), numbered.clone()).await?)
    }

    /// The message that its sender works on, or was given before, and names as the parent.
    async fn parent(&self, from: &Sender, id: Option<MessageId>) -> Result<Option<Parent>, Error> {
        let (Some(id), Ok(agent)) = (id, AgentName::parse(from.as_str())) else { return Ok(None) };
        match self.engine.query(Query::Parent(from.clone(), id)).await? {
            Reply::Parent(Some(parent)) => Ok(Some(parent)),
            _ => Ok(self.projection.given(agent, id, self.engine.head()).await?),
        }
    }

    fn resolve(&self, message: &mut Message) -> Result<(), Error> {
        message.to = match &message.to {
            Recipient::Model(given) => Recipient::Model(self.model(given)?),
            Recipient::AgentsOf(given) => Recipient::AgentsOf(self.model(given)?),
            Recipient::Agent(_) | Recipient::Role(_) => return Ok(()),
        };
        Ok(())
    }

    /// What routing needs to know of a consultation; its question must be one. Whoever may not read sessions has no part
    /// of one made anew.
    async fn consultation(
        &self,
        message: &Message,
        options: AskOptions,
        may_read: bool,
    ) -> Result<NewConsultation, Error> {
        let Recipient::Model(asked) = &message.to else {
            return Err(InvalidField::new("to", "is not a model").into());
        };
        if message.kind == MessageType::Consultation {
            check::question(message)?;
        }
        let fetched = self.check_refs(message.payload.parts()).await?;
        let is_inline = |part: &&Part| !matches!(part, Part::Ref(_));
        let parts: Vec<&Part> = message.payload.parts().filter(is_inline).chain(&fetched).collect();
        let tools: u64 = message
            .payload
            .generation
            .tools
            .iter()
            .map(|tool| (tool.input_schema.len() + tool.description.len()) as u64)
            .sum();
        Ok(NewConsultation {
            asked: asked.clone(),
            options,
            prompt_bytes: parts.iter().copied().map(check::prompt_bytes).sum::<u64>()
                + tools
                + check::task_bytes(message),
            history_bytes: if may_read { self.history_bytes(message).await? } else { 0 },
            needs_vision: parts.iter().copied().any(Part::has_image),
            max_output_tokens: message.payload.generation.max_output_tokens,
        })
    }

    /// Bytes of the prompt that are the history of a session, which is made anew for a smaller window.
    async fn history_bytes(&self, message: &Message) -> Result<u64, Error> {
        let Some(range) = HistoryRange::of(message) else { return Ok(0) };
        let entries = &message.payload.context[range.places()];
        let parts = || entries.iter().flat_map(|entry| &entry.parts);
        let fetched = self.check_refs(parts()).await?;
        let is_inline = |part: &&Part| !matches!(part, Part::Ref(_));
        Ok(parts().filter(is_inline).chain(&fetched).map(check::prompt_bytes).sum())
    }

    fn check_size(&self, message: &Message) -> Result<(), Error> {
        let size = check::header_bytes(message);
        if size > HEADER {
            return Err(Error::TooLarge { what: "message's header", size, limit: HEADER });
        }
        let limit = self.limits.message;
        let size = message.payload.parts().map(Part::size_bytes).sum();
        if size > limit {
            return Err(Error::TooLarge { what: "message", size, limit });
        }
        let limit = self.limits.inline_part;
        match message.payload.parts().map(Part::inline_bytes).max() {
            Some(size) if size > limit => Err(Error::TooLarge { what: "part", size, limit }),
            _ => Ok(()),
        }
    }

    /// Keeps the parts that these refer to where they are, if they refer to any.
    pub async fn stay<'a>(&self, parts: impl IntoIterator<Item = &'a Part>) -> Option<PartsStay> {
        let mut refs = Vec::new();
        for part in parts {
            check::refs(part, &mut refs);
        }
        if refs.is_empty() { None } else { Some(Arc::clone(&self.parts).read_owned().await) }
    }

    /// The referenced parts among these, read; whoever stores something that refers to them holds [`Intake::stay`]. refused when one was never uploaded.
    ///
    /// # Errors
    /// [`Error::UnknownContent`] names the first that is not there.
    pub async fn check_refs<'a>(
        &self,
        parts: impl IntoIterator<Item = &'a Part>,
    ) -> Result<Vec<Part>, Error> {
        let mut refs = Vec::new();
        for part in parts {
            check::refs(part, &mut refs);
        }
        try_join_all(refs.into_iter().map(|part| self.fetch(part))).await
    }

    async fn fetch(&self, part: PartRef) -> Result<Part, Error> {
        let head = self.engine.head();
        let body = self.projection.content(part.hash, head).await?;
        let body = body.ok_or(Error::UnknownContent(part.hash))?;
        if body.size_bytes != part.size_bytes {
            let problem = format!("is not {}, the size of what was uploaded", body.size_bytes);
            return Err(InvalidField::new("ref.size_bytes", problem).into());
        }
        let bytes = self.bodies.load(&body).await?;
        Ok(Part::decode(bytes)?)
    }
}

/// BLAKE3 over everything the sender said: what makes two sends of one id the same (I-7).
fn digest(said: &[u8], options: Option<&AskOptions>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(said.len() as u64).to_le_bytes());
    hasher.update(said);
    if let Some(options) = options {
        // How somebody listens is no part of what was asked: the same question shown otherwise is the same.
        let asked = AskOptions {
            allow_restart: false,
            return_window: None,
            keep: false,
            ..options.clone()
        };
        hasher.update(&asked.encode());
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests;
