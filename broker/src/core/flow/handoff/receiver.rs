//! Who may receive a session, who is asked first, and who after.

use broker_proto::{
    AskHandoff, Handoff, HandoffKept, HandoffState, ModelName, TriedReceiver, TriggerKind, WallTime,
};

use crate::core::{
    flow::Run,
    handoff::{Candidate, Case, Refusal as Refused, Unfit, Verdict, arbiter},
    policy::Model,
    route::Presence,
    usage::{Level, Subject},
};

/// Tokens of what must be kept, roughly: a receiver without room for them is not asked.
pub(in crate::core::flow) const LEAST: u64 = 500;

impl Run<'_> {
    /// Who is asked first, and who after.
    pub(in crate::core::flow) fn receivers(
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
            owner_back_at: self.model(owner).and_then(|owner| self.back_at(owner)),
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
    pub(in crate::core::flow) fn candidates(&self, owner: &ModelName) -> Vec<Candidate> {
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

    /// When a model can go on that cannot now; `None`: it can, or nobody knows.
    pub(in crate::core::flow) fn back_at(&self, model: &Model) -> Option<WallTime> {
        let mut causes = self.state.usage.causes_of_model(&model.name, &model.key, self.now.wall);
        causes.extend(self.refused(&model.name));
        let reached = causes.into_iter().filter(|cause| cause.level >= Level::Exhausted);
        let shut = self.state.route.shut(&model.name).map(|shut| shut.until);
        // All of them must be over.
        let untils: Option<Vec<WallTime>> = reached.map(|cause| cause.until).chain(shut).collect();
        untils?.into_iter().max()
    }

    /// Whether those that serve a model are such as take no sessions: they drain, or only pull.
    fn is_deaf(&self, model: &ModelName) -> bool {
        let links = self.state.agent.links().map(|(_, link)| link);
        let mut links = links.filter(|link| link.models.contains(model)).peekable();
        links.peek().is_some()
            && links.all(|it| it.pull.is_some() || self.state.agent.is_draining(Some(&it.agent)))
    }

    fn candidate(&self, model: &Model) -> Candidate {
        let shut = self.state.route.shut(&model.name);
        Candidate {
            model: model.name.clone(),
            window: model.context_window,
            back_at: self.back_at(model),
            is_deaf: self.is_deaf(&model.name),
            level: self.state.usage.level(&Subject::Model(model.name.clone())).level,
            shut: shut.map(|shut| (shut.reason.clone(), shut.until)),
            is_absent: self.presence(&model.name) == Presence::Absent,
            is_degraded: model.is_degraded,
        }
    }

    /// The receiver did not take it: the next one is asked, or the session stays where it is.
    pub(super) fn next_receiver(
        &mut self,
        mut handoff: Handoff,
        state: HandoffState,
        reason: &str,
    ) {
        let (model, agent) = (handoff.to.clone(), handoff.agent.take());
        let (at, reason) = (self.now.wall, reason.to_owned());
        handoff.tried.push(TriedReceiver { model, agent, at, state, reason });
        (handoff.package, handoff.manifest, handoff.offered_at) = (None, None, None);
        handoff.kept = HandoffKept::default();
        if handoff.then.is_empty() {
            let tried = &handoff.tried;
            let is_one =
                |of: &TriedReceiver| tried.iter().filter(|it| it.model == of.model).count() == 1;
            let said = |tried: &TriedReceiver| {
                let state = tried.state.as_str().to_lowercase();
                let agent = tried.agent.as_ref().filter(|_| !is_one(tried));
                let agent = agent.map(|agent| format!(" (agent {agent})")).unwrap_or_default();
                format!("{}{agent}: {state}, {}", tried.model, tried.reason)
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
}
