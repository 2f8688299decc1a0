//! What begins a handoff, and the package that is made for its receiver.

use broker_proto::{
    AskHandoff, Handoff, HandoffId, HandoffKept, HandoffState, ModelName, Pace, Trigger,
    TriggerKind, Urgency,
};

use super::Wanted;
use crate::core::{
    Effect, Refusal,
    flow::Run,
    handoff::{Built, Refusal as Refused},
    package::{self, Ready},
    session,
};

impl Run<'_> {
    pub(in crate::core::flow) fn ask(&mut self, ask: AskHandoff) -> Result<HandoffId, Refusal> {
        let trigger = Trigger {
            kind: TriggerKind::UserRequest,
            reasoning: if ask.reason.is_empty() {
                "a person asked for it".to_owned()
            } else {
                ask.reason.clone()
            },
            confidence: 1.0,
            urgency: Urgency::High,
        };
        let pace = if ask.at_once { Pace::AtOnce } else { Pace::Gradually };
        self.begin_handoff(Wanted {
            ask,
            trigger,
            pace,
            returns: None,
            is_lent: false,
            is_rotation: false,
        })
    }

    /// Begins a handoff where the arbiter says so.
    ///
    /// # Errors
    /// The [`Refused`] with the reason; the session stays as it is.
    pub(in crate::core::flow) fn begin_handoff(
        &mut self,
        wanted: Wanted,
    ) -> Result<HandoffId, Refusal> {
        let Wanted { ask, trigger, pace, returns, is_lent, is_rotation } = wanted;
        let unknown = || session::Refusal::Unknown(ask.session.clone());
        let info = &self.state.session.get(&ask.session).ok_or_else(unknown)?.info;
        if let Some(open) = self.state.handoff.open(&ask.session)
            && open.state.is_pending()
        {
            let (id, state) = (open.id, open.state);
            return Err(Refused::UnderWay { id, session: ask.session, state }.into());
        }
        // It goes where somebody wants it to go, and nowhere by itself.
        if info.pause.is_some() && trigger.kind != TriggerKind::UserRequest && !is_rotation {
            return Err(session::Refusal::Paused(ask.session).into());
        }
        if info.head.entries == 0 {
            return Err(Refused::NoTurns(ask.session).into());
        }
        let owner = info.owner.clone();
        let is_other_agent = ask.agent.is_some() && ask.agent != owner.agent;
        if ask.to.as_ref() == Some(&owner.model) && !is_other_agent {
            return Err(Refused::Owner { session: ask.session, owner: owner.model }.into());
        }
        if let Some(to) = &ask.to
            && self.model(to).is_none()
        {
            return Err(Refusal::UnknownModel { given: to.to_string(), nearest: Vec::new() });
        }
        if ask.package.is_some_and(|package| self.state.package.used_by(package).is_some()) {
            return Err(package::Refusal::Replayed.into());
        }
        let (to, then) = self.receivers(&ask, &owner.model, trigger.kind)?;
        let now = self.now.wall;
        let track = self.state.handoff.track(&ask.session);
        let hops = if is_rotation { 0 } else { track.map_or(0, |track| track.hops) + 1 };
        let origin = match returns {
            Some(_) => Some(to.clone()),
            None => track.and_then(|track| track.origin.clone()),
        };
        let handoff = Handoff {
            id: self.state.handoff.next_id(now),
            session: ask.session,
            state: HandoffState::Building,
            trigger,
            pace,
            origin: origin.unwrap_or_else(|| owner.model.clone()),
            from: owner,
            to,
            agent: ask.agent,
            then,
            tried: Vec::new(),
            returns,
            level: ask.level.unwrap_or(self.state.policy.handoff.preserve),
            package: ask.package,
            manifest: None,
            hops,
            kept: HandoffKept::default(),
            confirmed: Vec::new(),
            begun_at: now,
            offered_at: None,
            until: None,
            accepted_at: None,
            active_at: None,
            ended_at: None,
            outcome: String::new(),
            is_lent,
        };
        let id = handoff.id;
        self.build(handoff);
        self.hold_slice(id);
        if let Some(session) = self.state.handoff.get(id).map(|it| it.session.clone()) {
            self.forget_handoffs(&session, self.state.handoff.past(&session));
        }
        Ok(id)
    }

    pub(super) fn build(&mut self, handoff: Handoff) {
        let until = Some(self.now.wall.after(self.state.policy.handoff.build_deadline));
        let handoff = Handoff { state: HandoffState::Building, until, ..handoff };
        match self.ready_for(&handoff) {
            Some(ready) => {
                self.handoff_changed(handoff.clone());
                self.make_ready(handoff, ready);
            }
            None => {
                self.effect(Effect::Build(Box::new(handoff.clone())));
                self.handoff_changed(handoff);
            }
        }
    }

    /// The package that was made for this receiver before anybody asked, if the session has not gone on since.
    fn ready_for(&self, handoff: &Handoff) -> Option<Ready> {
        // What comes home marks what others wrote, which only a package made for that does.
        if handoff.package.is_some() || handoff.to == handoff.origin {
            return None;
        }
        let session = self.state.session.get(&handoff.session)?;
        let (to, level) = (&handoff.to, handoff.level);
        self.state.package.ready(&session.info, to, level, self.now.wall)
    }

    pub(super) fn built(&mut self, built: Built) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(built.id)?;
        if handoff.state != HandoffState::Building {
            let (id, state) = (handoff.id, handoff.state);
            return Err(Refused::State { id, state, wanted: "made ready" }.into());
        }
        let Built { id, to, package, manifest, kept } = built;
        if handoff.to != to {
            return Err(Refused::NotYours { id, who: to.to_string() }.into());
        }
        self.make_ready(handoff, Ready { package, manifest, kept });
        Ok(id)
    }

    pub(super) fn not_built(
        &mut self,
        id: HandoffId,
        to: &ModelName,
        reason: &str,
    ) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        if handoff.state == HandoffState::Building && handoff.to == *to {
            self.next_receiver(handoff, HandoffState::Failed, reason);
        }
        Ok(id)
    }
}
