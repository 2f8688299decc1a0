//! `registry.proto`.

use std::time::Duration;

use super::{
    InvalidField,
    common::{agent, model, optional_agent, role, span, text_of, time, wire_span},
    required,
};
use crate::{
    AgentInfo, ClockInfo, ClockJump, Drain, DrainStep, Draining, ModelInfo, ModelName, PeerPing,
    PingHop, PingTrip, Pong, TokenInfo, pb,
};

fn models(names: &[String], field: &'static str) -> Result<Vec<ModelName>, InvalidField> {
    names.iter().map(|name| model(name, field)).collect()
}

fn texts(names: &[ModelName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl TryFrom<pb::ModelInfo> for ModelInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::ModelInfo) -> Result<Self, InvalidField> {
        Ok(Self {
            name: model(&wire.name, "model.name")?,
            provider: wire.provider,
            id: wire.id,
            context_window: wire.context_window,
            level: wire.level,
            reason: wire.reason,
            is_available: wire.available,
            is_simulated: wire.simulated,
            is_degraded: wire.degraded,
            has_vision: wire.vision,
            unavailable_until: time(wire.unavailable_until, "model.unavailable_until")?,
            agents: wire.agents,
            queued: wire.queued,
            leased: wire.leased,
            fallback: models(&wire.fallback, "model.fallback")?,
        })
    }
}

impl From<ModelInfo> for pb::ModelInfo {
    fn from(info: ModelInfo) -> Self {
        Self {
            name: info.name.to_string(),
            provider: info.provider,
            id: info.id,
            context_window: info.context_window,
            level: info.level,
            reason: info.reason,
            available: info.is_available,
            simulated: info.is_simulated,
            degraded: info.is_degraded,
            vision: info.has_vision,
            unavailable_until: info.unavailable_until.map(Into::into),
            agents: info.agents,
            queued: info.queued,
            leased: info.leased,
            fallback: texts(&info.fallback),
        }
    }
}

impl TryFrom<pb::AgentInfo> for AgentInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::AgentInfo) -> Result<Self, InvalidField> {
        let roles = wire.roles.iter().map(|name| role(name, "agent.roles"));
        Ok(Self {
            name: agent(&wire.name, "agent.name")?,
            is_connected: wire.connected,
            is_exclusive: wire.exclusive,
            models: models(&wire.models, "agent.models")?,
            capacity: wire.capacity,
            leased: wire.leased,
            free_credit: wire.free_credit,
            since: required(time(wire.since, "agent.since")?, "agent.since")?,
            instance: wire.instance,
            roles: roles.collect::<Result<_, _>>()?,
            is_draining: wire.draining,
        })
    }
}

impl From<AgentInfo> for pb::AgentInfo {
    fn from(info: AgentInfo) -> Self {
        Self {
            name: info.name.to_string(),
            connected: info.is_connected,
            exclusive: info.is_exclusive,
            models: texts(&info.models),
            capacity: info.capacity,
            leased: info.leased,
            free_credit: info.free_credit,
            since: Some(info.since.into()),
            instance: info.instance,
            roles: info.roles.iter().map(ToString::to_string).collect(),
            draining: info.is_draining,
        }
    }
}

impl TryFrom<pb::TokenInfo> for TokenInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::TokenInfo) -> Result<Self, InvalidField> {
        Ok(Self {
            name: agent(&wire.name, "token.name")?,
            created_at: required(time(wire.created_at, "token.created_at")?, "token.created_at")?,
        })
    }
}

impl From<TokenInfo> for pb::TokenInfo {
    fn from(info: TokenInfo) -> Self {
        Self { name: info.name.to_string(), created_at: Some(info.created_at.into()) }
    }
}

impl TryFrom<pb::PingResponse> for Pong {
    type Error = InvalidField;

    fn try_from(wire: pb::PingResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            version: wire.version,
            round_trip: span(wire.round_trip, "round_trip")?,
            agent: optional_agent(&wire.agent, "agent")?,
            journal: wire.journal,
        })
    }
}

impl From<Pong> for pb::PingResponse {
    fn from(pong: Pong) -> Self {
        Self {
            version: pong.version,
            round_trip: pong.round_trip.map(wire_span),
            agent: text_of(pong.agent),
            journal: pong.journal,
        }
    }
}

/// What a drain tells agents when it names no time.
const DRAIN: Duration = Duration::from_secs(60);

impl TryFrom<pb::DrainRequest> for Drain {
    type Error = InvalidField;

    fn try_from(wire: pb::DrainRequest) -> Result<Self, InvalidField> {
        let agent = optional_agent(&wire.agent, "agent")?;
        if wire.stop && (agent.is_some() || wire.undo) {
            return Err(InvalidField::new("stop", "goes neither with `agent` nor with `undo`"));
        }
        let step = match (wire.undo, wire.look) {
            (false, false) => DrainStep::Begin,
            (true, false) => DrainStep::Undo,
            (false, true) if !wire.stop => DrainStep::Look,
            _ => return Err(InvalidField::new("look", "goes neither with `undo` nor with `stop`")),
        };
        Ok(Self {
            agent,
            deadline: span(wire.deadline, "deadline")?.unwrap_or(DRAIN),
            step,
            stops: wire.stop,
            wait: span(wire.wait, "wait")?.unwrap_or_default(),
        })
    }
}

impl From<Drain> for pb::DrainRequest {
    fn from(drain: Drain) -> Self {
        Self {
            agent: text_of(drain.agent),
            deadline: Some(wire_span(drain.deadline)),
            undo: drain.step == DrainStep::Undo,
            look: drain.step == DrainStep::Look,
            stop: drain.stops,
            wait: Some(wire_span(drain.wait)),
        }
    }
}

impl From<pb::DrainResponse> for Draining {
    fn from(wire: pb::DrainResponse) -> Self {
        Self { is_draining: wire.draining, running: wire.running }
    }
}

impl From<Draining> for pb::DrainResponse {
    fn from(draining: Draining) -> Self {
        Self { draining: draining.is_draining, running: draining.running }
    }
}

impl TryFrom<pb::PingModelRequest> for PeerPing {
    type Error = InvalidField;

    fn try_from(wire: pb::PingModelRequest) -> Result<Self, InvalidField> {
        Ok(Self {
            from: model(&wire.from.to_lowercase(), "from")?,
            to: model(&wire.to.to_lowercase(), "to")?,
            text: super::link::ping_text(wire.text, "text")?,
            wait: span(wire.wait, "wait")?,
        })
    }
}

impl From<PeerPing> for pb::PingModelRequest {
    fn from(ping: PeerPing) -> Self {
        Self {
            from: ping.from.to_string(),
            to: ping.to.to_string(),
            text: ping.text.0,
            wait: ping.wait.map(wire_span),
        }
    }
}

impl TryFrom<pb::PingModelResponse> for PingTrip {
    type Error = InvalidField;

    fn try_from(wire: pb::PingModelResponse) -> Result<Self, InvalidField> {
        let hop = |hop: pb::PingHop| {
            Ok(PingHop {
                agent: agent(&hop.agent, "hops.agent")?,
                took: span(hop.took, "hops.took")?.unwrap_or_default(),
            })
        };
        Ok(Self {
            hops: wire.hops.into_iter().map(hop).collect::<Result<_, InvalidField>>()?,
            round_trip: span(wire.round_trip, "round_trip")?.unwrap_or_default(),
            total: span(wire.total, "total")?.unwrap_or_default(),
        })
    }
}

impl From<PingTrip> for pb::PingModelResponse {
    fn from(trip: PingTrip) -> Self {
        let hop = |hop: PingHop| pb::PingHop {
            agent: hop.agent.to_string(),
            took: Some(wire_span(hop.took)),
        };
        Self {
            hops: trip.hops.into_iter().map(hop).collect(),
            round_trip: Some(wire_span(trip.round_trip)),
            total: Some(wire_span(trip.total)),
        }
    }
}

impl TryFrom<pb::GetClockResponse> for ClockInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::GetClockResponse) -> Result<Self, InvalidField> {
        let broker_time = required(time(wire.broker_time, "broker_time")?, "broker_time")?;
        let jump = wire.jump.map(|jump| {
            Ok::<_, InvalidField>(ClockJump {
                ahead: span(jump.ahead, "jump.ahead")?.unwrap_or_default(),
                believed_in: span(jump.believed_in, "jump.believed_in")?.unwrap_or_default(),
            })
        });
        Ok(Self { broker_time, jump: jump.transpose()? })
    }
}

impl From<ClockInfo> for pb::GetClockResponse {
    fn from(info: ClockInfo) -> Self {
        let jump = info.jump.map(|jump| pb::ClockJump {
            ahead: Some(wire_span(jump.ahead)),
            believed_in: Some(wire_span(jump.believed_in)),
        });
        Self { broker_time: Some(info.broker_time.into()), jump }
    }
}
