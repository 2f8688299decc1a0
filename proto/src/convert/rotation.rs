//! Rotation, in `registry.proto`.

use super::{
    InvalidField,
    common::{agent, optional_agent, role, span, text_of, time, wire_span},
    required,
};
use crate::{
    ForceRotation, Pick, RoleName, Rotation, RotationHandover, RotationMember, RotationPhase,
    RotationState, RotationTrigger, SetRotation, pb,
};

/// Bytes of a reason.
const REASON: usize = 1024;

fn word<T>(value: Option<T>, field: &'static str) -> Result<T, InvalidField> {
    value.ok_or_else(|| InvalidField::new(field, "is not one of its words"))
}

impl TryFrom<pb::GetRotationRequest> for Option<RoleName> {
    type Error = InvalidField;

    fn try_from(wire: pb::GetRotationRequest) -> Result<Self, InvalidField> {
        (!wire.role.is_empty()).then(|| role(&wire.role, "role")).transpose()
    }
}

impl TryFrom<pb::SetRotationRequest> for SetRotation {
    type Error = InvalidField;

    fn try_from(wire: pb::SetRotationRequest) -> Result<Self, InvalidField> {
        let pick = match wire.pick.as_str() {
            "" => None,
            text => Some(word(Pick::parse(text), "pick")?),
        };
        Ok(Self {
            role: role(&wire.role, "role")?,
            members: wire
                .members
                .iter()
                .map(|it| agent(it, "members"))
                .collect::<Result<_, _>>()?,
            pick,
            pause: span(wire.pause, "pause")?,
            is_on: !wire.off,
        })
    }
}

impl From<SetRotation> for pb::SetRotationRequest {
    fn from(set: SetRotation) -> Self {
        Self {
            role: set.role.to_string(),
            members: set.members.iter().map(ToString::to_string).collect(),
            pick: set.pick.map(|pick| pick.as_str().to_owned()).unwrap_or_default(),
            pause: set.pause.map(wire_span),
            off: !set.is_on,
        }
    }
}

impl TryFrom<pb::ForceRotationRequest> for ForceRotation {
    type Error = InvalidField;

    fn try_from(wire: pb::ForceRotationRequest) -> Result<Self, InvalidField> {
        if wire.reason.len() > REASON {
            return Err(InvalidField::new("reason", "is longer than 1 KiB"));
        }
        Ok(Self {
            role: role(&wire.role, "role")?,
            to: optional_agent(&wire.to, "to")?,
            reason: wire.reason,
        })
    }
}

impl From<ForceRotation> for pb::ForceRotationRequest {
    fn from(force: ForceRotation) -> Self {
        Self { role: force.role.to_string(), to: text_of(force.to), reason: force.reason }
    }
}

impl TryFrom<pb::Rotation> for Rotation {
    type Error = InvalidField;

    fn try_from(wire: pb::Rotation) -> Result<Self, InvalidField> {
        let members = wire.members.into_iter().map(RotationMember::try_from);
        Ok(Self {
            role: role(&wire.role, "rotation.role")?,
            state: word(RotationState::parse(&wire.state), "rotation.state")?,
            pick: word(Pick::parse(&wire.pick), "rotation.pick")?,
            pause: span(wire.pause, "rotation.pause")?.unwrap_or_default(),
            accept_deadline: span(wire.accept_deadline, "rotation.accept_deadline")?
                .unwrap_or_default(),
            owner: optional_agent(&wire.owner, "rotation.owner")?,
            epoch: wire.epoch,
            since: time(wire.since, "rotation.since")?,
            handover: wire.handover.map(RotationHandover::try_from).transpose()?,
            stopped: wire.stopped,
            back_at: time(wire.back_at, "rotation.back_at")?,
            members: members.collect::<Result<_, _>>()?,
            queued: wire.queued,
            leased: wire.leased,
            at: required(time(wire.at, "rotation.at")?, "rotation.at")?,
        })
    }
}

impl From<Rotation> for pb::Rotation {
    fn from(ring: Rotation) -> Self {
        Self {
            role: ring.role.to_string(),
            state: ring.state.as_str().to_owned(),
            pick: ring.pick.as_str().to_owned(),
            pause: Some(wire_span(ring.pause)),
            accept_deadline: Some(wire_span(ring.accept_deadline)),
            owner: text_of(ring.owner),
            epoch: ring.epoch,
            since: ring.since.map(Into::into),
            handover: ring.handover.map(Into::into),
            stopped: ring.stopped,
            back_at: ring.back_at.map(Into::into),
            members: ring.members.into_iter().map(Into::into).collect(),
            queued: ring.queued,
            leased: ring.leased,
            at: Some(ring.at.into()),
        }
    }
}

impl TryFrom<pb::RotationHandover> for RotationHandover {
    type Error = InvalidField;

    fn try_from(wire: pb::RotationHandover) -> Result<Self, InvalidField> {
        Ok(Self {
            phase: word(RotationPhase::parse(&wire.phase), "handover.phase")?,
            trigger: word(RotationTrigger::parse(&wire.trigger), "handover.trigger")?,
            reason: wire.reason,
            from: optional_agent(&wire.from, "handover.from")?,
            to: optional_agent(&wire.to, "handover.to")?,
            begun_at: required(time(wire.begun_at, "handover.begun_at")?, "handover.begun_at")?,
            until: time(wire.until, "handover.until")?,
            tasks: wire.tasks,
            sessions: wire.sessions,
        })
    }
}

impl From<RotationHandover> for pb::RotationHandover {
    fn from(handover: RotationHandover) -> Self {
        Self {
            phase: handover.phase.as_str().to_owned(),
            trigger: handover.trigger.as_str().to_owned(),
            reason: handover.reason,
            from: text_of(handover.from),
            to: text_of(handover.to),
            begun_at: Some(handover.begun_at.into()),
            until: handover.until.map(Into::into),
            tasks: handover.tasks,
            sessions: handover.sessions,
        }
    }
}

impl TryFrom<pb::RotationMember> for RotationMember {
    type Error = InvalidField;

    fn try_from(wire: pb::RotationMember) -> Result<Self, InvalidField> {
        Ok(Self {
            agent: agent(&wire.agent, "member.agent")?,
            is_owner: wire.owner,
            is_connected: wire.connected,
            status: wire.status,
            reason: wire.reason,
            until: time(wire.until, "member.until")?,
            rate_limit_count: wire.rate_limit_count,
            error_rate: wire.error_rate,
            avg_response_time: span(wire.avg_response_time, "member.avg_response_time")?,
            next: agent(&wire.next, "member.next")?,
            turns: wire.turns,
            owned: span(wire.owned, "member.owned")?.unwrap_or_default(),
            woken_by: wire.woken_by,
        })
    }
}

impl From<RotationMember> for pb::RotationMember {
    fn from(member: RotationMember) -> Self {
        Self {
            agent: member.agent.to_string(),
            owner: member.is_owner,
            connected: member.is_connected,
            status: member.status,
            reason: member.reason,
            until: member.until.map(Into::into),
            rate_limit_count: member.rate_limit_count,
            error_rate: member.error_rate,
            avg_response_time: member.avg_response_time.map(wire_span),
            next: member.next.to_string(),
            turns: member.turns,
            owned: Some(wire_span(member.owned)),
            woken_by: member.woken_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{AgentName, WallTime};

    #[test]
    fn a_rotation_reads_back_as_it_was_sent() {
        let [a, b] = ["pc1", "pc2"].map(|name| AgentName::parse(name).unwrap());
        let ring = Rotation {
            role: RoleName::parse("builder").unwrap(),
            state: RotationState::HandingOver,
            pick: Pick::LeastUsed,
            pause: Duration::from_secs(300),
            accept_deadline: Duration::from_secs(60),
            owner: Some(a.clone()),
            epoch: 3,
            since: Some(WallTime(4_000)),
            handover: Some(RotationHandover {
                phase: RotationPhase::Woken,
                trigger: RotationTrigger::RateLimits,
                reason: "3 of 3".into(),
                from: Some(a.clone()),
                to: Some(b.clone()),
                begun_at: WallTime(5_000),
                until: Some(WallTime(6_000)),
                tasks: 2,
                sessions: 1,
            }),
            stopped: String::new(),
            back_at: None,
            members: vec![RotationMember {
                agent: a,
                is_owner: true,
                is_connected: true,
                status: "WARNING".into(),
                reason: "2 of 3".into(),
                until: Some(WallTime(7_000)),
                rate_limit_count: 2,
                error_rate: 0.5,
                avg_response_time: Some(Duration::from_millis(8_500)),
                next: b,
                turns: 2,
                owned: Duration::from_secs(9),
                woken_by: "hook".into(),
            }],
            queued: 1,
            leased: 2,
            at: WallTime(8_000),
        };
        assert_eq!(Rotation::try_from(pb::Rotation::from(ring.clone())), Ok(ring));
    }

    #[test]
    fn what_is_asked_of_a_rotation_is_checked_field_by_field() {
        let set = |members: &[&str], pick: &str| pb::SetRotationRequest {
            role: "builder".into(),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            pick: pick.into(),
            pause: None,
            off: false,
        };
        let wanted = SetRotation::try_from(set(&["pc1"], "least-used")).unwrap();
        assert_eq!(pb::SetRotationRequest::from(wanted), set(&["pc1"], "least-used"));
        let field = |wire: pb::SetRotationRequest| SetRotation::try_from(wire).unwrap_err().field;
        assert_eq!(field(set(&["pc 1"], "")), "members");
        assert_eq!(field(set(&[], "random")), "pick");
        assert_eq!(field(pb::SetRotationRequest { role: "a/b".into(), ..set(&[], "") }), "role");
        let reason = "x".repeat(REASON + 1);
        let force = pb::ForceRotationRequest { role: "builder".into(), to: String::new(), reason };
        assert_eq!(ForceRotation::try_from(force).unwrap_err().field, "reason");
    }
}
