//! A package that is there is offered; its receiver takes it, or says no.

use broker_proto::{
    AgentName, Handoff, HandoffId, HandoffOffer, HandoffState, Pace, Recipient, TriedReceiver,
    TriggerKind,
};

use crate::core::{
    Effect, Refusal,
    agent::LinkId,
    flow::Run,
    handoff::{By, Refusal as Refused},
    package::{self, Ready},
};

impl Run<'_> {
    /// Its package is there: it is offered.
    pub(super) fn make_ready(&mut self, handoff: Handoff, ready: Ready) {
        let Ready { package, manifest, kept } = ready;
        let handoff = Handoff {
            state: HandoffState::Ready,
            package: Some(package),
            manifest: Some(manifest),
            kept,
            until: None,
            ..handoff
        };
        self.handoff_changed(handoff.clone());
        let until = self.now.wall.after(self.state.policy.handoff.offer_deadline);
        let handoff = Handoff {
            state: HandoffState::Offered,
            offered_at: Some(self.now.wall),
            until: Some(until),
            ..handoff
        };
        let queue = Recipient::Model(handoff.to.clone());
        let links: Vec<LinkId> = self.state.agent.links_serving(&queue).collect();
        self.handoff_changed(handoff.clone());
        self.offer(&handoff, links);
    }

    fn offer(&mut self, handoff: &Handoff, links: Vec<LinkId>) {
        let is_for = |link: &LinkId| {
            let link = self.state.agent.link(*link);
            link.is_some_and(|link| {
                link.pull.is_none()
                    && !self.state.agent.is_draining(Some(&link.agent))
                    && handoff.agent.as_ref().is_none_or(|name| *name == link.agent)
                    && !has_declined(handoff, &link.agent)
            })
        };
        let links: Vec<LinkId> = links.into_iter().filter(is_for).collect();
        let (Some(package), Some(manifest)) = (handoff.package, handoff.manifest) else { return };
        if links.is_empty() {
            return;
        }
        let offer = HandoffOffer {
            handoff: handoff.id,
            session: handoff.session.clone(),
            model: handoff.to.clone(),
            package,
            manifest,
            until: handoff.until.unwrap_or(self.now.wall),
        };
        self.effect(Effect::Offer { links, offer: Box::new(offer) });
    }

    /// An agent has come: what is offered to it and nobody took is offered again.
    pub(in crate::core::flow) fn offer_to(&mut self, link: LinkId) {
        let Some(models) = self.state.agent.link(link).map(|link| link.models.clone()) else {
            return;
        };
        let is_its = |it: &&Handoff| it.state == HandoffState::Offered && models.contains(&it.to);
        let offered: Vec<Handoff> = self.state.handoff.all_open().filter(is_its).cloned().collect();
        for handoff in offered {
            self.offer(&handoff, vec![link]);
        }
    }

    pub(super) fn accept(
        &mut self,
        id: HandoffId,
        by: &By,
        manifest: [u8; 32],
        confirmed: Vec<String>,
    ) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        let agent = self.may_answer(&handoff, by)?;
        let is_same = handoff.manifest.is_none_or(|own| own == manifest);
        // A person who comes too late has received nothing, and is told that it is too late.
        let has_received = handoff.state == HandoffState::Offered || matches!(by, By::Agent(_));
        if has_received && !is_same {
            return Err(Refused::Manifest(id).into());
        }
        let is_again = is_same && handoff.accepted_at.is_some() && handoff.agent == agent;
        match handoff.state {
            HandoffState::Offered => {}
            // Its answer was lost on the way.
            HandoffState::Accepted | HandoffState::Active | HandoffState::Completed if is_again => {
                return Ok(id);
            }
            HandoffState::Expired => return Err(Refused::Late(id).into()),
            state => return Err(Refused::State { id, state, wanted: "accepted" }.into()),
        }
        if handoff.until.is_some_and(|until| until <= self.now.wall) {
            return Err(Refused::Late(id).into());
        }
        let used_by = handoff.package.and_then(|package| self.state.package.used_by(package));
        if used_by.is_some_and(|other| other != id) {
            return Err(package::Refusal::Replayed.into());
        }
        // Only what a person wants at once does not wait for the end of what runs.
        let is_urged =
            handoff.pace == Pace::AtOnce && handoff.trigger.kind == TriggerKind::UserRequest;
        let settle_wait = self.state.policy.handoff.settle_wait;
        let accepted = Handoff {
            state: HandoffState::Accepted,
            agent,
            confirmed,
            accepted_at: Some(self.now.wall),
            until: is_urged.then(|| self.now.wall.after(settle_wait)),
            ..handoff
        };
        self.handoff_changed(accepted);
        // Whoever works on its turns ends first, where they can: see `finish_accepted`.
        Ok(id)
    }

    /// The agent that answers for a receiver; `None` for a person.
    pub(super) fn may_answer(
        &self,
        handoff: &Handoff,
        by: &By,
    ) -> Result<Option<AgentName>, Refused> {
        let By::Agent(name) = by else { return Ok(handoff.agent.clone()) };
        let serves =
            self.state.agent.links_of(name).any(|(_, link)| link.models.contains(&handoff.to));
        let is_asked = match &handoff.agent {
            Some(only) => only == name,
            None => serves && !has_declined(handoff, name),
        };
        // Whoever accepted may say so again after its link went.
        if is_asked {
            return Ok(Some(name.clone()));
        }
        Err(Refused::NotYours { id: handoff.id, who: format!("agent {name}") })
    }

    pub(super) fn decline(
        &mut self,
        id: HandoffId,
        by: &By,
        reason: &str,
        for_model: bool,
    ) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        if let By::Agent(name) = by
            && handoff.state == HandoffState::Offered
            && has_declined(&handoff, name)
        {
            // Its answer was lost on the way.
            return Ok(id);
        }
        let agent = self.may_answer(&handoff, by)?;
        // A person ends it at any time before the switch; an agent says no to what it is offered.
        let may = match by {
            By::Person => handoff.state.is_pending(),
            By::Agent(_) => handoff.state == HandoffState::Offered,
        };
        if !may {
            let state = handoff.state;
            return Err(Refused::State { id, state, wanted: "declined" }.into());
        }
        let reason = if reason.is_empty() { "no reason given" } else { reason };
        match by {
            By::Agent(name) if !for_model && self.is_left_to_others(&handoff, name) => {
                self.declined_by(handoff, name.clone(), reason.to_owned());
            }
            _ => {
                let handoff = Handoff { agent, ..handoff };
                self.next_receiver(handoff, HandoffState::Declined, reason);
            }
        }
        Ok(id)
    }

    /// Whether another process of the receiver has the offer, and has not said no to it.
    fn is_left_to_others(&self, handoff: &Handoff, but: &AgentName) -> bool {
        let queue = Recipient::Model(handoff.to.clone());
        let mut links = self.state.agent.links_serving(&queue);
        handoff.agent.is_none()
            && links.any(|link| {
                let link = self.state.agent.link(link).filter(|link| link.pull.is_none());
                link.is_some_and(|link| link.agent != *but && !has_declined(handoff, &link.agent))
            })
    }

    /// One process of the receiver said no; the offer stands for the others until its time is over.
    fn declined_by(&mut self, mut handoff: Handoff, agent: AgentName, reason: String) {
        handoff.tried.push(TriedReceiver {
            model: handoff.to.clone(),
            agent: Some(agent),
            at: self.now.wall,
            state: HandoffState::Declined,
            reason,
        });
        self.handoff_changed(handoff);
    }
}

/// Whether this process of the receiver said no to what it is offered now.
fn has_declined(handoff: &Handoff, agent: &AgentName) -> bool {
    handoff.tried.iter().any(|it| it.model == handoff.to && it.agent.as_ref() == Some(agent))
}
