//! A session's way to another owner: begun, offered, accepted, switched in one commit, and what its messages do meanwhile.

use std::collections::BTreeSet;

use broker_proto::{
    AskHandoff, HandedOver, Handoff, HandoffId, HandoffKept, HandoffOffer, HandoffState, ModelName,
    Pace, Recipient, SessionId, SessionOwner, TriedReceiver, Trigger, TriggerKind, Urgency,
};

use super::Run;
use crate::core::{
    Effect, Event, Refusal, Reply, SliceMoved, Subject,
    agent::LinkId,
    handoff::{
        Built, By, Candidate, Case, Command, Event as HandoffEvent, Query, Refusal as Refused,
        Reply as HandoffReply, Unfit, Verdict, arbiter,
    },
    package::Ready,
    queue::{Hold, Message, Place, Seq},
    route::Presence,
    session,
    usage::{Action, Subject as Limited},
};

/// Tokens of what must be kept, roughly: a receiver without room for them is not asked.
pub(super) const LEAST: u64 = 500;
/// Sessions with waiting work that one limit moves at once; the others move with their next turn.
const AT_ONCE: usize = 64;

/// A handoff that is to begin.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) ask: AskHandoff,
    pub(super) trigger: Trigger,
    pub(super) pace: Pace,
    pub(super) returns: Option<HandoffId>,
    /// It goes back once the model that it leaves can go on.
    pub(super) is_lent: bool,
}

impl Run<'_> {
    pub(super) fn handoff(&mut self, command: Command) -> Result<Reply, Refusal> {
        let handoff = match command {
            Command::Begin(ask) => self.ask(*ask)?,
            Command::Built(built) => self.built(*built)?,
            Command::NotBuilt { id, to, reason } => self.not_built(id, &to, &reason)?,
            Command::Accept { accept, by } => {
                self.accept(accept.id, &by, accept.manifest, accept.confirmed)?
            }
            Command::Decline { id, by, reason } => self.decline(id, &by, &reason)?,
            Command::Complete { id, by, outcome } => self.complete(id, &by, outcome)?,
            Command::GiveBack { id, reason } => self.give_back(id, &reason)?,
            Command::SetPolicy(change) => return self.set_handoff_policy(*change),
        };
        self.finish_accepted();
        // What follows may have changed it within this commit.
        let handoff = self.state.handoff.get(handoff).cloned().ok_or(Refused::Unknown(handoff))?;
        Ok(Reply::Handoff(HandoffReply::Handoff(Box::new(handoff))))
    }

    pub(super) fn ask_handoff(&self, query: &Query) -> HandoffReply {
        let found = match query {
            Query::Get(id) => self.state.handoff.get(*id),
            Query::Of(session) => self.state.handoff.last(session),
            Query::Away(session) => {
                let away = self.state.handoff.away_of(session).cloned().collect();
                return HandoffReply::Away(away);
            }
            Query::Policy => return HandoffReply::Policy(self.handoff_policy()),
            Query::Check { session, warning_only } => {
                return HandoffReply::Check(
                    self.check_handoff(session, *warning_only).map(Box::new),
                );
            }
            Query::Status { session } => {
                let status = self.handoff_status(session.as_deref());
                return HandoffReply::Status(Box::new(status));
            }
        };
        HandoffReply::Found(found.cloned().map(Box::new))
    }

    fn ask(&mut self, ask: AskHandoff) -> Result<HandoffId, Refusal> {
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
        self.begin_handoff(Wanted { ask, trigger, pace, returns: None, is_lent: false })
    }

    /// Begins a handoff where the arbiter says so.
    ///
    /// # Errors
    /// The [`Refused`] with the reason; the session stays as it is.
    pub(super) fn begin_handoff(&mut self, wanted: Wanted) -> Result<HandoffId, Refusal> {
        let Wanted { ask, trigger, pace, returns, is_lent } = wanted;
        let unknown = || session::Refusal::Unknown(ask.session.clone());
        let info = &self.state.session.get(&ask.session).ok_or_else(unknown)?.info;
        if let Some(open) = self.state.handoff.open(&ask.session)
            && open.state.is_pending()
        {
            let (id, state) = (open.id, open.state);
            return Err(Refused::UnderWay { id, session: ask.session, state }.into());
        }
        // It goes where somebody wants it to go, and nowhere by itself.
        if info.pause.is_some() && trigger.kind != TriggerKind::UserRequest {
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
        let (to, then) = self.receivers(&ask, &owner.model, trigger.kind)?;
        let now = self.now.wall;
        let track = self.state.handoff.track(&ask.session);
        let hops = track.map_or(0, |track| track.hops) + 1;
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
        // An active one whose new owner cannot go on either is over with this.
        self.supersede(&handoff);
        self.build(handoff);
        self.hold_slice(id);
        Ok(id)
    }

    /// The new owner of an active handoff is the old one of another.
    fn supersede(&mut self, next: &Handoff) {
        if let Some(active) = self.state.handoff.open(&next.session).cloned() {
            self.end_handoff(active, HandoffState::Completed, "its owner hands it on".to_owned());
        }
    }

    fn build(&mut self, handoff: Handoff) {
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
        // What is given back begins with a step that only a package made for it has.
        if handoff.package.is_some() || handoff.returns.is_some() {
            return None;
        }
        let session = self.state.session.get(&handoff.session)?;
        let (to, level) = (&handoff.to, handoff.level);
        self.state.package.ready(&session.info, to, level, self.now.wall)
    }

    fn handoff_changed(&mut self, handoff: Handoff) {
        let (at, handoff) = (self.now.wall, Box::new(handoff));
        self.event(Event::Handoff(Box::new(HandoffEvent::Changed { at, handoff })));
    }

    /// Who is asked first, and who after.
    pub(super) fn receivers(
        &self,
        ask: &AskHandoff,
        owner: &ModelName,
        kind: TriggerKind,
    ) -> Result<(ModelName, Vec<ModelName>), Refused> {
        // On another process of the same model: nobody else is asked.
        if ask.to.as_ref() == Some(owner) {
            return Ok((owner.clone(), Vec::new()));
        }
        let candidates: Vec<Candidate> = match &ask.to {
            Some(to) => self.model(to).map(|model| self.candidate(model)).into_iter().collect(),
            None => self.candidates(owner),
        };
        let track = self.state.handoff.track(&ask.session);
        let recent: Vec<_> =
            track.map(|track| track.recent.iter().cloned().collect()).unwrap_or_default();
        let level = ask.level.unwrap_or(self.state.policy.handoff.preserve);
        let verdict = arbiter::judge(&Case {
            settings: &self.state.policy.handoff,
            kind,
            owner,
            owner_back_at: self.state.route.shut(owner).and_then(|shut| shut.until),
            candidates: &candidates,
            needs: level.budget().unwrap_or(LEAST),
            recent: &recent,
            hops: track.map_or(0, |track| track.hops),
            is_forced: ask.is_forced,
            now: self.now.wall,
        });
        let said = |unfit: &Unfit| format!("{}: {}", unfit.model, unfit.reason);
        match verdict {
            Verdict::Offer { to, then } => Ok((to, then)),
            Verdict::Recommend { to, .. } => Err(Refused::Nobody {
                reason: format!("{to} is recommended; ask for it, or switch auto-switch on"),
                until: None,
            }),
            Verdict::Stay { mut why, until } => match (&ask.to, why.pop()) {
                (Some(_), Some(unfit)) => {
                    Err(Refused::Unfit { model: unfit.model, reason: unfit.reason })
                }
                (_, last) => {
                    let why: Vec<String> = why.iter().chain(&last).map(said).collect();
                    Err(Refused::Nobody { reason: why.join("; "), until })
                }
            },
        }
    }

    /// Every other model, those of the owner's chain first.
    pub(super) fn candidates(&self, owner: &ModelName) -> Vec<Candidate> {
        let chain = self.model(owner).map(|model| model.chain.clone()).unwrap_or_default();
        let chain = chain.iter().filter_map(|name| self.model(name));
        let mut seen = vec![owner.clone()];
        let mut candidates = Vec::new();
        for model in chain.chain(self.in_order()) {
            if !seen.contains(&model.name) {
                seen.push(model.name.clone());
                candidates.push(self.candidate(model));
            }
        }
        candidates
    }

    fn candidate(&self, model: &crate::core::policy::Model) -> Candidate {
        let shut = self.state.route.shut(&model.name);
        Candidate {
            model: model.name.clone(),
            window: model.context_window,
            level: self.state.usage.level(&Limited::Model(model.name.clone())).level,
            shut: shut.map(|shut| (shut.reason.clone(), shut.until)),
            is_absent: self.presence(&model.name) == Presence::Absent,
            is_degraded: model.is_degraded,
        }
    }

    fn handoff_of(&self, id: HandoffId) -> Result<Handoff, Refused> {
        self.state.handoff.get(id).cloned().ok_or(Refused::Unknown(id))
    }

    fn built(&mut self, built: Built) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(built.id)?;
        if handoff.state != HandoffState::Building {
            let (id, state) = (handoff.id, handoff.state);
            return Err(Refused::State { id, state, wanted: "made ready" }.into());
        }
        let Built { id, package, manifest, kept } = built;
        self.make_ready(handoff, Ready { package, manifest, kept });
        Ok(id)
    }

    /// Its package is there: it is offered.
    fn make_ready(&mut self, handoff: Handoff, ready: Ready) {
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
                link.pull.is_none() && handoff.agent.as_ref().is_none_or(|name| *name == link.agent)
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
    pub(super) fn offer_to(&mut self, link: LinkId) {
        let Some(models) = self.state.agent.link(link).map(|link| link.models.clone()) else {
            return;
        };
        let is_its = |it: &&Handoff| it.state == HandoffState::Offered && models.contains(&it.to);
        let offered: Vec<Handoff> = self.state.handoff.all_open().filter(is_its).cloned().collect();
        for handoff in offered {
            self.offer(&handoff, vec![link]);
        }
    }

    fn not_built(
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

    /// The receiver did not take it: the next one is asked, or the session stays where it is.
    fn next_receiver(&mut self, mut handoff: Handoff, state: HandoffState, reason: &str) {
        let (model, agent) = (handoff.to.clone(), handoff.agent.take());
        let (at, reason) = (self.now.wall, reason.to_owned());
        handoff.tried.push(TriedReceiver { model, agent, at, state, reason });
        (handoff.package, handoff.manifest, handoff.offered_at) = (None, None, None);
        if handoff.then.is_empty() {
            let said = |tried: &TriedReceiver| {
                let state = tried.state.as_str().to_lowercase();
                format!("{}: {state}, {}", tried.model, tried.reason)
            };
            let why: Vec<String> = handoff.tried.iter().map(said).collect();
            // What most of them did counts least: one that answered in time says more than one that did not.
            let worst = handoff.tried.iter().map(|tried| tried.state).max();
            self.end_handoff(handoff, worst.unwrap_or(state), why.join("; "));
            return;
        }
        handoff.to = handoff.then.remove(0);
        self.build(handoff);
    }

    /// Nothing follows; what waited for it goes on with whoever owns the session.
    pub(super) fn end_handoff(&mut self, handoff: Handoff, state: HandoffState, outcome: String) {
        let (session, ended_at) = (handoff.session.clone(), Some(self.now.wall));
        let was_pending = handoff.state.is_pending();
        self.handoff_changed(Handoff { state, ended_at, until: None, outcome, ..handoff });
        if was_pending {
            self.release_slice(&session);
        }
    }

    fn accept(
        &mut self,
        id: HandoffId,
        by: &By,
        manifest: [u8; 32],
        confirmed: Vec<String>,
    ) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        let agent = self.may_answer(&handoff, by)?;
        if handoff.manifest.is_some_and(|own| own != manifest) {
            return Err(Refused::Manifest(id).into());
        }
        let is_again = handoff.accepted_at.is_some() && handoff.agent == agent;
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
        let settle_wait = self.state.policy.handoff.settle_wait;
        let accepted = Handoff {
            state: HandoffState::Accepted,
            agent,
            confirmed,
            accepted_at: Some(self.now.wall),
            until: Some(self.now.wall.after(settle_wait)),
            ..handoff
        };
        self.handoff_changed(accepted);
        // Whoever works on its turns ends first, where they can: see `finish_accepted`.
        Ok(id)
    }

    /// The agent that answers for a receiver; `None` for a person.
    fn may_answer(
        &self,
        handoff: &Handoff,
        by: &By,
    ) -> Result<Option<broker_proto::AgentName>, Refused> {
        let By::Agent(name) = by else { return Ok(handoff.agent.clone()) };
        let serves =
            self.state.agent.links_of(name).any(|(_, link)| link.models.contains(&handoff.to));
        let is_asked = match &handoff.agent {
            Some(only) => only == name,
            None => serves,
        };
        // Whoever accepted may say so again after its link went.
        if is_asked {
            return Ok(Some(name.clone()));
        }
        Err(Refused::NotYours { id: handoff.id, who: format!("agent {name}") })
    }

    fn decline(&mut self, id: HandoffId, by: &By, reason: &str) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
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
        self.next_receiver(Handoff { agent, ..handoff }, HandoffState::Declined, reason);
        Ok(id)
    }

    fn complete(&mut self, id: HandoffId, by: &By, outcome: String) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        self.may_answer(&handoff, by)?;
        match handoff.state {
            HandoffState::Active => {
                let outcome = if outcome.is_empty() { "taken up".to_owned() } else { outcome };
                self.end_handoff(handoff, HandoffState::Completed, outcome);
            }
            HandoffState::Completed => {}
            state => return Err(Refused::State { id, state, wanted: "completed" }.into()),
        }
        Ok(id)
    }

    fn give_back(&mut self, id: HandoffId, reason: &str) -> Result<HandoffId, Refusal> {
        let handoff = self.handoff_of(id)?;
        if !matches!(handoff.state, HandoffState::Active | HandoffState::Completed) {
            let state = handoff.state;
            return Err(Refused::State { id, state, wanted: "given back" }.into());
        }
        let is_its = self.state.session.get(&handoff.session).is_some_and(|session| {
            session.info.owner.model == handoff.to
                && session.info.owner.epoch == handoff.from.epoch + 1
        });
        if !is_its {
            return Err(Refused::OwnerChanged(id).into());
        }
        let reason = if reason.is_empty() { "given back" } else { reason };
        self.return_session(&handoff, reason, TriggerKind::UserRequest)
    }

    /// A handoff of its own, back to where the session came from.
    pub(super) fn return_session(
        &mut self,
        handoff: &Handoff,
        reason: &str,
        kind: TriggerKind,
    ) -> Result<HandoffId, Refusal> {
        let ask = AskHandoff {
            session: handoff.session.clone(),
            to: Some(handoff.origin.clone()),
            agent: None,
            reason: reason.to_owned(),
            level: None,
            package: None,
            is_forced: true,
            at_once: false,
        };
        let trigger =
            Trigger { kind, reasoning: reason.to_owned(), confidence: 1.0, urgency: Urgency::Low };
        let (pace, returns) = (Pace::Gradually, Some(handoff.id));
        self.begin_handoff(Wanted { ask, trigger, pace, returns, is_lent: false })
    }

    /// The time of a state is over.
    pub(super) fn handoff_is_due(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id).cloned() else { return };
        match handoff.state {
            HandoffState::Building | HandoffState::Ready => {
                self.next_receiver(handoff, HandoffState::Failed, "no package was made in time");
            }
            HandoffState::Offered => {
                self.next_receiver(handoff, HandoffState::Expired, "no answer in time");
            }
            HandoffState::Accepted => self.switch(id),
            HandoffState::Active => self.look_after(handoff),
            _ => {}
        }
    }

    /// Accepted ones whose old owner has nothing of theirs in hand any more, or cannot end it.
    pub(super) fn finish_accepted(&mut self) {
        let accepted: Vec<HandoffId> = self
            .state
            .handoff
            .all_open()
            .filter(|it| it.state == HandoffState::Accepted && !self.is_waited_for(it))
            .map(|it| it.id)
            .collect();
        for id in accepted {
            self.switch(id);
        }
    }

    /// Whether the old owner still works on a turn of the session, and may end it.
    fn is_waited_for(&self, handoff: &Handoff) -> bool {
        let can_answer = self.state.route.shut(&handoff.from.model).is_none()
            && self.presence(&handoff.from.model) != Presence::Absent;
        let waits = can_answer || handoff.pace == Pace::Gradually;
        waits && self.slice(handoff).any(|message| message.lease().is_some())
    }

    /// What is asked of a session's old owner and not answered yet. What was asked of it and of nobody else is not the
    /// session's turn.
    fn slice<'a>(&'a self, handoff: &'a Handoff) -> impl Iterator<Item = &'a Message> {
        let of_session = self.state.queue.of_session(handoff.session.as_str());
        of_session.filter(|message| {
            message.consultation.as_ref().is_some_and(|consultation| {
                consultation.asked == handoff.from.model && !consultation.options.no_fallback
            })
        })
    }

    /// Ownership, epoch, queue slice and leases, in this commit (I-38).
    fn switch(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id).cloned() else { return };
        let Some(session) = self.state.session.get(&handoff.session) else { return };
        if session.info.owner.epoch != handoff.from.epoch {
            let why = "the session's owner has changed meanwhile".to_owned();
            self.end_handoff(handoff, HandoffState::Failed, why);
            return;
        }
        let Some(package) = handoff.package else { return };
        let session_id = handoff.session.clone();
        let leased: Vec<Seq> =
            self.slice(&handoff).filter(|it| it.lease().is_some()).map(|it| it.seq).collect();
        for seq in &leased {
            self.lose_lease(*seq, "its session was handed off", false);
        }
        let moves = |message: &&Message| match message.place {
            Place::Ready
            | Place::Waiting(_)
            | Place::Closing
            | Place::Held(Hold::Handoff | Hold::Paused) => true,
            Place::New | Place::Leased(_) | Place::Held(_) => false,
        };
        let subjects: Vec<Subject> =
            self.slice(&handoff).filter(moves).map(Message::subject).collect();
        let (at, to) = (self.now.wall, handoff.to.clone());
        let why = format!("handed off by {}", handoff.from.model);
        let moved = subjects.clone();
        if !subjects.is_empty() {
            let slice = SliceMoved { subjects, at, to: to.clone(), why: why.clone() };
            self.event(Event::SliceMoved(Box::new(slice)));
        }
        let handed_over = HandedOver {
            handoff: id,
            package,
            entries: handoff.kept.entries,
            tokens_before: handoff.kept.tokens_before,
            tokens: handoff.kept.tokens,
        };
        let owner = SessionOwner {
            model: to.clone(),
            agent: handoff.agent.clone(),
            epoch: handoff.from.epoch + 1,
        };
        let own = session::Command::Own { id: handoff.session.clone(), owner, handed_over };
        self.close_bridges(&handoff.session, &format!("its session moved to {to}"));
        // It is there, as was just seen.
        let _ = self.session(own);
        let mut kept = handoff.kept.clone();
        (kept.moved, kept.revoked) = (moved.len() as u64, leased.len() as u64);
        let until = at.after(self.state.policy.handoff.complete_deadline);
        let track = self.state.handoff.track(&handoff.session);
        let is_home = handoff.returns.is_some() && handoff.to == handoff.origin;
        let away = track.filter(|_| is_home).map(|track| track.away.clone()).unwrap_or_default();
        let handoff_session = handoff.session.clone();
        self.handoff_changed(Handoff {
            state: HandoffState::Active,
            active_at: Some(at),
            until: Some(until),
            kept,
            ..handoff
        });
        self.settled_elsewhere(&handoff_session);
        for returned in away {
            let Some(returned) = self.state.handoff.get(returned).cloned() else { continue };
            self.end_handoff(returned, HandoffState::Returned, format!("given back to {to}"));
        }
        for subject in moved {
            let waits = self.state.queue.get(subject.seq).map(|message| &message.place);
            if matches!(waits, Some(Place::Ready)) {
                self.route(subject.seq, 0, &why);
            }
        }
        self.dispatch(&Recipient::Model(to));
        // What its pause kept, and was asked of others.
        self.go_on(&session_id);
    }

    /// A new owner that has not answered yet: one whose agents are gone hands on.
    fn look_after(&mut self, handoff: Handoff) {
        let until = self.now.wall.after(self.state.policy.handoff.complete_deadline);
        if self.presence(&handoff.to) != Presence::Absent {
            self.handoff_changed(Handoff { until: Some(until), ..handoff });
            return;
        }
        let session = handoff.session.clone();
        let reason = format!("no agent of {} is left to go on", handoff.to);
        self.end_handoff(handoff, HandoffState::Failed, reason.clone());
        // Where nobody can, its turns are routed one by one, and the next of them tries again.
        let trigger = of_limit(&reason);
        let _ = self.move_session(session, trigger, Pace::AtOnce, false);
    }

    /// Keeps what waits for the old owner until it is known who gets it.
    fn hold_slice(&mut self, id: HandoffId) {
        let Some(handoff) = self.state.handoff.get(id) else { return };
        let waits = |message: &&Message| matches!(message.place, Place::Ready | Place::Waiting(_));
        let seqs: Vec<Seq> = self.slice(handoff).filter(waits).map(|message| message.seq).collect();
        for seq in seqs {
            self.hold(seq, Hold::Handoff, "its session is being handed off");
        }
    }

    pub(super) fn release_slice(&mut self, session: &SessionId) {
        let held = |message: &&Message| matches!(message.place, Place::Held(Hold::Handoff));
        let seqs: Vec<Seq> = self
            .state
            .queue
            .of_session(session.as_str())
            .filter(held)
            .map(|message| message.seq)
            .collect();
        for seq in seqs {
            self.route(seq, 0, "its session stays with its owner");
        }
    }

    /// A turn of a session is asked: one whose owner cannot go on moves first, and the turn with it.
    pub(super) fn before_turn(&mut self, seq: Seq) {
        let Some((session, asked)) = self.turn_of(seq) else { return };
        let Some(owner) = self.state.session.get(&session).map(|it| it.info.owner.model.clone())
        else {
            return;
        };
        if owner != asked || !self.state.policy.handoff.auto {
            return;
        }
        if let Some(open) = self.state.handoff.open(&session)
            && open.state.is_pending()
        {
            return;
        }
        match self.limit_of_turn(seq, &session, &owner) {
            // Where nobody is better, the turn is routed as any other.
            Some((trigger, is_lent)) => {
                let _ = self.move_session(session, trigger, Pace::AtOnce, is_lent);
            }
            None => self.advise(&session, self.prompt_of(seq)),
        }
    }

    fn turn_of(&self, seq: Seq) -> Option<(SessionId, ModelName)> {
        let consultation = self.state.queue.get(seq)?.consultation.as_ref()?;
        let session = consultation.session.as_deref()?;
        if consultation.options.no_fallback {
            return None;
        }
        Some((SessionId::parse(session).ok()?, consultation.asked.clone()))
    }

    /// Holds a turn whose session is on its way; says whether it did.
    pub(super) fn is_held_for_handoff(&mut self, seq: Seq) -> bool {
        let Some((session, asked)) = self.turn_of(seq) else { return false };
        let is_moving = self
            .state
            .handoff
            .open(&session)
            .is_some_and(|open| open.state.is_pending() && open.from.model == asked);
        if is_moving {
            self.hold(seq, Hold::Handoff, "its session is being handed off");
        }
        is_moving
    }

    fn move_session(
        &mut self,
        session: SessionId,
        trigger: Trigger,
        pace: Pace,
        is_lent: bool,
    ) -> Result<HandoffId, Refusal> {
        let ask = AskHandoff {
            session,
            to: None,
            agent: None,
            reason: trigger.reasoning.clone(),
            level: None,
            package: None,
            is_forced: false,
            at_once: pace == Pace::AtOnce,
        };
        self.begin_handoff(Wanted { ask, trigger, pace, returns: None, is_lent })
    }

    /// A limit changed its level: what it moves is moved.
    pub(super) fn limit_reached(&mut self, subject: &Limited, action: Action, reason: &str) {
        let pace = match action {
            Action::None | Action::Log | Action::Prepare => return,
            Action::Move | Action::MoveDiagnosed => Pace::AtOnce,
            Action::MoveGradually => Pace::Gradually,
        };
        let settings = &self.state.policy.handoff;
        match subject {
            Limited::Session(name) if settings.auto_switch => {
                if let Ok(session) = SessionId::parse(name) {
                    let _ = self.move_session(session, of_limit(reason), pace, false);
                }
            }
            Limited::Model(model) if settings.auto => {
                for session in self.sessions_waiting_for(&model.clone()) {
                    let _ = self.move_session(session, of_limit(reason), pace, true);
                }
            }
            Limited::Session(_) | Limited::Model(_) => {}
        }
    }

    /// Sessions of a model that have work waiting for it.
    fn sessions_waiting_for(&self, model: &ModelName) -> Vec<SessionId> {
        let owns = |session: &SessionId| {
            self.state.session.get(session).is_some_and(|it| it.info.owner.model == *model)
        };
        let named = self.state.queue.sessions().filter_map(|name| SessionId::parse(name).ok());
        named.filter(owns).take(AT_ONCE).collect()
    }

    /// The owner of a session answered a turn: a handoff to it has done what it was for.
    pub(super) fn turn_answered(&mut self, session: &SessionId, by: &BTreeSet<ModelName>) {
        let Some(active) = self.state.handoff.open(session) else { return };
        if active.state != HandoffState::Active || !by.contains(&active.to) {
            return;
        }
        let active = active.clone();
        let outcome = format!("{} answered a turn", active.to);
        self.end_handoff(active, HandoffState::Completed, outcome);
    }

    /// After a start: packages that were being made are made again; offers go out as agents greet.
    pub(super) fn resume_handoffs(&mut self) {
        let building: Vec<Handoff> = self
            .state
            .handoff
            .all_open()
            .filter(|it| matches!(it.state, HandoffState::Building | HandoffState::Ready))
            .cloned()
            .collect();
        for handoff in building {
            self.build(handoff);
        }
        let is_still = |session: &SessionId| {
            self.state.handoff.open(session).is_none_or(|open| !open.state.is_pending())
        };
        let sessions = self.state.queue.sessions().filter_map(|name| SessionId::parse(name).ok());
        let still: Vec<SessionId> = sessions.filter(is_still).collect();
        for session in still {
            self.release_slice(&session);
        }
        self.resume_homecomings();
    }
}

/// A limit that is reached.
fn of_limit(reason: &str) -> Trigger {
    Trigger {
        kind: TriggerKind::UsageLimit,
        reasoning: reason.to_owned(),
        confidence: 1.0,
        urgency: Urgency::High,
    }
}
