//! What somebody wants of a ring: its members, and a handover now.

use broker_proto::{
    AgentName, ForceRotation, Pick, Recipient, RoleName, RotationTrigger, SetRotation,
};

use crate::core::{
    Refusal,
    flow::Run,
    ring::{
        Exhausted, LONGEST_PAUSE, MOST_MEMBERS, MOST_RINGS, Member, Refusal as Refused, Ring,
        Stopped, What,
    },
};

impl Run<'_> {
    pub(super) fn set_ring(&mut self, set: SetRotation) -> Result<RoleName, Refusal> {
        let before = self.state.ring.get(&set.role);
        if before.is_none() && self.state.ring.rings().count() >= MOST_RINGS {
            return Err(Refused::TooManyRings.into());
        }
        let members = self.members(&set, before)?;
        let pick = set.pick.or(before.map(|ring| ring.pick)).unwrap_or(Pick::Next);
        let settings = &self.state.policy.rotation;
        let pause = set.pause.or(before.map(|ring| ring.pause)).unwrap_or(settings.pause);
        if pause > LONGEST_PAUSE {
            return Err(Refused::LongPause.into());
        }
        if pause < settings.accept_deadline {
            return Err(Refused::ShortPause { pause, accept: settings.accept_deadline }.into());
        }
        let is_in =
            |agent: &&AgentName| set.is_on && members.iter().any(|member| member.agent == **agent);
        let at = self.now.wall;
        let owner = before.and_then(|ring| ring.owner.as_ref()).filter(is_in).cloned();
        let last = before.and_then(|ring| ring.last.as_ref()).filter(is_in).cloned();
        let heard = before.filter(|_| owner.is_some()).map(|ring| ring.heard.clone());
        let since = before.filter(|_| owner.is_some()).map_or(at, |ring| ring.since);
        let nobody = || Stopped { since: at, why: "nobody has begun".into(), back_at: None };
        let ring = Ring {
            role: set.role.clone(),
            is_on: set.is_on,
            pick,
            pause,
            stopped: (set.is_on && owner.is_none()).then(nobody),
            owner,
            last,
            epoch: before.map_or(0, |ring| ring.epoch),
            since,
            handover: None,
            heard: heard.unwrap_or_default(),
            members,
        };
        self.ring_changed(ring, What::Set);
        // Without a ring, or for another owner, what waits may be somebody's.
        self.dispatch(&Recipient::Role(set.role.clone()));
        Ok(set.role)
    }

    /// The members as they are wanted, each with what is known of it.
    pub(super) fn members(
        &self,
        set: &SetRotation,
        before: Option<&Ring>,
    ) -> Result<Vec<Member>, Refused> {
        if set.members.is_empty() {
            let before = before.ok_or_else(|| {
                if set.is_on { Refused::NoMembers } else { Refused::Unknown(set.role.clone()) }
            })?;
            return Ok(before.members.clone());
        }
        if set.members.len() > MOST_MEMBERS {
            return Err(Refused::TooMany);
        }
        let mut members: Vec<Member> = Vec::new();
        for agent in &set.members {
            if members.iter().any(|member| member.agent == *agent) {
                return Err(Refused::Twice(agent.clone()));
            }
            let known = before.and_then(|ring| ring.member(agent)).cloned();
            let is_known = known.is_some()
                || self.state.agent.token(agent).is_some()
                || self.state.agent.links_of(agent).next().is_some()
                || self.state.policy.rotation.woken.contains(agent);
            if !is_known {
                return Err(Refused::UnknownAgent(agent.clone()));
            }
            members.push(known.unwrap_or_else(|| Member::new(agent.clone())));
        }
        Ok(members)
    }

    pub(super) fn force_ring(&mut self, force: ForceRotation) -> Result<RoleName, Refusal> {
        let ForceRotation { role, to, reason } = force;
        let ring = self.state.ring.get(&role).ok_or_else(|| Refused::Unknown(role.clone()))?;
        if !ring.is_on {
            return Err(Refused::Off(role).into());
        }
        if let Some(handover) = ring.handover.as_ref().filter(|_| ring.is_handing_over()) {
            return Err(Refused::UnderWay { role, phase: handover.phase }.into());
        }
        if let Some(to) = &to {
            if ring.member(to).is_none() {
                return Err(Refused::NoMember { role, agent: to.clone() }.into());
            }
            if ring.owner.as_ref() == Some(to) {
                return Err(Refused::Owner(to.clone()).into());
            }
            if let Some(reason) = self.standing(ring, to).keeps_away() {
                return Err(Refused::Unfit { agent: to.clone(), reason }.into());
            }
        } else if ring.owner.is_some() && ring.members.len() == 1 {
            return Err(Refused::Alone(role).into());
        }
        let reason = if reason.is_empty() { "somebody asked for it".to_owned() } else { reason };
        let why = Exhausted { trigger: RotationTrigger::Forced, reason, is_gradual: false };
        self.detect(ring.clone(), why, to);
        Ok(role)
    }
}
