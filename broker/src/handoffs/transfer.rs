//! Sessions that go on in another agent's process.

use broker_proto::{AgentInfo, AgentName, AskHandoff, Handoff, ModelName, SessionId};

use super::Handoffs;
use crate::{
    core::{
        Command, Query, Refusal as CoreRefusal, Reply,
        handoff::{Command as HandoffCommand, Refusal, Reply as HandoffReply, Settings, Transfer},
        session::{Query as SessionQuery, Refusal as Unknown, Reply as SessionReply, Session},
    },
    engine,
    packages::{Error, Packages, Stopping},
};

/// What is asked of transfers.
#[derive(Debug, Clone)]
pub struct Transfers {
    pub handoffs: Handoffs,
    pub packages: Packages,
    pub settings: Settings,
}

impl Transfers {
    /// Pauses a session and begins its handoff to this agent and no other, in one commit, with one package; on its own
    /// model where the agent serves that. Where the agent does not take it, the session goes on with its owner. One that
    /// somebody paused before stays so then.
    ///
    /// # Errors
    /// The core's refusal; one of an agent that nobody knows, is not connected, or has the session.
    pub async fn begin(
        &self,
        caller: &str,
        session: SessionId,
        agent: AgentName,
        reason: String,
    ) -> Result<Handoff, Error> {
        let found = self.session(&session).await?;
        let agents = match self.packages.intake.engine.query(Query::Agents).await? {
            Reply::Agents(agents) => agents,
            _ => return Err(engine::Error::Unknown.into()),
        };
        if agents.iter().all(|info| info.name != agent) {
            return Err(self.absent(&found, &agent).await?);
        }
        let to = target(&found, &agent, &agents)?;
        let ask = |package| AskHandoff {
            session: session.clone(),
            to: Some(to.clone()),
            agent: Some(agent.clone()),
            reason: reason.clone(),
            level: None,
            package,
            is_forced: true,
            at_once: true,
        };
        if found.info.pause.is_some() {
            return Ok(self.handoffs.command(HandoffCommand::Begin(Box::new(ask(None)))).await?);
        }
        // Nobody is handed what was never said.
        if found.info.head.entries == 0 {
            return Err(refused(Refusal::NoTurns(session).into()));
        }
        let window = self.packages.intake.models.get(to.as_str()).map(|it| it.context_window);
        let budget = window.map(|window| window / 100 * u64::from(self.settings.room));
        let offer = |Stopping { version, pause }| {
            let ask = ask(Some(pause.package));
            let transfer = Box::new(Transfer { ask, version, pause });
            Command::Handoff(Box::new(HandoffCommand::Transfer(transfer)))
        };
        let (said, reader) = ((caller, reason.as_str()), (Some(to.clone()), budget));
        match self.packages.stop(said, &session, reader, offer).await? {
            Reply::Handoff(HandoffReply::Handoff(handoff)) => Ok(*handoff),
            _ => Err(engine::Error::Unknown.into()),
        }
    }

    /// Why nothing is handed to an agent that is not linked: it is away, or nobody knows it.
    async fn absent(&self, session: &Session, agent: &AgentName) -> Result<Error, Error> {
        let Reply::Tokens(tokens) = self.packages.intake.engine.query(Query::Tokens).await? else {
            return Err(engine::Error::Unknown.into());
        };
        if tokens.iter().all(|token| token.name != *agent) {
            return Ok(refused(CoreRefusal::UnknownAgent(agent.to_string())));
        }
        Ok(not_connected(session, agent))
    }

    async fn session(&self, id: &SessionId) -> Result<Session, Error> {
        let query = Query::Session(SessionQuery::Get(id.clone()));
        match self.packages.intake.engine.query(query).await? {
            Reply::Session(SessionReply::Found(Some(session))) => Ok(*session),
            _ => Err(refused(Unknown::Unknown(id.clone()).into())),
        }
    }
}

/// The model that an agent would go on as.
fn target(session: &Session, agent: &AgentName, agents: &[AgentInfo]) -> Result<ModelName, Error> {
    let owner = &session.info.owner;
    let Some(info) = agents.iter().find(|info| info.name == *agent) else {
        return Err(refused(CoreRefusal::UnknownAgent(agent.to_string())));
    };
    let models = &info.models;
    if !info.is_connected || models.is_empty() {
        return Err(not_connected(session, agent));
    }
    if !models.contains(&owner.model) {
        return Ok(models[0].clone());
    }
    let serves = |info: &&AgentInfo| info.is_connected && info.models.contains(&owner.model);
    let has_it = match &owner.agent {
        Some(own) => own == agent,
        // Nobody else could have it.
        None => agents.iter().filter(serves).all(|info| info.name == *agent),
    };
    if has_it {
        let (session, agent) = (session.info.id.clone(), agent.clone());
        return Err(refused(Refusal::HasIt { session, agent }.into()));
    }
    Ok(owner.model.clone())
}

fn not_connected(session: &Session, agent: &AgentName) -> Error {
    let model = session.info.owner.model.clone();
    let reason = format!("agent {agent} is not connected, or serves no model: start it first");
    refused(Refusal::Unfit { model, reason }.into())
}

fn refused(refusal: CoreRefusal) -> Error {
    engine::Error::Refused(refusal).into()
}
