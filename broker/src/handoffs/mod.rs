//! Handoffs between the wire and the rules: what is asked of them, what is shown of them, and the packages they need.

mod bridge;
mod builder;
mod prober;
mod transfer;

pub use bridge::Bridges;
pub use builder::Builder;
pub use prober::Prober;
pub use transfer::Transfers;

use std::collections::BTreeMap;

use broker_proto::{
    AcceptHandoff, AskHandoff, Handoff, HandoffCheck, HandoffFilter, HandoffId,
    HandoffPolicyChange, HandoffStatus, ModelName, UsageSetting,
};

use crate::{
    core::{
        self, Command, Query, Reply,
        handoff::{
            By, Command as HandoffCommand, Query as HandoffQuery, Refusal, Reply as HandoffReply,
            policy,
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
    pub async fn decline(
        &self,
        id: HandoffId,
        by: By,
        reason: String,
        for_model: bool,
    ) -> Result<Handoff, Error> {
        self.command(HandoffCommand::Decline { id, by, reason, for_model }).await
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

    /// When sessions move, and who receives them.
    ///
    /// # Errors
    /// The engine's.
    pub async fn policy(&self) -> Result<Vec<UsageSetting>, Error> {
        settings(self.query(HandoffQuery::Policy).await?)
    }

    /// Changes it; models may be named as people call them.
    ///
    /// # Errors
    /// The core's refusal of a policy that cannot be, and of a model that nobody knows.
    pub async fn set_policy(
        &self,
        mut change: HandoffPolicyChange,
    ) -> Result<Vec<UsageSetting>, Error> {
        let named = |key: &str| key.strip_prefix(policy::LIMIT).map(str::to_owned);
        let mut set = BTreeMap::new();
        for (key, value) in change.set {
            let key = match named(&key) {
                Some(name) => format!("{}{}", policy::LIMIT, self.called(&name)?),
                None => key.replace('-', "_"),
            };
            let value = match key.as_str() {
                "receivers" if value != "all" => self.called_all(&value)?,
                _ => value,
            };
            set.insert(key, value);
        }
        change.set = set;
        for key in &mut change.unset {
            *key = match named(key) {
                // One of a model that is configured no more is unset by the name it was set by.
                Some(name) => match self.called(&name) {
                    Ok(model) => format!("{}{model}", policy::LIMIT),
                    Err(_) => key.clone(),
                },
                None => key.replace('-', "_"),
            };
        }
        for name in change.add_receivers.iter_mut().chain(&mut change.remove_receivers) {
            *name = self.intake.model(name)?;
        }
        let command = HandoffCommand::SetPolicy(Box::new(change));
        match self.intake.engine.command(Command::Handoff(Box::new(command))).await? {
            Reply::Handoff(reply) => settings(reply),
            _ => Err(engine::Error::Unknown.into()),
        }
    }

    /// Whether a session is to be handed off now.
    ///
    /// # Errors
    /// [`core::Refusal::UncountedSession`] when nothing is known of it.
    pub async fn check(&self, session: String, warning_only: bool) -> Result<HandoffCheck, Error> {
        let query = HandoffQuery::Check { session: session.clone(), warning_only };
        match self.query(query).await? {
            HandoffReply::Check(Some(check)) => Ok(*check),
            HandoffReply::Check(None) => Err(unknown_session(session)),
            _ => Err(engine::Error::Unknown.into()),
        }
    }

    /// Levels, and what is recommended: of every model, and of one session or those that are near a limit.
    ///
    /// # Errors
    /// [`core::Refusal::UncountedSession`] when nothing is known of the session that is named.
    pub async fn status(&self, session: Option<String>) -> Result<HandoffStatus, Error> {
        let query = HandoffQuery::Status { session: session.clone() };
        match (self.query(query).await?, session) {
            (HandoffReply::Status(status), Some(named)) if status.sessions.is_empty() => {
                Err(unknown_session(named))
            }
            (HandoffReply::Status(status), _) => Ok(*status),
            _ => Err(engine::Error::Unknown.into()),
        }
    }

    fn called(&self, name: &str) -> Result<ModelName, Error> {
        let given = ModelName::parse(name).map_err(|_| policy::Invalid::Model {
            key: format!("{}{name}", policy::LIMIT),
            model: name.to_owned(),
        });
        Ok(self.intake.model(&given.map_err(Refusal::from)?)?)
    }

    fn called_all(&self, names: &str) -> Result<String, Error> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Result<_, Error> = names.map(|name| self.called(name)).collect();
        Ok(policy::written(&names?))
    }

    async fn query(&self, query: HandoffQuery) -> Result<HandoffReply, Error> {
        match self.intake.engine.query(Query::Handoff(query)).await? {
            Reply::Handoff(reply) => Ok(reply),
            _ => Err(engine::Error::Unknown.into()),
        }
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
        match self.query(query).await? {
            HandoffReply::Found(found) => Ok(found.map(|found| *found)),
            _ => Err(engine::Error::Unknown.into()),
        }
    }
}

fn settings(reply: HandoffReply) -> Result<Vec<UsageSetting>, Error> {
    match reply {
        HandoffReply::Policy(settings) => Ok(settings),
        _ => Err(engine::Error::Unknown.into()),
    }
}

fn unknown_session(session: String) -> Error {
    Error::Engine(engine::Error::Refused(core::Refusal::UncountedSession(session)))
}
