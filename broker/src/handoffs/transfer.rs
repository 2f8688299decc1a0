//! Sessions that go on in another agent's process.

use broker_proto::{AgentInfo, AgentName, AskHandoff, Handoff, ModelName, SessionId};

use super::{Error, Handoffs};
use crate::{
    core::{
        Query, Refusal as CoreRefusal, Reply,
        handoff::Refusal,
        session::{Query as SessionQuery, Refusal as Unknown, Reply as SessionReply, Session},
    },
    engine,
};

impl Handoffs {
    /// Begins the handoff of a session to this agent and no other, on its own model where the agent serves that.
    ///
    /// # Errors
    /// The core's refusal; one of an agent that nobody knows, is not connected, or has the session.
    pub async fn transfer(
        &self,
        session: SessionId,
        agent: AgentName,
        reason: String,
    ) -> Result<Handoff, Error> {
        let found = self.session(&session).await?;
        let agents = match self.intake.engine.query(Query::Agents).await? {
            Reply::Agents(agents) => agents,
            _ => return Err(engine::Error::Unknown.into()),
        };
        let to = target(&found, &agent, &agents)?;
        let ask = AskHandoff {
            session,
            to: Some(to),
            agent: Some(agent),
            reason,
            level: None,
            package: None,
            is_forced: true,
            at_once: true,
        };
        self.begin(ask).await
    }

    async fn session(&self, id: &SessionId) -> Result<Session, Error> {
        let query = Query::Session(SessionQuery::Get(id.clone()));
        match self.intake.engine.query(query).await? {
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
        let reason = format!("agent {agent} is not connected");
        return Err(Refusal::Unfit { model: owner.model.clone(), reason }.into());
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
        return Err(Refusal::HasIt { session, agent }.into());
    }
    Ok(owner.model.clone())
}

fn refused(refusal: CoreRefusal) -> Error {
    engine::Error::Refused(refusal).into()
}
