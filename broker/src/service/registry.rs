//! `RegistryService`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tonic::{Request, Response, Status};

use broker_proto::{
    AgentName, ClockInfo, ClockJump, Drain, ForceRotation, ModelName, PeerPing, Pong, RoleName,
    Rotation, SetRotation, convert::InvalidField, pb,
};

use super::{reason, status};
use crate::{
    core::{Command, Query, Reply, ring},
    engine,
    intake::Intake,
    link::{self, AgentToken, Links},
};

/// How long a ping waits for an agent.
const PONG: Duration = Duration::from_secs(5);
/// The longest wait that may be asked for: below the deadline of a unary call.
const LONGEST_PONG: Duration = Duration::from_secs(25);

/// The longest a drain's answer waits.
const LONGEST_WAIT: Duration = Duration::from_secs(25);

/// Models, agents and tokens.
#[derive(Debug)]
pub struct RegistryService {
    pub intake: Intake,
    pub drain: link::Drain,
    pub links: Links,
    pub nonce: AtomicU64,
    pub journal: &'static str,
}

impl RegistryService {
    async fn ask(&self, query: Query) -> Result<Reply, Status> {
        self.intake.engine.query(query).await.map_err(status::engine)
    }

    async fn ping_agent(&self, model: &ModelName) -> Result<(AgentName, Duration), Status> {
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let (agent, pong) = self
            .links
            .ping(model, nonce)
            .ok_or_else(|| reason::NO_AGENT.status(format!("no agent serves {model}")))?;
        match tokio::time::timeout(PONG, pong).await {
            Ok(Ok(_)) => Ok((agent, began.elapsed())),
            _ => Err(reason::NO_AGENT.status(format!("agent {agent} does not answer a ping"))),
        }
    }
}

/// The ring that a command was about.
fn rotation(reply: Reply) -> Result<pb::Rotation, Status> {
    let ring = rotations(reply)?.pop();
    ring.map(Into::into).ok_or_else(|| status::engine(engine::Error::Unknown))
}

fn rotations(reply: Reply) -> Result<Vec<Rotation>, Status> {
    match reply {
        Reply::Ring(ring::Reply::Rings(rings)) => Ok(rings),
        _ => Err(status::engine(engine::Error::Unknown)),
    }
}

fn name(text: &str) -> Result<AgentName, InvalidField> {
    AgentName::parse(text).map_err(|invalid| InvalidField::new("name", invalid.to_string()))
}

#[tonic::async_trait]
impl pb::registry_service_server::RegistryService for RegistryService {
    async fn list_models(
        &self,
        _: Request<pb::ListModelsRequest>,
    ) -> Result<Response<pb::ListModelsResponse>, Status> {
        let Reply::Models(models) = self.ask(Query::Models).await? else {
            return Err(status::engine(engine::Error::Unknown));
        };
        let models = models.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListModelsResponse { models, next_page_token: String::new() }))
    }

    async fn list_agents(
        &self,
        _: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let Reply::Agents(agents) = self.ask(Query::Agents).await? else {
            return Err(status::engine(engine::Error::Unknown));
        };
        let agents = agents.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListAgentsResponse { agents, next_page_token: String::new() }))
    }

    async fn ping(
        &self,
        request: Request<pb::PingRequest>,
    ) -> Result<Response<pb::PingResponse>, Status> {
        let model = request.into_inner().model;
        let (agent, round_trip) = if model.is_empty() {
            // Through the engine, so that a broker which cannot decide does not look alive.
            self.ask(Query::Tokens).await?;
            (None, None)
        } else {
            let given = ModelName::parse(&model.to_lowercase())
                .map_err(|invalid| InvalidField::new("model", invalid.to_string()))?;
            let model = self.intake.model(&given).map_err(status::intake)?;
            let (agent, round_trip) = self.ping_agent(&model).await?;
            (Some(agent), Some(round_trip))
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let pong = Pong { version, round_trip, agent, journal: self.journal.to_owned() };
        Ok(Response::new(pong.into()))
    }

    async fn ping_model(
        &self,
        request: Request<pb::PingModelRequest>,
    ) -> Result<Response<pb::PingModelResponse>, Status> {
        let given = PeerPing::try_from(request.into_inner())?;
        let from = self.intake.model(&given.from).map_err(status::intake)?;
        let to = self.intake.model(&given.to).map_err(status::intake)?;
        let wait = given.wait.unwrap_or(PONG).min(LONGEST_PONG);
        let trip = self.links.ping_between(PeerPing { from, to, ..given }, &self.nonce, wait).await;
        Ok(Response::new(trip.map_err(|error| status::ping(&error))?.into()))
    }

    async fn get_clock(
        &self,
        _: Request<pb::GetClockRequest>,
    ) -> Result<Response<pb::GetClockResponse>, Status> {
        let now = self.intake.clock.now();
        let jump = self.intake.clock.jump().map(|jump| ClockJump {
            ahead: jump.ahead,
            believed_in: jump.believed_at.0.saturating_sub(now.boot.0),
        });
        Ok(Response::new(ClockInfo { broker_time: now.wall, jump }.into()))
    }

    async fn confirm_clock(
        &self,
        _: Request<pb::ConfirmClockRequest>,
    ) -> Result<Response<pb::ConfirmClockResponse>, Status> {
        let confirmed = self.intake.clock.confirm();
        // What is due by the new time ends at once.
        self.intake.engine.command(Command::Tick).await.map_err(status::engine)?;
        Ok(Response::new(pb::ConfirmClockResponse { confirmed }))
    }

    async fn create_token(
        &self,
        request: Request<pb::CreateTokenRequest>,
    ) -> Result<Response<pb::CreateTokenResponse>, Status> {
        let agent = name(&request.into_inner().name)?;
        let token = AgentToken::generate()
            .map_err(|_| reason::STORE_FAILED.status("the system gives no random numbers"))?;
        let command = Command::SetToken { agent, hash: Some(token.hash()) };
        self.intake.engine.command(command).await.map_err(status::engine)?;
        Ok(Response::new(pb::CreateTokenResponse { token: token.reveal() }))
    }

    async fn list_tokens(
        &self,
        _: Request<pb::ListTokensRequest>,
    ) -> Result<Response<pb::ListTokensResponse>, Status> {
        let Reply::Tokens(tokens) = self.ask(Query::Tokens).await? else {
            return Err(status::engine(engine::Error::Unknown));
        };
        let tokens = tokens.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::ListTokensResponse { tokens, next_page_token: String::new() }))
    }

    async fn revoke_token(
        &self,
        request: Request<pb::RevokeTokenRequest>,
    ) -> Result<Response<pb::RevokeTokenResponse>, Status> {
        let agent = name(&request.into_inner().name)?;
        let command = Command::SetToken { agent: agent.clone(), hash: None };
        self.intake.engine.command(command).await.map_err(status::engine)?;
        self.links.close_agent(&agent, &reason::token_rejected(&agent));
        Ok(Response::new(pb::RevokeTokenResponse {}))
    }

    async fn drain(
        &self,
        request: Request<pb::DrainRequest>,
    ) -> Result<Response<pb::DrainResponse>, Status> {
        let drain = Drain::try_from(request.into_inner())?;
        let draining = self.drain.run(drain, LONGEST_WAIT).await.map_err(status::engine)?;
        Ok(Response::new(draining.into()))
    }

    async fn get_rotation(
        &self,
        request: Request<pb::GetRotationRequest>,
    ) -> Result<Response<pb::GetRotationResponse>, Status> {
        let role = Option::<RoleName>::try_from(request.into_inner())?;
        let reply = self.ask(Query::Ring(ring::Query::Get(role.clone()))).await?;
        let rings = rotations(reply)?;
        let unknown = role.filter(|_| rings.is_empty()).map(ring::Refusal::Unknown);
        unknown.map_or(Ok(()), |refusal| Err(status::refusal(&refusal.into())))?;
        let rotations = rings.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::GetRotationResponse { rotations }))
    }

    async fn set_rotation(
        &self,
        request: Request<pb::SetRotationRequest>,
    ) -> Result<Response<pb::SetRotationResponse>, Status> {
        let set = SetRotation::try_from(request.into_inner())?;
        let command = Command::Ring(Box::new(ring::Command::Set(set)));
        let reply = self.intake.engine.command(command).await.map_err(status::engine)?;
        Ok(Response::new(pb::SetRotationResponse { rotation: Some(rotation(reply)?) }))
    }

    async fn force_rotation(
        &self,
        request: Request<pb::ForceRotationRequest>,
    ) -> Result<Response<pb::ForceRotationResponse>, Status> {
        let force = ForceRotation::try_from(request.into_inner())?;
        let command = Command::Ring(Box::new(ring::Command::Force(force)));
        let reply = self.intake.engine.command(command).await.map_err(status::engine)?;
        Ok(Response::new(pb::ForceRotationResponse { rotation: Some(rotation(reply)?) }))
    }
}
