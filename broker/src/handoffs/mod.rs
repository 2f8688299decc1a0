//! Handoffs between the wire and the rules: what is asked of them, what is shown of them, and the packages they need.

mod builder;

pub use builder::Builder;

use broker_proto::{AcceptHandoff, AskHandoff, Handoff, HandoffFilter, HandoffId, ModelName};

use crate::{
    core::{
        Command, Query, Reply,
        handoff::{
            By, Command as HandoffCommand, Query as HandoffQuery, Refusal, Reply as HandoffReply,
        },
    },
    engine, intake,
    intake::Intake,
    projection,
};

/// Handoffs of one page, unless the caller says otherwise, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Intake(#[from] intake::Error),
    #[error("cannot look handoffs up")]
    Lookup(#[from] projection::Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Engine(engine::Error::Refused(refusal.into()))
    }
}

/// What is asked of handoffs.
#[derive(Debug, Clone)]
pub struct Handoffs {
    pub intake: Intake,
}

impl Handoffs {
    /// Begins a handoff that somebody asks for.
    ///
    /// # Errors
    /// The core's refusal, with the reason.
    pub async fn begin(&self, mut ask: AskHandoff) -> Result<Handoff, Error> {
        ask.to = self.known(ask.to)?;
        self.command(HandoffCommand::Begin(Box::new(ask))).await
    }

    /// # Errors
    /// The core's refusal of who is not asked, comes late, or says another hash.
    pub async fn accept(&self, accept: AcceptHandoff, by: By) -> Result<Handoff, Error> {
        self.command(HandoffCommand::Accept { accept, by }).await
    }

    /// # Errors
    /// The core's refusal.
    pub async fn decline(&self, id: HandoffId, by: By, reason: String) -> Result<Handoff, Error> {
        self.command(HandoffCommand::Decline { id, by, reason }).await
    }

    /// # Errors
    /// The core's refusal.
    pub async fn complete(&self, id: HandoffId, by: By, outcome: String) -> Result<Handoff, Error> {
        self.command(HandoffCommand::Complete { id, by, outcome }).await
    }

    /// Begins the handoff that gives the session back.
    ///
    /// # Errors
    /// The core's refusal.
    pub async fn give_back(&self, id: HandoffId, reason: String) -> Result<Handoff, Error> {
        self.command(HandoffCommand::GiveBack { id, reason }).await
    }

    /// # Errors
    /// [`Refusal::Unknown`].
    pub async fn get(&self, id: HandoffId) -> Result<Handoff, Error> {
        if let Some(handoff) = self.ask(HandoffQuery::Get(id)).await? {
            return Ok(handoff);
        }
        let head = self.intake.engine.head();
        let stored = self.intake.projection.handoff(id, head).await?;
        stored.ok_or_else(|| Refusal::Unknown(id).into())
    }

    /// One page, newest first, and where the next one begins.
    ///
    /// # Errors
    /// [`Error::Lookup`].
    pub async fn list(
        &self,
        mut filter: HandoffFilter,
        before: Option<HandoffId>,
        size: u32,
    ) -> Result<(Vec<Handoff>, Option<HandoffId>), Error> {
        filter.model = self.known(filter.model)?;
        let size = match size as usize {
            0 => PAGE,
            size => size.min(PAGE_MAX),
        };
        let head = self.intake.engine.head();
        Ok(self.intake.projection.handoffs(filter, before, size, head).await?)
    }

    /// A model as the configuration calls it.
    fn known(&self, model: Option<ModelName>) -> Result<Option<ModelName>, Error> {
        Ok(model.map(|model| self.intake.model(&model)).transpose()?)
    }

    async fn command(&self, command: HandoffCommand) -> Result<Handoff, Error> {
        match self.intake.engine.command(Command::Handoff(Box::new(command))).await? {
            Reply::Handoff(HandoffReply::Handoff(handoff)) => Ok(*handoff),
            _ => Err(engine::Error::Unknown.into()),
        }
    }

    async fn ask(&self, query: HandoffQuery) -> Result<Option<Handoff>, Error> {
        match self.intake.engine.query(Query::Handoff(query)).await? {
            Reply::Handoff(HandoffReply::Found(found)) => Ok(found.map(|found| *found)),
            _ => Err(engine::Error::Unknown.into()),
        }
    }
}
