//! A ring as it is shown.

use std::time::Duration;

use broker_proto::{Recipient, Rotation, RotationHandover, RotationMember, RotationState};

use crate::core::{
    flow::Run,
    ring::{Member, Ring, Unfit, Waker},
    usage::{self, Held, Level},
};

impl Run<'_> {
    pub(super) fn shown_ring(&self, ring: &Ring) -> Rotation {
        let queue = Recipient::Role(ring.role.clone());
        let (queued, leased, _) = self.state.queue.load(&queue);
        let state = match &ring.owner {
            _ if !ring.is_on => RotationState::Off,
            None => RotationState::Stopped,
            Some(_) if ring.is_handing_over() => RotationState::HandingOver,
            Some(_) => RotationState::Running,
        };
        let handover = ring.handover.as_ref().map(|it| RotationHandover {
            phase: it.phase,
            trigger: it.trigger,
            reason: it.reason.clone(),
            from: it.from.clone(),
            to: it.to.clone(),
            begun_at: it.begun_at,
            until: it.until,
            tasks: it.tasks,
            sessions: it.sessions,
        });
        let next = ring.members.iter().cycle().skip(1);
        let members =
            ring.members.iter().zip(next).map(|(member, next)| self.shown(ring, member, next));
        Rotation {
            role: ring.role.clone(),
            state,
            pick: ring.pick,
            pause: ring.pause,
            accept_deadline: self.state.policy.rotation.accept_deadline,
            owner: ring.owner.clone(),
            epoch: ring.epoch,
            since: ring.owner.is_some().then_some(ring.since),
            handover,
            stopped: ring.stopped.as_ref().map(|it| it.why.clone()).unwrap_or_default(),
            back_at: ring.stopped.as_ref().and_then(|it| it.back_at),
            members: members.collect(),
            queued,
            leased,
            at: self.now.wall,
        }
    }

    pub(super) fn shown(&self, ring: &Ring, member: &Member, next: &Member) -> RotationMember {
        let agent = &member.agent;
        let standing = self.standing(ring, agent);
        let thresholds = &self.state.usage.rules().thresholds;
        let readings = self.state.ring.signals(agent).read(thresholds, self.now.wall);
        let is_owner = ring.owner.as_ref() == Some(agent);
        let signal = usage::highest(self.signals_of(agent), &Held::default());
        let level = signal.as_ref().map_or(Level::Healthy, |it| it.level).max(standing.level);
        let shut = member.shut.clone();
        let shut = shut.filter(|shut| shut.until.is_none_or(|until| until > self.now.wall));
        let unfit = standing.exhausted.clone().map(|it| Unfit { reason: it.reason, until: None });
        let unfit = unfit.or(shut).or(standing.unfit.clone());
        let away = || standing.keeps_away().map(|reason| Unfit { reason, until: None });
        let unfit = unfit.or_else(away);
        let unfit = unfit.or(signal.map(|it| Unfit { reason: it.reason, until: it.until }));
        let so_far = if is_owner { self.now.wall.since(ring.since) } else { Duration::ZERO };
        RotationMember {
            agent: agent.clone(),
            is_owner,
            is_connected: standing.is_there,
            status: level.as_str().to_owned(),
            until: unfit.as_ref().and_then(|it| it.until),
            reason: unfit.map(|it| it.reason).unwrap_or_default(),
            rate_limit_count: readings.rate_limits,
            error_rate: readings.error_rate(),
            avg_response_time: readings.avg_response,
            next: next.agent.clone(),
            turns: member.turns,
            owned: member.owned + so_far,
            woken_by: standing.woken_by.map(Waker::as_str).unwrap_or_default().to_owned(),
        }
    }
}
